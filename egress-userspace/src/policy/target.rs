//! Hosts and networks as written in a policy: receives a text, gives its normal form or what is wrong with it.

use std::{net::IpAddr, net::Ipv4Addr, net::Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Fault, net, yaml::shorten};

/// A host name in normal form: exact, or `*.suffix`.
pub(crate) fn host(text: &str) -> Result<String, Fault> {
    let fault = |why, hint: String| Err(Fault::Host { host: shorten(text), why, hint });
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() {
        return fault("it is empty", String::new());
    }
    let unbracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    if let Ok(address) = unbracketed.parse::<IpAddr>() {
        return fault("it is an address", format!("use `cidr: {}`", IpNet::from(address)));
    }
    if name.parse::<IpNet>().is_ok() {
        return fault("it is a network", format!("use `cidr: {name}`"));
    }
    if let Some((_, rest)) = name.split_once("://") {
        let host = rest.split(['/', ':', '?', '#']).next().unwrap_or_default();
        return fault("it is a URL", format!("write the name alone: {host}"));
    }
    if let Some((host, port)) = name.split_once(':') {
        return fault("it has a port", format!("write `host: {host}` and `ports: [{port}]`"));
    }
    if name.contains('/') {
        return fault("it has a path", "write the name alone".into());
    }
    if !name.is_ascii() {
        return fault("it is not in ASCII", "write the A-label form (xn--…) of each label".into());
    }
    if name == "*" {
        return fault("a bare wildcard is every name", "name the domain: \"*.packages.example\"".into());
    }
    let exact = name.strip_prefix("*.").unwrap_or(&name);
    if exact.contains('*') {
        return fault(
            "a wildcard stands only as the whole left-most label",
            "as in \"*.packages.example\"".into(),
        );
    }
    match net::host_name_fault(exact) {
        Some(why) => fault(why, String::new()),
        None => Ok(name),
    }
}

/// A network without host bits that some destination can be judged by.
pub(super) fn cidr(text: &str) -> Result<IpNet, Fault> {
    let fault = |why, hint: String| Err(Fault::Cidr { cidr: shorten(text), why, hint });
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => {
            if let Ok(address) = text.parse::<IpAddr>() {
                return fault(
                    "it has no prefix length",
                    format!("for this address alone: {}", IpNet::from(address)),
                );
            }
            let (address, bits) = text.split_once('/').unwrap_or((text, ""));
            return match (address.parse::<IpAddr>(), bits.parse::<u32>()) {
                (Ok(IpAddr::V4(_)), Ok(_)) => fault("its prefix is longer than 32 bits", String::new()),
                (Ok(IpAddr::V6(_)), Ok(_)) => fault("its prefix is longer than 128 bits", String::new()),
                (Ok(_), Err(_)) => fault("its prefix length is not a number", String::new()),
                _ => fault("it is not of the form ADDRESS/BITS", "use `host:` for names".into()),
            };
        }
    };
    if network.addr() != network.network() {
        return fault("it has host bits set", format!("did you mean {}?", network.trunc()));
    }
    match network {
        IpNet::V6(v6) => match embedding(v6) {
            Some((form, inner)) => {
                let instead = inner.map_or("the IPv4 network".to_owned(), |inner| inner.to_string());
                Err(Fault::Impossible(format!(
                    "{form} addresses are judged by the IPv4 address inside them; write {instead}"
                )))
            }
            None => Ok(network),
        },
        IpNet::V4(_) => Ok(network),
    }
}

/// The form of IPv6 address that embeds IPv4 and that holds the whole network, with the IPv4 network inside.
fn embedding(network: Ipv6Net) -> Option<(&'static str, Option<Ipv4Net>)> {
    const FORMS: [(&str, Ipv6Addr, u8, u8); 4] = [
        ("IPv4-mapped", Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 96),
        ("NAT64", Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, 96),
        ("6to4", Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 16),
        ("Teredo", Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 96),
    ];
    FORMS
        .into_iter()
        .find_map(|(form, base, bits, inner_at)| {
            let base = Ipv6Net::new(base, bits).ok()?;
            if !base.contains(&network) {
                return None;
            }
            let shift = 96 - u32::from(inner_at);
            let inner = u32::try_from(network.network().to_bits() >> shift & u128::from(u32::MAX)).ok()?;
            let address = if form == "Teredo" { !inner } else { inner };
            let inner_bits = network.prefix_len().checked_sub(inner_at)?.min(32);
            let inner = Ipv4Net::new(Ipv4Addr::from_bits(address), inner_bits).ok().map(|net| net.trunc());
            Some((form, inner.filter(|inner| inner.prefix_len() > 0)))
        })
        .or_else(|| {
            let teredo = Ipv6Net::new(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32).ok()?;
            teredo.contains(&network).then_some(("Teredo", None))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_out_in_normal_form() {
        for (text, expected) in [
            ("API.Example", "api.example"),
            ("api.example.", "api.example"),
            ("*.Packages.example", "*.packages.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dmarc.a.example", "_dmarc.a.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_host_says_what_it_is() {
        for (text, expected) in [
            ("192.0.2.1", "use `cidr: 192.0.2.1/32`"),
            ("[2001:db8::1]", "use `cidr: 2001:db8::1/128`"),
            ("10.0.0.0/8", "use `cidr: 10.0.0.0/8`"),
            ("https://api.example/v1", "write the name alone: api.example"),
            ("api.example:8443", "write `host: api.example` and `ports: [8443]`"),
            ("bücher.example", "write the A-label form (xn--…) of each label"),
            ("*", "name the domain: \"*.packages.example\""),
            ("api.*.example", "as in \"*.packages.example\""),
            ("*api.example", "as in \"*.packages.example\""),
            ("*.*.example", "as in \"*.packages.example\""),
        ] {
            assert_eq!(host(text).unwrap_err().expected().as_deref(), Some(expected), "{text}");
        }
        for text in ["", ".", "a..example", "-a.example", "a b.example", "1.2.3", "*.", "a.example..", "*.1"]
        {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_that_never_match_name_the_one_that_does() {
        for (text, expected) in [
            ("::ffff:192.0.2.0/120", "write 192.0.2.0/24"),
            ("64:ff9b::c000:200/120", "write 192.0.2.0/24"),
            ("2002:c000:200::/40", "write 192.0.2.0/24"),
            ("2002:c000:201:7::/64", "write 192.0.2.1/32"),
            ("2001::/32", "write the IPv4 network"),
            ("2001:0:4136:e378:8000:63bf:5601:5601/128", "write 169.254.169.254/32"),
            ("64:ff9b::/96", "write the IPv4 network"),
        ] {
            let message = cidr(text).unwrap_err().to_string();
            assert!(message.ends_with(expected), "{text}: {message}");
        }
        for text in ["64:ff9b::/95", "2001::/31", "2002::/15", "64:ff9b:1::/48", "2001:1::/32", "::/0"] {
            assert!(cidr(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn bad_networks_are_told_apart() {
        for (text, expected) in [
            ("10.20.9.1/24", "did you mean 10.20.9.0/24?"),
            ("2001:db8::1/32", "did you mean 2001:db8::/32?"),
            ("192.0.2.1", "for this address alone: 192.0.2.1/32"),
            ("api.example", "use `host:` for names"),
        ] {
            assert_eq!(cidr(text).unwrap_err().expected().as_deref(), Some(expected), "{text}");
        }
        for text in ["10.0.0.0/33", "2001:db8::/129", "10.0.0.0/x", "10.0.0/8", "", "/8", "10.0.0.0/-1"] {
            assert!(cidr(text).is_err(), "{text}");
        }
    }
}
