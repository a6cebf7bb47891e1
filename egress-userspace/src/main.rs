//! The `egress` command.

use std::{io, process::ExitCode};

use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    // For people who look for a fault in `egress` itself; verdicts go to the sinks of `observe`, never here.
    let level = std::env::var("EGRESS_LOG").ok().and_then(|level| level.parse::<LevelFilter>().ok());
    if let Some(level) = level {
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
    }
    egress::cli::main()
}
