//! The system's name servers and search suffixes, from resolv.conf(5), read again when it changes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::normal;

/// Where the C library looks.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the C library reads in which order to look names up.
pub const NSSWITCH: &str = "/etc/nsswitch.conf";

/// Whether the C library asks systemd-resolved over its unix socket, which nothing redirects, before it asks DNS.
pub fn asks_past_dns(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let hosts = text.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
    let mut services =
        hosts.unwrap_or_default().split('#').next().unwrap_or_default().split_ascii_whitespace();
    services.find(|service| matches!(*service, "dns" | "resolve")) == Some("resolve")
}

/// Port of a name server.
pub const DNS_PORT: u16 = 53;

/// As the C library: of more, the first three are used.
const MAX_SERVERS: usize = 3;

/// Search suffixes taken at most; the C library has no bound since 2.26.
const MAX_SEARCH: usize = 32;

/// What tells one version of a file from another: device, inode, size, time of change in seconds and nanoseconds.
type Version = (u64, u64, u64, i64, i64);

/// A resolv.conf(5) that is watched.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    version: Option<Version>,
}

impl Watch {
    /// Of a file, which has not been read yet.
    pub fn new(path: PathBuf) -> Self {
        // No file has this one, and one that is missing has none.
        Self { path, version: Some((0, 0, 0, 0, 0)) }
    }

    /// Name servers and search suffixes, if the file has changed since the last call.
    pub fn changed(&mut self) -> Option<(Vec<SocketAddr>, Vec<String>)> {
        let version = version(&self.path);
        if version == self.version {
            return None;
        }
        self.version = version;
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        Some((parse(&text, interface_index), search(&text)))
    }
}

fn version(path: &Path) -> Option<Version> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}

/// The suffixes that the C library tries behind a name, in normal form: those of the last `search` or `domain` line.
fn search(text: &str) -> Vec<String> {
    let suffixes = |line: &str| -> Option<Vec<String>> {
        let mut words = line.split_ascii_whitespace();
        let one = match words.next()? {
            _ if line.starts_with([' ', '\t']) => return None,
            "search" => false,
            "domain" => true,
            _ => return None,
        };
        let words = words.map(normal).filter(|word| !word.is_empty());
        Some(words.take(if one { 1 } else { MAX_SEARCH }).collect())
    };
    text.lines().filter_map(suffixes).next_back().unwrap_or_default()
}

/// The configured name servers, with the zone of link-local ones as the scope id; the local host if there are none, as the C
/// library does.
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
    fn the_last_search_line_counts() {
        assert_eq!(search("domain A.example. b.example\n"), ["a.example"]);
        assert_eq!(
            search("domain a.example\nsearch Corp.example.\tlab.example .\n search x.example\nsearching y\n"),
            ["corp.example", "lab.example"]
        );
        assert!(search("nameserver 192.0.2.1\n").is_empty());
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut watch = Watch::new(path.clone());
        let servers = |watch: &mut Watch| {
            watch.changed().map(|(servers, search)| (servers[0].to_string(), search.len()))
        };
        assert_eq!(servers(&mut watch), Some(("127.0.0.1:53".to_owned(), 0)), "none is the local host");
        assert_eq!(servers(&mut watch), None);
        fs::write(&path, "nameserver 192.0.2.1\nsearch a.example\n").unwrap();
        assert_eq!(servers(&mut watch), Some(("192.0.2.1:53".to_owned(), 1)));
        assert_eq!(servers(&mut watch), None);
        // As network managers do: a new file in the place of the old one.
        // Mutation seen to fail here: only the size compared.
        fs::write(directory.path().join("new"), "nameserver 192.0.2.2\nsearch a.example\n").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert_eq!(servers(&mut watch), Some(("192.0.2.2:53".to_owned(), 1)));
        fs::remove_file(&path).unwrap();
        assert_eq!(servers(&mut watch), Some(("127.0.0.1:53".to_owned(), 0)));
    }

    #[test]
    fn a_zone_becomes_the_scope_id() {
        assert_eq!(parsed("nameserver fe80::1%eth0\n"), ["[fe80::1%7]:53"]);
        assert_eq!(parsed("nameserver fe80::1%gone\nnameserver 192.0.2.1"), ["192.0.2.1:53"]);
    }

    #[test]
    fn a_way_past_dns_is_seen() {
        // Mutations seen to fail here: `resolve` after `dns` counted; a comment read.
        for (text, expected) in [
            ("hosts: files myhostname resolve [!UNAVAIL=return] dns\n", true),
            ("passwd: files\n  hosts:\tfiles resolve\n", true),
            ("hosts: files dns resolve\n", false),
            ("hosts: files dns\n", false),
            ("hosts: files # resolve\n", false),
            ("passwd: resolve\n", false),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            assert_eq!(asks_past_dns(file.path()), expected, "{text}");
        }
        assert!(!asks_past_dns(Path::new("/nonexistent/nsswitch.conf")));
    }

    #[test]
    fn without_servers_it_is_the_local_host() {
        assert_eq!(parsed("search a.example\n"), ["127.0.0.1:53"]);
        let (servers, _) = Watch::new("/nonexistent/resolv.conf".into()).changed().unwrap();
        assert_eq!(servers, [([127, 0, 0, 1], 53).into()]);
    }
}
