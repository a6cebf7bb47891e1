//! Where lines go. A line is one write; a write that fails is told once, counted, and never stops the run.

use std::{
    fmt,
    io::{self, Write},
};

/// Writes lines, and bears what goes wrong.
pub struct Lines<W> {
    out: W,
    what: &'static str,
    alarm: Box<dyn FnMut(&str)>,
    lost: u64,
    /// The last line was cut off by an error, so the next one begins on a line of its own.
    torn: bool,
}

impl<W: Write> Lines<W> {
    /// To `out`; `what` names it in the alarm, which goes to stderr.
    pub fn new(out: W, what: &'static str) -> Self {
        Self::with_alarm(out, what, |text| {
            // If stderr is gone too there is nobody left to tell.
            let _ = writeln!(io::stderr(), "egress: {text}");
        })
    }

    /// As [`Lines::new`], with the alarm going elsewhere.
    pub fn with_alarm(out: W, what: &'static str, alarm: impl FnMut(&str) + 'static) -> Self {
        Self { out, what, alarm: Box::new(alarm), lost: 0, torn: false }
    }

    /// Writes one line; `line` is without its end.
    pub fn line(&mut self, line: &[u8]) {
        let mut bytes = Vec::with_capacity(line.len() + 2);
        if self.torn {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        match self.write(&bytes) {
            Ok(()) => self.torn = false,
            Err(error) => {
                if self.lost == 0 {
                    (self.alarm)(&format!("cannot write {}: {error}; further lines may be lost", self.what));
                }
                self.lost += 1;
            }
        }
    }

    /// Lines that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What the lines went to.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.torn = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }
}

impl<W> fmt::Debug for Lines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("what", &self.what).field("lost", &self.lost).finish_non_exhaustive()
    }
}
