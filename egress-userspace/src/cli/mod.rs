//! The command line: one file a command. Receives arguments, prints, gives an exit code.

mod attack;
mod detect;
mod doctor;
mod exit;
mod policy;
mod run;
mod why;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

/// Bounds where an autonomous agent can send data, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "egress", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command in a scope of its own: it reaches what the policy names and nothing else.
    Run(run::Run),
    /// Say why something was refused, from the events of a run; needs no root.
    ///
    /// Exit code: 0 found, 1 nothing matches, 2 wrong usage or an unreadable file.
    Why(why::Why),
    /// Find out what this kernel offers and what is enforced; with --attack, prove it.
    ///
    /// Exit code: 0 all is there (nothing leaked), 1 something is missing (leaked), 2 wrong usage, 112 to 125 as of `run`.
    Doctor(doctor::Doctor),
    /// The attacking side of `doctor --attack`; of no use by itself.
    #[command(hide = true)]
    AttackAgent {
        /// What to do.
        words: Vec<String>,
    },
    /// Work with policy files; needs neither root nor a kernel with BPF.
    #[command(subcommand)]
    Policy(policy::Command),
}

/// How a command prints.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Why(arguments) => why::main(&arguments),
        Command::Doctor(arguments) => doctor::main(&arguments),
        Command::AttackAgent { words } => crate::attack::agent(&words),
        Command::Policy(command) => policy::main(command),
    }
}

/// Whether to print in colours: only on a terminal, and not if `NO_COLOR` is set to anything.
fn color(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
