//! Which compiler and linker build the kernel side, and how: shared by `cargo xtask` and the build script of
//! `egress`, so that both always mean the same toolchain. Finds and builds; never installs (see `setup`).

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release of bpf-linker that is installed where none is found.
pub(crate) const LINKER_VERSION: &str = "0.13.0";

/// The oldest compiler that builds the workspace (`rust-version` in Cargo.toml).
pub(crate) const MIN_RUSTC: (u32, u32) = (1, 95);

/// Where a compiler takes `core` for the BPF target from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// Built by the distribution.
    Prebuilt,
    /// Built here from the library's sources (`-Z build-std`).
    Source,
}

/// A compiler that is installed, usable or not.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// What people call it, with its release.
    pub(crate) name: String,
    /// Its release.
    pub(crate) version: (u32, u32),
    /// The major release of the LLVM it writes bitcode with.
    pub(crate) llvm: u32,
    /// Where it takes `core` from, if it has any.
    pub(crate) core: Option<Core>,
    /// The LLVM that it runs on, if that is a shared library: what a linker for it is best built against.
    pub(crate) llvm_library: Option<PathBuf>,
    sysroot: PathBuf,
}

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// The linker's path.
    pub(crate) linker: PathBuf,
}

/// What to build, and where.
pub(crate) struct Build<'a> {
    /// The root of the workspace.
    pub(crate) root: &'a Path,
    /// The target directory of the workspace; the kernel side gets one of its own below it.
    pub(crate) target_dir: &'a Path,
    /// The architecture of the machine that will load the object, as the compiler names it.
    pub(crate) arch: &'a str,
    /// Whether that machine is big-endian.
    pub(crate) big_endian: bool,
    /// Whether the programs write log lines.
    pub(crate) log: bool,
}

impl Compiler {
    /// What this compiler lacks to build the kernel side, if anything.
    pub(crate) fn lacks(&self) -> Option<String> {
        if self.version < MIN_RUSTC {
            return Some(format!("is older than {}.{}", MIN_RUSTC.0, MIN_RUSTC.1));
        }
        self.core.is_none().then(|| "has neither the sources of `core` nor a `core` for BPF".to_owned())
    }

    /// The compiler itself, never a proxy for it.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    fn cargo(&self) -> PathBuf {
        let beside = self.sysroot.join("bin/cargo");
        if beside.is_file() { beside } else { env::var_os("CARGO").map_or("cargo".into(), PathBuf::from) }
    }

    fn inspect(rustc: &Path, label: &str) -> Option<Self> {
        let facts = output(Command::new(rustc).arg("-vV"))?;
        let fact = |key: &str| facts.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let release = fact("release:")?;
        let mut numbers = release.split(['.', '-']);
        let version = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let llvm = fact("LLVM version:")?.split('.').next()?.parse().ok()?;
        let sysroot = PathBuf::from(output(Command::new(rustc).args(["--print", "sysroot"]))?.trim());
        let library = sysroot.join("lib/rustlib");
        let target = bpf_target(cfg!(target_endian = "big"));
        let core = if library.join(target).join("lib").is_dir() {
            Some(Core::Prebuilt)
        } else {
            library.join("src/rust/library/core/Cargo.toml").is_file().then_some(Core::Source)
        };
        let llvm_library = llvm_library(&sysroot, rustc);
        Some(Self { name: format!("{label} {release}"), version, llvm, core, llvm_library, sysroot })
    }
}

/// Every compiler on this machine, best first: rustup's nightly, then those on PATH and of the distribution.
pub(crate) fn compilers() -> Vec<Compiler> {
    let mut found: Vec<Compiler> = Vec::new();
    let nightly = output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]));
    let nightly = nightly.map(|sysroot| (Path::new(sysroot.trim()).join("bin/rustc"), "rustup's nightly"));
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&on_path).map(|dir| dir.join("rustc")).collect::<Vec<_>>();
    let versioned = children("/usr/lib").filter(|dir| file_name(dir).starts_with("rust-"));
    let elsewhere = on_path.into_iter().chain(versioned.map(|dir| dir.join("bin/rustc")));
    let mut seen = Vec::new();
    for (rustc, label) in nightly.into_iter().chain(elsewhere.map(|path| (path, "rustc"))) {
        let Ok(real) = fs::canonicalize(&rustc) else { continue };
        if seen.contains(&real) {
            continue;
        }
        seen.push(real);
        if let Some(compiler) = Compiler::inspect(&rustc, label)
            && !found.iter().any(|other| other.sysroot == compiler.sysroot)
        {
            found.push(compiler);
        }
    }
    found
}

/// A linker that reads the bitcode of `compiler`: the one that set-up built, else one on PATH.
pub(crate) fn linker_for(root: &Path, compiler: &Compiler) -> Option<PathBuf> {
    let own = linker_home(root, compiler).join("bin/bpf-linker");
    if own.is_file() && output(Command::new(&own).arg("--version")).is_some() {
        return Some(own);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join("bpf-linker")).find(|linker| {
        // A linker with an older LLVM than the compiler's cannot read its bitcode; a static one does not tell.
        output(Command::new(linker).arg("--version")).is_some()
            && linked_llvm(linker).is_none_or(|linked| linked >= compiler.llvm)
    })
}

/// Where set-up puts a linker for `compiler`. The releases are in the path, so that a new one makes a new object.
pub(crate) fn linker_home(root: &Path, compiler: &Compiler) -> PathBuf {
    let llvm = compiler.llvm_library.as_deref().map_or(format!("llvm-{}", compiler.llvm), file_name);
    root.join(format!(".toolchain/bpf-linker-{LINKER_VERSION}-{llvm}"))
}

/// The first compiler that is complete and has a linker; else why each one is not.
pub(crate) fn find(root: &Path) -> Result<Toolchain, String> {
    let mut reasons = Vec::new();
    for compiler in compilers() {
        if let Some(lack) = compiler.lacks() {
            reasons.push(format!("{} {lack}", compiler.name));
        } else if let Some(linker) = linker_for(root, &compiler) {
            return Ok(Toolchain { compiler, linker });
        } else {
            reasons.push(format!("{} has no bpf-linker for its LLVM {}", compiler.name, compiler.llvm));
        }
    }
    if reasons.is_empty() {
        reasons.push("no Rust compiler was found".to_owned());
    }
    Err(format!("no complete toolchain for the kernel side: {}", reasons.join("; ")))
}

/// Waits until no set-up is running (`exclusive`: nor any build), and keeps it so while the file is held.
///
/// Set-up holds it exclusively: a build that is started meanwhile compiles everything else and waits here.
pub(crate) fn lock(root: &Path, exclusive: bool) -> Result<File, String> {
    let path = root.join(".toolchain/lock");
    let told = |error| format!("cannot lock {}: {error}", path.display());
    fs::create_dir_all(root.join(".toolchain")).map_err(told)?;
    let file = File::options().create(true).append(true).open(&path).map_err(told)?;
    if exclusive { file.lock() } else { file.lock_shared() }.map_err(told)?;
    Ok(file)
}

/// The command that compiles the kernel side as far as `verb` goes (`build`, `check`, `clippy`).
///
/// The linker only has to exist when something is linked.
pub(crate) fn command(compiler: &Compiler, linker: &Path, build: &Build<'_>, verb: &str) -> Command {
    let mut cmd = Command::new(compiler.cargo());
    for (key, _) in env::vars_os().filter(|(key, _)| meant_for_the_host(&key.to_string_lossy())) {
        cmd.env_remove(key);
    }
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", bpf_arch(build.arch)),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ];
    cmd.current_dir(build.root)
        .env("RUSTC", compiler.rustc())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args([verb, "--release", "--package", "egress-ebpf", "--features"])
        .arg(if build.log { "kernel,log" } else { "kernel" })
        .args(["--target", bpf_target(build.big_endian)])
        .arg("--target-dir")
        .arg(object_dir(build));
    if compiler.core == Some(Core::Source) {
        cmd.args(["-Z", "build-std=core"]);
    }
    cmd
}

/// Builds the object and gives its path. What the compiler says goes to `messages`.
pub(crate) fn build(
    toolchain: &Toolchain,
    build: &Build<'_>,
    messages: impl Into<Stdio>,
) -> Result<(PathBuf, String), String> {
    let mut cmd = command(&toolchain.compiler, &toolchain.linker, build, "build");
    let child = cmd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages).spawn();
    let child = child.map_err(|error| format!("cannot start {}: {error}", cmd.get_program().display()))?;
    let done = child.wait_with_output().map_err(|error| format!("cannot wait for the build: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if !done.status.success() {
        return Err(format!("the kernel side does not build ({}):\n{said}", done.status));
    }
    let object = object_dir(build).join(bpf_target(build.big_endian)).join("release/egress-ebpf");
    let bytes = fs::read(&object).map_err(|error| format!("cannot read {}: {error}", object.display()))?;
    if !bytes.starts_with(b"\x7fELF") || !bytes.windows(5).any(|name| name == b".BTF\0") {
        return Err(format!("{} is no object with BTF: check the linker", object.display()));
    }
    Ok((object, said))
}

/// Whether a variable tells about the host's build: its compiler, flags and profile are not this target's, and
/// what cargo tells a build script would make the object depend on who asked for it.
fn meant_for_the_host(key: &str) -> bool {
    const PREFIXES: [&str; 6] =
        ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_PROFILE_", "DEP_"];
    let names =
        ["HOST", "TARGET", "OUT_DIR", "PROFILE", "OPT_LEVEL", "DEBUG", "RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix)) || key.starts_with("RUSTC") || names.contains(&key)
}

/// One directory for each set of features: builds that differ must never copy each other's object.
fn object_dir(build: &Build<'_>) -> PathBuf {
    build.target_dir.join(if build.log { "ebpf-log" } else { "ebpf" })
}

fn bpf_target(big_endian: bool) -> &'static str {
    if big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

fn bpf_arch(arch: &str) -> &str {
    if arch.starts_with("riscv64") { "riscv64" } else { arch }
}

/// The LLVM that the compiler in `sysroot` is linked with.
fn llvm_library(sysroot: &Path, rustc: &Path) -> Option<PathBuf> {
    let driver = |dir: PathBuf| children(dir).find(|path| file_name(path).starts_with("librustc_driver-"));
    // A distribution's compiler has its driver among the system's libraries, where the compiler itself points.
    let loads = match driver(sysroot.join("lib")) {
        Some(driver) => output(Command::new("ldd").arg(driver)),
        None => output(Command::new("ldd").arg(rustc)),
    };
    let path = loads?.lines().find(|line| line.contains("libLLVM"))?.split_whitespace().nth(2)?.to_owned();
    // The name is kept: it is the one under which the library is loaded.
    fs::canonicalize(Path::new(&path).parent()?).ok().map(|dir| dir.join(file_name(Path::new(&path))))
}

/// The LLVM that a dynamically linked program asks for.
fn linked_llvm(program: &Path) -> Option<u32> {
    let bytes = fs::read(program).ok()?;
    ["libLLVM.so.", "libLLVM-"].iter().find_map(|name| {
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes())? + name.len();
        let digits = bytes.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit());
        digits.map(|byte| char::from(*byte)).collect::<String>().parse().ok()
    })
}

fn output(cmd: &mut Command) -> Option<String> {
    // Looking must never make rustup download anything.
    let cmd = cmd.env("RUSTUP_AUTO_INSTALL", "0").stdin(Stdio::null());
    let done = cmd.output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

fn children(dir: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(OsString::from).unwrap_or_default().to_string_lossy().into_owned()
}
