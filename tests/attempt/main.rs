//! The contained program of the tests: each argument is a step; performs them in order up to the first that fails.
//!
//! Writes a line a step: its first word, the errno (0 if it succeeded) and the microseconds it took.

mod ask;
mod call;
mod own;
mod race;
mod ring;
mod socket;
mod steps;

use std::{io::Write as _, process::ExitCode, time::Instant};

fn main() -> ExitCode {
    let mut state = steps::State::default();
    for step in std::env::args().skip(1) {
        let (verb, rest) = step.split_once(' ').unwrap_or((&step, ""));
        let (verb, go_on) = match verb.strip_prefix('?') {
            Some(verb) => (verb, true),
            None => (verb, false),
        };
        let start = Instant::now();
        let errno = match state.perform(verb, rest) {
            Some(Ok(())) => 0,
            Some(Err(errno)) => errno,
            None => {
                eprintln!("attempt: step not understood: {step}");
                return ExitCode::from(64);
            }
        };
        let line = format!("{verb} {errno} {}\n", start.elapsed().as_micros());
        if std::io::stdout().write_all(line.as_bytes()).is_err() {
            return ExitCode::from(74);
        }
        if errno != 0 && !go_on {
            break;
        }
    }
    ExitCode::SUCCESS
}
