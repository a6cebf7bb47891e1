//! Port sets: receives the rules that cover a network, gives the number of a set of disjoint blocks of ports, each with
//! the one rule that decides. Equal sets are stored once.

use std::{cmp::Reverse, collections::BTreeMap};

use egress_common::{PortRule, RuleId, Span, Transport};

use super::{PortRange, networks::Cover};

/// A run of ports of a transport under one rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
struct Run {
    transport: u8,
    range: PortRange,
    rule: RuleId,
    allow: bool,
}

/// The sets so far, numbered from 1; 0 is the empty set.
#[derive(Default)]
pub(super) struct Sets {
    numbers: BTreeMap<Vec<Run>, u32>,
}

impl Sets {
    /// The ports of these rules: one span where that says it all, else the number of a set.
    pub(super) fn intern(&mut self, covers: &[&Cover]) -> (Span, u32) {
        let runs = all_runs(covers);
        if runs.is_empty() {
            return (Span::default(), 0);
        }
        if let Some(span) = one_span(&runs) {
            return (span, 0);
        }
        (Span::default(), self.insert(runs))
    }

    /// The ports of these rules as a set, also where a span could say it.
    pub(super) fn number(&mut self, covers: &[&Cover]) -> u32 {
        self.insert(all_runs(covers))
    }

    fn insert(&mut self, runs: Vec<Run>) -> u32 {
        let next = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
        *self.numbers.entry(runs).or_insert(next)
    }

    /// The port table.
    pub(super) fn into_ports(self) -> BTreeMap<(u32, u8, u16, u8), PortRule> {
        let mut ports = BTreeMap::new();
        for (runs, set) in self.numbers {
            for run in runs {
                let rule = PortRule { rule: run.rule, allow: u8::from(run.allow), pad: [0; 3] };
                for (first, bits) in aligned(run.range) {
                    ports.insert((set, run.transport, first, bits), rule);
                }
            }
        }
        ports
    }
}

/// The one span that all runs are, if they differ in nothing but the transport.
fn one_span(runs: &[Run]) -> Option<Span> {
    let same = |run: &Run| (run.range, run.rule, run.allow) == (runs[0].range, runs[0].rule, runs[0].allow);
    if !runs.iter().all(same) {
        return None;
    }
    let bit = |run: &Run| match Transport::from_protocol(run.transport) {
        Some(Transport::Tcp) => Span::TCP,
        Some(Transport::Udp) => Span::UDP,
        Some(Transport::Icmp) => Span::ICMP,
        None => 0,
    };
    Some(Span {
        rule: runs[0].rule,
        first: runs[0].range.first,
        last: runs[0].range.last,
        transports: runs.iter().map(bit).fold(0, |bits, bit| bits | bit),
        allow: u8::from(runs[0].allow),
        pad: [0; 2],
    })
}

fn all_runs(covers: &[&Cover]) -> Vec<Run> {
    [Transport::Icmp, Transport::Tcp, Transport::Udp]
        .into_iter()
        .flat_map(|transport| runs(covers, transport))
        .collect()
}

/// The ports of one transport, each run under the rule that decides about it: deny before allow.
fn runs(covers: &[&Cover], transport: Transport) -> Vec<Run> {
    let covers: Vec<(PortRange, &Cover)> = covers
        .iter()
        .filter(|cover| cover.transports.contains(&transport))
        .flat_map(|cover| cover.ports.iter().map(|range| (*range, *cover)))
        .collect();
    let mut starts: Vec<u32> =
        covers.iter().flat_map(|(range, _)| [u32::from(range.first), u32::from(range.last) + 1]).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut runs: Vec<Run> = Vec::new();
    for bounds in starts.windows(2) {
        let (Ok(first), Ok(last)) = (u16::try_from(bounds[0]), u16::try_from(bounds[1] - 1)) else {
            continue;
        };
        let Some((_, best)) = covers
            .iter()
            .filter(|(range, _)| range.contains(first))
            .min_by_key(|(range, cover)| rank(*range, cover))
        else {
            continue;
        };
        let run = Run {
            transport: transport as u8,
            range: PortRange { first, last },
            rule: best.rule,
            allow: best.allow,
        };
        match runs.last_mut() {
            Some(before)
                if before.rule == run.rule
                    && u32::from(before.range.last) + 1 == u32::from(run.range.first) =>
            {
                before.range.last = last;
            }
            _ => runs.push(run),
        }
    }
    runs
}

/// Which rule decides and is named: deny before allow, then the narrowest network, the narrowest range of ports, the
/// smallest text. Never the order in which they were written.
fn rank<'a>(range: PortRange, cover: &&'a Cover) -> (bool, Reverse<u8>, u16, &'a str, RuleId) {
    (cover.allow, Reverse(cover.prefix.bits()), range.last - range.first, cover.text.as_str(), cover.rule)
}

/// Cuts a range into aligned blocks: first port, and how many of its bits count.
fn aligned(range: PortRange) -> impl Iterator<Item = (u16, u8)> {
    let mut next = u32::from(range.first);
    let end = u32::from(range.last) + 1;
    std::iter::from_fn(move || {
        let first = u16::try_from(next).ok()?;
        let size = (0..=16u8).rev().find(|size| next % (1 << size) == 0 && next + (1 << size) <= end)?;
        next += 1 << size;
        Some((first, 16 - size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_into_aligned_blocks() {
        let blocks = |first, last| aligned(PortRange { first, last }).collect::<Vec<_>>();
        assert_eq!(blocks(0, 65535), [(0, 0)]);
        assert_eq!(blocks(443, 443), [(443, 16)]);
        assert_eq!(blocks(65535, 65535), [(65535, 16)]);
        assert_eq!(blocks(1, 4), [(1, 16), (2, 15), (4, 16)]);
        assert_eq!(blocks(65534, 65535), [(65534, 15)]);
    }
}
