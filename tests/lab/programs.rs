//! Clients that are built once, from the sources in `tests/clients`, and kept beside the test binaries.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use crate::attempt;

const MUSL: &str = include_str!("../clients/lookup.c");
const GO: &str = include_str!("../clients/lookup.go");
const JAVA: &str = include_str!("../clients/Lookup.java");
const NODE: &str = include_str!("../clients/lookup.js");

static BUILDING: Mutex<()> = Mutex::new(());

/// A static binary with musl's resolver.
///
/// # Panics
/// Without `musl-gcc` (package musl-tools).
pub fn musl() -> PathBuf {
    built("lookup.c", MUSL, "lookup", |directory| {
        compiler("musl-gcc", "musl-tools", directory, &["-static", "-O1", "-o", "lookup", "lookup.c"])
    })
}

/// A static binary with Go's resolver.
///
/// # Panics
/// Without `go` (package golang-go).
pub fn go() -> PathBuf {
    built("lookup.go", GO, "lookup", |directory| {
        let mut go = compiler("go", "golang-go", directory, &["build", "-o", "lookup", "lookup.go"]);
        go.envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local")]);
        go.env("GOCACHE", directory.with_file_name("go-cache"));
        go
    })
}

/// The directory of a Java class `Lookup`.
///
/// # Panics
/// Without `javac` (package default-jdk-headless).
pub fn java() -> PathBuf {
    let class = built("Lookup.java", JAVA, "Lookup.class", |directory| {
        compiler("javac", "default-jdk-headless", directory, &["Lookup.java"])
    });
    class.parent().expect("a file has a directory").to_owned()
}

/// A script for node.
pub fn node() -> PathBuf {
    built("lookup.js", NODE, "lookup.js", |_| Command::new("true"))
}

fn compiler(program: &str, package: &str, directory: &Path, words: &[&str]) -> Command {
    let present = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    assert!(present.is_ok_and(|found| found.status.success()), "{program} is missing: install {package}");
    let mut command = Command::new(program);
    command.args(words).current_dir(directory);
    command
}

/// Builds `made` from a source in a directory named after the source's content, unless that has been done before.
fn built(source: &str, text: &str, made: &str, how: impl FnOnce(&Path) -> Command) -> PathBuf {
    let _alone = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let clients = attempt::program().with_file_name("clients");
    let ready = clients.join(format!("{source}-{:016x}", hasher.finish()));
    if !ready.join(made).exists() {
        // Another test process may do the same: whoever is done first wins.
        let directory = clients.join(format!("{source}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("make the clients' directory");
        fs::write(directory.join(source), text).expect("write the source");
        let output = how(&directory).output().unwrap_or_else(|error| panic!("build {source}: {error}"));
        assert!(output.status.success(), "build {source}: {}", String::from_utf8_lossy(&output.stderr));
        if fs::rename(&directory, &ready).is_err() {
            fs::remove_dir_all(&directory).expect("remove what another process has built too");
        }
    }
    ready.join(made)
}
