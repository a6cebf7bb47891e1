//! `egress run`: one command in a scope of its own, from the closed cgroup to the summary.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitStatus},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use super::{
    cgroup::{CgroupError, Places, clean_up},
    confine::{
        plan::{Plan, Situation},
        probe::{self, Abilities},
        watch::Watch,
    },
    enforced::{EnforcedScope, ScopeError, UnixHooks},
    identity::{Identity, IdentityError},
    keeper::Keeper,
    launch::{Launch, LaunchError, Launched},
    limits::ResourceLimits,
    lookout::{self, Lookout},
    questions::{KernelAskers, Questions},
    ring::Ring,
    signals::{Arrived, Signals},
    unix::{Broker, Message, UnixPolicy},
};
use crate::{
    dns::{
        clock::BootClock,
        names::NameBook,
        outcome::Outcome,
        permit::{PermitError, PermitTable},
        service::{Happened, Service, Settings},
        told::Told,
    },
    enforce::{self, EnforceError, Limits, LsmHook, TableError},
    paths::{Capabilities, OpenPath},
    policy::{Restriction, Unix},
};

/// Longest time that names are resolved before the command starts.
const RESOLVE_BOUND: Duration = Duration::from_secs(3);

/// Events taken at a time.
const DRAIN_BOUND: usize = 4_096;

/// How often it is looked whether the scope still holds.
const LOOK: Duration = Duration::from_millis(250);

/// Longest time that an observer may hold back what it has to say.
const TICK: Duration = Duration::from_millis(90);

/// What to run, and how.
pub struct Options {
    /// The policy, and how names are asked.
    pub settings: Settings,
    /// `--user`.
    pub user: Option<String>,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Sizes of the kernel's tables.
    pub limits: Limits,
    /// Kill what runs in the scope once root outside has moved a process out of it, or detached its programs.
    pub kill_on_escape: bool,
    /// What `--permit` gives back to the command.
    pub permits: BTreeSet<Restriction>,
    /// What the policy's `permit:` gives back.
    pub policy_permits: BTreeSet<Restriction>,
}

/// Why there was no run, or no end to it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not root.
    #[error(
        "`egress run` attaches eBPF programs to a cgroup and must be started as root: `sudo egress run …` (the command itself runs as you)"
    )]
    NotRoot,
    /// The scope.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The command.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The policy requires that no path stays open, and some do.
    #[error(
        "the policy requires that no path stays open (`require: full`), and {} cannot be closed here: {}; `egress doctor` says more",
        .0.len(), list(.0)
    )]
    OpenPaths(Vec<OpenPath>),
    /// A signal came before the command was started.
    #[error("ended by {0} before the command was started")]
    Interrupted(Signal),
    /// The command was started and cannot be watched any more. It goes on, and stays enforced.
    #[error(
        "lost sight of process {process}, which goes on and stays enforced: cannot {operation}: {source}"
    )]
    Lost {
        /// The command's process id.
        process: u32,
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The system.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn list(open: &[OpenPath]) -> String {
    let one = |open: &OpenPath| format!("{} ({})", open.path.id, open.why);
    open.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl RunError {
    fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}

impl From<CgroupError> for RunError {
    fn from(error: CgroupError) -> Self {
        Self::Scope(error.into())
    }
}

impl From<EnforceError> for RunError {
    fn from(error: EnforceError) -> Self {
        Self::Scope(error.into())
    }
}

/// What the run tells while it goes on.
pub trait Observer {
    /// Earlier runs, left behind by a crash, were removed.
    fn cleaned_up(&mut self, runs: &[String]);
    /// The scope is closed and proven; the policy is about to be put into force for this user.
    fn enforcing(&mut self, scope: &EnforcedScope, identity: &Identity);
    /// What there is to close paths with, and what is taken away from the command. Comes before everything else of the run.
    ///
    /// # Errors
    /// The paths that stay open, if that is not to be: the command is not started.
    fn planned(&mut self, capabilities: &Capabilities, plan: &Plan) -> Result<(), Vec<OpenPath>>;
    /// Names were resolved, or not.
    fn names(&mut self, outcomes: &[Outcome]);
    /// An event, as the kernel wrote it, and the names of addresses.
    fn event(&mut self, bytes: &[u8], names: &NameBook);
    /// An attempt that was refused, or seen, outside the kernel's own hooks.
    fn escape(&mut self, escape: &egress_common::Escape);
    /// A question of the command's, and what came of it.
    fn dns(&mut self, told: &Told);
    /// So many more questions got lost, unanswered; nothing of them left.
    fn lost(&mut self, questions: u64);
    /// The broker of unix sockets is dead: what is handed over to it fails from now on, and nobody tells of it.
    fn broker_died(&mut self);
    /// Called soon after an event, and again when it asked to be; gives when that is, if something waits to be told.
    fn tick(&mut self) -> Option<std::time::Instant>;
    /// The command has ended; `left` are the processes that go on in the scope.
    fn ended(&mut self, scope: &EnforcedScope, left: &[u32]);
}

/// Runs the command; its exit status.
///
/// # Errors
/// [`RunError`]; the command did not run then, and nothing is left behind.
pub fn run(options: &Options, observer: &mut impl Observer) -> Result<ExitStatus, RunError> {
    if !geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    let identity = Identity::find(options.user.as_deref())?;
    let signals = Signals::block().map_err(RunError::io("block signals"))?;
    let limits = ResourceLimits::raise().map_err(RunError::io("raise the limit of descriptors"))?;
    let places = Places::find()?;
    observer.cleaned_up(&clean_up(&places));
    let mut scope = EnforcedScope::close(&places, &run_name(), &options.limits)?;
    let keeper = Keeper::start(scope.cgroup()).map_err(RunError::io("start the keeper"))?;
    let abilities = probe::abilities().map_err(RunError::io("try out what this kernel can take away"))?;
    let mut broker = broker(options, &mut scope, abilities)?;
    let plan = plan(options, &identity, abilities, &scope, broker.is_some());
    let capabilities = Capabilities::default()
        .with_links(&scope.attachment().health())
        .with_lsm(scope.lsm())
        .with_plan(&plan);
    observer.planned(&capabilities, &plan).map_err(RunError::OpenPaths)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::io("start the runtime"))?;
    let mask = signals.mask_before();
    let launch = Launch { command: options.command.clone(), identity, mask, limits, plan };
    let result =
        runtime.block_on(supervise(options, &launch, signals, &mut scope, broker.as_mut(), observer));
    if let Some(broker) = broker {
        broker.part(scope.cgroup().processes().is_empty());
    }
    let removed = scope.cgroup().remove_if_empty();
    keeper.release(removed);
    result
}

/// What is taken away from the command at launch.
fn plan(
    options: &Options,
    identity: &Identity,
    abilities: Abilities,
    scope: &EnforcedScope,
    broker: bool,
) -> Plan {
    let compiled = &options.settings.compiled;
    Plan::new(&Situation {
        abilities,
        root: identity.uid.is_root(),
        lsm: scope.lsm().is_ok_and(|lsm| lsm.has(LsmHook::PtraceAccessCheck)),
        unix_judged: scope.lsm_judges_unix() || broker || compiled.unix == Unix::Any,
        broker,
        unix: compiled.unix,
        audit: compiled.audit,
        option: options.permits.clone(),
        policy: options.policy_permits.clone(),
    })
}

/// Starts the broker where the hooks need one, since BPF LSM does not judge, and says what they let pass. Where they are, but no call can be handed over,
/// they let nothing pass.
fn broker(
    options: &Options,
    scope: &mut EnforcedScope,
    abilities: Abilities,
) -> Result<Option<Broker>, RunError> {
    let compiled = &options.settings.compiled;
    let everything = compiled.unix == Unix::Any && compiled.unix_rules.iter().all(|rule| rule.allow);
    if !scope.has_unix_hooks() || everything || scope.lsm_judges_unix() {
        return Ok(None);
    }
    if !abilities.told {
        scope.set_unix(UnixHooks::Closed);
        return Ok(None);
    }
    let policy = UnixPolicy { unix: compiled.unix, rules: compiled.unix_rules.clone() };
    let tags = scope.engine.tags()?;
    let broker = Broker::start(scope.cgroup(), tags, policy, compiled.audit)
        .map_err(RunError::io("start the broker of unix sockets"))?;
    scope.set_unix(UnixHooks::Broker(broker.process()));
    Ok(Some(broker))
}

/// Unique while the process id is, which the kernel gives to no other while this process lives.
fn run_name() -> String {
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis());
    format!("run-{}-{started:x}", std::process::id())
}

async fn supervise(
    options: &Options,
    launch: &Launch,
    signals: Signals,
    scope: &mut EnforcedScope,
    mut broker: Option<&mut Broker>,
    observer: &mut impl Observer,
) -> Result<ExitStatus, RunError> {
    let mut events = Events::open(scope)?;
    #[cfg(feature = "kernel-log")]
    let mut log = scope.engine.take_log()?;
    let mut questions = Questions::open(scope).map_err(RunError::io("open the DNS listener"))?;
    let mut service =
        Service::new(options.settings.clone(), BootClock).map_err(RunError::io("start the DNS service"))?;
    let permitted: Vec<_> = options.permits.union(&options.policy_permits).copied().collect();
    scope.open_permitting(&options.settings.compiled, questions.port(), &permitted)?;
    questions.begin(&scope.engine, &mut service)?;
    observer.enforcing(scope, &launch.identity);

    let mut table = KernelPermits(scope.engine.permits()?);
    let mut askers = KernelAskers(scope.engine.askers()?);
    observer.names(&service.prepare(&mut table, RESOLVE_BOUND).await);

    if let Some(signal) = signals.pending().map_err(RunError::io("read signals"))? {
        return Err(RunError::Interrupted(signal));
    }
    if launch.identity.uid.is_root() {
        service.keep_servers();
    }
    let mut stream = signals.into_stream().map_err(RunError::io("watch signals"))?;
    // Resolving took its time, in which somebody may have detached a program.
    scope.attachment().verify()?;
    let Launched { mut child, listener } = launch.start(&scope.cgroup().procs()?)?;
    if let (Some(broker), Some(listener)) = (&broker, &listener) {
        broker.begin(listener).map_err(lost(&child, "give the broker its calls"))?;
    }
    let mut watch = Watch::new(listener, broker.is_some(), &launch.plan, scope.cgroup().id())
        .map_err(lost(&child, "watch its system calls"))?;
    let mut guard = Guard { lookout: Lookout::default(), kill: options.kill_on_escape };
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let status = loop {
        let (fresh, tick_at) = (events.fresh, events.tick_at);
        tokio::select! {
            arrived = stream.next() => {
                if let Some(status) = on_signal(arrived, &mut child)? {
                    break status;
                }
            }
            result = events.ring.ready() => {
                result.map_err(lost(&child, "read the event ring"))?;
                events.drain(&mut |bytes| observer.event(bytes, service.names()));
                #[cfg(feature = "kernel-log")]
                log.flush();
            }
            ready = watch.ready() => {
                ready.map_err(lost(&child, "watch its system calls"))?;
                let inside = |process| scope.cgroup().processes().contains(&process);
                watch
                    .take(&inside, &mut |escape| observer.escape(escape))
                    .map_err(lost(&child, "answer its system calls"))?;
                events.expect();
            }
            told = told(&mut broker, &watch) => {
                let told = told.map_err(lost(&child, "hear the broker"))?;
                let inside = |process| scope.cgroup().processes().contains(&process);
                heed(told, &mut watch, &inside, observer).map_err(lost(&child, "answer its system calls"))?;
                events.expect();
            }
            happened = questions.next(scope, &mut service, &mut table, &mut askers) => {
                tell(happened.map_err(lost(&child, "read arriving questions"))?, observer);
                events.expect();
            }
            _ = looks.tick() => {
                if guard.look(scope, observer) {
                    events.expect();
                }
            }
            () = tokio::time::sleep_until(tick_at), if fresh => {
                let next = observer.tick();
                events.fresh = next.is_some();
                events.tick_at = next.map_or(tick_at, tokio::time::Instant::from_std);
            }
        }
    };
    guard.look(scope, observer);
    tell(service.leave(&mut table, &mut askers), observer);
    while events.drain(&mut |bytes| observer.event(bytes, service.names())) {}
    // A refusal is told before its caller hears of it.
    for told in broker.iter().flat_map(|broker| broker.rest()) {
        if let Message::Refused(escape) = told {
            observer.escape(&escape);
        }
    }
    observer.ended(scope, &scope.cgroup().processes());
    // After the counts: the kernel still acknowledges ends of connections to a listener, which are refused from here on.
    questions.end(&scope.engine);
    Ok(status)
}

/// Looks whether the scope still holds.
struct Guard {
    lookout: Lookout,
    kill: bool,
}

impl Guard {
    /// Tells what is lost, and ends the scope if that is wanted; whether there was anything.
    fn look(&mut self, scope: &EnforcedScope, observer: &mut impl Observer) -> bool {
        let losses = self.lookout.look(scope);
        for loss in &losses {
            observer.escape(&loss.as_escape(scope.cgroup().id()));
        }
        if self.kill && !losses.is_empty() {
            lookout::end(scope.cgroup(), &losses);
        }
        !losses.is_empty()
    }
}

/// Waits until the broker tells something, or dies, and there is time for it.
async fn told(broker: &mut Option<&mut Broker>, watch: &Watch) -> io::Result<Option<Message>> {
    match broker {
        Some(broker) => {
            watch.patience().await;
            broker.told().await
        }
        None => std::future::pending().await,
    }
}

/// Tells what the broker refused and settles what it handed over. Once it is dead, the listener is given up: whoever waits must
/// not wait for ever.
fn heed(
    told: Option<Message>,
    watch: &mut Watch,
    inside: &dyn Fn(u32) -> bool,
    observer: &mut impl Observer,
) -> io::Result<()> {
    match told {
        Some(Message::Refused(escape)) => {
            observer.escape(&escape);
            watch.count();
        }
        Some(Message::Call(call)) => watch.settle(&call, inside, &mut |escape| observer.escape(escape))?,
        None => {
            watch.end();
            observer.broker_died();
        }
    }
    Ok(())
}

fn tell(happened: Vec<Happened>, observer: &mut impl Observer) {
    for happened in happened {
        match happened {
            Happened::Told(told) => observer.dns(&told),
            Happened::Names(outcome) => observer.names(&[outcome]),
            Happened::Closed(_) => {}
            Happened::Lost(questions) => observer.lost(questions),
        }
    }
}

fn lost(child: &Child, operation: &'static str) -> impl FnOnce(io::Error) -> RunError {
    let process = child.id();
    move |source| RunError::Lost { process, operation, source }
}

/// Passes a signal on, or takes the command's exit status when it has ended.
fn on_signal(arrived: io::Result<Arrived>, child: &mut Child) -> Result<Option<ExitStatus>, RunError> {
    match arrived.map_err(lost(child, "read signals"))? {
        Arrived::Child => child.try_wait().map_err(lost(child, "wait for it")),
        Arrived::Pass(signal) => {
            pass_on(signal, child);
            Ok(None)
        }
    }
}

fn pass_on(signal: Signal, child: &Child) {
    if let Ok(process) = i32::try_from(child.id()) {
        // The command is not waited for yet, so its id is its own; that it has ended already is no error.
        let _ended = kill(Pid::from_raw(process), signal);
    }
}

/// The event ring, watched without busy waiting.
struct Events {
    ring: Ring,
    /// Something came since the last tick.
    fresh: bool,
    /// When the observer is to say what it has held back of that.
    tick_at: tokio::time::Instant,
}

impl Events {
    /// Without what the self-test left, which is not of the command's making.
    fn open(scope: &mut EnforcedScope) -> Result<Self, RunError> {
        let ring = scope.engine.take_events()?;
        let ring = Ring::watch(ring).map_err(RunError::io("watch the event ring"))?;
        let mut events = Self { ring, fresh: false, tick_at: tokio::time::Instant::now() };
        while events.drain(&mut |_| {}) {}
        events.fresh = false;
        Ok(events)
    }

    /// Takes what is there, up to a bound, so that a flood leaves time for signals; whether there may be more.
    fn drain(&mut self, take: &mut dyn FnMut(&[u8])) -> bool {
        for _ in 0..DRAIN_BOUND {
            let Some(item) = self.ring.next() else { break };
            take(&item);
            drop(item);
            self.expect();
        }
        self.ring.may_have_more()
    }

    /// Has the observer say soon what it holds back.
    fn expect(&mut self) {
        if !self.fresh {
            self.fresh = true;
            self.tick_at = tokio::time::Instant::now() + TICK;
        }
    }
}

/// The kernel's table of permits, as names know it.
struct KernelPermits<'a>(enforce::Permits<'a>);

impl PermitTable for KernelPermits<'_> {
    fn write(
        &mut self,
        key: &egress_common::PermitKey,
        permit: &egress_common::Permit,
    ) -> Result<(), PermitError> {
        self.0.write(key, permit).map_err(permit_error)
    }

    fn remove(&mut self, key: &egress_common::PermitKey) -> Result<(), PermitError> {
        self.0.remove(key).map(drop).map_err(permit_error)
    }
}

fn permit_error(error: TableError) -> PermitError {
    match error {
        TableError::Full(_) => PermitError::Full,
        TableError::Write(_, error) => PermitError::Io(error),
    }
}

/// The status as shells report it: the exit code, or 128 and the number of the signal.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(code & 0xff).unwrap_or(255)
}
