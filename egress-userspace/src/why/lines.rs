//! Lines to events. Bounded: a line longer than any event is passed over, and nothing that is no event stops the reading.

use std::io::{self, BufRead, Read as _};

use super::Event;

/// Longest line that can be an event.
const LINE_MAX: u64 = 1 << 20;

/// What the lines were.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Read {
    pub(super) understood: u64,
    pub(super) foreign: u64,
    /// The last line has no end and is no event: it is being written, or was when the disk was full.
    pub(super) torn: bool,
}

/// Gives each event; empty lines are nothing.
pub(super) fn each<R: BufRead>(mut reader: R, mut take: impl FnMut(Event)) -> io::Result<Read> {
    let mut read = Read::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(read);
        }
        let whole = line.ends_with(b"\n");
        if !whole && u64::try_from(line.len()).is_ok_and(|length| length == LINE_MAX) {
            read.foreign += 1;
            skip_line(&mut reader)?;
            continue;
        }
        match Event::parse(line.trim_ascii()) {
            Some(event) => {
                read.understood += 1;
                take(event);
            }
            None if line.trim_ascii().is_empty() => {}
            None if whole => read.foreign += 1,
            None => read.torn = true,
        }
    }
}

fn skip_line<R: BufRead>(reader: &mut R) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}
