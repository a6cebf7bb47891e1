//! What one asks about: receives `NAME`, `ADDRESS`, either with `:PORT` and `/tcp`, `/udp` or `/icmp`, or the path of a unix
//! socket; tells which events are of it.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use egress_common::Address;
use thiserror::Error;

use super::event::{Attempt, Question};

/// Name or address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// A name in lower case, without the trailing dot. Any name: a client may have asked for one that is no host name.
    Name(String),
    /// An address.
    Address(IpAddr),
    /// A unix socket: a path, or `@` and an abstract name.
    Unix(String),
}

/// A destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    /// Name, address or unix socket.
    pub to: To,
    /// Its port; any if there is none.
    pub port: Option<u16>,
    /// `tcp`, `udp` or `icmp`; any if there is none.
    pub protocol: Option<&'static str>,
}

/// Why a text is no destination.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[error(
    "`{0}` is no destination: expected a name or an address, with :PORT if only one port is meant, or the path of a unix socket"
)]
pub struct SubjectError(String);

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let error = || SubjectError(text.to_owned());
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with(['/', '@']) && !["/tcp", "/udp", "/icmp"].contains(&path) {
            return Ok(Self { to: To::Unix(path.to_owned()), port: None, protocol: None });
        }
        let (rest, protocol) = ["tcp", "udp", "icmp"]
            .into_iter()
            .find_map(|protocol| Some((text.strip_suffix(protocol)?.strip_suffix('/')?, Some(protocol))))
            .unwrap_or((text, None));
        let (host, port) = match rest.rsplit_once(':') {
            _ if rest.parse::<IpAddr>().is_ok() => (rest, None),
            None => (rest, None),
            Some((_, "")) => return Err(error()),
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, Some(port.parse::<u16>().map_err(|_| error())?))
            }
            Some(_) => (rest, None),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let to = match bare.parse() {
            Ok(address) => To::Address(address),
            Err(_) if host.is_empty() => return Err(error()),
            Err(_) => To::Name(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()),
        };
        Ok(Self { to, port, protocol })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.to, self.port) {
            (To::Name(name) | To::Unix(name), _) => f.write_str(name)?,
            (To::Address(address @ IpAddr::V6(_)), Some(_)) => write!(f, "[{address}]")?,
            (To::Address(address), _) => write!(f, "{address}")?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.protocol.map_or(Ok(()), |protocol| write!(f, "/{protocol}"))
    }
}

/// Whether two addresses are one to the kernel side.
fn same(a: IpAddr, b: IpAddr) -> bool {
    Address::from(a).judged() == Address::from(b).judged()
}

impl Subject {
    /// Whether it is this name.
    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(&self.to, To::Name(own) if own == name)
    }

    /// Whether an attempt is of it; `answered` are the addresses that answers gave for its name.
    pub(super) fn is_tried_by(&self, attempt: &Attempt, answered: &BTreeSet<IpAddr>) -> bool {
        if let To::Unix(own) = &self.to {
            return attempt.hook.as_deref() == Some("unix") && attempt.subject.as_ref() == Some(own);
        }
        let Some(address) = attempt.address else { return false };
        let host = match &self.to {
            To::Address(own) => same(*own, address),
            To::Name(own) => {
                attempt.name.as_ref() == Some(own)
                    || attempt.names.contains(own)
                    || answered.contains(&address)
            }
            To::Unix(_) => false,
        };
        let port = self.port.is_none_or(|port| attempt.port == Some(port));
        host && port && self.protocol.is_none_or(|protocol| attempt.protocol.as_deref() == Some(protocol))
    }

    /// Whether a question is about it, whatever the port.
    pub(super) fn is_asked_by(&self, question: &Question) -> bool {
        match &self.to {
            To::Name(name) => question.name == *name || question.aliases.contains(name),
            To::Address(own) => {
                let dropped = question.dropped.iter().map(|dropped| &dropped.address);
                question.addresses.iter().chain(dropped).any(|address| same(*own, *address))
            }
            To::Unix(_) => false,
        }
    }
}
