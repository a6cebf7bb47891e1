//! A report for people: the shape of the machine first, then every open path, the worst first, with what to do.

use std::fmt::Write as _;

use super::{HookReport, Report};
use crate::{
    observe::escape::plain_text,
    paths::{Hook, LsmStatus, Path, Restricted, State},
    policy::Require,
    scope::confine::probe::Landlock,
};

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// A word at the beginning of a line.
#[derive(Clone, Copy)]
enum Mark {
    Yes,
    No,
    Not,
}

impl Report {
    /// The lines; `colours` for a terminal.
    pub fn text(&self, colours: bool) -> String {
        let mut text = format!(
            "egress doctor: Linux {} ({}), policy {}, commands run as {}\n",
            plain_text(&self.kernel),
            self.machine,
            plain_text(&self.policy),
            plain_text(&self.user)
        );
        self.write_hooks(&mut text, colours);
        self.write_launch(&mut text, colours);
        self.write_paths(&mut text, colours);
        text.push_str(&self.verdict(colours));
        text
    }

    fn write_hooks(&self, text: &mut String, colours: bool) {
        text.push_str("\nin the kernel, for any scope\n");
        for hook in &self.hooks {
            let (mark, words) = hook_words(hook);
            line(text, mark, hook.kernel_name, &words, colours);
        }
        let mark = if matches!(self.capabilities.lsm, LsmStatus::Active(_)) { Mark::Yes } else { Mark::Not };
        line(text, mark, "BPF LSM", &self.capabilities.lsm.text(), colours);
    }

    fn write_launch(&self, text: &mut String, colours: bool) {
        text.push_str("\nat launch, by `egress run`\n");
        let filter = match (self.abilities.filter, self.abilities.told) {
            (true, true) => (Mark::Yes, "works; each refused call is an event"),
            (true, false) => (Mark::Yes, "works; refused calls are not told"),
            (false, _) => (Mark::No, "this kernel has none"),
        };
        line(text, filter.0, "system call filter", filter.1, colours);
        let landlock = match self.abilities.landlock {
            Landlock::Scopes => (Mark::Yes, "keeps ptrace, signals and abstract unix sockets within"),
            Landlock::Files => (Mark::Yes, "keeps ptrace within, and has nobody mount"),
            Landlock::Absent => (Mark::No, "not there, or switched off"),
        };
        let name = format!("Landlock {}", self.landlock_abi);
        line(text, landlock.0, &name, landlock.1, colours);
        for (restriction, restricted) in &self.capabilities.restrictions {
            let (mark, words) = match restricted {
                Restricted::On(by) => (Mark::Yes, format!("taken away by {by}")),
                Restricted::Lifted(by) => (Mark::No, by.of(*restriction)),
                Restricted::NotNeeded(why) => (Mark::Not, why.clone()),
                Restricted::NotPossible(why) => (Mark::No, why.clone()),
            };
            line(text, mark, restriction.name(), &words, colours);
        }
    }

    fn write_paths(&self, text: &mut String, colours: bool) {
        let mut open: Vec<(&Path, &str)> = self.open().collect();
        open.sort_by_key(|(path, _)| path.severity);
        let count = |is: fn(&State) -> bool| self.paths.iter().filter(|(_, state)| is(state)).count();
        let closed = count(|state| matches!(state, State::Closed(_)));
        let by_policy = count(|state| matches!(state, State::ByPolicy(_)));
        let beyond = count(|state| *state == State::Beyond);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\npaths out of a scope: {closed} closed, {} open, {by_policy} opened by the policy, {beyond} beyond any kernel",
            open.len()
        );
        for (path, why) in open {
            let _ = writeln!(text, "  {} {}: {}", paint("OPEN", RED, colours), path.id, path.title);
            let _ = writeln!(text, "       why: {} ({})", plain_text(why), path.severity.name());
            let _ = writeln!(text, "       do:  {}", path.advice(&self.capabilities));
            if !path.left.is_empty() {
                let _ = writeln!(text, "       note: {}", path.left);
            }
        }
        for (path, state) in &self.paths {
            if let State::ByPolicy(setting) = state {
                let word = paint("opened", YELLOW, colours);
                let _ = writeln!(text, "  {word} {}: {} (`{setting}`)", path.id, path.title);
            }
        }
        for (path, state) in &self.paths {
            if *state == State::Beyond {
                let _ = writeln!(text, "  beyond {}: {} ({})", path.id, path.title, path.left);
            }
        }
    }

    fn verdict(&self, colours: bool) -> String {
        let open = self.open().count();
        match (self.is_enough(), self.require, open) {
            (true, _, 0) => {
                format!("\n{}\n", paint("everything that a kernel can close is closed", GREEN, colours))
            }
            (true, _, open) => format!(
                "\neverything required is there; {open} path{} open (`require: full` would refuse to start)\n",
                if open == 1 { " stays" } else { "s stay" }
            ),
            (false, Require::Full, open) if open > 0 => {
                format!(
                    "\n{}\n",
                    paint("the policy requires that no path is open: it cannot start here", RED, colours)
                )
            }
            (false, ..) => {
                format!(
                    "\n{}\n",
                    paint("a required hook is missing: `egress run` does not start here", RED, colours)
                )
            }
        }
    }
}

fn hook_words(hook: &HookReport) -> (Mark, String) {
    let refused = match hook.refused {
        Some(true) => ", and refused an attempt",
        Some(false) | None => "",
    };
    match &hook.state {
        Hook::Active => (Mark::Yes, format!("attached and verified{refused}")),
        Hook::Missing(why) if hook.required => (Mark::No, plain_text(why)),
        Hook::Missing(why) => (Mark::Not, plain_text(why)),
    }
}

fn line(text: &mut String, mark: Mark, name: &str, words: &str, colours: bool) {
    let mark = match mark {
        Mark::Yes => paint("yes", GREEN, colours),
        Mark::No => paint("NO ", RED, colours),
        Mark::Not => "-  ".to_owned(),
    };
    let _ = writeln!(text, "  {mark}  {name:<22}  {words}");
}

fn paint(word: &str, colour: &str, colours: bool) -> String {
    if colours { format!("{colour}{word}{RESET}") } else { word.to_owned() }
}
