//! Writes compiled policies, permits and scope states into the kernel's tables, and reads the counters.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use egress_common::{
    Asker, AskerKey, Counters, Listener, ListenerKey, Network, NetworkKey, Permit, PermitKey, PortKey,
    PortRule, Scope,
};
use zerocopy::{Immutable, IntoBytes};

use super::{EnforceError, Engine, sys};
use crate::compile::{Compiled, LpmEntry};

/// A table of the kernel could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is full. What was there is untouched.
    #[error("the {0} table is full: what is there stays, the new entry is not permitted")]
    Full(&'static str),
    /// The kernel refused for another reason.
    #[error("cannot write the {0} table: {1}")]
    Write(&'static str, io::Error),
}

/// Key of an LPM map as the kernel wants it: prefix length in bits, then the data.
#[derive(IntoBytes, Immutable)]
#[repr(C, packed)]
struct LpmKey<K> {
    prefix: u32,
    data: K,
}

impl Engine {
    /// Writes a policy's networks and ports into a slot. The scope does not see them until its state names the slot.
    ///
    /// # Errors
    /// [`TableError`]; what was written of this slot stays until [`Engine::clear_slot`].
    pub fn write_slot(&self, slot: u32, compiled: &Compiled) -> Result<(), EnforceError> {
        let (networks, ports) = (self.map("NETWORKS")?, self.map("PORTS")?);
        for (entry, rule) in compiled.port_entries(slot) {
            insert::<PortKey, PortRule>(ports, "port", entry, rule)?;
        }
        for (entry, network) in compiled.network_entries(slot) {
            insert::<NetworkKey, Network>(networks, "network", entry, network)?;
        }
        Ok(())
    }

    /// Removes a policy's networks and ports from a slot that no scope names any more.
    ///
    /// # Errors
    /// [`TableError::Write`].
    pub fn clear_slot(&self, slot: u32, compiled: &Compiled) -> Result<(), EnforceError> {
        let (networks, ports) = (self.map("NETWORKS")?, self.map("PORTS")?);
        for ((prefix, data), _) in compiled.network_entries(slot) {
            remove(networks, "network", &LpmKey { prefix, data })?;
        }
        for ((prefix, data), _) in compiled.port_entries(slot) {
            remove(ports, "port", &LpmKey { prefix, data })?;
        }
        Ok(())
    }

    /// Sets a scope's state in one write: programs see the old one or the new one. The scope must be attached.
    ///
    /// # Errors
    /// [`TableError::Write`]; ENOENT if no program is attached to the cgroup.
    pub fn set_scope(&self, cgroup: u64, scope: &Scope) -> Result<(), EnforceError> {
        sys::map_update(self.map("SCOPE")?, &cgroup, scope, sys::ANY)
            .map_err(|error| TableError::Write("scope", error).into())
    }

    /// Reads a scope's state back.
    ///
    /// # Errors
    /// If no program is attached to the cgroup.
    pub fn scope(&self, cgroup: u64) -> Result<Scope, EnforceError> {
        sys::map_lookup(self.map("SCOPE")?, &cgroup)
            .map_err(|error| EnforceError::other("read the scope's state", error))
    }

    /// A scope's counters, summed over the CPUs.
    ///
    /// # Errors
    /// If no program is attached to the cgroup.
    pub fn counters(&self, cgroup: u64) -> Result<Counters, EnforceError> {
        let values: Vec<Counters> = sys::map_lookup_per_cpu(self.map("COUNTERS")?, &cgroup, self.cpus)
            .map_err(|error| EnforceError::other("read the scope's counters", error))?;
        let mut sum = Counters::ZERO;
        for value in &values {
            sum.add(value);
        }
        Ok(sum)
    }

    /// Sets a scope's counters to zero; only for the time before anything but the self-test ran in it.
    ///
    /// # Errors
    /// If no program is attached to the cgroup.
    pub fn reset_counters(&self, cgroup: u64) -> Result<(), EnforceError> {
        sys::map_update_per_cpu(self.map("COUNTERS")?, &cgroup, &Counters::ZERO, self.cpus)
            .map_err(|error| EnforceError::other("reset the scope's counters", error))
    }

    /// What the hooks keep on sockets, for a process that looks a socket up by its descriptor.
    ///
    /// # Errors
    /// If the kernel side has no such map, or no descriptor is to be had.
    pub fn tags(&self) -> Result<OwnedFd, EnforceError> {
        let tags = self.map("TAGS")?.try_clone_to_owned();
        tags.map_err(|error| EnforceError::other("duplicate a descriptor", error))
    }

    /// The clients of questions on their way.
    ///
    /// # Errors
    /// If the kernel side has no such map.
    pub fn askers(&self) -> Result<Askers<'_>, EnforceError> {
        Ok(Askers(self.map("ASKERS")?))
    }

    /// Makes a scope's listener in a network namespace known: it answers until `expires` (`CLOCK_BOOTTIME` ns; 0: there can
    /// be none).
    ///
    /// # Errors
    /// [`TableError`].
    pub fn set_listener(&self, key: &ListenerKey, expires: u64) -> Result<(), EnforceError> {
        sys::map_update(self.map("LISTENERS")?, key, &Listener { expires }, sys::ANY)
            .map_err(|error| table_error("listener", error).into())
    }

    /// Forgets a listener: the next question there is as the first.
    ///
    /// # Errors
    /// [`TableError::Write`].
    pub fn remove_listener(&self, key: &ListenerKey) -> Result<(), EnforceError> {
        remove(self.map("LISTENERS")?, "listener", key)?;
        Ok(())
    }

    /// The table of permits.
    ///
    /// # Errors
    /// If the kernel side has no such map.
    pub fn permits(&self) -> Result<Permits<'_>, EnforceError> {
        Ok(Permits(self.map("PERMITS")?))
    }
}

/// The kernel's table of clients whose questions are on their way.
#[derive(Clone, Copy, Debug)]
pub struct Askers<'a>(BorrowedFd<'a>);

impl Askers<'_> {
    /// The client of a question, which is thereby done with; `None` if it did not come from the scope.
    ///
    /// # Errors
    /// [`TableError::Write`].
    pub fn take(&self, key: &AskerKey) -> Result<Option<Asker>, TableError> {
        sys::map_take(self.0, key).map_err(|error| table_error("asker", error))
    }
}

/// The kernel's table of permits.
#[derive(Clone, Copy, Debug)]
pub struct Permits<'a>(BorrowedFd<'a>);

impl Permits<'_> {
    /// Writes or replaces a permit.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn write(&self, key: &PermitKey, permit: &Permit) -> Result<(), TableError> {
        sys::map_update(self.0, key, permit, sys::ANY).map_err(|error| table_error("permit", error))
    }

    /// Removes a permit; whether there was one.
    ///
    /// # Errors
    /// [`TableError::Write`].
    pub fn remove(&self, key: &PermitKey) -> Result<bool, TableError> {
        sys::map_delete(self.0, key).map_err(|error| table_error("permit", error))
    }

    /// All permits of a slot. For a time in which nobody removes any.
    ///
    /// # Errors
    /// [`TableError::Write`].
    pub fn of_slot(&self, slot: u32) -> Result<Vec<(PermitKey, Permit)>, TableError> {
        let mut found = Vec::new();
        let mut last: Option<PermitKey> = None;
        while let Some(key) =
            sys::map_next_key(self.0, last.as_ref()).map_err(|error| table_error("permit", error))?
        {
            if key.slot == slot
                && let Some(permit) = self.read(&key)?
            {
                found.push((key, permit));
            }
            last = Some(key);
        }
        Ok(found)
    }

    /// Reads a permit.
    ///
    /// # Errors
    /// [`TableError::Write`] for anything but its absence.
    pub fn read(&self, key: &PermitKey) -> Result<Option<Permit>, TableError> {
        match sys::map_lookup(self.0, key) {
            Ok(permit) => Ok(Some(permit)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(table_error("permit", error)),
        }
    }
}

fn insert<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    table: &'static str,
    (prefix, data): LpmEntry<K>,
    value: V,
) -> Result<(), TableError> {
    sys::map_update(map, &LpmKey { prefix, data }, &value, sys::ANY)
        .map_err(|error| table_error(table, error))
}

fn remove<K: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    table: &'static str,
    key: &K,
) -> Result<bool, TableError> {
    sys::map_delete(map, key).map_err(|error| table_error(table, error))
}

/// E2BIG is a full hash, ENOSPC a full LPM trie.
fn table_error(table: &'static str, error: io::Error) -> TableError {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => TableError::Full(table),
        _ => TableError::Write(table, error),
    }
}
