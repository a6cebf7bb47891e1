//! Where a URL leads: receives text from a tool's configuration, gives host and port. Never gives what stands before an
//! `@`: that can be a password.

use std::net::IpAddr;

use crate::policy::parse_host;

/// A host and port that a tool is set up to use.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct Endpoint {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// A name in normal form or an address.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

/// The endpoints of all URLs in a text.
pub(super) fn endpoints(text: &str) -> Vec<Endpoint> {
    text.replace("\\n", "\n")
        .split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ',' | '|' | '(' | ')' | '<' | '>'))
        .filter_map(endpoint)
        .collect()
}

/// The endpoint of `scheme://[user@]host[:port]/…`.
pub(super) fn endpoint(url: &str) -> Option<Endpoint> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.strip_prefix("sparse+").or(scheme.strip_prefix("git+")).unwrap_or(scheme);
    let default = match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => 443,
        "http" | "ws" => 80,
        "ssh" | "git+ssh" => 22,
        "git" => 9418,
        "ftp" => 21,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    authority_endpoint(authority, default)
}

/// The endpoint of a git address: a URL, or `[user@]host:path` for SSH.
pub(super) fn git_endpoint(address: &str) -> Option<Endpoint> {
    if address.contains("://") {
        return endpoint(address);
    }
    let (authority, path) = address.split_once(':')?;
    // A path on this machine, or a remote helper (`ext::`).
    if authority.contains('/') || authority.len() < 2 || path.starts_with(':') {
        return None;
    }
    authority_endpoint(authority, 22)
}

fn authority_endpoint(authority: &str, default: u16) -> Option<Endpoint> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.strip_prefix(':').map_or(Some(default), |port| port.parse().ok())?;
        return Some(Endpoint { host: Host::Address(address.parse().ok()?), port });
    }
    let (host, port) = match host.split_once(':') {
        Some((host, "")) => (host, default),
        Some((host, port)) => (host, port.parse().ok()?),
        None => (host, default),
    };
    let host = match host.parse::<IpAddr>() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(parse_host(host).ok().filter(|name| !name.starts_with("*."))?),
    };
    (port != 0).then_some(Endpoint { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(endpoint: Option<Endpoint>) -> String {
        match endpoint {
            Some(Endpoint { host: Host::Name(name), port }) => format!("{name} {port}"),
            Some(Endpoint { host: Host::Address(address), port }) => format!("{address} {port}"),
            None => "none".into(),
        }
    }

    #[test]
    fn urls_lead_to_hosts_and_never_show_credentials() {
        for (url, expected) in [
            ("https://mirror.example/simple", "mirror.example 443"),
            ("http://mirror.example:8081/simple", "mirror.example 8081"),
            ("https://user:secret@Mirror.example/simple", "mirror.example 443"),
            ("https://user:p@ss@mirror.example", "mirror.example 443"),
            ("sparse+https://index.example/", "index.example 443"),
            ("ssh://git@code.example/a.git", "code.example 22"),
            ("https://192.0.2.7/", "192.0.2.7 443"),
            ("https://[2001:db8::7]:8443/", "2001:db8::7 8443"),
            ("file:///srv/mirror", "none"),
            ("https://", "none"),
            ("https://a.example:0/", "none"),
        ] {
            assert_eq!(shown(endpoint(url)), expected, "{url}");
        }
    }

    #[test]
    fn git_addresses_without_a_scheme_are_ssh_or_paths() {
        for (address, expected) in [
            ("git@code.example:group/project.git", "code.example 22"),
            ("code.example:project.git", "code.example 22"),
            ("https://code.example/a.git", "code.example 443"),
            ("../project.git", "none"),
            ("/srv/git/a:b.git", "none"),
            ("ext::ssh host", "none"),
        ] {
            assert_eq!(shown(git_endpoint(address)), expected, "{address}");
        }
    }

    #[test]
    fn every_url_of_a_text_is_found() {
        let text = "global.extra-index-url='https://a.example/simple\\nhttps://u:p@b.example:8443/simple' https://[2001:db8::7]/";
        let found: Vec<String> = endpoints(text).into_iter().map(|endpoint| shown(Some(endpoint))).collect();
        assert_eq!(found, ["a.example 443", "b.example 8443", "2001:db8::7 443"]);
    }
}
