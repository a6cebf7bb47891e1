//! `egress doctor --attack`: options in, the report and its exit code out.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{color, doctor::Format, exit};
use crate::{
    attack::{self, AttackError, Options, PhaseError, report},
    scope::identity::IdentityError,
};

/// Attacks and prints the report.
pub(super) fn main(options: &Options, output: Format) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        tell("`egress doctor --attack` makes namespaces and a scope and must be started as root");
        return ExitCode::from(exit::NOT_ROOT);
    }
    let mut progress = |text: &str| {
        if output == Format::Text {
            tell(text);
        }
    };
    let report = match attack::run(options, &mut progress) {
        Ok(report) => report,
        Err(error) => {
            tell(&error.to_string());
            return ExitCode::from(code_of(&error));
        }
    };
    let text = match output {
        Format::Text => report::text(&report, color(&io::stdout())),
        Format::Json => report::json(&report),
        Format::Junit => report::junit(&report),
    };
    if io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::from(exit::FAILED);
    }
    ExitCode::from(u8::from(report.failed()))
}

/// What `egress run` would have ended with.
fn code_of(error: &AttackError) -> u8 {
    match error {
        AttackError::Policy(_) => exit::POLICY,
        AttackError::Identity(IdentityError::NoSuchUser(_)) => exit::NO_USER,
        AttackError::NoCgroup2 => exit::NO_CGROUP,
        AttackError::Phase(PhaseError::NotStarted { status, .. }) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.filter(|code| (exit::NOT_ROOT..exit::FAILED).contains(code)).unwrap_or(exit::FAILED)
        }
        AttackError::Identity(_) | AttackError::Io(..) | AttackError::Phase(_) | AttackError::Blind(..) => {
            exit::FAILED
        }
    }
}

/// To stderr; if that is gone, the exit code has to do.
fn tell(text: &str) {
    let _gone = writeln!(io::stderr(), "egress: {text}");
}
