//! What lookups came to, for those who tell people and programs of it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use thiserror::Error;

/// What came of one lookup of one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Its addresses are open.
    Opened {
        /// The name.
        name: String,
        /// The addresses that are open.
        addresses: Vec<IpAddr>,
        /// For how long the answer is good; the permits last a little longer.
        ttl: Duration,
        /// Why one address family is missing, if its question failed.
        missing: Option<ResolveError>,
    },
    /// It could not be resolved.
    Failed {
        /// The name.
        name: String,
        /// Why.
        error: ResolveError,
        /// How long what an earlier answer opened stays open; zero if nothing is.
        open_for: Duration,
    },
    /// It resolves to an address that a name may not open.
    Refused {
        /// The name.
        name: String,
        /// The address.
        address: IpAddr,
        /// Why.
        why: &'static str,
    },
    /// The table had no room for it.
    Full {
        /// The name.
        name: String,
        /// How long what an earlier answer opened stays open; zero if nothing is.
        open_for: Duration,
    },
    /// The table could not be written.
    Unwritable {
        /// The name.
        name: String,
        /// What the kernel said.
        error: String,
        /// How long what an earlier answer opened stays open; zero if nothing is.
        open_for: Duration,
    },
}

impl Outcome {
    /// The name that it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Opened { name, .. }
            | Self::Failed { name, .. }
            | Self::Refused { name, .. }
            | Self::Full { name, .. }
            | Self::Unwritable { name, .. } => name,
        }
    }
}

/// Why a name has no addresses.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum ResolveError {
    /// NXDOMAIN.
    #[error("the name does not exist")]
    NotFound,
    /// NODATA.
    #[error("the name has no address")]
    NoAddress,
    /// SERVFAIL, REFUSED …
    #[error("server {server} answered {code}")]
    Failure {
        /// Who.
        server: SocketAddr,
        /// Name of the response code.
        code: &'static str,
    },
    /// No server answered in time.
    #[error("no name server answered in time")]
    TimedOut,
    /// The question could not be sent.
    #[error("cannot ask server {server}: {message}")]
    Io {
        /// Whom.
        server: SocketAddr,
        /// What the kernel said.
        message: String,
    },
    /// No name that can be asked for.
    #[error("not a name that DNS can carry")]
    BadName,
    /// There is nobody to ask.
    #[error("no name server is configured")]
    NoServer,
}
