//! A report for programs. Within a version fields are only added.

use serde_json::{Value, json};

use super::{HookReport, Report};
use crate::{
    paths::{Hook, LsmStatus, Path, Restricted, State},
    policy::Restriction,
    scope::confine::probe::Landlock,
};

impl Report {
    /// The report as one object.
    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "egress": env!("CARGO_PKG_VERSION"),
            "kernel": self.kernel,
            "machine": self.machine,
            "user": self.user,
            "policy": self.policy,
            "require": self.require.name(),
            "enough": self.is_enough(),
            "open": self.open().count(),
            "hooks": self.hooks.iter().map(hook).collect::<Vec<_>>(),
            "lsm": lsm(&self.capabilities.lsm),
            "launch": {
                "filter": self.abilities.filter,
                "told": self.abilities.told,
                "landlock": match self.abilities.landlock {
                    Landlock::Scopes => "scopes",
                    Landlock::Files => "files",
                    Landlock::Absent => "absent",
                },
                "landlock_abi": self.landlock_abi,
                "restrictions": self.capabilities.restrictions.iter().map(restriction).collect::<Vec<_>>(),
            },
            "paths": self.paths.iter().map(|path| self.path(path)).collect::<Vec<_>>(),
        })
    }

    fn path(&self, (path, state): &(&'static Path, State)) -> Value {
        let (word, why, closed_by) = match state {
            State::Closed(guards) => ("closed", None, guards.iter().map(ToString::to_string).collect()),
            State::ByPolicy(setting) => ("by-policy", Some((*setting).to_owned()), Vec::new()),
            State::Open(why) => ("open", Some(why.clone()), Vec::new()),
            State::Beyond => ("beyond", None, Vec::new()),
        };
        json!({
            "id": path.id,
            "class": path.class.name(),
            "title": path.title,
            "state": word,
            "why": why,
            "closed_by": closed_by,
            "advice": matches!(state, State::Open(_)).then(|| path.advice(&self.capabilities)),
            "severity": path.severity.name(),
            "since": (!path.since.is_empty()).then_some(path.since),
            "left": path.left,
        })
    }
}

fn hook(hook: &HookReport) -> Value {
    let why = match &hook.state {
        Hook::Active => None,
        Hook::Missing(why) => Some(why),
    };
    json!({
        "name": hook.name,
        "hook": hook.kernel_name,
        "active": hook.state == Hook::Active,
        "required": hook.required,
        "refused": hook.refused,
        "why": why,
    })
}

fn lsm(lsm: &LsmStatus) -> Value {
    let (state, hooks) = match lsm {
        LsmStatus::Active(hooks) => ("active", hooks.iter().collect()),
        LsmStatus::Refused(_) => ("refused", Vec::new()),
        LsmStatus::NoEffect => ("no-effect", Vec::new()),
        LsmStatus::Absent(_) => ("absent", Vec::new()),
    };
    json!({ "state": state, "hooks": hooks, "text": lsm.text() })
}

fn restriction((restriction, restricted): (&Restriction, &Restricted)) -> Value {
    let (state, text) = match restricted {
        Restricted::On(by) => ("on", by.clone()),
        Restricted::Lifted(by) => ("lifted", by.of(*restriction)),
        Restricted::NotNeeded(why) => ("not-needed", why.clone()),
        Restricted::NotPossible(why) => ("not-possible", why.clone()),
    };
    json!({ "name": restriction.name(), "state": state, "text": text })
}
