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

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    /// Takes `room` bytes, `most` at a time, then is full until it gets more room.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        most: usize,
        writes: usize,
    }

    struct Handle(Rc<RefCell<Disk>>);

    impl Write for Handle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.borrow_mut();
            disk.writes += 1;
            let length = bytes.len().min(disk.room).min(disk.most);
            if length == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            disk.room -= length;
            disk.bytes.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn disk(room: usize, most: usize) -> Rc<RefCell<Disk>> {
        Rc::new(RefCell::new(Disk { bytes: Vec::new(), room, most, writes: 0 }))
    }

    #[test]
    fn a_line_is_one_write() {
        let disk = disk(100, 100);
        let mut lines = Lines::new(Handle(Rc::clone(&disk)), "events");
        lines.line(b"one");
        lines.line(b"two");
        assert_eq!((disk.borrow().bytes.as_slice(), disk.borrow().writes), (&b"one\ntwo\n"[..], 2));
    }

    #[test]
    fn a_short_write_is_finished() {
        let disk = disk(100, 2);
        Lines::new(Handle(Rc::clone(&disk)), "events").line(b"12345");
        assert_eq!(disk.borrow().bytes, b"12345\n");
    }

    #[test]
    fn a_full_disk_is_told_once_counted_and_survived() {
        let disk = disk(9, 100);
        let told = Rc::new(RefCell::new(Vec::new()));
        let mut lines = Lines::with_alarm(Handle(Rc::clone(&disk)), "events", {
            let told = Rc::clone(&told);
            move |text| told.borrow_mut().push(text.to_owned())
        });
        for line in [b"first", b"torn!", b"never"] {
            lines.line(line);
        }
        assert_eq!(lines.lost(), 2);
        assert_eq!(told.borrow().len(), 1);
        assert!(told.borrow()[0].starts_with("cannot write events: No space left on device"), "{told:?}");
        // With room again, the next line does not run on from the torn one.
        disk.borrow_mut().room = 100;
        lines.line(b"after");
        lines.line(b"last");
        assert_eq!(disk.borrow().bytes, b"first\ntor\nafter\nlast\n");
    }
}
