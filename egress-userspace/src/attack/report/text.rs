//! For people: a table by class, a line for each leak with what to do, and what could not be tried.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    super::{Finding, Report, Verdict, table::CLASSES},
    by_class,
};
use crate::observe::escape::plain_text;

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// The report; with colours if asked for.
pub fn text(report: &Report, colours: bool) -> String {
    let mut text = String::new();
    table(report, &mut text);
    let paint = |colour: &'static str, word: &str| {
        if colours { format!("{colour}{word}{PLAIN}") } else { word.to_owned() }
    };
    for class in &CLASSES {
        let mut leaks =
            of(report, Verdict::Leaked).filter(|finding| finding.attack.class() == class).peekable();
        if leaks.peek().is_none() {
            continue;
        }
        for finding in leaks {
            let told = finding.enforced.text();
            line(
                &mut text,
                &format!("{} {}: it arrived; the program saw: {told}", paint(RED, "LEAKED"), named(finding)),
            );
        }
        line(&mut text, &format!("  what to do: {}", class.advice));
    }
    for finding in of(report, Verdict::Unknown) {
        let name = named(finding);
        line(&mut text, &format!("{} {name}: it was not made, so nothing is known", paint(RED, "UNKNOWN")));
    }
    for finding in report.findings.iter().filter(|finding| finding.slow()) {
        let took = finding.enforced.longest.as_millis();
        line(&mut text, &format!("slow: {}: contained, but the program waited {took} ms", named(finding)));
    }
    known(report, &mut text);
    impossible(report, &mut text);
    allowed(report, &mut text);
    let contained = report.count(Verdict::Contained);
    let verdict = if report.failed() {
        let (leaked, unknown) = (report.count(Verdict::Leaked), report.count(Verdict::Unknown));
        paint(RED, &format!("{leaked} leaked, {unknown} unknown, {contained} contained"))
    } else {
        paint(
            GREEN,
            &format!(
                "nothing leaked: {contained} attacks that get through without enforcement were contained"
            ),
        )
    };
    let policy = plain_text(&report.policy);
    let (users, took) = (report.users.join(" and "), report.took.as_secs_f32());
    line(&mut text, &format!("\n{verdict} (policy {policy}, as {users}, {took:.1} s)"));
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn of(report: &Report, verdict: Verdict) -> impl Iterator<Item = &Finding> {
    report.findings.iter().filter(move |finding| finding.verdict == verdict)
}

fn named(finding: &Finding) -> String {
    format!("{} {} (as {})", finding.attack.id, finding.attack.title, finding.user)
}

fn table(report: &Report, text: &mut String) {
    let heads = ["attempts", "contained", "leaked", "not possible", "known"];
    let row = |text: &mut String, name: &str, cells: [String; 5]| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{name:<42}");
        for (cell, head) in cells.iter().zip(heads) {
            let _ = write!(text, "  {cell:>width$}", width = head.len());
        }
        text.push('\n');
    };
    row(text, "class", heads.map(str::to_owned));
    let mut total = [0; 5];
    for (class, [contained, leaked, known, impossible, _allowed, unknown]) in by_class(report) {
        let attempts = contained + leaked + known + impossible + unknown;
        let cells = [attempts, contained, leaked, impossible, known];
        row(text, &format!("{} {}", class.letter, class.title), cells.map(|cell| cell.to_string()));
        total.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell);
    }
    row(text, "all", total.map(|cell| cell.to_string()));
    text.push('\n');
}

fn known(report: &Report, text: &mut String) {
    let ids: Vec<_> = of(report, Verdict::Known).map(|finding| finding.attack.id).collect();
    if !ids.is_empty() {
        line(
            text,
            &format!(
                "known: {}: these need somebody outside who helps and whom no policy binds (SECURITY.md)",
                unique(ids).join(", ")
            ),
        );
    }
}

/// By what the program saw without enforcement.
fn impossible(report: &Report, text: &mut String) {
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for finding in of(report, Verdict::NotPossible) {
        let reason = match finding.control.text() {
            told if finding.control.at.is_empty() => {
                format!("as {}: nothing arrived though {told}", finding.user)
            }
            told => format!("as {}: {told}", finding.user),
        };
        by_reason.entry(reason).or_default().push(finding.attack.id);
    }
    if !by_reason.is_empty() {
        line(text, "not possible here, even without enforcement:");
    }
    for (reason, ids) in by_reason {
        line(text, &format!("  {reason}: {}", ids.join(", ")));
    }
}

fn allowed(report: &Report, text: &mut String) {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for finding in of(report, Verdict::Allowed) {
        by_reason.entry(finding.note.as_deref().unwrap_or_default()).or_default().push(finding.attack.id);
    }
    for (reason, ids) in by_reason {
        line(text, &format!("no attack under this policy: {reason}: {}", unique(ids).join(", ")));
    }
}

fn unique(mut ids: Vec<&'static str>) -> Vec<&'static str> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
