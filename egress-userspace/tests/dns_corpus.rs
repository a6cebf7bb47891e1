//! Replays the corpus of the fuzz targets with the ordinary toolchain.

use std::{fs, path::Path};

use egress::dns::fuzzing;

/// Most bytes that a corpus may take in the repository.
const LARGEST: usize = 150_000;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        (files, bytes) = (files + 1, bytes + input.len());
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&input))) {
            eprintln!("with {}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
    assert!(files >= 50, "{files} files in {}", directory.display());
    assert!(bytes <= LARGEST, "{bytes} bytes in {}", directory.display());
}

#[test]
fn questions() {
    replay("question", fuzzing::question);
}

#[test]
fn answers() {
    replay("answer", fuzzing::answer);
}
