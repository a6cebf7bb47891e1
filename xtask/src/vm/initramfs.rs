//! The file system of a machine: an archive in the form that the kernel unpacks ("newc").

/// An archive with programs, of which `init` is the first process, and the directories that it mounts something on.
pub(super) fn with(programs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for directory in ["dev", "proc", "sys", "tmp"] {
        add(&mut archive, directory, 0o040_755, (0, 0), &[]);
    }
    // The kernel opens it before the program runs.
    add(&mut archive, "dev/console", 0o020_600, (5, 1), &[]);
    for (name, program) in programs {
        add(&mut archive, name, 0o100_755, (0, 0), program);
    }
    add(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

fn add(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    let number = archive.len();
    let fields =
        [number, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, device.0 as usize, device.1 as usize];
    archive.extend_from_slice(b"070701");
    for field in fields.into_iter().chain([name.len() + 1, 0]) {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::with;

    /// Seen to fail with the padding of a half word, and with a size that is one too many.
    #[test]
    fn the_archive_is_what_other_programs_read() {
        let archive = with(&[("init", b"program".to_vec())]);
        assert!(archive.len().is_multiple_of(4));
        let at = archive.windows(4).position(|part| part == b"init").expect("the program's name");
        let head = &archive[at - 110..at];
        assert_eq!(&head[..6], b"070701");
        assert_eq!(&head[54..62], b"00000007", "its size");
        assert_eq!(&head[94..102], b"00000005", "its name's");
        assert_eq!(&archive[at + 6..at + 13], b"program");
    }
}
