//! Rules that can never match: receives the located rules of a policy, writes down those that speak of closed ports only
//! or that a deny rule of the same file covers whole. An allow rule of another file may be overruled on purpose.

use std::sync::Arc;

use egress_common::{Transport, names};
use ipnet::IpNet;

use super::{Action, Fault, PortRange, Problem, Rule, Target, file::Located, ports, unix};

/// Reports every rule whose ports are all closed by the kernel side itself.
pub(super) fn dns_rules(rules: &[Located], problems: &mut Vec<Problem>) {
    for located in rules.iter().filter(|located| ports::is_dns_only(&located.rule.ports)) {
        let fault = Fault::DnsPorts(match located.rule.action {
            Action::Allow => "allow rule",
            Action::Deny => "deny rule",
        });
        problems.push(match &located.site {
            Some((source, span)) => Problem::new(source, span.clone(), fault),
            None => Problem::on_command_line(&argument(&located.rule), fault),
        });
    }
}

/// Reports every allow rule that is covered by deny rules.
pub(super) fn impossible_rules(rules: &[Located], problems: &mut Vec<Problem>) {
    let denies: Vec<&Located> = rules.iter().filter(|located| located.rule.action == Action::Deny).collect();
    for allow in rules.iter().filter(|located| located.rule.action == Action::Allow) {
        let mut relevant = denies.iter().copied().filter(|deny| same_file(allow, deny));
        let cover = match &allow.rule.target {
            Target::Host { name, .. } => relevant.find(|deny| denies_name(&deny.rule, name)),
            Target::Network(network) => covering(*network, &allow.rule, &relevant.collect::<Vec<_>>()),
            Target::Unix(name) => relevant.find(|deny| denies_socket(&deny.rule, name)),
        };
        if let Some(deny) = cover {
            problems.push(problem(allow, deny));
        }
    }
}

/// A command-line rule is weighed against every file: it cannot be meant to be overruled.
fn same_file(allow: &Located, deny: &Located) -> bool {
    match (&allow.site, &deny.site) {
        // A file is read once.
        (Some((a, _)), Some((b, _))) => Arc::ptr_eq(a, b),
        _ => true,
    }
}

fn denies_name(deny: &Rule, name: &str) -> bool {
    matches!(&deny.target, Target::Host { name: pattern, .. } if covers(pattern, name))
}

fn denies_socket(deny: &Rule, name: &str) -> bool {
    matches!(&deny.target, Target::Unix(pattern) if unix::covers(pattern, name))
}

/// Whether every name that `name` stands for is one that `pattern` stands for.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(suffix) => pattern == name || (pattern.starts_with("*.") && names::covers(pattern, suffix)),
        None => names::covers(pattern, name),
    }
}

/// A deny rule that takes part in covering the network with all ports and transports of the rule, if they do.
fn covering<'a>(network: IpNet, allow: &Rule, denies: &[&'a Located]) -> Option<&'a Located> {
    let networks: Vec<(IpNet, &'a Located)> = denies
        .iter()
        .filter_map(|deny| match deny.rule.target {
            Target::Network(denied) => Some((denied, *deny)),
            _ => None,
        })
        .filter(|(denied, _)| denied.contains(&network) || network.contains(denied))
        .collect();
    covered(network, allow, &networks).then(|| networks.first().map(|(_, deny)| *deny))?
}

fn covered(network: IpNet, allow: &Rule, denies: &[(IpNet, &Located)]) -> bool {
    let whole: Vec<&Rule> =
        denies.iter().filter(|(denied, _)| denied.contains(&network)).map(|(_, deny)| &deny.rule).collect();
    if allow.transports.iter().all(|&transport| ports_covered(&allow.ports, &whole, transport)) {
        return true;
    }
    // Only halves that some deny rule lies strictly inside of can still add to the cover.
    if whole.len() == denies.len() {
        return false;
    }
    let Ok(halves) = network.subnets(network.prefix_len() + 1) else { return false };
    for half in halves {
        let within: Vec<_> = denies
            .iter()
            .copied()
            .filter(|(denied, _)| denied.contains(&half) || half.contains(denied))
            .collect();
        if !covered(half, allow, &within) {
            return false;
        }
    }
    true
}

fn ports_covered(wanted: &[PortRange], denies: &[&Rule], transport: Transport) -> bool {
    let denied = ports::normalize(
        denies
            .iter()
            .filter(|deny| deny.transports.contains(&transport))
            .flat_map(|deny| deny.ports.iter().copied())
            .collect(),
    );
    wanted
        .iter()
        .all(|port| denied.iter().any(|denied| denied.first <= port.first && port.last <= denied.last))
}

fn problem(allow: &Located, deny: &Located) -> Problem {
    let covered = format!("`{}` is denied by `{}` at {}", allow.rule, deny.rule, deny.rule.origin);
    match (&allow.site, &deny.site) {
        (Some((source, span)), Some((_, denied))) => {
            Problem::new(source, span.clone(), Fault::Impossible(covered))
                .related(denied.clone(), "denied here")
        }
        (Some((source, span)), None) => Problem::new(source, span.clone(), Fault::Impossible(covered)),
        (None, _) => Problem::on_command_line(&argument(&allow.rule), Fault::Impossible(covered)),
    }
}

/// What was written behind `--allow`.
fn argument(rule: &Rule) -> String {
    rule.origin.to_string().replace("--allow ", "")
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_pattern_covers_names_and_wildcards_below_it() {
        for (pattern, name, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "*.a.b", false),
            ("*.b", "a.b", true),
            ("*.b", "*.b", true),
            ("*.b", "*.a.b", true),
            ("*.b", "b", false),
            ("*.a.b", "*.b", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} over {name}");
        }
    }
}
