//! The `egress` command.
fn main() {}
