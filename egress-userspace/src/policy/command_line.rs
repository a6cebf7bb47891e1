//! Rules of the command line: receives `HOST:PORT`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `NETWORK/BITS:PORT`, each with
//! an optional `/tcp`, `/udp` or `/any`, gives a rule.

use std::net::IpAddr;

use egress_common::Transport;
use ipnet::IpNet;

use super::{Action, Fault, Origin, Rule, Target, ports, target, yaml::shorten};

/// Parses the value of an `--allow`.
pub(super) fn parse(text: &str) -> Result<Rule, Fault> {
    let (rest, transports) = transport(text);
    let (target, port) = split(rest).ok_or_else(|| Fault::CommandLine(shorten(text)))?;
    let ports = ports::normalize(vec![ports::range(port)?]);
    let bare = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let literal = bare.unwrap_or(target);
    let target = match literal.parse::<IpAddr>() {
        Ok(address) => Target::Network(target::cidr(&IpNet::from(address).to_string())?),
        Err(_) if bare.is_some() || literal.contains('/') => Target::Network(target::cidr(literal)?),
        Err(_) => Target::Host { name: target::host(literal)?, private: false, broad: false },
    };
    let origin = Origin::CommandLine(format!("--allow {text}"));
    Ok(Rule { action: Action::Allow, target, ports, transports, origin })
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
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
