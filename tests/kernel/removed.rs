//! What each hook is for: with it alone taken away, these cases change, and in this way.
//!
//! One file a program in `removed/`; rewritten by a run with `EGRESS_UPDATE=1`, to be read before it is committed.

use std::path::Path;

use egress::enforce::KernelProgram;
use egress_tests::{
    Case, judge,
    rows::{CONNECT_ROWS, CREATE_ROWS, PACKET_ROWS, SENDMSG_ROWS, SETSOCKOPT_ROWS},
};

fn cases() -> Vec<Case> {
    [packets(), SETSOCKOPT_ROWS.to_vec()].concat()
}

/// Those that are about packets of the program's own, to addresses that the policy does not name.
fn packets() -> Vec<Case> {
    [CONNECT_ROWS, SENDMSG_ROWS, CREATE_ROWS, PACKET_ROWS].concat()
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel/removed").join(name).with_extension("txt");
    if std::env::var_os("EGRESS_UPDATE").is_some() {
        std::fs::write(&path, found).expect("write the expectation");
        return;
    }
    let expected = std::fs::read_to_string(&path).expect("read the expectation");
    assert_eq!(expected, found, "without {name}");
}

fn without(program: KernelProgram) {
    let found = judge::without(program, &cases());
    assert!(!found.is_empty(), "no case depends on {}", program.name());
    compare(program.name(), &found);
}

#[test]
fn create() {
    without(KernelProgram::Create);
}

#[test]
fn connect4() {
    without(KernelProgram::Connect4);
}

#[test]
fn connect6() {
    without(KernelProgram::Connect6);
}

#[test]
fn sendmsg4() {
    without(KernelProgram::Sendmsg4);
}

#[test]
fn sendmsg6() {
    without(KernelProgram::Sendmsg6);
}

#[test]
fn setsockopt() {
    without(KernelProgram::Setsockopt);
}

#[test]
fn packet() {
    without(KernelProgram::Packet);
}

/// The boundary holds alone: nothing gets out, only errno and event are worse.
#[test]
fn all_but_packet() {
    let found = judge::differences(&[KernelProgram::Packet], &packets());
    compare("all_but_packet", &found);
    assert!(!found.contains("GETS OUT"), "{found}");
}
