//! The `protocol:` of a rule: receives its words, gives transports, or says why what they name cannot be opened.

use egress_common::Transport;

use super::{
    Action, Fault, PortRange, ports,
    reader::{Fields, Reader},
    yaml::{Node, Value},
};

/// Port of a rule under `allow:` that names none.
const ALLOW_PORT: u16 = 443;
/// ICMP has no ports; its rules and flows say 0.
pub(super) const ICMP_PORTS: &[PortRange] = &[PortRange::one(0)];

/// Everything that can be opened at all.
const ALL: &[Transport] = &[Transport::Icmp, Transport::Tcp, Transport::Udp];
const BOTH: &[Transport] = &[Transport::Tcp, Transport::Udp];

/// What no rule can open, and why.
const CLOSED: [(&str, &str); 6] = [
    ("mptcp", "clients of MPTCP fall back to TCP, which `protocol: tcp` opens"),
    ("sctp", "its further addresses and streams would not be judged; use TCP"),
    ("dccp", "it is not judged; use UDP"),
    ("udplite", "it is not judged; use UDP"),
    ("raw", "whoever writes a packet's headers writes its destination; for ping use `protocol: icmp`"),
    ("icmpv6", "write `protocol: icmp`, which is ping over IPv4 and IPv6"),
];

/// Ports and transports of a rule on hosts or networks.
pub(super) fn read(
    reader: &mut Reader<'_>,
    action: Action,
    fields: &Fields<'_>,
) -> Option<(Vec<PortRange>, Vec<Transport>)> {
    let written = match fields.get("protocol") {
        Some((_, node)) => Some(word(reader, node)?),
        None => None,
    };
    if written == Some(&[Transport::Icmp]) {
        if let Some((span, _)) = fields.get("ports") {
            let what = "`protocol: icmp`: ping has no ports";
            reader.fault(span, Fault::DoesNotGoWith { key: "ports", what });
        }
        return Some((ICMP_PORTS.to_vec(), vec![Transport::Icmp]));
    }
    let (ports, transports) = match (fields.get("ports"), action) {
        (Some((_, node)), Action::Allow) => {
            (ports::read(reader, node)?, written.unwrap_or(&[Transport::Tcp]))
        }
        (Some((_, node)), Action::Deny) => (ports::read(reader, node)?, written.unwrap_or(BOTH)),
        (None, Action::Allow) => (vec![PortRange::one(ALLOW_PORT)], written.unwrap_or(&[Transport::Tcp])),
        // A denial of everything is one of ping too.
        (None, Action::Deny) => match written {
            None | Some(BOTH) => (vec![PortRange::ALL], ALL),
            Some(one) => (vec![PortRange::ALL], one),
        },
    };
    Some((ports, transports.to_vec()))
}

fn word(reader: &mut Reader<'_>, node: &Node) -> Option<&'static [Transport]> {
    const WORDS: [(&str, &[Transport]); 4] =
        [("tcp", &[Transport::Tcp]), ("udp", &[Transport::Udp]), ("icmp", &[Transport::Icmp]), ("any", BOTH)];
    if let Value::Text(text) = &node.value
        && let Some((_, why)) = CLOSED.iter().find(|(word, _)| text == word)
    {
        reader.fault(&node.span, Fault::Protocol { protocol: text.clone(), why });
        return None;
    }
    reader.word(node, "protocol", "`tcp`, `udp`, `icmp` or `any` (TCP and UDP)", &WORDS)
}
