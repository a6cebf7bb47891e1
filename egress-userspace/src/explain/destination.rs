//! Destinations as people write them: receives `host:port`, `ip:port` or `[v6]:port`, gives a name or an address.

use std::{fmt, net::IpAddr, str::FromStr};

use egress_common::Transport;
use thiserror::Error;

use super::transport_name;
use crate::policy::{parse_host, split_port, split_transport};

/// A destination that one asks about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    /// A name or an address.
    pub to: To,
    /// Its port.
    pub port: u16,
    /// TCP unless it says otherwise.
    pub transport: Transport,
}

/// Name or address of a destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// A host name in normal form.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Why a text is no destination.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum DestinationError {
    /// No port, or no name before it.
    #[error("`{0}` is no destination: expected host:port, ip:port or [v6]:port, and /udp for UDP")]
    Form(String),
    /// No port number.
    #[error("`{0}` is no destination: its port is no number from 1 to 65535")]
    Port(String),
    /// Neither a host name nor an address.
    #[error("`{0}` is no destination: its host is neither a name nor an address")]
    Host(String),
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let form = || DestinationError::Form(text.to_owned());
        let (rest, transports) = split_transport(text);
        let [transport] = transports[..] else { return Err(form()) };
        let (host, port) = split_port(rest).ok_or_else(form)?;
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 && !rest.ends_with(&format!("+{port}")) => port,
            _ => return Err(DestinationError::Port(text.to_owned())),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let to = match bare.unwrap_or(host).parse::<IpAddr>() {
            Ok(address) => To::Address(address),
            Err(_) => match parse_host(host) {
                Ok(name) if !name.starts_with("*.") => To::Name(name),
                _ => return Err(DestinationError::Host(text.to_owned())),
            },
        };
        Ok(Self { to, port, transport })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Name(name) => write!(f, "{name}")?,
            To::Address(IpAddr::V4(v4)) => write!(f, "{v4}")?,
            To::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]")?,
        }
        write!(f, ":{}/{}", self.port, transport_name(self.transport))
    }
}
