//! What the layer costs a process that is outside every scope.

use std::{fs::OpenOptions, io::Write as _, os::unix::net::UnixDatagram, time::Instant};

use anyhow::Result;

use crate::{call, scope::Scope};

/// Few at a time and many times: the best is one that nothing came between.
const ROUNDS: u32 = 100;
const REPETITIONS: usize = 200;

/// A call's name, and what makes it so many times and gives the nanoseconds.
type Timed = (&'static str, fn(u32) -> u128);

/// Prints the cost of calls that pass the hooks, without and with the layer. Nothing is asserted: an emulated processor's
/// times say little of a real one's.
pub(crate) fn outside() -> Result<()> {
    let calls: [Timed; 4] =
        [("kill", time_kill), ("unix send", time_unix_send), ("write", time_write), ("socket", time_socket)];
    let without = calls.map(|(_, time)| best(time));
    let _scope = Scope::strict()?;
    let with = calls.map(|(_, time)| best(time));
    println!("outside every scope, emulated processor, best of {REPETITIONS}:");
    for (((name, _), without), with) in calls.iter().zip(without).zip(with) {
        println!("  {name}: {without} ns without, {with} ns with, {:+} ns", with - without);
    }
    Ok(())
}

/// Nanoseconds a call.
fn best(time: fn(u32) -> u128) -> i128 {
    let best = (0..REPETITIONS).map(|_| time(ROUNDS)).min().unwrap_or_default();
    i128::try_from(best).unwrap_or(i128::MAX) / i128::from(ROUNDS)
}

fn time_kill(rounds: u32) -> u128 {
    let own = nix::unistd::getpid();
    timed(rounds, || {
        let _ = nix::sys::signal::kill(own, None);
    })
}

fn time_unix_send(rounds: u32) -> u128 {
    let (one, other) = UnixDatagram::pair().expect("a pair");
    timed(rounds, || {
        let _ = one.send(b"x");
        let _ = other.recv(&mut [0]);
    })
}

fn time_write(rounds: u32) -> u128 {
    let mut null = OpenOptions::new().write(true).open("/dev/null").expect("the null device");
    timed(rounds, || {
        let _ = null.write(b"x");
    })
}

fn time_socket(rounds: u32) -> u128 {
    timed(rounds, || drop(call::unix_socket(nix::sys::socket::SockType::Stream)))
}

fn timed(rounds: u32, mut call: impl FnMut()) -> u128 {
    let begin = Instant::now();
    for _ in 0..rounds {
        call();
    }
    begin.elapsed().as_nanos()
}
