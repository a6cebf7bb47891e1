//! The tests: each attack with and without the layer, each hook for itself, rules, and what must go on to work.

use std::os::{
    fd::AsRawFd as _,
    unix::net::{UnixDatagram, UnixListener},
};

use anyhow::{Result, bail, ensure};
use aya_obj::generated::bpf_prog_type;
use egress::{
    compile::{Compiled, UnixRule},
    enforce::LsmHook,
    policy::{Restriction, Unix},
};
use egress_common::{Escape, Hook, Reason, Verdict};
use nix::sys::socket::SockType;

use crate::{
    attacks::{ATTACKS, Attack, From},
    call, cost,
    honest::WORK,
    outside::Outside,
    run,
    scope::{Inmate, Scope, check_law, in_child, unconfined},
};

/// A test's name and body.
pub(crate) type Test = (&'static str, fn() -> Result<()>);

/// All of them.
pub(crate) const TESTS: [Test; 15] = [
    ("attacks_succeed_without_a_scope", control),
    ("attacks_are_refused_and_told", refused),
    ("each_hook_is_needed", matrix),
    ("honest_work_goes_on", honest),
    ("an_open_list_of_processes_leads_nowhere", open_list),
    ("a_ring_is_not_received", ring),
    ("unix_rules_open_and_close", rules),
    ("unix_any_and_none", settings),
    ("restrictions_are_lifted_by_name", lifted),
    ("audit_lets_pass_and_tells", audit),
    ("a_flood_is_counted_exactly", flood),
    ("nothing_stays_behind", leftovers),
    ("a_scope_outlives_its_enforcer", outlives),
    ("a_command_is_run_with_the_layer", run::test),
    ("cost_outside_every_scope", cost::outside),
];

/// Makes an attack, from wherever it comes; its errno and the process that made it.
fn attempt(scope: Option<&Scope>, outside: &Outside, attack: &Attack) -> Result<(i32, u32)> {
    let call = || (attack.call)(outside);
    match (scope, attack.from) {
        (None, From::Inside) => unconfined(call),
        (Some(scope), From::Inside) => scope.run(call),
        (None, From::Outside) => {
            let _served = serve(outside);
            in_child(None, call)
        }
        (Some(scope), From::Outside) => {
            let _inmate = Inmate::start(scope, || serve(outside))?;
            in_child(None, call)
        }
    }
}

/// Listens where attacks from outside go to.
fn serve(outside: &Outside) -> (UnixListener, UnixDatagram) {
    let (stream, datagram) = (outside.path("inside-stream"), outside.path("inside-datagram"));
    for path in [&stream, &datagram] {
        let _ = std::fs::remove_file(path);
    }
    (UnixListener::bind(&stream).expect("bind"), UnixDatagram::bind(&datagram).expect("bind"))
}

/// What cannot succeed proves nothing when it fails.
fn control() -> Result<()> {
    let outside = Outside::new()?;
    for attack in &ATTACKS {
        let (errno, _) = attempt(None, &outside, attack)?;
        ensure!(errno == 0, "{}: errno {errno} without a scope", attack.name);
    }
    Ok(())
}

/// Exactly one record for each, about the right thing, and exactly one count.
fn refused() -> Result<()> {
    let outside = Outside::new()?;
    let mut scope = Scope::strict()?;
    for attack in &ATTACKS {
        scope.records();
        let before = scope.counters();
        let (errno, pid) = attempt(Some(&scope), &outside, attack)?;
        ensure!(errno == libc::EPERM, "{}: errno {errno}", attack.name);
        let records = scope.records();
        let [record] = records.as_slice() else {
            bail!("{}: {} records: {records:?}", attack.name, records.len())
        };
        check_record(attack, &scope, record, pid)?;
        let after = scope.counters();
        let count = |counters: &egress_common::lsm::LsmCounters| counters.count(Verdict::Deny, attack.reason);
        ensure!(count(&after) == count(&before) + 1, "{}: counted otherwise", attack.name);
        check_law(&after)?;
    }
    Ok(())
}

fn check_record(attack: &Attack, scope: &Scope, record: &Escape, pid: u32) -> Result<()> {
    let text = text(record);
    let told = (Verdict::from_u8(record.verdict), Hook::from_u8(record.hook), Reason::from_u8(record.reason));
    let expected = (Some(Verdict::Deny), Some(Hook::Lsm), Some(attack.reason));
    ensure!(told == expected, "{}: told as {told:?}", attack.name);
    ensure!(text.ends_with(attack.text), "{}: told about {text:?}", attack.name);
    ensure!(record.owner.tgid == pid, "{}: told of {}", attack.name, record.owner.tgid);
    let cgroup = scope.enforced.cgroup().id();
    ensure!(record.scope == cgroup, "{}: told as of another scope", attack.name);
    let inside = attack.from == From::Inside;
    ensure!((record.cgroup == cgroup) == inside, "{}: cgroup {}", attack.name, record.cgroup);
    Ok(())
}

fn text(record: &Escape) -> String {
    let end = record.text.iter().position(|byte| *byte == 0).unwrap_or(record.text.len());
    String::from_utf8_lossy(&record.text[..end]).into_owned()
}

/// With one hook away, its attacks succeed and no other's do.
fn matrix() -> Result<()> {
    let outside = Outside::new()?;
    for hook in LsmHook::ALL {
        let rest: Vec<LsmHook> = LsmHook::ALL.into_iter().filter(|other| *other != hook).collect();
        let scope = Scope::new(&rest, &Compiled::default(), &[])?;
        for attack in &ATTACKS {
            let (errno, _) = attempt(Some(&scope), &outside, attack)?;
            let expected = if attack.hook == hook { 0 } else { libc::EPERM };
            ensure!(errno == expected, "without {}: {}: errno {errno}", hook.name(), attack.name);
        }
        ensure!(ATTACKS.iter().any(|attack| attack.hook == hook), "no attack needs {}", hook.name());
    }
    Ok(())
}

fn honest() -> Result<()> {
    let mut scope = Scope::strict()?;
    for (name, work) in WORK {
        let (errno, _) = unconfined(work)?;
        ensure!(errno == 0, "{name}: errno {errno} without a scope");
        let (errno, _) = scope.run(work)?;
        ensure!(errno == 0, "{name}: errno {errno}");
        let records = scope.records();
        ensure!(records.is_empty(), "{name}: told: {:?}", records.iter().map(text).collect::<Vec<_>>());
    }
    Ok(())
}

/// Two hooks see this one, so neither is missed alone.
fn open_list() -> Result<()> {
    let outside = Outside::new()?;
    let mut scope = Scope::strict()?;
    let (errno, _) = scope.run(|| call::write(outside.procs.as_raw_fd(), b"0"))?;
    ensure!(matches!(errno, libc::EPERM | libc::EACCES), "errno {errno}");
    ensure!(scope.records().len() == 1, "one record");
    Ok(())
}

/// Kernels since 6.8 pass no ring to anybody.
fn ring() -> Result<()> {
    let outside = Outside::new()?;
    let received = || match call::pass(&outside.giver, outside.ring.as_raw_fd()) {
        0 => call::take_errno(&outside.taker),
        errno => errno,
    };
    let (control, _) = unconfined(received)?;
    ensure!(matches!(control, 0 | libc::EINVAL), "errno {control} without a scope");
    let mut scope = Scope::strict()?;
    let (errno, _) = scope.run(received)?;
    ensure!(errno == if control == 0 { libc::EPERM } else { control }, "errno {errno}");
    ensure!(scope.records().len() == usize::from(control == 0), "one record, if it can be received");
    Ok(())
}

fn rule(id: u32, allow: bool, pattern: String) -> UnixRule {
    UnixRule { id, allow, pattern }
}

fn rules() -> Result<()> {
    let outside = Outside::new()?;
    let compiled = Compiled {
        unix_rules: vec![
            rule(1, true, outside.path("stream*")),
            rule(2, false, outside.path("stream-two")),
            rule(3, true, outside.path("datagram")),
            rule(4, true, outside.abstracted()),
            rule(5, false, outside.path("own*")),
        ],
        ..Compiled::default()
    };
    let mut scope = Scope::new(&LsmHook::ALL, &compiled, &[])?;
    let connect = |name: String| move || call::unix_connect(SockType::Stream, &name);
    let (path, abstracted) = (|name: &str| outside.path(name), outside.abstracted());
    ensure!(scope.run(connect(path("stream")))?.0 == 0, "a beginning opens");
    ensure!(scope.run(connect(abstracted))?.0 == 0, "an abstract name opens");
    ensure!(scope.run(|| call::unix_send(&path("datagram")))?.0 == 0, "an exact name opens");
    ensure!(scope.records().is_empty(), "what is allowed is not told");
    let counters = scope.counters();
    ensure!(counters.count(Verdict::Allow, Reason::Rule) == 3, "but counted");
    check_law(&counters)?;
    ensure!(scope.run(connect(path("stream-two")))?.0 == libc::EPERM, "a deny rule wins");
    let packets = || call::unix_connect(SockType::SeqPacket, &path("seqpacket"));
    ensure!(scope.run(packets)?.0 == libc::EPERM, "no other is opened");
    let own = || {
        let path = path("own-one");
        let _listener = UnixListener::bind(&path).expect("bind");
        call::unix_connect(SockType::Stream, &path)
    };
    ensure!(scope.run(own)?.0 == libc::EPERM, "a deny rule wins over whose it is");
    let reasons: Vec<u8> = scope.records().iter().map(|record| record.reason).collect();
    let expected = [Reason::DenyRule, Reason::Unix, Reason::DenyRule].map(|reason| reason as u8);
    ensure!(reasons == expected, "told: {reasons:?}");
    // The name of an allowed socket leads to another one: what counts is whose it is.
    std::fs::rename(path("seqpacket"), path("stream"))?;
    let renamed = || call::unix_connect(SockType::SeqPacket, &path("stream"));
    ensure!(scope.run(renamed)?.0 == libc::EPERM, "a name that leads elsewhere");
    Ok(())
}

fn settings() -> Result<()> {
    let outside = Outside::new()?;
    let of = |unix| Scope::new(&LsmHook::ALL, &Compiled { unix, ..Compiled::default() }, &[]);
    let unix = || ATTACKS.iter().filter(|attack| attack.reason == Reason::Unix);
    let open = of(Unix::Any)?;
    for attack in unix() {
        ensure!(attempt(Some(&open), &outside, attack)?.0 == 0, "any: {}", attack.name);
    }
    drop(open);
    let rules = vec![rule(1, false, outside.path("datagram"))];
    let but_one = Compiled { unix: Unix::Any, unix_rules: rules, ..Compiled::default() };
    let but_one = Scope::new(&LsmHook::ALL, &but_one, &[])?;
    ensure!(but_one.run(|| call::unix_send(&outside.path("datagram")))?.0 == libc::EPERM, "any: a deny rule");
    drop(but_one);
    let closed = of(Unix::None)?;
    for attack in unix() {
        ensure!(attempt(Some(&closed), &outside, attack)?.0 == libc::EPERM, "none: {}", attack.name);
    }
    let (name, own) = WORK[0];
    ensure!(closed.run(own)?.0 == libc::EPERM, "none: {name}");
    let pair = || {
        let (one, _other) = UnixDatagram::pair().expect("a pair");
        one.send(b"x").err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
    };
    ensure!(closed.run(pair)?.0 == 0, "none: a pair leads nowhere");
    Ok(())
}

fn lifted() -> Result<()> {
    let outside = Outside::new()?;
    let permitted = [
        Restriction::Families,
        Restriction::Netlink,
        Restriction::Ptrace,
        Restriction::Signals,
        Restriction::Bpf,
    ];
    let scope = Scope::new(&LsmHook::ALL, &Compiled::default(), &permitted)?;
    for attack in &ATTACKS {
        let lifted = matches!(attack.reason, Reason::Family | Reason::Process | Reason::Bpf);
        let expected = if lifted { 0 } else { libc::EPERM };
        let (errno, _) = attempt(Some(&scope), &outside, attack)?;
        ensure!(errno == expected, "{}: errno {errno}", attack.name);
    }
    Ok(())
}

fn audit() -> Result<()> {
    let outside = Outside::new()?;
    let mut scope = Scope::new(&LsmHook::ALL, &Compiled { audit: true, ..Compiled::default() }, &[])?;
    for attack in &ATTACKS {
        scope.records();
        let (errno, _) = attempt(Some(&scope), &outside, attack)?;
        ensure!(errno == 0, "{}: errno {errno}", attack.name);
        let records = scope.records();
        let told =
            |record: &Escape| record.verdict == Verdict::Audit as u8 && record.reason == attack.reason as u8;
        ensure!(records.iter().any(told), "{}: not told", attack.name);
    }
    check_law(&scope.counters())
}

fn flood() -> Result<()> {
    const ATTEMPTS: u64 = 20_000;
    let mut scope = Scope::strict()?;
    scope.run(|| {
        (0..ATTEMPTS).map(|_| call::make_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)).max().unwrap_or(0)
    })?;
    let counters = scope.counters();
    ensure!(counters.count(Verdict::Deny, Reason::Family) == ATTEMPTS, "every attempt is counted");
    check_law(&counters)?;
    let told = u64::try_from(scope.records().len())?;
    let fate = counters.fate[Verdict::Deny as usize];
    ensure!(told == fate.emitted, "{told} records, {} emitted", fate.emitted);
    ensure!(fate.suppressed > 0, "the rate holds");
    Ok(())
}

/// How many LSM programs there are.
fn loaded() -> usize {
    let programs = aya::programs::loaded_programs().filter_map(Result::ok);
    programs.filter(|program| program.program_type() == bpf_prog_type::BPF_PROG_TYPE_LSM).count()
}

fn leftovers() -> Result<()> {
    let before = loaded();
    let scope = Scope::strict()?;
    ensure!(loaded() == before + LsmHook::ALL.len(), "{} programs", loaded());
    let (pins, path) = (scope.enforced.cgroup().pins().to_owned(), scope.enforced.cgroup().path().to_owned());
    ensure!(LsmHook::ALL.iter().all(|hook| pins.join(hook.program()).exists()), "each is pinned");
    drop(scope);
    ensure!(!pins.exists() && !path.exists(), "pins or cgroup stay behind");
    // What the kernel frees later than it says.
    for _ in 0..100 {
        if loaded() == before {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    bail!("{} programs stay behind", loaded() - before)
}

/// The programs hold while somebody is inside, though nobody has their descriptors any more.
fn outlives() -> Result<()> {
    let outside = Outside::new()?;
    let scope = Scope::strict()?;
    let procs = scope.enforced.cgroup().procs()?;
    let (path, pins) = (scope.enforced.cgroup().path().to_owned(), scope.enforced.cgroup().pins().to_owned());
    let inmate = Inmate::start(&scope, || ())?;
    drop(scope);
    for attack in ATTACKS.iter().filter(|attack| attack.from == From::Inside) {
        let (errno, _) = in_child(Some(procs.as_raw_fd()), || (attack.call)(&outside))?;
        ensure!(errno == libc::EPERM, "{}: errno {errno}", attack.name);
    }
    drop(inmate);
    egress::enforce::remove_pins(&pins);
    std::fs::remove_dir(&path)?;
    Ok(())
}
