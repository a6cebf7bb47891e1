//! The line of policy that would allow what was denied. Receives names that a hostile client may have chosen: none reaches
//! the line that is no host name.

use std::net::IpAddr;

use egress_common::{Address, Class, Reason, Transport};

use crate::{
    compile::networks::class,
    dns::told::DnsReason,
    policy::{
        self, Bounds, PortRange,
        net::{is_host_name, is_private},
    },
};

/// The one line of policy that would allow a denied destination, or `None` if no line can.
///
/// A line with `loopback:` is a setting of the policy's top level, the others are entries of `allow:`. The name is
/// used where a name can open the address; it may come from an untrusted answer, so one that is no host name is
/// passed over.
pub fn remedy(
    name: Option<&str>,
    address: IpAddr,
    port: u16,
    transport: Transport,
    reason: Reason,
) -> Option<String> {
    if port == 0 && transport != Transport::Icmp {
        return None;
    }
    let address = Address::from(address).judged().to_ip();
    match reason {
        Reason::NoRule => match name.map(normal).filter(|name| is_host_name(name)) {
            Some(name) => Some(host_line(&name, &[PortRange::one(port)], &[transport], is_private(address))),
            None => Some(cidr_line(address, port, transport)),
        },
        Reason::Metadata | Reason::LinkLocal | Reason::Multicast | Reason::Broadcast => {
            Some(cidr_line(address, port, transport))
        }
        // `loopback:` speaks neither of ping nor of a metadata service on this host.
        Reason::Loopback if transport == Transport::Icmp || class(address) == Class::Metadata => {
            Some(cidr_line(address, port, transport))
        }
        Reason::Loopback => Some(format!("loopback: [{port}]")),
        // The rule is there; what is missing is a new question.
        Reason::Expired => None,
        Reason::NoPolicy | Reason::DenyRule | Reason::Transport | Reason::NotPlain | Reason::SocketType => {
            None
        }
        Reason::Inbound => Some(format!("inbound: [{port}]")),
        Reason::Rule
        | Reason::Permit
        | Reason::Dns
        | Reason::Own
        | Reason::SocketOption
        | Reason::Unix
        | Reason::Family
        | Reason::Descriptor
        | Reason::Process
        | Reason::Cgroup
        | Reason::Bpf
        | Reason::Namespace
        | Reason::Sysctl
        | Reason::Device
        | Reason::Syscall => None,
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The line that lists a name, or `None` for what is no host name: it may come from a client.
pub(crate) fn name_line(
    name: &str,
    ports: &[PortRange],
    transports: &[Transport],
    private: bool,
) -> Option<String> {
    is_host_name(name).then(|| host_line(name, ports, transports, private))
}

fn host_line(name: &str, ports: &[PortRange], transports: &[Transport], private: bool) -> String {
    // A name such as `1.5` or `null` would be a number or nothing to a YAML reader.
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.contains('.');
    let host = if plain { name.to_owned() } else { format!("\"{name}\"") };
    let private = if private { ", private: true" } else { "" };
    format!("- {{ host: {host}{}{private} }}", suffix(&policy::list(ports), transports))
}

/// The line that opens a unix socket by the name that it is bound to, with `@` before an abstract one; `None` for a name
/// that no rule, or no line, can hold: a hostile client may have chosen it.
pub fn unix_line(name: &str) -> Option<String> {
    let printable = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    // As a rule it would be a wildcard.
    if !printable || name.ends_with('*') || policy::unix_pattern(name).is_err() {
        return None;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-');
    Some(match name.bytes().all(plain) {
        true => format!("- unix: {name}"),
        false => format!("- unix: \"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
    })
}

/// The setting that widens the bound which a name breaks that only this wildcard allows.
pub(crate) fn wider(reason: DnsReason, bounds: &Bounds, name: &str, wildcard: &str) -> Option<String> {
    let within =
        |number: usize, (_, most): (u32, u32)| u32::try_from(number).map_or(most, |number| number.min(most));
    let setting = match reason {
        DnsReason::LabelBound => format!("label: {}", within(longest_label(name, wildcard), Bounds::LABEL)),
        DnsReason::NameBound => format!("name: {}", within(name.len(), Bounds::NAME)),
        DnsReason::RateBound => {
            format!("new-names: {}", bounds.new_names.saturating_mul(2).clamp(1, Bounds::NEW_NAMES.1))
        }
        _ => return None,
    };
    Some(format!("dns: {{ wildcard: {{ {setting} }} }}"))
}

/// Bytes of the longest label that a wildcard stands for; in a text form an escape is `\DDD`.
pub(super) fn longest_label(name: &str, wildcard: &str) -> usize {
    let front = wildcard.strip_prefix('*').and_then(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    let bytes =
        |label: &str| label.len().saturating_sub(3 * label.bytes().filter(|byte| *byte == b'\\').count());
    front.split('.').map(bytes).max().unwrap_or(0)
}

fn cidr_line(address: IpAddr, port: u16, transport: Transport) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let mut cidr = format!("{address}/{bits}");
    // A plain scalar within braces cannot begin with a colon.
    if cidr.starts_with(':') {
        cidr = format!("\"{cidr}\"");
    }
    format!("- {{ cidr: {cidr}{} }}", suffix(&port.to_string(), &[transport]))
}

/// Ports and protocol of a line.
fn suffix(ports: &str, transports: &[Transport]) -> String {
    match transports {
        [Transport::Tcp] => format!(", ports: [{ports}]"),
        [Transport::Udp] => format!(", ports: [{ports}], protocol: udp"),
        [Transport::Icmp] => ", protocol: icmp".to_owned(),
        _ => format!(", ports: [{ports}], protocol: any"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: Option<&str>, address: &str, port: u16, transport: Transport, reason: Reason) -> String {
        remedy(name, address.parse().unwrap(), port, transport, reason).unwrap_or_else(|| "none".into())
    }

    #[test]
    fn a_name_is_used_where_a_name_can_open() {
        let tcp = Transport::Tcp;
        for (name, address, reason, expected) in [
            (
                Some("collect.attacker.example"),
                "203.0.113.66",
                Reason::NoRule,
                "- { host: collect.attacker.example, ports: [443] }",
            ),
            (Some("API.Example."), "203.0.113.66", Reason::NoRule, "- { host: api.example, ports: [443] }"),
            (
                Some("db.example"),
                "10.0.0.1",
                Reason::NoRule,
                "- { host: db.example, ports: [443], private: true }",
            ),
            (Some("localdb"), "203.0.113.66", Reason::NoRule, "- { host: \"localdb\", ports: [443] }"),
            (None, "203.0.113.66", Reason::NoRule, "- { cidr: 203.0.113.66/32, ports: [443] }"),
            (None, "2001:db8::1", Reason::NoRule, "- { cidr: 2001:db8::1/128, ports: [443] }"),
            (None, "64:ff9b::203.0.113.66", Reason::NoRule, "- { cidr: 203.0.113.66/32, ports: [443] }"),
            (None, "::2", Reason::NoRule, "- { cidr: \"::2/128\", ports: [443] }"),
            // A name cannot open metadata.
            (
                Some("api.example"),
                "169.254.169.254",
                Reason::Metadata,
                "- { cidr: 169.254.169.254/32, ports: [443] }",
            ),
            (None, "127.0.0.1", Reason::Loopback, "loopback: [443]"),
        ] {
            assert_eq!(line(name, address, 443, tcp, reason), expected);
        }
    }

    #[test]
    fn udp_is_written_out() {
        assert_eq!(
            line(None, "203.0.113.66", 123, Transport::Udp, Reason::NoRule),
            "- { cidr: 203.0.113.66/32, ports: [123], protocol: udp }"
        );
        assert_eq!(
            line(Some("ntp.example"), "203.0.113.66", 123, Transport::Udp, Reason::NoRule),
            "- { host: ntp.example, ports: [123], protocol: udp }"
        );
    }

    #[test]
    fn ping_and_metadata_on_this_host_are_opened_by_address() {
        // Mutations seen to fail here: `loopback:` for either; port 0 without a line.
        for (address, port, transport, reason, expected) in [
            (
                "203.0.113.66",
                0,
                Transport::Icmp,
                Reason::NoRule,
                "- { cidr: 203.0.113.66/32, protocol: icmp }",
            ),
            ("127.0.0.1", 0, Transport::Icmp, Reason::Loopback, "- { cidr: 127.0.0.1/32, protocol: icmp }"),
            (
                "169.254.169.254",
                80,
                Transport::Tcp,
                Reason::Loopback,
                "- { cidr: 169.254.169.254/32, ports: [80] }",
            ),
            ("192.0.2.7", 80, Transport::Tcp, Reason::Loopback, "loopback: [80]"),
            ("192.0.2.7", 8080, Transport::Tcp, Reason::Inbound, "inbound: [8080]"),
        ] {
            assert_eq!(line(None, address, port, transport, reason), expected);
        }
        let named = line(Some("a.example"), "203.0.113.66", 0, Transport::Icmp, Reason::NoRule);
        assert_eq!(named, "- { host: a.example, protocol: icmp }");
    }

    #[test]
    fn a_line_for_a_unix_socket_names_that_one_alone() {
        // Mutations seen to fail here: a trailing `*` let through; a quote not escaped.
        for (name, expected) in [
            ("/run/docker.sock", Some("- unix: /run/docker.sock")),
            ("@/tmp/.X11-unix/X0", Some("- unix: \"@/tmp/.X11-unix/X0\"")),
            ("/run/a b: \"c\" \\ #", Some("- unix: \"/run/a b: \\\"c\\\" \\\\ #\"")),
            ("/run/*", None),
            ("/run/a*b", None),
            ("/run/../a", None),
            ("run/a", None),
            ("@", None),
            ("", None),
            ("/run/a\nallow:", None),
            ("/run/ä", None),
        ] {
            assert_eq!(unix_line(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_no_line_opens_has_no_remedy() {
        for reason in [
            Reason::NoPolicy,
            Reason::DenyRule,
            Reason::Transport,
            Reason::NotPlain,
            Reason::SocketType,
            Reason::Rule,
            Reason::Permit,
            Reason::Expired,
            Reason::Dns,
        ] {
            assert_eq!(line(None, "203.0.113.66", 443, Transport::Tcp, reason), "none", "{reason:?}");
        }
        assert_eq!(line(None, "203.0.113.66", 0, Transport::Tcp, Reason::NoRule), "none");
    }

    #[test]
    fn a_label_is_counted_in_bytes_and_without_those_of_the_wildcard() {
        for (name, expected) in [
            ("a.packages.example", 1),
            ("abc.a.packages.example", 3),
            ("\\000\\255.packages.example", 2),
            ("\\.packages.example", 0),
            ("elsewhere.example", 9),
        ] {
            assert_eq!(longest_label(name, "*.packages.example"), expected, "{name}");
        }
    }

    #[test]
    fn a_hostile_name_never_reaches_the_line() {
        for name in ["a.example, ports: [1-65535]", "*.example", "", "a..example", "é.example", "192.0.2.1"]
        {
            assert_eq!(
                line(Some(name), "203.0.113.66", 443, Transport::Tcp, Reason::NoRule),
                "- { cidr: 203.0.113.66/32, ports: [443] }",
                "{name}"
            );
        }
    }
}
