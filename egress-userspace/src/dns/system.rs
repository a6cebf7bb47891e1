//! The system's name servers, from resolv.conf(5).
//!
//! `search` and `ndots` are left out: the names of a policy are absolute.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::Path,
};

/// Where the C library looks.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Port of a name server.
pub const DNS_PORT: u16 = 53;

/// As the C library: of more, the first three are used.
const MAX_SERVERS: usize = 3;

/// The configured name servers, with the zone of link-local ones as the scope id; the local host if there are none
/// or the file cannot be read, as the C library does.
pub fn nameservers(path: &Path) -> Vec<SocketAddr> {
    let text = fs::read(path).unwrap_or_default();
    parse(&String::from_utf8_lossy(&text), interface_index)
}

fn parse(text: &str, index: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> =
        text.lines().filter_map(|line| server(line, &index)).take(MAX_SERVERS).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    servers
}

fn server(line: &str, index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    // The keyword begins the line; a comment may follow the address.
    let rest = line.strip_prefix("nameserver")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let word =
        rest.split(|c: char| c.is_ascii_whitespace() || c == '#' || c == ';').find(|w| !w.is_empty())?;
    let (address, zone) = match word.split_once('%') {
        Some((address, zone)) => (address, index(zone)?),
        None => (word, 0),
    };
    Some(match address.parse().ok()? {
        IpAddr::V4(v4) => (v4, DNS_PORT).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, DNS_PORT, 0, zone).into(),
    })
}

fn interface_index(zone: &str) -> Option<u32> {
    if let Ok(number) = zone.parse() {
        return Some(number);
    }
    if zone.contains('/') || zone.starts_with('.') {
        return None;
    }
    fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<String> {
        let index = |zone: &str| (zone == "eth0").then_some(7);
        parse(text, index).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn three_servers_are_read_past_comments_and_other_keywords() {
        let text = "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch a.example\noptions ndots:5\n\
                    nameserver 192.0.2.3 # first\nnameserver\t2001:db8::53;x\n nameserver 192.0.2.4\n\
                    nameservers 192.0.2.5\nnameserver192.0.2.6\nnameserver nonsense\nnameserver 192.0.2.7\n\
                    nameserver 192.0.2.8\n";
        // Mutations seen to fail here: take(4); the keyword without its blank.
        assert_eq!(parsed(text), ["192.0.2.3:53", "[2001:db8::53]:53", "192.0.2.7:53"]);
    }

    #[test]
    fn a_zone_becomes_the_scope_id() {
        assert_eq!(parsed("nameserver fe80::1%eth0\n"), ["[fe80::1%7]:53"]);
        assert_eq!(parsed("nameserver fe80::1%gone\nnameserver 192.0.2.1"), ["192.0.2.1:53"]);
    }

    #[test]
    fn without_servers_it_is_the_local_host() {
        assert_eq!(parsed("search a.example\n"), ["127.0.0.1:53"]);
        assert_eq!(nameservers(Path::new("/nonexistent/resolv.conf")), [([127, 0, 0, 1], 53).into()]);
    }
}
