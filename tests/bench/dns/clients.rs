//! Clients that ask for a name nobody asked for before and connect at once to the address they are told, while others
//! keep the server busy; and who accepts them.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Plan, fixed,
    message::{self, AAAA, ROOM, Template},
    outstanding::Asker,
    say,
};

/// Clients at a time.
const CLIENTS: u64 = 4;

/// Names of the background are this far from those of the clients, and clients' from each other.
const APART: u64 = 10_000_000_000;

/// An address of the upstream's network that no name has.
const UNASKED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 1);

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Counts {
    connected: AtomicU64,
    denied: AtomicU64,
    failed: AtomicU64,
    unanswered: AtomicU64,
}

/// Accepts and hangs up until its standard input ends.
pub(crate) fn accept(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).context("listen")?;
    thread::spawn(move || listener.incoming().for_each(drop));
    say("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Asks, connects and prints.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let unasked = match connect(UNASKED, plan.port) {
        Ok(()) => "open",
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => "denied",
        Err(error) => bail!("cannot reach the network of the servers: {error}"),
    };
    let counts = Counts::default();
    let until = Instant::now() + Duration::from_secs(plan.seconds);
    let stop = AtomicBool::new(false);
    let background = thread::scope(|scope| {
        let background = scope.spawn(|| {
            let plan = Plan { from: plan.from + APART, ..plan.clone() };
            fixed::ask(&plan, &Template::new(plan.question(0))?, 0, |_| ())
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (counts, stop) = (&counts, &stop);
                let first = plan.from + APART * (2 + client);
                let most = plan.questions.min(u64::MAX - CLIENTS).div_ceil(CLIENTS);
                scope.spawn(move || {
                    let until = || Instant::now() < until && !stop.load(Relaxed);
                    converse(plan, (first..first + most.min(APART)).take_while(|_| until()), counts)
                })
            })
            .collect();
        for client in clients {
            if let Err(error) = client.join().unwrap_or_else(|_| bail!("a client panicked")) {
                stop.store(true, Relaxed);
                return Err(error);
            }
        }
        background.join().unwrap_or_else(|_| bail!("the background panicked"))
    })?;
    let of = |count: &AtomicU64| count.load(Relaxed);
    say(&format!(
        "unasked={unasked} connected={} denied={} failed={} unanswered={} sent={} good={}",
        of(&counts.connected),
        of(&counts.denied),
        of(&counts.failed),
        of(&counts.unanswered),
        background.sent,
        background.good
    ));
    Ok(())
}

fn converse(plan: &Plan, names: impl Iterator<Item = u64>, counts: &Counts) -> Result<()> {
    let mut asker = Asker::new(plan.server)?;
    let template = Template::new(message::Question { query_type: AAAA, ..plan.question(0) })?;
    let mut room = [0; ROOM];
    for name in names {
        let told = asker.ask(&template, name, &mut room);
        let Some(address) = told.ok().and_then(|length| message::first_address(&room[..length])) else {
            counts.unanswered.fetch_add(1, Relaxed);
            continue;
        };
        let count = match connect(address, plan.port) {
            Ok(()) => &counts.connected,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => &counts.denied,
            Err(_) => &counts.failed,
        };
        count.fetch_add(1, Relaxed);
    }
    Ok(())
}

fn connect(address: Ipv6Addr, port: u16) -> io::Result<()> {
    TcpStream::connect_timeout(&SocketAddr::new(IpAddr::V6(address), port), PATIENCE).map(drop)
}
