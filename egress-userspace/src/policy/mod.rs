//! The policy: from a YAML file (shape) to plain types (meaning). Receives a path and command-line rules, gives a
//! [`Policy`] or every error of every file at once. Knows nothing of kernels.

mod check;
mod command_line;
mod dns;
mod fault;
mod file;
mod include;
mod launchers;
mod model;
pub mod net;
mod ports;
mod print;
mod protocol;
mod query_type;
mod reader;
mod restriction;
mod settings;
mod source;
mod target;
mod unix;
mod yaml;

use std::path::Path;

pub(crate) use check::covers;
pub(crate) use command_line::{ICMP, UNIX, split as split_port, transport as split_transport};
pub use fault::{Errors, Fault, Problem};
pub(crate) use model::list;
pub use model::{
    Action, Bounds, Dns, Inbound, Loopback, Mode, Notice, OnEscape, Origin, Policy, PortRange, Refusal,
    Require, Rule, Target, Unix, Upstream,
};
pub(crate) use query_type::may_be_listed;
pub use query_type::query_type_name;
pub use restriction::Restriction;
pub use source::Source;
pub(crate) use target::host as parse_host;
pub(crate) use unix::pattern as unix_pattern;

/// Loads a policy with everything that it includes. `allow` are rules of the command line, as in
/// `api.example:443`, `192.0.2.1:8000-8100`, `[2001:db8::1]:53/udp`, `10.0.0.0/8:22`, `192.0.2.1/icmp` or
/// `unix:/run/a.sock`.
///
/// # Errors
///
/// All errors of all files in one go; nothing is ever half-loaded.
pub fn load(path: &Path, allow: &[String]) -> Result<Policy, Errors> {
    let mut problems = Vec::new();
    let loaded = include::load(path, &mut problems);
    finish(loaded, allow, problems)
}

/// A policy without a file: it allows what the command line says, and nothing else.
///
/// # Errors
///
/// All errors of the command line in one go.
pub fn from_command_line(allow: &[String]) -> Result<Policy, Errors> {
    const NOTHING: &str = "version: 1\nname: command-line\nallow: []\n";
    let mut problems = Vec::new();
    let source = Source::new(Path::new("(no policy file)"), NOTHING.to_owned());
    let loaded = include::of_source(source, &mut problems);
    finish(loaded, allow, problems)
}

fn finish(
    mut loaded: include::Loaded,
    allow: &[String],
    mut problems: Vec<Problem>,
) -> Result<Policy, Errors> {
    for text in allow {
        match command_line::parse(text) {
            Ok(rule) => loaded.rules.push(file::Located::on_command_line(rule)),
            Err(fault) => problems.push(Problem::on_command_line(text, fault)),
        }
    }
    check::dns_rules(&loaded.rules, &mut problems);
    check::impossible_rules(&loaded.rules, &mut problems);
    match loaded.settings {
        Some(settings) if problems.is_empty() => Ok(settings
            .into_policy(loaded.rules.into_iter().map(|located| located.rule).collect(), loaded.files)),
        _ => Err(Errors::in_order(problems, &loaded.files)),
    }
}
