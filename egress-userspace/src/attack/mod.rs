//! The self-attack: makes ground of its own (two network namespaces, servers, processes outside), makes every attack of the
//! table first without enforcement and then exactly as `egress run` starts a command, and judges at the receiving side what
//! got out. Needs neither network nor compiler, and leaves nothing behind.

mod agent;
mod aim;
mod call;
mod fit;
mod holder;
mod namespace;
mod netlink;
mod outside;
mod packet;
mod phase;
mod process;
pub mod report;
mod ring;
pub mod table;
mod verdict;
mod wire;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

pub use agent::main as agent;
pub use phase::PhaseError;
pub use verdict::{Finding, Told, Verdict};

use crate::{
    compile::Compiled,
    policy::{self, Policy},
    scope::{
        cgroup::mounted,
        identity::{Identity, IdentityError},
    },
};
use phase::{Ground, Outcome};

/// What to attack, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The policy; without one next to nothing is allowed.
    pub policy: Option<PathBuf>,
    /// The user; for root, an ordinary user too.
    pub user: Option<String>,
    /// Further arguments of `egress run`.
    pub run: Vec<String>,
    /// Attacks whose ids begin so; all if empty.
    pub only: Vec<String>,
}

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    /// The policy.
    #[error("the policy is invalid\n{}", .0.render(false))]
    Policy(policy::Errors),
    /// The user.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ground.
    #[error("cannot {0}: {1}")]
    Io(&'static str, io::Error),
    /// No cgroup2.
    #[error("no cgroup2 file system is mounted in this mount namespace")]
    NoCgroup2,
    /// A run of the table.
    #[error(transparent)]
    Phase(#[from] PhaseError),
    /// What is allowed did not arrive.
    #[error("{0}, what is allowed did not arrive: {1}; so the silence of attacks would prove nothing")]
    Blind(&'static str, String),
}

/// What was found out.
#[derive(Debug)]
pub struct Report {
    /// The policy's name.
    pub policy: String,
    /// Users, as whom it was attacked.
    pub users: Vec<String>,
    /// One finding for each attack and user, in the order of the table.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// How many findings have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether an attack leaked, or was not judged.
    pub fn failed(&self) -> bool {
        self.count(Verdict::Leaked) + self.count(Verdict::Unknown) > 0
    }
}

/// Attacks, and says as it goes along what it is doing.
///
/// Must be called as root, while the process has one thread: it moves to a mount namespace of its own.
///
/// # Errors
/// [`AttackError`].
pub fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Report, AttackError> {
    let start = Instant::now();
    let policy = match &options.policy {
        Some(path) => policy::load(path, &[]).map_err(AttackError::Policy)?,
        None => policy::from_command_line(&[]).map_err(AttackError::Policy)?,
    };
    let compiled = crate::compile::compile(&policy);
    let ground = ground(options)?;
    let mut report = Report {
        policy: policy.name.clone(),
        users: Vec::new(),
        findings: Vec::new(),
        took: start.elapsed(),
    };
    for (turn, identity) in (0_u32..).zip(users(options)?) {
        let who = identity.label();
        let chosen = chosen(options, &policy, &compiled);
        tell(&format!("attacking as {who}, without enforcement: {} attacks", chosen.attacks.len()));
        let control = phase::run(&ground, turn * 2, &identity, false, chosen.all())?;
        see(&control, "without enforcement")?;
        tell(&format!("attacking as {who}, with enforcement"));
        let enforced = phase::run(&ground, turn * 2 + 1, &identity, true, chosen.all())?;
        if chosen.honest {
            see(&enforced, "with enforcement")?;
        }
        report.findings.extend(verdict::judge(&who, &chosen.attacks, &chosen.allowed, &control, &enforced));
        report.users.push(who);
    }
    report.findings.sort_by_key(|finding| (finding.attack.class().letter, finding.index));
    report.took = start.elapsed();
    Ok(report)
}

/// The attacks of a run.
struct Chosen {
    attacks: Vec<usize>,
    /// Those that the policy allows, with the setting that does.
    allowed: BTreeMap<usize, String>,
    honest: bool,
}

impl Chosen {
    /// In the order in which they are made: those that wait for visitors first, what is to outlive the command last.
    fn all(&self) -> Vec<usize> {
        let mut all = self.attacks.clone();
        all.sort_by_key(|&index| match table::all().nth(index) {
            Some(attack) if attack.id == "j-outlives" => 2,
            Some(attack) => u8::from(attack.around == table::Around::Nothing),
            None => 1,
        });
        all.push(honest());
        all
    }
}

fn honest() -> usize {
    table::all().count()
}

fn chosen(options: &Options, policy: &Policy, compiled: &Compiled) -> Chosen {
    let wanted = |id: &str| options.only.is_empty() || options.only.iter().any(|start| id.starts_with(start));
    let fit = fit::Fit::new(policy, compiled);
    let (mut attacks, mut allowed) = (Vec::new(), BTreeMap::new());
    for (index, attack) in table::all().enumerate().filter(|(_, attack)| wanted(attack.id)) {
        match fit.allows(index, attack) {
            Some(why) => drop(allowed.insert(index, why)),
            None => attacks.push(index),
        }
    }
    Chosen { attacks, allowed, honest: fit.lets_honest_through() }
}

fn see(outcome: &Outcome, when: &'static str) -> Result<(), AttackError> {
    if outcome.arrivals.carried.contains(&honest()) {
        return Ok(());
    }
    let told = outcome.told.get(&honest());
    let why = told.map_or_else(
        || "it was not made".to_owned(),
        |told| format!("it stopped at {:?} with errno {}", told.at, told.errno),
    );
    Err(AttackError::Blind(when, why))
}

/// The users to attack as.
fn users(options: &Options) -> Result<Vec<Identity>, AttackError> {
    let asked = Identity::find(options.user.as_deref())?;
    if !asked.uid.is_root() {
        return Ok(vec![asked]);
    }
    let ordinary = match Identity::find(None)? {
        caller if !caller.uid.is_root() => caller,
        _ => Identity::find(Some(NOBODY)).or_else(|_| Identity::find(Some(NOBODYS_ID)))?,
    };
    Ok(if options.user.is_some() { vec![ordinary, asked] } else { vec![ordinary] })
}

const NOBODY: &str = "nobody";
const NOBODYS_ID: &str = "65534";

/// Moves to a mount namespace of its own, with a directory that is gone with its last process.
fn ground(options: &Options) -> Result<Ground, AttackError> {
    let cannot = |what: &'static str| move |error: io::Error| AttackError::Io(what, error);
    let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(cannot("read the mounts"))?;
    let cgroups = mounted(&mounts, "cgroup2").next().ok_or(AttackError::NoCgroup2)?;
    let policy = match &options.policy {
        Some(path) => Some(path.canonicalize().map_err(cannot("find the policy"))?),
        None => None,
    };
    let directory = directory(policy.as_deref()).ok_or_else(|| {
        AttackError::Io("find a directory to mount on", io::Error::from_raw_os_error(libc::ENOENT))
    })?;
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| {
            mount(Some("egress"), &directory, Some("tmpfs"), MsFlags::empty(), Some("size=4m,mode=755"))
        })
        .map_err(|errno| AttackError::Io("mount a directory of its own", errno.into()))?;
    Ok(Ground { directory, cgroups, resolver: resolver(), policy, options: options.run.clone() })
}

/// A short path that holds nothing this run needs.
fn directory(policy: Option<&Path>) -> Option<PathBuf> {
    let places = ["/mnt", "/srv", "/opt", "/media", "/home"];
    places.map(PathBuf::from).into_iter().find(|place| {
        place.is_dir() && !place.is_symlink() && policy.is_none_or(|policy| !policy.starts_with(place))
    })
}

fn resolver() -> Option<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    text.lines().find_map(|line| line.strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok())
}
