//! The lab's two sides: `agent`, where programs try, and `net`, which answers under every address there is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::{
    Namespace,
    servers::Servers,
    sniffer::{Frame, Sniffer},
};

/// Addresses of the lab. Whatever is not the agent's own is reached through the gateway and answered there.
pub mod address {
    use super::{Ipv4Addr, Ipv6Addr};

    /// The agent's own.
    pub const AGENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    /// The agent's own.
    pub const AGENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    /// The next hop.
    pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// The next hop.
    pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    /// Allowed by the lab's policies.
    pub const GOOD4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    /// Allowed by the lab's policies.
    pub const GOOD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10);
    /// Not allowed.
    pub const BAD4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
    /// Not allowed.
    pub const BAD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x66, 0, 0, 0, 0, 0x66);
    /// Not allowed, on the link itself.
    pub const BAD_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
    /// Nobody's in the lab.
    pub const ELSEWHERE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
    /// Nobody's in the lab.
    pub const ELSEWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 9);
    /// Where the lab's own marks go.
    pub const MARK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
}

/// Interface index of the agent's end of the wire, for link-local destinations.
pub const AGENT_INDEX: u32 = 2;

/// TCP ports that are listened on, under every address.
pub const PORTS: [u16; 4] = [443, 444, 53, 80];

/// The two sides, a wire between them, servers and a sniffer on the far end. No route leads out of either.
#[derive(Debug)]
pub struct Lab {
    /// Where programs try.
    pub agent: Namespace,
    /// Where the servers are.
    pub net: Namespace,
    /// What reaches them.
    pub servers: Servers,
    sniffer: Sniffer,
}

const SETTINGS: &str = "
    net.ipv6.conf.all.accept_dad = 0
    net.ipv6.conf.default.accept_dad = 0
    net.ipv6.conf.default.router_solicitations = 0
    net.ipv6.conf.default.dad_transmits = 0
    net.ipv6.conf.all.seg6_enabled = 1
    net.ipv6.conf.default.seg6_enabled = 1
    net.ipv4.conf.all.rp_filter = 0
    net.ipv4.conf.default.rp_filter = 0
    net.ipv4.conf.all.accept_source_route = 1
    net.ipv4.conf.default.accept_source_route = 1
    net.ipv4.icmp_ratelimit = 0
    net.ipv4.ping_group_range = 0 2147483647
    net.ipv4.ip_unprivileged_port_start = 0
    net.ipv4.tcp_fastopen = 1543
";

impl Lab {
    /// Builds the two sides and starts the servers.
    pub fn new() -> Result<Self> {
        Self::serving(&PORTS, &[443, 53])
    }

    /// With servers on these TCP ports, under every address, and these UDP ports, under the lab's main ones.
    pub fn serving(tcp: &[u16], udp: &[u16]) -> Result<Self> {
        crate::require_root();
        let (agent, net) = (Namespace::new()?, Namespace::new()?);
        agent.sysctl(SETTINGS)?;
        net.sysctl(SETTINGS)?;
        agent.ip(&format!(
            "link set lo up\n\
             link add agent0 index {AGENT_INDEX} type veth peer name net0 index 2 netns {}\n",
            net.path()
        ))?;
        net.ip("link set lo up\n\
             addr add 192.0.2.1/24 broadcast 192.0.2.255 dev net0\n\
             addr add 2001:db8::1/64 dev net0 nodad\n\
             addr add fe80::66/64 dev net0 nodad\n\
             addr add 2001:db8:10::10/128 dev lo nodad\n\
             addr add 2001:db8:66::66/128 dev lo nodad\n\
             link set net0 up\n\
             route add local 0.0.0.0/0 dev lo table main\n\
             route add local ::/0 dev lo table main\n")?;
        agent.ip("addr add 192.0.2.2/24 broadcast 192.0.2.255 dev agent0\n\
             addr add 2001:db8::2/64 dev agent0 nodad\n\
             link set agent0 up\n\
             route add default via 192.0.2.1\n\
             route add default via 2001:db8::1\n")?;
        let sniffer = Sniffer::start(&net, "net0")?;
        let servers = Servers::start(&net, tcp, udp)?;
        let lab = Self { agent, net, servers, sniffer };
        lab.frames();
        Ok(lab)
    }

    /// What came over the wire since the last call: every IP packet of the agent's side that was sent before this call.
    pub fn frames(&self) -> Vec<Frame> {
        self.sniffer.frames_until_mark(&self.agent)
    }

    /// Forgets what came so far, at the sniffer and at the servers.
    pub fn forget(&self) {
        self.frames();
        self.servers.take();
    }
}

/// Whether any frame went to the address (neighbour discovery, which the kernel does by itself, not counted).
pub fn reached(frames: &[Frame], address: IpAddr) -> bool {
    frames.iter().any(|frame| frame.to == address && !frame.is_neighbour_discovery())
}
