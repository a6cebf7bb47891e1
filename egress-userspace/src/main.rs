//! The `egress` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    egress::cli::main()
}
