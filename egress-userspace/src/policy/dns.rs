//! The `dns` settings: receives their mapping, gives the upstream servers and how names are asked.

use std::net::{IpAddr, SocketAddr};

use egress_common::{Address, question};

use super::{
    Bounds, Dns, Fault, Refusal, Upstream,
    query_type::ASKABLE,
    reader::Reader,
    yaml::{Node, Value, shorten},
};

/// Keys of `dns`.
const KEYS: &[&str] = &["upstream", "types", "refusal", "ech", "wildcard", "eager"];
/// Keys of `dns.wildcard`.
const WILDCARD_KEYS: &[&str] = &["label", "name", "new-names"];

/// The upstream, `None` if there is a fault in it, and the other settings; those with a fault have their default.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> (Option<Upstream>, Dns) {
    let mut dns = Dns::default();
    let Some(fields) = reader.fields(node, "`dns`", KEYS) else { return (None, dns) };
    let upstream = match fields.get("upstream") {
        None => Some(Upstream::System),
        Some((span, node)) => upstream(reader, span.start, node),
    };
    if let Some(types) = fields.get("types").and_then(|(_, node)| types(reader, node)) {
        dns.types = types;
    }
    let words = [("nxdomain", Refusal::NxDomain), ("refused", Refusal::Refused)];
    let refusal = fields.get("refusal").and_then(|(_, node)| {
        reader.word(node, "answer for names that are not listed", "`nxdomain` or `refused`", &words)
    });
    dns.refusal = refusal.unwrap_or_default();
    let words = [("strip", false), ("keep", true)];
    let ech =
        fields.get("ech").and_then(|(_, node)| reader.word(node, "ech setting", "`strip` or `keep`", &words));
    dns.keep_ech = ech.unwrap_or_default();
    if let Some((_, node)) = fields.get("wildcard") {
        dns.wildcard = bounds(reader, node);
    }
    dns.eager = reader.flag(&fields, "eager");
    (upstream, dns)
}

fn bounds(reader: &mut Reader<'_>, node: &Node) -> Bounds {
    let mut bounds = Bounds::default();
    let Some(fields) = reader.fields(node, "`dns.wildcard`", WILDCARD_KEYS) else { return bounds };
    let mut number = |key, (least, most)| {
        let (_, node) = fields.get(key)?;
        reader.number(node, least, most)
    };
    let label = number("label", Bounds::LABEL).and_then(|number| u8::try_from(number).ok());
    let name = number("name", Bounds::NAME).and_then(|number| u8::try_from(number).ok());
    let new_names = number("new-names", Bounds::NEW_NAMES);
    bounds.label = label.unwrap_or(bounds.label);
    bounds.name = name.unwrap_or(bounds.name);
    bounds.new_names = new_names.unwrap_or(bounds.new_names);
    bounds
}

fn upstream(reader: &mut Reader<'_>, at: usize, node: &Node) -> Option<Upstream> {
    if let Value::Text(_) = node.value {
        let expected = "`system` or a list of resolver addresses";
        return reader.word(node, "upstream", expected, &[("system", ())]).map(|()| Upstream::System);
    }
    let items = reader.list(node, "`system` or a list of resolver addresses")?;
    if items.is_empty() {
        reader.fault(&node.span, Fault::EmptyList("list of resolvers"));
        return None;
    }
    let mut resolvers = Vec::new();
    for item in items {
        let Some(text) = reader.text(item, "a resolver address") else { continue };
        match resolver(text) {
            Some(address) => resolvers.push(address),
            None => reader.fault(&item.span, Fault::Resolver(shorten(text))),
        }
    }
    let sound = resolvers.len() == items.len();
    resolvers.dedup();
    sound.then(|| Upstream::List(resolvers, reader.source.origin(at)))
}

/// `ip`, `ip:port` or `[v6]:port`; an IPv4-mapped address is the IPv4 address it maps.
fn resolver(text: &str) -> Option<SocketAddr> {
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, question::DNS),
        Err(_) => text.parse::<SocketAddr>().ok()?,
    };
    let plain = |v6: &std::net::SocketAddrV6| v6.scope_id() == 0 && v6.flowinfo() == 0;
    let sound = match &address {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => plain(v6),
    };
    let ip = Address::from(address.ip()).judged().to_ip();
    (sound && address.port() != 0).then(|| SocketAddr::new(ip, address.port()))
}

fn types(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<u16>> {
    let items = reader.list(node, "a list of query types such as [A, AAAA]")?;
    if items.is_empty() {
        reader.fault(&node.span, Fault::EmptyList("list of query types"));
        return None;
    }
    let expected = "a record type in upper case such as A, AAAA, CNAME, HTTPS, SVCB";
    let mut types: Vec<u16> =
        items.iter().filter_map(|item| reader.word(item, "query type", expected, &ASKABLE)).collect();
    types.sort_unstable();
    types.dedup();
    Some(types)
}
