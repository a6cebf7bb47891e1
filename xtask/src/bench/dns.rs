//! What a name costs: `egress` beside its own upstream asked directly, and beside dnsmasq and unbound as forwarders to it,
//! each on one core, in the same run. Cached names are asked again and again, new names once each.
//!
//! Those who ask have another core, which for throughput they share with the upstream. For latency that is beside the
//! server: a question that is asked directly then wakes another core as often as one that is forwarded, and what is added
//! is what the server does. All have a real-time priority where this machine gives one, so that its other work does not
//! count.

mod arena;
mod figures;
mod forwarder;

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use super::report::{Row, Target};
use super::{Bench, median};
use arena::Arena;
use figures::Figures;
use forwarder::Server;

const ROUNDS: usize = 3;

/// What a question may cost, in microseconds, and the supervisor's memory, in MiB.
const ADDED_P50: f64 = 100.0;
const ADDED_P99: f64 = 1_000.0;
const RSS_MIB: f64 = 30.0;

/// Rates in questions a second, for how many seconds, and in how many rounds.
const RATES: [(u32, u32, usize); 3] = [(1, 60, 1), (100, 5, ROUNDS), (5_000, 4, ROUNDS)];

/// Seconds of a run as fast as it goes.
const SATURATED: f64 = 3.0;

/// Which names are asked.
#[derive(Clone, Copy, Debug)]
enum Names {
    /// A hundred, again and again.
    Cached,
    /// Each once.
    New,
}

/// Latency, throughput, memory, connections.
pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    forwarder::install()?;
    let mut arena = Arena::new(bench)?;
    let mut rows = Vec::new();
    arena.upstream_beside(true)?;
    for (rate, seconds, rounds) in RATES {
        rows.extend(latency(&arena, rate, seconds, rounds)?);
    }
    arena.upstream_beside(false)?;
    for names in [Names::Cached, Names::New] {
        rows.extend(throughput(&arena, names)?);
    }
    rows.extend(memory(&arena)?);
    rows.push(connections(&arena)?);
    Ok(rows)
}

/// Who is asked, for what.
type Case = (Server, Names);

const CASES: [Case; 6] = [
    (Server::Egress, Names::Cached),
    (Server::Dnsmasq, Names::Cached),
    (Server::Unbound, Names::Cached),
    (Server::Egress, Names::New),
    (Server::Dnsmasq, Names::New),
    (Server::Unbound, Names::New),
];

fn latency(arena: &Arena, rate: u32, seconds: u32, rounds: usize) -> Result<Vec<Row>> {
    let words = format!("rate={rate} seconds={seconds}");
    let cases: Vec<Case> = [(Server::Upstream, Names::New)].into_iter().chain(CASES).collect();
    let mut found: Vec<Vec<Figures>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        let measure = |case: &Case| ask(arena, *case, "fixed", &words);
        let round = if rate == 1 { spread(&cases, measure)? } else { one_by_one(&cases, measure)? };
        found.iter_mut().zip(round).for_each(|(rounds, figures)| rounds.push(figures));
    }
    let mut rows = Vec::new();
    for (key, shown, most) in [("p50_us", "p50", ADDED_P50), ("p99_us", "p99", ADDED_P99)] {
        let middle = |index: usize| figures::middle(&found[index], key);
        let direct = middle(0)?;
        for (index, (server, names)) in cases.iter().enumerate().skip(1) {
            rows.push(Row {
                name: format!("{}, {} at {rate} q/s, {shown}", server.name(), names.name()),
                unit: "us",
                without: Some(direct),
                with: middle(index)?,
                target: matches!(server, Server::Egress).then_some(Target::Over(most)),
            });
        }
    }
    rows.push(unanswered(&format!("questions at {rate} q/s"), &cases, &found)?);
    Ok(rows)
}

/// How many questions to `egress` were not answered, or with a failure.
fn unanswered(what: &str, cases: &[Case], found: &[Vec<Figures>]) -> Result<Row> {
    let ours = cases.iter().zip(found).filter(|((server, _), _)| matches!(server, Server::Egress));
    let mut sum = 0.0;
    for figures in ours.flat_map(|(_, rounds)| rounds) {
        sum += figures.get("lost")? + figures.get("failed")?;
    }
    let name = format!("egress, {what}: not answered");
    Ok(Row { name, unit: "", without: None, with: sum, target: Some(Target::Total(0.0)) })
}

/// Each server's case of one kind of name at once, evenly apart within a second: at this rate they do not meet.
fn spread(cases: &[Case], measure: impl Fn(&Case) -> Result<Figures> + Sync) -> Result<Vec<Figures>> {
    let mut found = Vec::new();
    // Two of one server would share its port.
    for together in cases.chunks(1 + CASES.len() / 2) {
        let apart = Duration::from_secs(1) / u32::try_from(together.len()).unwrap_or(1);
        found.extend(thread::scope(|scope| {
            let measure = &measure;
            let start = |case| {
                let measuring = scope.spawn(move || measure(case));
                thread::sleep(apart);
                measuring
            };
            let started: Vec<_> = together.iter().map(start).collect();
            let ended =
                started.into_iter().map(|case| case.join().unwrap_or_else(|_| bail!("a thread panicked")));
            ended.collect::<Result<Vec<_>>>()
        })?);
    }
    Ok(found)
}

fn one_by_one(cases: &[Case], measure: impl Fn(&Case) -> Result<Figures>) -> Result<Vec<Figures>> {
    cases.iter().map(measure).collect()
}

/// Answers a second and processor time an answer; `egress` beside unbound, for which the target is, and beside dnsmasq.
fn throughput(arena: &Arena, names: Names) -> Result<Vec<Row>> {
    const SERVERS: [Server; 3] = [Server::Unbound, Server::Dnsmasq, Server::Egress];
    let cases = SERVERS.map(|server| (server, names));
    let words = format!("outstanding=128 seconds={SATURATED}");
    let mut rates = [const { Vec::new() }; SERVERS.len()];
    let mut costs = [const { Vec::new() }; SERVERS.len()];
    let mut found = [const { Vec::new() }; SERVERS.len()];
    for _ in 0..ROUNDS {
        for (index, case) in cases.iter().enumerate() {
            let figures = ask(arena, *case, "saturated", &words)?;
            if figures.get("cpu_us")? < 0.9 * SATURATED * 1e6 {
                eprintln!("  {} was not busy all the time: it could answer more", case.0.name());
            }
            rates[index].push(figures.get("rate")? / 1e3);
            costs[index].push(figures.get("cpu_us")? / figures.get("good")?);
            found[index].push(figures);
        }
    }
    let [unbound, dnsmasq, egress] = rates.each_mut().map(|values| median(values));
    let [unbound_cost, dnsmasq_cost, egress_cost] = costs.each_mut().map(|values| median(values));
    let row = |name: &str, unit, without, with, target| Row {
        name: format!("{}, {name}", names.name()),
        unit,
        without: Some(without),
        with,
        target,
    };
    Ok(vec![
        row("answers, beside unbound", "1000/s", unbound, egress, Some(Target::NoLess)),
        row("answers, beside dnsmasq", "1000/s", dnsmasq, egress, None),
        row("processor per answer, beside unbound", "us", unbound_cost, egress_cost, None),
        row("processor per answer, beside dnsmasq", "us", dnsmasq_cost, egress_cost, None),
        unanswered(&format!("{}, saturated", names.name()), &cases, &found)?,
    ])
}

/// Memory after a tenth of the names and after all; and with as many live permits as questions at this rate open.
fn memory(arena: &Arena) -> Result<Vec<Row>> {
    let row = |name: &str, without, with, target| Row {
        name: format!("egress, memory {name}"),
        unit: "MiB",
        without,
        with,
        target,
    };
    let words = "rate=10000 questions=1000000 seconds=110 ttl=1";
    let million = ask(arena, (Server::Egress, Names::New), "fixed", words)?.memory;
    ensure!(million.len() == 10, "only {} of 10 times 100,000 names were answered", million.len());
    // Each address stays open for about 35 seconds.
    let words = "rate=3000 questions=200000 seconds=70 ttl=1 type=28";
    let addresses = ask(arena, (Server::Egress, Names::New), "fixed", words)?.memory;
    let last =
        |values: &[f64]| values.last().copied().context("there were fewer names than it takes to measure");
    let target = Some(Target::Total(RSS_MIB));
    Ok(vec![
        row("after 1,000,000 names, beside 100,000", million.first().copied(), last(&million)?, target),
        row("with 105,000 live permits", None, last(&addresses)?, None),
    ])
}

/// Connections that failed right after the answer.
fn connections(arena: &Arena) -> Result<Row> {
    const WORDS: &str = "rate=2000 seconds=10 ttl=1";
    let open = ask(arena, (Server::Upstream, Names::New), "clients", "rate=1 seconds=1")?;
    ensure!(open.word("unasked")? == "open", "the network of the servers cannot be reached without `egress`");
    let found = ask(arena, (Server::Egress, Names::New), "clients", WORDS)?;
    ensure!(
        found.word("unasked")? == "denied",
        "an address that was in no answer is open: nothing is enforced"
    );
    let bad = found.get("denied")? + found.get("failed")? + found.get("unanswered")?;
    let all = bad + found.get("connected")?;
    ensure!(all > 0.0, "nobody connected");
    let name = format!("failed connects after the answer, of {all}");
    Ok(Row { name, unit: "", without: None, with: bad, target: Some(Target::Total(0.0)) })
}

/// Asks a server; a name that counts as new was asked in no run before.
fn ask(arena: &Arena, (server, names): Case, kind: &str, words: &str) -> Result<Figures> {
    let micros =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_micros();
    let names = match names {
        Names::Cached => "names=100".to_owned(),
        // No run asks a million names a second.
        Names::New => format!("from={}", micros % 10_000_000_000),
    };
    let words: Vec<&str> = [kind, &names].into_iter().chain(words.split(' ')).collect();
    let shown = format!("{}: {}", server.name(), words.join(" "));
    let figures = arena.ask(server, &words).with_context(|| shown.clone())?;
    eprintln!("  {shown}: {figures}");
    Ok(figures)
}

impl Names {
    const fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::New => "new",
        }
    }
}
