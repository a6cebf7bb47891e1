//! What lookups came to, for those who tell people and programs of it.

use std::{net::IpAddr, time::Duration};

use super::resolver::ResolveError;

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
