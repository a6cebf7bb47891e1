//! `cargo xtask vm [KERNEL…]`: the tests of the BPF LSM layer in virtual machines, since the kernels of many machines refuse
//! such programs. A machine is a kernel of the distribution's and one static program.

mod initramfs;
mod kernel;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::setup::Tools;
use crate::test::{Tally, follow};
use crate::{build, run};

/// What the suite runs on: the oldest with all that the layer needs, a recent long-term one, and the newest there is.
pub(crate) const SUITE: [&str; 3] = ["6.1", "6.12", "newest"];

/// Seconds until a machine is given up; an emulated one takes about two minutes for all tests, where nothing else runs.
const LIMIT: &str = "900";

/// The processor of a machine. Before 6.18, one without the exchange of 16 bytes: as QEMU 7 emulates it, it leaves part of an
/// address in the flags, and a kernel that allocates memory by it dies sooner or later of a general protection fault. Later
/// kernels hardly use it so, but storage of sockets is not to be had without it.
fn processor(kernel: &str) -> &'static str {
    if ["5.10", "6.1", "6.12"].contains(&kernel) { "max,-cx16" } else { "max" }
}

/// What the program says on the console when the machine has booted.
const BEGIN: &str = "the tests begin";

/// Names and contents.
type Programs = Vec<(&'static str, Vec<u8>)>;

/// Runs the tests whose name contains the filter, on the kernels named, or on those of the suite.
pub(crate) fn vm(args: &[&str]) -> Result<ExitCode> {
    let (filter, kernels) = match args {
        ["--tests", filter, kernels @ ..] => (*filter, kernels),
        kernels => ("", kernels),
    };
    build::ready(Tools::Test)?;
    let mut tally = Tally::default();
    run_all(if kernels.is_empty() { &SUITE } else { kernels }, filter, &mut tally)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests on each kernel. A machine that does not get as far as a result counts as a failed test.
pub(crate) fn run_all(kernels: &[&str], filter: &str, tally: &mut Tally) -> Result<()> {
    let programs = programs()?;
    for kernel in kernels {
        if let Err(error) = run_one(kernel, &programs, filter, tally) {
            println!("test vm {kernel} ... FAILED\n    {error:#}");
            tally.failed += 1;
        }
    }
    Ok(())
}

fn run_one(kernel: &str, programs: &Programs, filter: &str, tally: &mut Tally) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("virtual machines are set up for x86_64 only");
    }
    let image = kernel::find(kernel)?;
    println!("\nkernel {}", image.release);
    let machine = Machine::new(kernel, &image, programs, filter)?;
    for is_last in [false, true] {
        let mut found = Tally::default();
        follow(&mut machine.command(), &mut found)?;
        if found != Tally::default() {
            tally.add_all(found);
            return Ok(());
        }
        let console = machine.console();
        // Emulated processors are known to fail a kernel at boot now and then; once the tests run, it is their matter.
        if is_last || console.contains(BEGIN) {
            bail!("the machine ended without a result; its last words:\n{}", last_lines(&console));
        }
        println!("the machine did not boot; trying once more. Its last words:\n{}", last_lines(&console));
    }
    Ok(())
}

/// A machine's programs: its first process and `egress`, without their debugging information.
fn programs() -> Result<Programs> {
    let mut cargo = run::cargo();
    run::visibly(cargo.args(["build", "--quiet", "--package", "egress-tests", "--bin", "lsm"]))?;
    let egress = build::binary(build::Profile::Dev);
    let built = [("init", egress.with_file_name("lsm")), ("egress", egress)];
    built.into_iter().map(|(name, path)| Ok((name, stripped(name, &path)?))).collect()
}

fn stripped(name: &str, program: &Path) -> Result<Vec<u8>> {
    let bare = work_dir()?.join(name);
    run::quietly(Command::new("strip").args(["--strip-debug", "-o"]).arg(&bare).arg(program))?;
    fs::read(&bare).with_context(|| format!("cannot read {}", bare.display()))
}

/// Where kernels and machines are kept.
fn work_dir() -> Result<PathBuf> {
    let directory = run::target_dir().join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

struct Machine {
    processor: &'static str,
    image: PathBuf,
    initramfs: PathBuf,
    console: PathBuf,
    filter: String,
}

impl Machine {
    fn new(kernel: &str, image: &kernel::Image, programs: &Programs, filter: &str) -> Result<Self> {
        let directory = work_dir()?;
        let initramfs = directory.join(format!("{kernel}.initramfs"));
        fs::write(&initramfs, initramfs::with(programs))
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        Ok(Self {
            processor: processor(kernel),
            image: image.path.clone(),
            initramfs,
            console: directory.join(format!("{kernel}.console")),
            filter: filter.to_owned(),
        })
    }

    /// The machine: the kernel's messages go to a file, and what the program prints to the standard output.
    fn command(&self) -> Command {
        let mut cmd = Command::new("timeout");
        cmd.args(["--kill-after=5", LIMIT, "qemu-system-x86_64"])
            .args(["-accel", "tcg", "-cpu", self.processor, "-machine", "q35", "-m", "768", "-smp", "1"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"])
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()))
            .args(["-serial", "stdio", "-kernel"])
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .arg("-append")
            .arg(format!("console=ttyS0 panic=-1 oops=panic loglevel=4 tests={}", self.filter));
        cmd
    }

    fn console(&self) -> String {
        let mut said = Vec::new();
        let _none = File::open(&self.console).and_then(|mut file| file.read_to_end(&mut said));
        String::from_utf8_lossy(&said).into_owned()
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// Where a file of this name is in the cache, whether it is there or not.
fn cached(kernel: &str, name: &str) -> Result<PathBuf> {
    let directory = work_dir()?.join(Path::new(kernel).file_name().context("no name of a kernel")?);
    fs::create_dir_all(&directory)?;
    Ok(directory.join(name))
}
