//! What a person sees while work is done: numbered steps with the time each took.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A count of steps, of which each is printed as it starts and as it ends.
pub(crate) struct Steps {
    total: usize,
    done: usize,
}

impl Steps {
    /// So many steps are to come.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, done: 0 }
    }

    /// Does one step; on a terminal, with a running clock.
    pub(crate) fn run<T>(&mut self, title: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        let title = format!("[{}/{}] {title}", self.done, self.total.max(self.done));
        let started = Instant::now();
        let (stop, stopped) = mpsc::channel::<()>();
        let result = thread::scope(|scope| {
            let title = title.as_str();
            scope.spawn(move || clock(title, started, &stopped));
            let result = work();
            drop(stop);
            result
        });
        let end = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let word = if result.is_ok() { "" } else { "  FAILED" };
        eprintln!("{end}{title:<66}{:>7.1} s{word}", started.elapsed().as_secs_f64());
        result
    }
}

/// Shows the title until stopped; without a terminal nothing moves, so the line is printed at the end only.
fn clock(title: &str, started: Instant, stopped: &mpsc::Receiver<()>) {
    if !io::stderr().is_terminal() {
        return;
    }
    loop {
        eprint!("\r\x1b[K{title:<66}{:>5} s", started.elapsed().as_secs());
        // A lost progress line is no reason to fail.
        let _ = io::stderr().flush();
        if stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
