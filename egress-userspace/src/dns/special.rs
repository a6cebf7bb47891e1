//! Which answers a name may not have: DNS rebinding turns a permitted name into a way to the host's own network.

use std::net::IpAddr;

use egress_common::{Address, Class};

use crate::{
    compile::{HostRule, networks},
    policy::net::is_private,
};

/// Why a `host` rule does not open this answer; `private` is the rule's `private: true`. An address that embeds an
/// IPv4 address is judged by that, as the kernel does.
pub fn refusal(address: IpAddr, private: bool) -> Option<&'static str> {
    let address = Address::from(address).judged().to_ip();
    if let Some(why) = refused_always(address) {
        return Some(why);
    }
    if private {
        return None;
    }
    if is_loopback(address) {
        Some("a loopback address, and the rule does not say `private: true`")
    } else if is_private(address) {
        Some("a private address, and the rule does not say `private: true`")
    } else {
        None
    }
}

/// Why none of the rules may have an address; `None` if one may.
pub fn refusal_of_rules(rules: &[HostRule], address: IpAddr) -> Option<&'static str> {
    let mut why = Some("no rule opens it");
    for rule in rules {
        why = Some(refusal_of_rule(rule, address)?);
    }
    why
}

/// Why a rule does not open this answer: as [`refusal`], and addresses of the host itself are as loopback ones.
pub fn refusal_of_rule(rule: &HostRule, address: IpAddr) -> Option<&'static str> {
    let own = |address| rule.own.contains(&Address::from(address).judged().to_ip());
    match refusal(address, rule.private) {
        None if !rule.private && own(address) => {
            Some("an address of this host itself, and the rule does not say `private: true`")
        }
        refusal => refusal,
    }
}

fn refused_always(address: IpAddr) -> Option<&'static str> {
    match networks::class(address) {
        Class::Metadata => Some("a metadata service, which only a `cidr` rule opens"),
        Class::LinkLocal => Some("a link-local address, which only a `cidr` rule opens"),
        Class::Multicast => Some("a multicast address, which only a `cidr` rule opens"),
        Class::Broadcast => Some("a broadcast or reserved address, which only a `cidr` rule opens"),
        Class::Loopback | Class::Plain if is_unspecified(address) => {
            Some("the unspecified address, which is the host itself")
        }
        Class::Loopback | Class::Plain => None,
    }
}

fn is_unspecified(address: IpAddr) -> bool {
    match address {
        // All of 0/8 is "this host on this network" (RFC 1122 §3.2.1.3).
        IpAddr::V4(v4) => v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unspecified(),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, private: bool) -> bool {
        refusal(address.parse().unwrap(), private).is_some()
    }

    #[test]
    fn ranges_end_where_they_end() {
        // Mutations seen to fail here: 198.18/15 taken as /16; fec0::/10 as /16; 64:ff9b:1::/48 as 64:ff9b::/32.
        for (address, plain, private) in [
            ("203.0.113.1", false, false),
            ("2001:db8::1", false, false),
            ("9.255.255.255", false, false),
            ("10.0.0.0", true, false),
            ("100.64.0.0", true, false),
            ("100.127.255.255", true, false),
            ("100.128.0.0", false, false),
            ("126.255.255.255", false, false),
            ("127.0.0.1", true, false),
            ("127.255.255.255", true, false),
            ("128.0.0.0", false, false),
            ("192.168.0.1", true, false),
            ("198.17.255.255", false, false),
            ("198.18.0.0", true, false),
            ("198.19.255.255", true, false),
            ("198.20.0.0", false, false),
            ("fc00::1", true, false),
            ("fdff::1", true, false),
            ("::1", true, false),
            ("2001:2::1", true, false),
            ("2001:2:1::1", false, false),
            ("169.253.255.255", false, false),
            ("169.254.0.0", true, true),
            ("169.254.255.255", true, true),
            ("169.255.0.0", false, false),
            ("223.255.255.255", false, false),
            ("224.0.0.0", true, true),
            ("239.255.255.255", true, true),
            ("240.0.0.0", true, true),
            ("255.255.255.255", true, true),
            ("0.0.0.0", true, true),
            ("0.255.255.255", true, true),
            ("1.0.0.0", false, false),
            ("::", true, true),
            ("::2", false, false),
            ("fe7f::1", false, false),
            ("fe80::1", true, true),
            ("febf::1", true, true),
            ("fec0::1", true, false),
            ("feff::1", true, false),
            ("64:ff9b:0:1::1", false, false),
            ("64:ff9b:1::a00:1", true, false),
            ("64:ff9b:1:ffff::1", true, false),
            ("64:ff9b:2::1", false, false),
            ("ff00::1", true, true),
            ("fd00:ec2::254", true, true),
            ("100.100.100.200", true, true),
            ("168.63.129.16", true, true),
        ] {
            assert_eq!(refused(address, false), plain, "{address}");
            assert_eq!(refused(address, true), private, "{address} under private");
        }
    }

    #[test]
    fn the_smallest_network_names_the_reason() {
        // Mutation seen to fail here: the widest network taken.
        let why = |address: &str| refusal(address.parse().unwrap(), true).unwrap();
        assert!(why("169.254.169.254").contains("metadata"));
        assert!(why("169.254.169.253").contains("link-local"));
    }

    #[test]
    fn an_embedded_address_is_judged_by_what_is_inside() {
        // Mutation seen to fail here: `judged` left out.
        for (address, plain, private) in [
            ("::ffff:169.254.169.254", true, true),
            ("64:ff9b::a9fe:a9fe", true, true),
            ("2002:a9fe:a9fe::1", true, true),
            ("2001:0:4136:e378:8000:63bf:5601:5601", true, true),
            ("::ffff:10.0.0.1", true, false),
            ("64:ff9b::10.0.0.1", true, false),
            ("64:ff9b::203.0.113.1", false, false),
        ] {
            assert_eq!(refused(address, false), plain, "{address}");
            assert_eq!(refused(address, true), private, "{address} under private");
        }
    }

    fn rule(private: bool) -> HostRule {
        let own = ["203.0.113.7", "2001:db8::7", "10.0.0.7", "169.254.169.254"];
        HostRule {
            id: 1,
            host: "a.example".to_owned(),
            ports: Vec::new(),
            transports: Vec::new(),
            private,
            own: own.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect(),
        }
    }

    #[test]
    fn addresses_of_the_host_are_as_loopback_ones() {
        // Mutations seen to fail here: `private` not asked; the address not unwrapped; own addresses before special ones.
        for (address, plain, private) in [
            ("203.0.113.6", false, false),
            ("203.0.113.7", true, false),
            ("203.0.113.8", false, false),
            ("::ffff:203.0.113.7", true, false),
            ("64:ff9b::203.0.113.7", true, false),
            ("2001:db8::7", true, false),
            ("10.0.0.7", true, false),
            ("169.254.169.254", true, true),
        ] {
            let refused = |private| refusal_of_rule(&rule(private), address.parse().unwrap()).is_some();
            assert_eq!((refused(false), refused(true)), (plain, private), "{address}");
        }
    }

    #[test]
    fn one_rule_that_may_have_an_address_is_enough() {
        // Mutations seen to fail here: the last rule asked alone; no rule taken for one that may.
        let address: IpAddr = "203.0.113.7".parse().unwrap();
        let rules = |private: &[bool]| private.iter().map(|private| rule(*private)).collect::<Vec<_>>();
        for (private, refused) in [
            (&[][..], true),
            (&[false], true),
            (&[true], false),
            (&[false, true], false),
            (&[true, false], false),
            (&[false, false], true),
        ] {
            assert_eq!(refusal_of_rules(&rules(private), address).is_some(), refused, "{private:?}");
        }
    }
}
