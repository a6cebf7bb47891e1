//! How many instructions the verifier walks for each program, against `verifier-insns.txt`.
//!
//! A growth is meant to be noticed: older kernels refuse programs for less, and every start waits for it. The counts are
//! those of one compiler and one kernel; with these the slack is 10 %. Others walk otherwise, and there the bound is
//! four times as much, far below what any kernel refuses. Rewritten with `EGRESS_UPDATE=1`.

use std::{fmt::Write as _, fs, path::Path};

use egress::enforce::{COMPILER, Engine, KernelProgram, Limits, sys};

fn instructions(engine: &Engine, program: KernelProgram) -> u32 {
    let loaded = engine.program_fd(program).expect("a loaded program");
    sys::verified_instructions(loaded).expect("the kernel knows its program")
}

/// What the counts were taken with: compiler, and kernel without its patch release.
fn taken_with() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's release");
    let kernel: Vec<&str> = release.trim().splitn(3, ['.', '-']).take(2).collect();
    format!("# {COMPILER}, Linux {}", kernel.join("."))
}

#[test]
fn programs_verify_as_quickly_as_they_did() {
    egress_tests::require_root();
    let engine = Engine::load(&Limits::default()).expect("load the programs");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier-insns.txt");
    let mut text = format!("{}\n", taken_with());
    let counts = KernelProgram::ALL.map(|program| (program.name(), instructions(&engine, program)));
    for (name, count) in counts {
        writeln!(text, "{name} {count}").expect("write to memory");
    }
    if std::env::var_os("EGRESS_UPDATE").is_some() {
        fs::write(&path, &text).expect("write the snapshot");
        return;
    }
    let snapshot = fs::read_to_string(&path).expect("read the snapshot");
    let same = snapshot.lines().next() == Some(taken_with().as_str());
    for (name, count) in counts {
        let line = snapshot.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let known: u32 = line.and_then(|count| count.parse().ok()).expect("a line for the program");
        let (low, high) = if same { (known - known / 10, known + known / 10) } else { (1, known * 4) };
        assert!(
            (low..=high).contains(&count),
            "{name}: {count} instructions instead of about {known}\n{text}"
        );
    }
}
