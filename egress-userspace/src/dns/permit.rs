//! The ledger of permits: what names opened in the kernel's table, and until when.
//!
//! Writes before anyone is told of an address, never shortens a permit and never takes one back inside its time; a full
//! table fails the new entry alone.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use egress_common::{Address, Permit, PermitKey};
use thiserror::Error;

use super::{clock::nanoseconds, special::refusal_of_rule};
use crate::compile::HostRule;

/// Shortest and longest time that an answer opens its addresses for.
pub const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// What clients get on top: they looked the name up later than we did, and connect at the end of its time.
pub const GRACE: Duration = Duration::from_secs(30);

/// Expired permits stay this long, so that a denial can name the rule whose time was over.
const KEEP: Duration = Duration::from_secs(3600);

/// Most expired permits that stay.
const MAX_EXPIRED: usize = 8_192;

/// Most permits removed at a time, so that nobody waits for the end of a mass expiry.
const SWEEP: usize = 1_024;

/// The table of permits, in the kernel or in memory.
pub trait PermitTable {
    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// [`PermitError`]; the entry is as it was.
    fn write(&mut self, key: &PermitKey, permit: &Permit) -> Result<(), PermitError>;

    /// Removes an entry; that there is none is no error.
    ///
    /// # Errors
    /// [`PermitError::Io`]; the entry is as it was.
    fn remove(&mut self, key: &PermitKey) -> Result<(), PermitError>;
}

/// Why a permit could not be written or removed.
#[derive(Debug, Error)]
pub enum PermitError {
    /// No room for a new entry.
    #[error("the table of permits is full")]
    Full,
    /// The table cannot be written at all.
    #[error("cannot write the table of permits: {0}")]
    Io(#[from] std::io::Error),
    /// An address that no rule opens was about to be answered.
    #[error("no rule opens {0}")]
    NoRule(IpAddr),
}

/// What is open, in the order in which it ends.
#[derive(Debug)]
pub struct Ledger {
    slot: u32,
    written: HashMap<PermitKey, Permit>,
    live: BTreeSet<(u64, PermitKey)>,
    expired: BTreeSet<(u64, PermitKey)>,
    /// Number of permits of each address.
    addresses: HashMap<Address, u32>,
    /// Addresses whose last permit is gone, until somebody asks.
    closed: Vec<Address>,
}

impl Ledger {
    /// An empty one, for a slot of the tables.
    pub fn new(slot: u32) -> Self {
        Self {
            slot,
            written: HashMap::new(),
            live: BTreeSet::new(),
            expired: BTreeSet::new(),
            addresses: HashMap::new(),
            closed: Vec::new(),
        }
    }

    /// Opens addresses, each with its time to live in seconds, under every rule that may have them; gives when the first
    /// of them closes (`CLOCK_BOOTTIME` ns), the end of time if there is none.
    ///
    /// # Errors
    /// [`PermitError`]: nobody may be told of the addresses. What was added is taken back.
    pub fn open<T: PermitTable>(
        &mut self,
        table: &mut T,
        rules: &[HostRule],
        addresses: &[(IpAddr, u32)],
        now: u64,
    ) -> Result<u64, PermitError> {
        self.sweep(table, now);
        let mut added = Vec::new();
        let mut until = u64::MAX;
        for &(address, ttl) in addresses {
            let expires = expiry(ttl, now);
            if let Err(error) = self.open_one(table, rules, address, expires, now, &mut added) {
                added.iter().for_each(|key| {
                    self.forget(table, key);
                });
                return Err(error);
            }
            until = until.min(expires);
        }
        Ok(until)
    }

    fn open_one<T: PermitTable>(
        &mut self,
        table: &mut T,
        rules: &[HostRule],
        address: IpAddr,
        expires: u64,
        now: u64,
        added: &mut Vec<PermitKey>,
    ) -> Result<(), PermitError> {
        // The kernel looks an address up by what it embeds.
        let key = Address::from(address).judged();
        let mut opened = false;
        for rule in rules.iter().filter(|rule| refusal_of_rule(rule, address).is_none()) {
            for (key, permit) in rule.permits(self.slot, key, expires) {
                if self.write(table, key, permit, now)? {
                    added.push(key);
                }
                opened = true;
            }
        }
        if opened { Ok(()) } else { Err(PermitError::NoRule(address)) }
    }

    /// Writes a permit unless what is there lasts as long; whether it is a new one.
    fn write<T: PermitTable>(
        &mut self,
        table: &mut T,
        key: PermitKey,
        permit: Permit,
        now: u64,
    ) -> Result<bool, PermitError> {
        let known = self.written.get(&key).copied();
        if known.is_some_and(|known| known.expires >= permit.expires) {
            return Ok(false);
        }
        match table.write(&key, &permit) {
            Err(PermitError::Full) if self.drop_expired(table, now) => table.write(&key, &permit)?,
            result => result?,
        }
        // Room may have been made by removing this very entry.
        let known = known.filter(|_| self.written.contains_key(&key));
        match known {
            Some(known) => self.unlist(&key, known.expires),
            None => *self.addresses.entry(key.address).or_default() += 1,
        }
        self.written.insert(key, permit);
        self.live.insert((permit.expires, key));
        Ok(known.is_none())
    }

    /// Removes permits whose time has been over for long, and the oldest of too many.
    pub fn sweep<T: PermitTable>(&mut self, table: &mut T, now: u64) {
        self.set_aside(now);
        let long_ago = now.saturating_sub(nanoseconds(KEEP));
        for _ in 0..SWEEP {
            match self.expired.first() {
                Some(&(expires, key)) if expires <= long_ago || self.expired.len() > MAX_EXPIRED => {
                    if !self.forget(table, &key) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Makes room at the cost of expired permits; whether there is any.
    fn drop_expired<T: PermitTable>(&mut self, table: &mut T, now: u64) -> bool {
        self.set_aside(now);
        let oldest: Vec<PermitKey> = self.expired.iter().take(SWEEP).map(|(_, key)| *key).collect();
        oldest.iter().filter(|key| self.forget(table, key)).count() > 0
    }

    /// Moves what has expired from the live permits.
    fn set_aside(&mut self, now: u64) {
        while let Some(&(expires, key)) = self.live.first().filter(|(expires, _)| *expires <= now) {
            self.live.pop_first();
            self.expired.insert((expires, key));
        }
    }

    /// Removes a permit. One that cannot be removed stays known, so that it is tried again; it expires by itself.
    fn forget<T: PermitTable>(&mut self, table: &mut T, key: &PermitKey) -> bool {
        if table.remove(key).is_err() {
            return false;
        }
        if let Some(permit) = self.written.remove(key) {
            self.unlist(key, permit.expires);
            if let Some(count) = self.addresses.get_mut(&key.address) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&key.address);
                    self.closed.push(key.address);
                }
            }
        }
        true
    }

    fn unlist(&mut self, key: &PermitKey, expires: u64) {
        if !self.live.remove(&(expires, *key)) {
            self.expired.remove(&(expires, *key));
        }
    }

    /// Addresses that have lost their last permit since the last call; some may have a new one.
    pub fn take_closed(&mut self) -> Vec<Address> {
        let mut closed = std::mem::take(&mut self.closed);
        closed.retain(|address| !self.addresses.contains_key(address));
        closed
    }

    /// Number of permits in the table, expired ones included.
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }
}

/// When an address closes that an answer opened with a time to live in seconds.
fn expiry(ttl: u32, now: u64) -> u64 {
    let ttl = Duration::from_secs(u64::from(ttl)).clamp(TTL.0, TTL.1);
    now.saturating_add(nanoseconds(ttl + GRACE))
}

#[cfg(test)]
mod tests;
