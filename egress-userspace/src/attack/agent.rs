//! The attacking side, `egress attack-agent`: told by its standard input what to attack, it makes each attempt in a process
//! of its own and says what became of it. It judges nothing.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, PipeReader, Read as _, Write as _},
    os::fd::AsRawFd as _,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::{
    aim::{Aim, Brief},
    call::{self, Stop},
    holder, table,
};

/// Attempts that are made at once.
const AT_ONCE: usize = 24;

/// No attempt takes longer, in seconds.
const BOUND: u32 = 5;

/// What the attacking side says of one attempt.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Eq, PartialEq)]
pub(super) struct Told {
    /// Its place in the table.
    pub(super) index: usize,
    /// Where it stopped; empty if every call succeeded.
    pub(super) at: String,
    /// The errno there; 0 if every call succeeded.
    pub(super) errno: i32,
    /// The longest call, in microseconds.
    pub(super) micros: u64,
}

/// The hidden command: `perform`, `hold NONCE INDEX` or `once INDEX BRIEF`.
pub fn main(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["perform"] => perform(),
        ["hold", nonce, index] => match (nonce.parse(), index.parse()) {
            (Ok(nonce), Ok(index)) => holder::hold(nonce, index),
            _ => ExitCode::FAILURE,
        },
        ["once", index, brief] => match (index.parse(), serde_json::from_str(brief)) {
            (Ok(index), Ok(brief)) => match table::executed(&Aim { index, brief: &brief }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(stop) => ExitCode::from(u8::try_from(stop.errno).unwrap_or(255)),
            },
            _ => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}

fn perform() -> ExitCode {
    let mut line = String::new();
    let brief: Brief = match io::stdin().lock().read_line(&mut line).map(|_| serde_json::from_str(&line)) {
        Ok(Ok(brief)) => brief,
        _ => return ExitCode::FAILURE,
    };
    let mut waiting: VecDeque<usize> = brief.attacks.iter().copied().collect();
    let mut running: Vec<Attempt> = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < AT_ONCE {
            let Some(index) = waiting.pop_front() else { break };
            match Attempt::start(index, &brief) {
                Ok(attempt) => running.push(attempt),
                Err(error) => say(&Told {
                    index,
                    at: "fork".into(),
                    errno: error.raw_os_error().unwrap_or(libc::EIO),
                    micros: 0,
                }),
            }
        }
        settle(&mut running);
    }
    ExitCode::SUCCESS
}

fn say(told: &Told) {
    let line = serde_json::to_string(told).unwrap_or_default() + "\n";
    // Nobody listens: then nothing is to be done.
    let _gone = io::stdout().write_all(line.as_bytes());
}

/// One attempt that is being made.
struct Attempt {
    index: usize,
    process: libc::pid_t,
    word: PipeReader,
    since: Instant,
}

impl Attempt {
    fn start(index: usize, brief: &Brief) -> io::Result<Self> {
        let (word, mut speak) = io::pipe()?;
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: bounds on this process only.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::alarm(BOUND);
                }
                let told = make(index, brief);
                let text = serde_json::to_string(&told).unwrap_or_default();
                let _gone = speak.write_all(text.as_bytes());
                // SAFETY: ends this process without running what the parent registered.
                unsafe { libc::_exit(0) }
            }
            process => Ok(Self { index, process, word, since: Instant::now() }),
        }
    }

    /// Says what became of it, once it is known.
    fn settle(&mut self, ready: bool) -> bool {
        let late = self.since.elapsed() > Duration::from_secs(u64::from(BOUND) + 1);
        if !ready && !late {
            return false;
        }
        if late {
            // SAFETY: our own child, not yet waited for.
            unsafe { libc::kill(self.process, libc::SIGKILL) };
        }
        let mut text = String::new();
        let heard = if late { Ok(0) } else { self.word.read_to_string(&mut text) };
        let mut status = 0;
        // SAFETY: our own child; the kernel writes one number.
        unsafe { libc::waitpid(self.process, &raw mut status, 0) };
        let told = heard.ok().and_then(|_| serde_json::from_str(&text).ok());
        say(&told.unwrap_or_else(|| Told {
            index: self.index,
            at: "killed".into(),
            errno: libc::WTERMSIG(status),
            micros: u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX),
        }));
        true
    }
}

/// Makes the attempt, in this process.
fn make(index: usize, brief: &Brief) -> Told {
    let aim = Aim { index, brief };
    let attack = table::all().nth(index).unwrap_or(&table::HONEST);
    std::panic::set_hook(Box::new(|_| {}));
    let done = catch_unwind(AssertUnwindSafe(|| (attack.how)(&aim)));
    let Stop { at, errno } = match done {
        Ok(Ok(())) => Stop { at: "", errno: 0 },
        Ok(Err(stop)) => stop,
        Err(_) => Stop { at: "panic", errno: libc::EIO },
    };
    let micros = u64::try_from(call::longest().as_micros()).unwrap_or(u64::MAX);
    Told { index, at: at.into(), errno, micros }
}

/// Waits a moment for any of them.
fn settle(running: &mut Vec<Attempt>) {
    // SAFETY: the pipes live through the call.
    let borrowed =
        |attempt: &Attempt| unsafe { std::os::fd::BorrowedFd::borrow_raw(attempt.word.as_raw_fd()) };
    let mut ends: Vec<PollFd<'_>> =
        running.iter().map(|attempt| PollFd::new(borrowed(attempt), PollFlags::POLLIN)).collect();
    let _interrupted = poll(&mut ends, PollTimeout::from(100_u16));
    let ready: Vec<bool> = ends.iter().map(|end| end.any().unwrap_or(false)).collect();
    let mut ready = ready.into_iter();
    running.retain_mut(|attempt| !attempt.settle(ready.next().unwrap_or(false)));
}
