//! scratch
use crate::network::address::*;
use egress::compile::*;
use egress_common::*;
use std::net::IpAddr;
/// scratch
pub fn lab() -> Compiled {
    let mut c = Compiled::default();
    for (i, ip) in [IpAddr::V4(GOOD4), IpAddr::V6(GOOD6)].into_iter().enumerate() {
        let id = i as u32 + 1;
        c.rules.push(RuleInfo { origin: Origin::CommandLine("x".into()), text: "x".into() });
        c.networks.insert((ip.into(), 128), Network { set: id, class: 0, pad: [0; 3] });
        for t in [6, 17] {
            c.ports.insert((id, t, 443, 16), PortRule { rule: id, allow: 1, pad: [0; 3] });
        }
    }
    let mut special = |ip: &str, bits: u8, class: Class| {
        let ip: IpAddr = ip.parse().unwrap();
        let bits = if ip.is_ipv4() { 96 + bits } else { bits };
        c.networks.insert((ip.into(), bits), Network { set: 0, class: class as u8, pad: [0; 3] });
    };
    special("127.0.0.0", 8, Class::Loopback);
    special("0.0.0.0", 8, Class::Loopback);
    special("::1", 128, Class::Loopback);
    special("::", 128, Class::Loopback);
    special("169.254.0.0", 16, Class::LinkLocal);
    special("169.254.169.254", 32, Class::Metadata);
    special("fe80::", 10, Class::LinkLocal);
    special("224.0.0.0", 4, Class::Multicast);
    special("ff00::", 8, Class::Multicast);
    special("240.0.0.0", 4, Class::Broadcast);
    c
}
