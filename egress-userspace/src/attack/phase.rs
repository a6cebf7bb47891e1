//! One run of the table, on fresh ground: with enforcement, exactly as `egress run` does it, or without.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::IpAddr,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::unistd::{setgroups, setresgid, setresuid};

use super::{
    agent::Told,
    aim::{Brief, GOOD4, GOOD6},
    namespace::Sides,
    outside::{self, Holder, Outside, Place},
    table::{self, Around, Handed},
    wire::{Arrivals, Shared, Sniffer},
};
use crate::scope::identity::Identity;

/// This program, whatever its path is and whoever may walk it.
const SELF: &str = "/proc/self/exe";

/// What arrives after the last attempt: reports of groups, retries of the kernel, processes that outlive the command.
const SETTLE: Duration = Duration::from_millis(2_900);

/// What all runs have in common.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// A directory that is gone with this process.
    pub(super) directory: PathBuf,
    /// The cgroup2 mount.
    pub(super) cgroups: PathBuf,
    /// The first name server of the system.
    pub(super) resolver: Option<IpAddr>,
    /// The policy of the runs with enforcement.
    pub(super) policy: Option<PathBuf>,
    /// Further arguments of `egress run`.
    pub(super) options: Vec<String>,
}

/// What became of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What the attacking side says, by attack.
    pub(super) told: BTreeMap<usize, Told>,
    /// What arrived.
    pub(super) arrivals: Arrivals,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum PhaseError {
    /// The ground, or a helper on it.
    #[error("cannot {0}: {1}")]
    Io(&'static str, io::Error),
    /// `egress run` did not start the attacking side.
    #[error("the attacks were not started ({status}): {said}")]
    NotStarted {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> PhaseError {
    move |error| PhaseError::Io(what, error)
}

/// Makes a run: number `number`, as a user, of some attacks.
pub(super) fn run(
    ground: &Ground,
    number: u32,
    identity: &Identity,
    enforced: bool,
    attacks: Vec<usize>,
) -> Result<Outcome, PhaseError> {
    let nonce = std::process::id() << 4 | (number & 15);
    let directory = ground.directory.join(number.to_string());
    std::fs::create_dir(&directory)
        .and_then(|()| std::fs::set_permissions(&directory, Permissions::from_mode(0o777)))
        .map_err(cannot("make a directory"))?;
    let sides = Arc::new(Sides::new().map_err(cannot("make network namespaces"))?);
    let arrivals = Shared::default();
    let sniffer = Sniffer::start(&sides.net, nonce, &arrivals).map_err(cannot("listen on the wire"))?;
    let (holders, held, mut listen) =
        hold(&sides, nonce, identity).map_err(cannot("start a process of the user"))?;
    let (mut inherited, ends) = pairs().map_err(cannot("make pairs to inherit"))?;
    listen.extend(ends);
    let place = Place { directory: directory.clone(), nonce };
    let outside = Outside::start(&sides, &place, &arrivals, listen).map_err(cannot("start the helpers"))?;
    inherited.extend(hand_down(&sides, ground).map_err(cannot("make descriptors to inherit"))?);
    let brief = Brief {
        nonce,
        directory: directory.clone(),
        holders: held,
        resolver: ground.resolver,
        cgroups: ground.cgroups.clone(),
        attacks,
    };
    let mut command = command(ground, identity, enforced);
    sides.agent.place(&mut command).map_err(cannot("enter a network namespace"))?;
    pass_on(&mut command, &inherited);
    if !enforced {
        become_user(&mut command, identity);
    }
    let told = attack(command, &brief)?;
    thread::sleep(SETTLE);
    if let Ok(file) = std::fs::read(directory.join("file")) {
        arrivals.given(nonce, &file);
    }
    drop((outside, holders, sniffer));
    let arrivals = arrivals.lock().clone();
    Ok(Outcome { told, arrivals })
}

fn command(ground: &Ground, identity: &Identity, enforced: bool) -> Command {
    let mut command = Command::new(SELF);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
    if enforced {
        command.arg("run").args(["--user", &identity.uid.to_string()]);
        if let Some(policy) = &ground.policy {
            command.arg("--policy").arg(policy);
        }
        for good in [format!("{GOOD4}:443/any"), format!("[{GOOD6}]:443/any")] {
            command.args(["--allow", &good]);
        }
        command.args(&ground.options).args(["--", SELF]);
    }
    command.args(["attack-agent", "perform"]);
    command
}

/// Changes the user last of all: entering a namespace needs root.
fn become_user(command: &mut Command, identity: &Identity) {
    let identity = identity.clone();
    let change = move || {
        setgroups(&identity.groups)?;
        setresgid(identity.gid, identity.gid, identity.gid)?;
        setresuid(identity.uid, identity.uid, identity.uid)?;
        end_with_parent()
    };
    // SAFETY: after the fork only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(change) };
}

fn end_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGTERM)?)
}

/// Has the command inherit descriptors under the numbers that attacks know.
fn pass_on(command: &mut Command, inherited: &[(usize, OwnedFd)]) {
    let numbers: Vec<(i32, i32)> =
        inherited.iter().map(|(index, fd)| (fd.as_raw_fd(), table::inherited_number(*index))).collect();
    let pass = move || {
        for (from, to) in &numbers {
            // SAFETY: both are numbers of this process; what was at the second one is nobody's here.
            if unsafe { libc::dup2(*from, *to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        end_with_parent()
    };
    // SAFETY: after the fork only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(pass) };
}

type Held = (Vec<Holder>, Vec<(usize, i32, u64)>, Vec<OwnedFd>);

/// Starts a process of the user for each attack that needs one.
fn hold(sides: &Sides, nonce: u32, identity: &Identity) -> io::Result<Held> {
    let mut held: Held = Held::default();
    for (index, _) in table::all().enumerate().filter(|(_, attack)| attack.around == Around::Holder) {
        let mut command = Command::new(SELF);
        command.args(["attack-agent", "hold", &nonce.to_string(), &index.to_string()]).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        sides.agent.place(&mut command)?;
        become_user(&mut command, identity);
        let (holder, buffer, output) = Holder::of(command.spawn()?)?;
        held.1.push((index, holder.process(), buffer));
        held.0.push(holder);
        held.2.push(output);
    }
    Ok(held)
}

type Handing = (Vec<(usize, OwnedFd)>, Vec<OwnedFd>);

/// Makes pairs and pipes to inherit; also the ends of them that are listened at.
fn pairs() -> io::Result<Handing> {
    let (mut inherited, mut ends) = Handing::default();
    for (index, attack) in table::all().enumerate() {
        if let Around::Inherited(handed @ (Handed::Pair | Handed::Pipe)) = attack.around {
            let (give, keep) = outside::connected(handed)?;
            inherited.push((index, give));
            ends.push(keep);
        }
    }
    Ok((inherited, ends))
}

/// Makes everything else that is inherited.
fn hand_down(sides: &Sides, ground: &Ground) -> io::Result<Vec<(usize, OwnedFd)>> {
    let mut inherited = Vec::new();
    for (index, attack) in table::all().enumerate() {
        let Around::Inherited(handed) = attack.around else { continue };
        let made = match handed {
            Handed::Pair | Handed::Pipe => continue,
            Handed::Procs => {
                let path = ground.cgroups.join("cgroup.procs");
                std::fs::OpenOptions::new().write(true).open(path)?.into()
            }
            Handed::CgroupDirectory => std::fs::File::open(&ground.cgroups)?.into(),
            Handed::Namespace => sides.net.file().try_clone()?.into(),
            // What this kernel does not have cannot be inherited either.
            _ => match sides.agent.enter(|| outside::make(handed, index)) {
                Ok(made) => made,
                Err(_) => continue,
            },
        };
        inherited.push((index, made));
    }
    Ok(inherited)
}

/// Has the attacking side make its attempts, and hears what it says.
fn attack(mut command: Command, brief: &Brief) -> Result<BTreeMap<usize, Told>, PhaseError> {
    let mut child = command.spawn().map_err(cannot("start the attacking side"))?;
    drop(command);
    let line =
        serde_json::to_string(brief).map_err(|error| PhaseError::Io("write the brief", error.into()))? + "\n";
    if let Some(mut input) = child.stdin.take() {
        // If it has ended already, its status says why.
        let _ended = input.write_all(line.as_bytes());
    }
    let said = child.stderr.take().map(|mut errors| {
        thread::spawn(move || {
            let mut said = Vec::new();
            let _gone = errors.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        })
    });
    let told = child.stdout.take().map(hear).unwrap_or_default();
    let status = end(&mut child).map_err(cannot("wait for the attacking side"))?;
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    if told.is_empty() && !brief.attacks.is_empty() {
        return Err(PhaseError::NotStarted { status, said: said.trim_end().to_owned() });
    }
    Ok(told)
}

fn hear(output: ChildStdout) -> BTreeMap<usize, Told> {
    let told = |line: io::Result<String>| serde_json::from_str::<Told>(&line.ok()?).ok();
    BufReader::new(output).lines().filter_map(told).map(|told| (told.index, told)).collect()
}

fn end(child: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..500 {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()
}
