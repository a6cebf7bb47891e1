//! Policies as people write them, read and compiled by the library itself.

use std::io::Write as _;

use egress::{compile, compile::Compiled, policy};

use crate::network::address::{AGENT4, AGENT6};

/// The lab's usual policy: port 443 of the two allowed addresses, over TCP and UDP.
pub const LAB: &str = "version: 1
name: lab
allow:
  - { cidr: 203.0.113.10/32, protocol: any }
  - { cidr: 2001:db8:10::10/128, protocol: any }
";

/// The lab's usual policy.
pub fn lab() -> Compiled {
    compiled(LAB)
}

/// Compiles a policy.
pub fn compiled(text: &str) -> Compiled {
    let policy = read(text).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    compile::compile(&policy)
}

/// Compiles a policy that may be wrong.
///
/// # Errors
/// What is wrong with it.
pub fn try_compiled(text: &str) -> Result<Compiled, policy::Errors> {
    Ok(compile::compile(&read(text)?))
}

fn read(text: &str) -> Result<policy::Policy, policy::Errors> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("write the policy");
    policy::load(file.path(), &[])
}

/// The lab's policy with these lines after it, for a host that knows the addresses of the agent's namespace as its own, as
/// `egress run` does.
pub fn on_agent(lines: &str) -> Compiled {
    let policy = read(&format!("{LAB}{lines}")).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    compile::compile_on(&policy, &[AGENT4.into(), AGENT6.into()])
}

/// The lab's policy with these lines after it.
pub fn lab_and(lines: &str) -> Compiled {
    compiled(&format!("{LAB}{lines}"))
}
