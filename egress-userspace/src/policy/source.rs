//! The text of a policy file: receives a path, gives checked text and turns offsets into lines and columns.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Fault, Origin, Problem};

/// Largest policy file in bytes: far above 10,000 rules.
pub(super) const SIZE_MAX: usize = 4 << 20;

/// A policy file as read.
#[derive(Debug, Eq, PartialEq)]
pub struct Source {
    /// As named on the command line or by `include`.
    pub path: Arc<PathBuf>,
    /// Its text without a byte order mark.
    pub text: String,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

impl Source {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, Box<Problem>> {
        let bytes = read(path).map_err(|error| {
            let fault = Fault::Unreadable { path: path.to_owned(), error: describe(&error) };
            Box::new(Problem::without_text(path, fault))
        })?;
        if bytes.len() > SIZE_MAX {
            return Err(Box::new(Problem::without_text(path, Fault::TooLarge)));
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                // What is readable up to the bad byte, so that the line can be shown.
                let at = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let source = Arc::new(Self::new(path, text));
                return Err(Box::new(Problem::new(&source, at..at + 1, Fault::NotUtf8)));
            }
        };
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Self::new(path, text))
    }

    /// A text under a file's name.
    pub(super) fn new(path: &Path, text: String) -> Self {
        let lines = [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path: Arc::new(path.to_owned()), text, lines }
    }

    /// Line and column in characters of a byte offset, both counted from 1.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// The origin of what stands at a byte offset.
    pub(super) fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: Arc::clone(&self.path), line: self.position(offset).0 }
    }
}

/// Reads one byte more than a policy may have, at most.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(SIZE_MAX).unwrap_or(u64::MAX);
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new(Path::new("p"), "ä: b\nçc\n".into());
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position("ä:".len()), (1, 3));
        assert_eq!(source.position("ä: b\n".len()), (2, 1));
        assert_eq!(source.position("ä: b\nç".len()), (2, 2));
        assert_eq!(source.position(usize::MAX), (3, 1));
    }
}
