//! Another policy for a scope in force: written beside the old one, put into force in one write, and the old one cleared
//! once no program reads it any more.

use std::{collections::BTreeMap, time::Duration};

use egress_common::{Permit, PermitKey, RuleId};

use super::{
    enforced::{EnforcedScope, InForce},
    live::{self, Destroyed, Replaced, Standard, Tell},
};
use crate::{
    compile::{
        Compiled,
        memory::{self, MemoryTables},
    },
    enforce::EnforceError,
};

/// Writes the new policy into a slot that was never used before and puts it into force, with the permits that still hold;
/// flows that do not fit are destroyed.
///
/// Sockets are looked through twice: once before, so that what ends a connection still reaches its other end, and once
/// after, for those that were opened meanwhile.
pub(super) fn replace(
    scope: &EnforcedScope,
    old: &InForce,
    new: &InForce,
    tell: Tell<'_>,
) -> Result<Destroyed, EnforceError> {
    let (engine, cgroup, slot) = (&scope.engine, scope.cgroup(), new.state.slot);
    let rules = unchanged(&old.compiled, &new.compiled);
    let permits = carried(&engine.permits()?.of_slot(old.state.slot)?, &rules, slot);
    let mut tables = MemoryTables::new(&new.compiled);
    for (key, permit) in &permits {
        tables.insert(PermitKey { slot: memory::SLOT, ..*key }, *permit);
    }
    let mut standard = Standard {
        tables: &tables,
        dns_port: new.state.dns_port,
        epoch: new.state.epoch,
        replaced: Some(Replaced { epoch: old.state.epoch, rules }),
        before: true,
    };
    let mut found = Destroyed::default();
    let in_force = write(scope, &new.compiled, &permits, slot).and_then(|()| {
        live::cut(engine, cgroup, &standard, &mut found, tell);
        put_into_force(scope, old, new)
    });
    if let Err(error) = in_force {
        clear(scope, &new.compiled, slot)?;
        return Err(error);
    }
    live::settle(engine, cgroup, new.compiled.audit, &mut found, tell);
    standard.before = false;
    live::cut(engine, cgroup, &standard, &mut found, tell);
    wait_for_programs();
    if let Err(error) = clear(scope, &old.compiled, old.state.slot) {
        // Only room is lost: no state names the slot ever again.
        tracing::warn!(slot = old.state.slot, %error, "the policy before stays in the tables");
    }
    Ok(found)
}

/// The LSM layer first: until the hooks of the cgroup follow, what passes must fit both policies.
fn put_into_force(scope: &EnforcedScope, old: &InForce, new: &InForce) -> Result<(), EnforceError> {
    let engine = &scope.engine;
    let Ok(lsm) = scope.lsm() else { return engine.set_scope(scope.cgroup().id(), &new.state) };
    let put = |from: &InForce, to: &InForce| {
        lsm.replace(engine, &to.state, (&from.compiled, &to.compiled), &to.permitted)
    };
    let done = put(old, new).and_then(|()| engine.set_scope(scope.cgroup().id(), &new.state));
    if done.is_err() {
        put(new, old)?;
    }
    done
}

fn write(
    scope: &EnforcedScope,
    compiled: &Compiled,
    permits: &[(PermitKey, Permit)],
    slot: u32,
) -> Result<(), EnforceError> {
    scope.engine.write_slot(slot, compiled)?;
    let table = scope.engine.permits()?;
    permits.iter().try_for_each(|(key, permit)| table.write(key, permit)).map_err(EnforceError::from)
}

fn clear(scope: &EnforcedScope, compiled: &Compiled, slot: u32) -> Result<(), EnforceError> {
    scope.engine.clear_slot(slot, compiled)?;
    let table = scope.engine.permits()?;
    for (key, _) in table.of_slot(slot)? {
        table.remove(&key)?;
    }
    Ok(())
}

/// The host rules that the new policy has unchanged, with their new numbers. Which name below a wildcard an address is of is
/// not known here, so wildcards end if the new policy denies names that the old one did not; the next question opens
/// their addresses again.
fn unchanged(old: &Compiled, new: &Compiled) -> BTreeMap<RuleId, RuleId> {
    let more_denied =
        new.denied_hosts.iter().any(|(name, _)| !old.denied_hosts.iter().any(|(before, _)| before == name));
    let mut rules = BTreeMap::new();
    for before in &old.hosts {
        let same = new.hosts.iter().find(|after| {
            (&after.host, &after.ports, &after.transports, after.private, &after.own)
                == (&before.host, &before.ports, &before.transports, before.private, &before.own)
        });
        if let Some(after) = same.filter(|after| !(more_denied && after.host.starts_with('*'))) {
            rules.insert(before.id, after.id);
        }
    }
    rules
}

/// The permits of these rules, in another slot and under their new numbers.
fn carried(
    permits: &[(PermitKey, Permit)],
    rules: &BTreeMap<RuleId, RuleId>,
    slot: u32,
) -> Vec<(PermitKey, Permit)> {
    let carry = |(key, permit): &(PermitKey, Permit)| {
        let rule = *rules.get(&permit.rule)?;
        Some((PermitKey { slot, ..*key }, Permit { rule, ..*permit }))
    };
    permits.iter().filter_map(carry).collect()
}

/// Returns when every program that began before has ended: one that has read the old state goes on to read the old tables.
fn wait_for_programs() {
    const GLOBAL: i32 = 1;
    // SAFETY: plain numbers.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } == 0;
    let several = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
    if !(waited && several) {
        // With one CPU the call returns at once, though a program may be preempted; others may not have it.
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use egress_common::{Address, Transport};

    use super::*;
    use crate::compile::{HostRule, PortRange};

    fn policy(hosts: &[(RuleId, &str, u16)], denied: &[&str]) -> Compiled {
        let host = |&(id, host, port): &(RuleId, &str, u16)| HostRule {
            id,
            host: host.to_owned(),
            ports: vec![PortRange { first: port, last: port }],
            transports: vec![Transport::Tcp],
            private: false,
            own: [].into(),
        };
        Compiled {
            hosts: hosts.iter().map(host).collect(),
            denied_hosts: denied.iter().map(|name| ((*name).to_owned(), 9)).collect(),
            ..Compiled::default()
        }
    }

    #[test]
    fn permits_of_unchanged_rules_go_on_under_their_new_number() {
        let old = policy(&[(1, "a.example", 443), (2, "*.b.example", 443), (3, "c.example", 443)], &[]);
        let address = Address::from_v4([192, 0, 2, 1]);
        let permits: Vec<_> = old.hosts.iter().flat_map(|host| host.permits(1, address, 7)).collect();
        let rules = |new: &Compiled| -> Vec<(u32, u32)> {
            carried(&permits, &unchanged(&old, new), 2)
                .iter()
                .map(|(key, permit)| (key.slot, permit.rule))
                .collect()
        };
        let new = policy(&[(5, "a.example", 443), (6, "*.b.example", 443), (7, "c.example", 444)], &[]);
        assert_eq!(rules(&new), [(2, 5), (2, 6)]);
        let new = policy(&[(5, "a.example", 443), (6, "*.b.example", 443)], &["x.b.example"]);
        assert_eq!(rules(&new), [(2, 5)]);
        assert!(rules(&policy(&[], &[])).is_empty());
    }
}
