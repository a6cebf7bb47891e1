//! Unix sockets: receives the name that a socket is bound to, gives the rule that speaks of it and the verdict.

use egress_common::{Decision, Reason, RuleId};

use super::Compiled;
use crate::policy::Unix;

/// A rule about unix sockets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnixRule {
    /// Its number.
    pub id: RuleId,
    /// Opens, or closes whatever opens.
    pub allow: bool,
    /// Path that the socket is bound to, or `@` and an abstract name; a `*`, only ever the last character, stands for any
    /// rest.
    pub pattern: String,
}

/// The name that a unix socket is bound to. A path that begins with `@` is no abstract name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UnixName<'a> {
    /// A path, without the zero at its end.
    Path(&'a [u8]),
    /// An abstract name, without the zero at its beginning.
    Abstract(&'a [u8]),
}

/// Two names of one directory; a service is bound to either.
const RUN: [&str; 2] = ["/run/", "/var/run/"];

impl UnixRule {
    /// The rules of a pattern: one, or for what is below `/run` one for each name that this has.
    pub(super) fn all(id: RuleId, allow: bool, pattern: &str) -> Vec<Self> {
        let rule = |pattern: String| Self { id, allow, pattern };
        match RUN.iter().find_map(|run| pattern.strip_prefix(run)) {
            Some(rest) => RUN.iter().map(|run| rule(format!("{run}{rest}"))).collect(),
            None => vec![rule(pattern.to_owned())],
        }
    }

    /// Whether it speaks of the name.
    pub fn covers(&self, name: UnixName<'_>) -> bool {
        let (pattern, name) = match (self.pattern.strip_prefix('@'), name) {
            (Some(pattern), UnixName::Abstract(name)) => (pattern, name),
            (None, UnixName::Path(name)) => (self.pattern.as_str(), name),
            _ => return false,
        };
        match pattern.strip_suffix('*') {
            Some(front) => name.starts_with(front.as_bytes()),
            None => name == pattern.as_bytes(),
        }
    }
}

impl Compiled {
    /// The rule that decides about a name: deny before allow, then the one that says most of it. `None`: no rule speaks of
    /// it.
    pub fn unix_rule(&self, name: UnixName<'_>) -> Option<&UnixRule> {
        self.unix_rules.iter().filter(|rule| rule.covers(name)).min_by_key(|rule| {
            let wildcard = rule.pattern.ends_with('*');
            (rule.allow, wildcard, usize::MAX - rule.pattern.len(), rule.id)
        })
    }

    /// Decides about a unix socket; `own`: every process that has it belongs to the scope. One without a name has none
    /// that a rule could speak of. Ignores the mode: see [`Decision::in_mode`].
    pub fn decide_unix(&self, name: Option<UnixName<'_>>, own: bool) -> Decision {
        match name.and_then(|name| self.unix_rule(name)) {
            Some(rule) if !rule.allow => Decision::deny(Reason::DenyRule, rule.id),
            _ if own && self.unix != Unix::None => Decision::allow(Reason::Own, 0),
            Some(rule) => Decision::allow(Reason::Rule, rule.id),
            None => Decision::deny(Reason::Unix, 0),
        }
    }

    /// Whether no unix socket is ever refused, so that nobody needs to look.
    pub fn unix_is_open(&self) -> bool {
        self.unix == Unix::Any && self.unix_rules.iter().all(|rule| rule.allow)
    }
}

#[cfg(test)]
mod tests {
    use egress_common::Verdict;

    use super::*;

    fn compiled(unix: Unix, rules: &[(bool, &str)]) -> Compiled {
        let rule = |(id, &(allow, pattern)): (u32, &(bool, &str))| UnixRule {
            id,
            allow,
            pattern: pattern.to_owned(),
        };
        Compiled { unix, unix_rules: (1..).zip(rules).map(rule).collect(), ..Compiled::default() }
    }

    #[test]
    fn deny_goes_first_and_the_closest_is_named() {
        // Mutations seen to fail here: allow before deny; the shortest pattern preferred; a path's `@` taken for abstract;
        // a wildcard that needs one character more.
        let rules = [
            (true, "/run/*"),
            (true, "/run/a.sock"),
            (true, "/run/a*"),
            (false, "/run/b*"),
            (true, "/run/b.sock"),
            (true, "@x*"),
            (true, "@*/"),
        ];
        let compiled = compiled(Unix::Own, &rules);
        let rule = |name| compiled.unix_rule(name).map(|rule| rule.id);
        for (path, expected) in [
            ("/run/", Some(1)),
            ("/run/c/d", Some(1)),
            ("/run", None),
            ("/run/a.sock", Some(2)),
            ("/run/a.socket", Some(3)),
            ("/run/a", Some(3)),
            ("/run/b.sock", Some(4)),
            ("/run/b", Some(4)),
            ("@x", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(rule(UnixName::Path(path.as_bytes())), expected, "{path}");
        }
        for (name, expected) in
            [("x", Some(6)), ("xyz", Some(6)), ("*/", Some(7)), ("/run/c", None), ("", None)]
        {
            assert_eq!(rule(UnixName::Abstract(name.as_bytes())), expected, "@{name}");
        }
    }

    #[test]
    fn own_sockets_pass_unless_none_or_denied() {
        // Mutations seen to fail here: own before deny; `none` that leaves own ones open; a rule that `none` closes.
        let rules = [(true, "/open"), (false, "/shut")];
        let name = |text: &'static str| Some(UnixName::Path(text.as_bytes()));
        for (unix, path, own, expected) in [
            (Unix::Own, name("/x"), true, (Verdict::Allow, Reason::Own, 0)),
            (Unix::Own, name("/x"), false, (Verdict::Deny, Reason::Unix, 0)),
            (Unix::Own, None, true, (Verdict::Allow, Reason::Own, 0)),
            (Unix::Own, None, false, (Verdict::Deny, Reason::Unix, 0)),
            (Unix::Own, name("/open"), false, (Verdict::Allow, Reason::Rule, 1)),
            (Unix::Own, name("/open"), true, (Verdict::Allow, Reason::Own, 0)),
            (Unix::Own, name("/shut"), true, (Verdict::Deny, Reason::DenyRule, 2)),
            (Unix::None, name("/x"), true, (Verdict::Deny, Reason::Unix, 0)),
            (Unix::None, None, true, (Verdict::Deny, Reason::Unix, 0)),
            (Unix::None, name("/open"), true, (Verdict::Allow, Reason::Rule, 1)),
            (Unix::None, name("/shut"), false, (Verdict::Deny, Reason::DenyRule, 2)),
        ] {
            let decision = compiled(unix, &rules).decide_unix(path, own);
            let got = (decision.verdict, decision.reason, decision.rule);
            assert_eq!(got, expected, "{unix:?} {path:?} own: {own}");
        }
    }

    #[test]
    fn what_is_below_run_has_two_names() {
        // Mutation seen to fail here: one direction only.
        let patterns = |pattern: &str| {
            UnixRule::all(1, true, pattern).into_iter().map(|rule| rule.pattern).collect::<Vec<_>>()
        };
        assert_eq!(patterns("/run/a*"), ["/run/a*", "/var/run/a*"]);
        assert_eq!(patterns("/var/run/a"), ["/run/a", "/var/run/a"]);
        for pattern in ["/runs", "/run*", "/var/runs/a", "@/run/a", "/a/run/b"] {
            assert_eq!(patterns(pattern), [pattern]);
        }
    }

    #[test]
    fn only_any_without_denials_is_open() {
        // Mutation seen to fail here: denials not looked at.
        assert!(compiled(Unix::Any, &[(true, "/*")]).unix_is_open());
        assert!(!compiled(Unix::Any, &[(true, "/*"), (false, "/a")]).unix_is_open());
        assert!(!compiled(Unix::Own, &[(true, "/*"), (true, "@*")]).unix_is_open());
    }
}
