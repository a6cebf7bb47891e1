//! The verdict about a unix socket: receives whose it is and what it is bound to, gives whether it may be reached and by
//! which rule.
//!
//! A rule names what the *listener* bound itself to, as `ss -xl` shows it: what leads there (links, other names, mounts) is
//! the caller's to make, the listener's own name is not. A socket that was bound to a relative path has no name that a rule
//! could mean.

use egress_common::RuleId;

use crate::{compile::UnixRule, policy::Unix};

/// What the policy says of unix sockets.
#[derive(Clone, Debug)]
pub struct UnixPolicy {
    /// The setting.
    pub unix: Unix,
    /// The rules.
    pub rules: Vec<UnixRule>,
}

/// Whether a socket may be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// The rule that decided; 0 if none did.
    pub(super) rule: RuleId,
}

impl UnixPolicy {
    /// Judges a socket of the scope's own (`own`), or one outside that is bound to `name` and was found at `place`.
    pub(super) fn judge(&self, own: bool, name: Option<&[u8]>, place: Option<&[u8]>) -> Verdict {
        if own && self.unix != Unix::None {
            return Verdict { allowed: true, rule: 0 };
        }
        let names = [name, place];
        let denies = |rule: &&UnixRule| {
            !rule.allow && names.iter().flatten().any(|name| covers(rule.pattern.as_bytes(), name))
        };
        if let Some(rule) = self.rules.iter().find(denies) {
            return Verdict { allowed: false, rule: rule.id };
        }
        if self.unix == Unix::Any {
            return Verdict { allowed: true, rule: 0 };
        }
        let opens =
            |rule: &&UnixRule| rule.allow && name.is_some_and(|name| covers(rule.pattern.as_bytes(), name));
        let rule = self.rules.iter().find(opens);
        Verdict { allowed: rule.is_some(), rule: rule.map_or(0, |rule| rule.id) }
    }
}

/// Whether the pattern stands for the name: itself, or anything that begins with what is before its last `*`. Never a path
/// that climbs, which would lead elsewhere than its beginning says.
fn covers(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.strip_suffix(b"*") {
        Some(beginning) => {
            let climbs =
                name.first() == Some(&b'/') && name.split(|byte| *byte == b'/').any(|part| part == b"..");
            name.starts_with(beginning) && !climbs
        }
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(unix: Unix, rules: &[(bool, &str)]) -> UnixPolicy {
        let rule = |(index, (allow, pattern)): (usize, &(bool, &str))| UnixRule {
            id: RuleId::try_from(index + 1).expect("few rules"),
            allow: *allow,
            pattern: (*pattern).to_owned(),
        };
        UnixPolicy { unix, rules: rules.iter().enumerate().map(rule).collect() }
    }

    /// Seen to catch: names that only begin with a pattern.
    #[test]
    fn rules_are_judged_by_the_listeners_own_name() {
        let rules = [(true, "/run/a"), (true, "/run/b/*"), (false, "/run/b/secret"), (true, "@x*")];
        for (unix, own, name, place, expected) in [
            (Unix::Own, true, Some("/anything"), None, (true, 0)),
            (Unix::Own, true, None, None, (true, 0)),
            (Unix::None, true, Some("/anything"), None, (false, 0)),
            (Unix::None, true, Some("/run/a"), None, (true, 1)),
            (Unix::Own, false, None, Some("/run/a"), (false, 0)),
            (Unix::Own, false, Some("/run/a"), Some("/tmp/link"), (true, 1)),
            (Unix::Own, false, Some("/run/a2"), Some("/run/a"), (false, 0)),
            (Unix::Own, false, Some("/run/"), None, (false, 0)),
            (Unix::Own, false, Some("/run/b/"), None, (true, 2)),
            (Unix::Own, false, Some("/run/b/c"), None, (true, 2)),
            (Unix::Own, false, Some("/run/b"), None, (false, 0)),
            (Unix::Own, false, Some("/run/b/../docker.sock"), None, (false, 0)),
            (Unix::Own, false, Some("/run/b/secret"), None, (false, 3)),
            (Unix::Own, false, Some("/run/b/c"), Some("/run/b/secret"), (false, 3)),
            (Unix::Own, false, Some("@x"), None, (true, 4)),
            (Unix::Own, false, Some("@xyz/../"), None, (true, 4)),
            (Unix::Own, false, Some("@y"), None, (false, 0)),
            (Unix::Any, false, Some("@y"), None, (true, 0)),
            (Unix::Any, false, Some("/run/b/secret"), None, (false, 3)),
        ] {
            let policy = policy(unix, &rules);
            let verdict = policy.judge(own, name.map(str::as_bytes), place.map(str::as_bytes));
            assert_eq!((verdict.allowed, verdict.rule), expected, "{unix:?} {own} {name:?} {place:?}");
        }
    }
}
