//! Destinations as people write them: receives `host:port`, `ip:port`, `[v6]:port`, `host/icmp`, `unix:name` or
//! `inbound:port`, gives what is meant.

use std::{fmt, net::IpAddr, str::FromStr};

use egress_common::Transport;
use thiserror::Error;

use super::transport_name;
use crate::policy::{ICMP, UNIX, parse_host, split_port, split_transport};

/// A destination that one asks about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    /// What it leads to.
    pub to: To,
    /// Its port; 0 for ping and unix sockets.
    pub port: u16,
    /// TCP unless it says otherwise. Unix sockets have none.
    pub transport: Transport,
}

/// What a destination leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// A host name in normal form.
    Name(String),
    /// An address.
    Address(IpAddr),
    /// The path that a unix socket is bound to, or `@` and its abstract name.
    Unix(String),
    /// Into the scope: somebody outside connects to the port.
    Inbound,
}

/// Why a text is no destination.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum DestinationError {
    /// No port, or no name before it.
    #[error(
        "`{0}` is no destination: expected host:port, ip:port or [v6]:port, and /udp for UDP; or host/icmp, unix:path, inbound:port"
    )]
    Form(String),
    /// No port number.
    #[error("`{0}` is no destination: its port is no number from 1 to 65535")]
    Port(String),
    /// Neither a host name nor an address.
    #[error("`{0}` is no destination: its host is neither a name nor an address")]
    Host(String),
    /// No name of a unix socket.
    #[error("`{0}` is no destination: a unix socket's name begins with `/`, or with `@` if it is abstract")]
    Unix(String),
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Some(name) = text.strip_prefix(UNIX) {
            return match name.starts_with(['/', '@']) {
                true => Ok(Self { to: To::Unix(name.to_owned()), port: 0, transport: Transport::Tcp }),
                false => Err(DestinationError::Unix(text.to_owned())),
            };
        }
        if let Some(host) = text.strip_suffix(ICMP) {
            return Ok(Self { to: host_of(host, text)?, port: 0, transport: Transport::Icmp });
        }
        let form = || DestinationError::Form(text.to_owned());
        let (rest, transports) = split_transport(text);
        let [transport] = transports[..] else { return Err(form()) };
        let (host, port) = split_port(rest).ok_or_else(form)?;
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 && !rest.ends_with(&format!("+{port}")) => port,
            _ => return Err(DestinationError::Port(text.to_owned())),
        };
        let to = if host == INBOUND { To::Inbound } else { host_of(host, text)? };
        Ok(Self { to, port, transport })
    }
}

/// What stands in the place of a host where somebody outside connects.
const INBOUND: &str = "inbound";

fn host_of(host: &str, text: &str) -> Result<To, DestinationError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(host).parse::<IpAddr>() {
        Ok(address) => Ok(To::Address(address)),
        Err(_) => match parse_host(host) {
            Ok(name) if !name.starts_with("*.") => Ok(To::Name(name)),
            _ => Err(DestinationError::Host(text.to_owned())),
        },
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Name(name) => write!(f, "{name}")?,
            To::Address(IpAddr::V4(v4)) => write!(f, "{v4}")?,
            To::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]")?,
            To::Unix(name) => return write!(f, "{UNIX}{name}"),
            To::Inbound => f.write_str(INBOUND)?,
        }
        if self.transport != Transport::Icmp {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}", transport_name(self.transport))
    }
}
