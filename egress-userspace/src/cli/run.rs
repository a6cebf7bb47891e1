//! `egress run`: policy file and arguments in, the command's exit code out; events to stderr and a file on the way.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Stderr, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use egress_common::Escape;

use super::{color, exit};
use crate::{
    compile::{self, Compiled},
    dns::{
        hosts::{HOSTS, Hosts},
        names::NameBook,
        outcome::Outcome,
        service::{Settings, Upstreams},
        system,
        told::Told,
        upstream,
    },
    enforce::Limits,
    observe::{
        json::{JsonSink, Start},
        question,
        record::{DecodeError, Enricher, Record},
        summary::Tally,
        text::{Style, TextSink},
    },
    paths::{self, Capabilities, OpenPath},
    policy::{self, Mode, OnEscape, Policy, Require, Restriction, Unix, Upstream},
    scope::{
        addresses::own_addresses,
        confine::{
            plan::{By, Plan, State},
            tell,
        },
        enforced::{EnforcedScope, SLOT},
        identity::Identity,
        run::{self, Observer, Options, RunError},
    },
};

/// Exit codes: the command's own, 128+n if signal n ended it, and where it did not run:
/// 2 wrong usage, 112 not root, 113 no (safe) cgroup2, 114 no eBPF, 115 a hook is missing, 116 a foreign eBPF program
/// refuses ours, 117 a table is full, 118 the verifier refused, 119 the policy is invalid, 120 attached but without
/// effect, 121 no such user, 122 a path stays open under `require: full`, 125 anything else, 126 the command cannot be executed, 127 it was not found.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: the command's own; 128+n if signal n ended it; and if it did not run:\n  \
    2 wrong usage            112 not root              113 no (safe) cgroup2   114 no eBPF or bpffs\n  \
    115 kernel hook missing  116 foreign eBPF program  117 kernel table full   118 refused by the verifier\n  \
    119 invalid policy       120 attached, no effect   121 no such user        122 a path stays open\n  \
    125 anything else        126 cannot be executed    127 command not found"
)]
pub(super) struct Run {
    /// Policy file. Without one nothing is allowed but what --allow says.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Allow one more destination: host:port, ip:port, `[v6]:port` or network:port, each with /udp for UDP; host/icmp for
    /// ping; unix:path for a unix socket.
    #[arg(long, value_name = "HOST:PORT")]
    allow: Vec<String>,
    /// Refuse nothing; report what would have been refused.
    #[arg(long)]
    audit: bool,
    /// Write every event as a line of JSON to this file.
    #[arg(long, value_name = "FILE", overrides_with = "events")]
    events: Option<PathBuf>,
    /// Run the command as this user (name or id) instead of the one who called sudo.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Give back to the command what is taken away at launch, by name; repeatable, also as a list: io_uring,userns.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = restriction)]
    permit: Vec<Restriction>,
    /// Most permits (addresses × ports) that names may open.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().permits, hide = true)]
    max_permits: u32,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Runs the command; the exit code is its own, or says why it did not run.
pub(super) fn main(arguments: &Run) -> ExitCode {
    let policy = match load(arguments) {
        Ok(policy) => policy,
        Err(text) => return fail(exit::POLICY, &text),
    };
    let events = match open_events(arguments.events.as_deref()) {
        Ok(events) => events,
        Err(text) => return fail(exit::FAILED, &text),
    };
    let own = match own_addresses() {
        Ok(own) => own,
        Err(error) => return fail(exit::FAILED, &format!("cannot list the addresses of this host: {error}")),
    };
    let mut compiled = compile::compile_on(&policy, &own);
    compiled.audit |= arguments.audit;
    let compiled = Arc::new(compiled);
    let options = Options {
        settings: settings(&policy, &compiled),
        user: arguments.user.clone(),
        command: arguments.command.clone(),
        limits: Limits { permits: arguments.max_permits, ..Limits::default() },
        kill_on_escape: policy.on_escape == OnEscape::Kill,
        permits: arguments.permit.iter().copied().collect(),
        policy_permits: policy.permits.clone(),
    };
    let mut printer = Printer::new(policy, compiled, events, &options.command);
    match run::run(&options, &mut printer) {
        Ok(status) => ExitCode::from(run::exit_code(status)),
        Err(error @ RunError::Lost { .. }) => {
            tell(&format!("egress: {error}"));
            ExitCode::from(exit::of_run_error(&error))
        }
        Err(error) => fail(exit::of_run_error(&error), &error.to_string()),
    }
}

fn restriction(name: &str) -> Result<Restriction, String> {
    Restriction::from_name(name)
        .ok_or_else(|| format!("it is none of {}", Restriction::ALL.map(Restriction::name).join(", ")))
}

fn settings(policy: &Policy, compiled: &Arc<Compiled>) -> Settings {
    Settings {
        compiled: Arc::clone(compiled),
        slot: SLOT,
        hosts: Hosts::read(Path::new(HOSTS)).unwrap_or_default(),
        upstream: match &policy.dns_upstream {
            Upstream::System => Upstreams::System,
            Upstream::List(servers, _) => Upstreams::List(servers.clone()),
        },
        resolv_conf: system::RESOLV_CONF.into(),
        limits: upstream::Limits::default(),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    tell(&format!("egress: {text}\negress: the command was not started (exit code {code})"));
    ExitCode::from(code)
}

/// To stderr; if that is gone, the exit code has to do.
fn tell(text: &str) {
    let _gone = writeln!(io::stderr(), "{text}");
}

fn load(arguments: &Run) -> Result<Policy, String> {
    match &arguments.policy {
        Some(file) => policy::load(file, &arguments.allow),
        None => policy::from_command_line(&arguments.allow),
    }
    .map_err(|errors| format!("the policy is invalid\n{}", errors.render(color(&io::stderr()))))
}

/// Opened as root before anything else: the command cannot be given the file, and a bad path stops the run. A symbolic
/// link may have been left there by an earlier command, to have root overwrite what it leads to; and a pipe that nobody
/// reads would hold up the start.
fn open_events(path: Option<&Path>) -> Result<Option<JsonSink<File>>, String> {
    let Some(path) = path else { return Ok(None) };
    let mut options = File::options();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path).map(JsonSink::new).map(Some).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ELOOP) => "it is a symbolic link; give the file itself".to_owned(),
            Some(libc::ENXIO) => "it is a pipe that nobody reads".to_owned(),
            _ => error.to_string(),
        };
        format!("cannot write events to {}: {why}", path.display())
    })
}

/// What the run tells, as lines.
struct Printer {
    policy: Policy,
    compiled: Arc<Compiled>,
    command: Vec<String>,
    enricher: Enricher,
    text: TextSink<Stderr>,
    json: Option<JsonSink<File>>,
    tally: Tally,
    /// What was given back to the command.
    lifted: Vec<&'static str>,
    /// The paths that stay open.
    open: Vec<&'static str>,
    plan_notes: Vec<String>,
}

impl Printer {
    fn new(
        policy: Policy,
        compiled: Arc<Compiled>,
        json: Option<JsonSink<File>>,
        command: &[OsString],
    ) -> Self {
        Self {
            policy,
            enricher: Enricher::new(Arc::clone(&compiled)),
            compiled,
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            text: TextSink::new(io::stderr(), Style { colours: color(&io::stderr()), allowed: false }),
            json,
            tally: Tally::default(),
            lifted: Vec::new(),
            open: Vec::new(),
            plan_notes: Vec::new(),
        }
    }
}

/// What a person needs to know of what is taken away at launch.
fn plan_notes(plan: &Plan) -> Vec<String> {
    let (mut notes, mut lifted) = (Vec::new(), Vec::new());
    for (restriction, state) in plan.states() {
        let name = restriction.name();
        match state {
            State::On(_) | State::NotNeeded(_) => {}
            State::Lifted(By::Option) => lifted.push(name.to_owned()),
            State::Lifted(By::Policy) => lifted.push(format!("{name} (policy)")),
            State::NotPossible(why) => notes.push(format!("not taken away: {name}: {why}")),
        }
    }
    if !lifted.is_empty() {
        notes.push(format!("given back to the command: {}", lifted.join(", ")));
    }
    if plan.refuses_mounts() {
        notes.push(
            "on this kernel only a Landlock domain about files keeps ptrace within, and in it nobody can mount; \
             --permit ptrace gives both back"
                .to_owned(),
        );
    }
    notes
}

impl Printer {
    /// What stays open, and what was given back.
    fn tell_plan(&mut self) {
        for note in std::mem::take(&mut self.plan_notes) {
            self.text.note(&format!("egress: note: {note}"));
        }
        if !self.open.is_empty() {
            self.text.note(&format!(
                "egress: note: open on this kernel: {}; `egress doctor` says more",
                self.open.join(", ")
            ));
        }
    }

    fn attempt(&mut self, record: &Record) {
        self.text.attempt(record, Instant::now());
        if let Some(json) = &mut self.json {
            json.attempt(record);
        }
    }

    fn undecodable(&mut self, error: DecodeError) {
        let text = format!("egress: an event could not be read: {error}");
        if self.tally.undecodable(error) {
            self.text.note(&text);
        }
    }
}

fn wall_clock() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

impl Observer for Printer {
    fn cleaned_up(&mut self, runs: &[String]) {
        for run in runs {
            self.text.note(&format!("egress: removed {run}, which an earlier crash had left"));
        }
    }

    fn enforcing(&mut self, scope: &EnforcedScope, identity: &Identity) {
        let path = scope.cgroup().path().display().to_string();
        let doing = if self.compiled.audit { "AUDITING (nothing is refused)" } else { "enforcing" };
        let rules = self.policy.rules.len();
        self.text.note(&format!(
            "egress: {doing} policy {} ({rules} rule{}) on {path} with {} verified programs; the command runs as {}",
            self.policy.name,
            if rules == 1 { "" } else { "s" },
            scope.attachment().health().len(),
            identity.label(),
        ));
        self.tell_plan();
        for notice in &self.policy.notices {
            self.text.note(&format!("egress: note: {notice}"));
        }
        let unix_is_open =
            self.compiled.audit || self.policy.unix == Unix::Any || self.open.contains(&"unix-path");
        if unix_is_open && system::asks_past_dns(Path::new(system::NSSWITCH)) {
            self.text.note(
                "egress: note: /etc/nsswitch.conf has names looked up by systemd-resolved's own socket before DNS: what it \
                 resolves stays closed, and the names asked do leave; take `resolve` out of its line `hosts:`",
            );
        }
        self.enricher.name_cgroup(scope.cgroup().id(), path.as_str());
        if let Some(json) = &mut self.json {
            let files: Vec<String> =
                self.policy.files.iter().map(|file| file.display().to_string()).collect();
            let start = Start {
                egress: env!("CARGO_PKG_VERSION"),
                policy: Some(&self.policy.name),
                files: &files,
                digest: None,
                audit: self.compiled.audit || self.policy.mode == Mode::Audit,
                scope: scope.cgroup().id(),
                cgroup_path: &path,
                command: &self.command,
                lifted: &self.lifted,
                open: &self.open,
            };
            json.start(&start, wall_clock());
        }
    }

    fn planned(&mut self, capabilities: &Capabilities, plan: &Plan) -> Result<(), Vec<OpenPath>> {
        if !self.compiled.audit {
            let open = paths::open(capabilities, &self.policy);
            if self.policy.require == Require::Full && !open.is_empty() {
                return Err(open);
            }
            self.open = open.iter().map(|open| open.path.id).collect();
        }
        self.plan_notes = plan_notes(plan);
        self.lifted = plan
            .states()
            .filter(|(_, state)| matches!(state, State::Lifted(_)))
            .map(|(restriction, _)| restriction.name())
            .collect();
        Ok(())
    }

    fn names(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            self.text.outcome(outcome);
        }
        if let (Some(json), false) = (&mut self.json, outcomes.is_empty()) {
            json.names(outcomes, wall_clock());
        }
    }

    fn dns(&mut self, told: &Told) {
        self.tally.question(told);
        let news = question::is_news(told.verdict, told.reason, &told.dropped);
        if !news && self.json.is_none() {
            return;
        }
        let question = self.enricher.question(told);
        self.text.question(&question, Instant::now());
        if let Some(json) = &mut self.json {
            json.question(&question);
        }
    }

    fn broker_died(&mut self) {
        self.text.note(
            "egress: the broker of unix sockets was killed: every connect(), and what else it was asked for, fails with \
             ENOSYS from now on, and is not told; start the command again",
        );
    }

    fn lost(&mut self, questions: u64) {
        if self.tally.lost(questions) {
            self.text.note(&format!(
                "egress: questions lost: {questions} (a full buffer or table, or asked from outside the scope); nobody \
                 answered them, and nothing of them left; the summary counts all"
            ));
        }
    }

    fn event(&mut self, bytes: &[u8], names: &NameBook) {
        match self.enricher.record(bytes, names) {
            Ok(record) => {
                self.tally.add(&record);
                self.attempt(&record);
            }
            Err(error) => self.undecodable(error),
        }
    }

    fn escape(&mut self, escape: &Escape) {
        match self.enricher.escape(escape) {
            Ok(mut record) => {
                if let Some(restriction) = tell::restriction(escape) {
                    record.remedy = Some(format!("--permit {}", restriction.name()));
                }
                self.tally.supervised(&record);
                self.attempt(&record);
            }
            Err(error) => self.undecodable(error),
        }
    }

    fn tick(&mut self) -> Option<Instant> {
        self.text.flush_due(Instant::now());
        self.text.next_flush()
    }

    fn ended(&mut self, scope: &EnforcedScope, left: &[u32]) {
        self.text.finish();
        match scope.counters().and_then(|counters| Ok((counters, scope.lsm_counters()?))) {
            Ok((counters, lsm)) => {
                let summary = self.tally.summary(&counters).with_lsm(&lsm);
                for line in summary.lines() {
                    self.text.note(&line);
                }
                if let Some(json) = &mut self.json {
                    json.summary(&summary, wall_clock());
                }
            }
            Err(error) => self.text.note(&format!("egress: no summary: {error}")),
        }
        if let Some(lost) = self.json.as_ref().map(JsonSink::lost).filter(|lost| *lost > 0) {
            self.text.note(&format!("egress: {lost} lines could not be written to the events file"));
        }
        if !left.is_empty() {
            let list = left.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            self.text
                .note(&format!("egress: still running in the scope, and still enforced: process {list}"));
        }
    }
}
