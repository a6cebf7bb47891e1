//! Rules of the command line: receives `HOST:PORT`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `NETWORK/BITS:PORT`, each with
//! an optional `/tcp`, `/udp` or `/any`, or `HOST/icmp`, or `unix:PATH`, gives a rule.

use std::net::IpAddr;

use egress_common::Transport;
use ipnet::IpNet;

use super::{Action, Fault, Origin, Rule, Target, ports, protocol::ICMP_PORTS, target, unix, yaml::shorten};

/// What a unix socket's name stands behind.
pub(crate) const UNIX: &str = "unix:";
/// What stands behind a host to be pinged.
pub(crate) const ICMP: &str = "/icmp";

/// Parses the value of an `--allow`.
pub(super) fn parse(text: &str) -> Result<Rule, Fault> {
    let origin = Origin::CommandLine(format!("--allow {text}"));
    let action = Action::Allow;
    if let Some(name) = text.strip_prefix(UNIX) {
        let target = Target::Unix(unix::pattern(name)?);
        return Ok(Rule { action, target, ports: Vec::new(), transports: Vec::new(), origin });
    }
    let (target, ports, transports) = match text.strip_suffix(ICMP) {
        Some(target) => (target, ICMP_PORTS.to_vec(), vec![Transport::Icmp]),
        None => {
            let (rest, transports) = transport(text);
            let (target, port) = split(rest).ok_or_else(|| Fault::CommandLine(shorten(text)))?;
            (target, ports::normalize(vec![ports::range(port)?]), transports)
        }
    };
    let bare = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let literal = bare.unwrap_or(target);
    let target = match literal.parse::<IpAddr>() {
        Ok(address) => Target::Network(target::cidr(&IpNet::from(address).to_string())?),
        Err(_) if bare.is_some() || literal.contains('/') => Target::Network(target::cidr(literal)?),
        Err(_) => Target::Host { name: target::host(literal)?, private: false, broad: false },
    };
    Ok(Rule { action, target, ports, transports, origin })
}

/// Cuts off a trailing `/udp` and the like.
pub(crate) fn transport(text: &str) -> (&str, Vec<Transport>) {
    let both = vec![Transport::Tcp, Transport::Udp];
    for (suffix, transports) in
        [("/tcp", vec![Transport::Tcp]), ("/udp", vec![Transport::Udp]), ("/any", both)]
    {
        if let Some(rest) = text.strip_suffix(suffix) {
            return (rest, transports);
        }
    }
    (text, vec![Transport::Tcp])
}

/// Splits at the colon before the port. An IPv6 address without brackets has none.
pub(crate) fn split(text: &str) -> Option<(&str, &str)> {
    let (target, port) = text.rsplit_once(':')?;
    let bracketed = target.starts_with('[') && target.ends_with(']');
    (!target.is_empty() && !port.is_empty() && (bracketed || !target.contains(':'))).then_some((target, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("api.example:443", "host api.example ports 443/tcp"),
            ("API.example.:8000-8100", "host api.example ports 8000-8100/tcp"),
            ("192.0.2.1:53/udp", "cidr 192.0.2.1/32 ports 53/udp"),
            ("[2001:db8::1]:53/any", "cidr 2001:db8::1/128 ports 53/any"),
            ("10.0.0.0/8:22", "cidr 10.0.0.0/8 ports 22/tcp"),
            ("[2001:db8::/32]:22/tcp", "cidr 2001:db8::/32 ports 22/tcp"),
            ("*.packages.example:443", "host *.packages.example ports 443/tcp"),
            ("192.0.2.1/icmp", "cidr 192.0.2.1/32 icmp"),
            ("2001:db8::1/icmp", "cidr 2001:db8::1/128 icmp"),
            ("10.0.0.0/8/icmp", "cidr 10.0.0.0/8 icmp"),
            ("api.example/icmp", "host api.example icmp"),
            ("unix:/run/a.sock", "unix /run/a.sock"),
            ("unix:@a*", "unix @a*"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            ":",
            "api.example",
            "api.example:",
            ":443",
            "api.example:0",
            "api.example:65536",
            "2001:db8::1:443",
            "[api.example]:443",
            "10.0.0.1/8:22",
            "https://api.example:443",
            "api.example:443/sctp",
            "*:443",
            "[::ffff:192.0.2.1]:443",
            "api.example:443/icmp",
            "/icmp",
            "unix:run/a.sock",
            "unix:",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
