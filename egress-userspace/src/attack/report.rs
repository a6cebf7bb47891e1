//! A report in words, in JSON, and as JUnit's XML.

mod json;
mod junit;
mod text;

pub use json::json;
pub use junit::junit;
pub use text::text;

use super::{
    Report, Verdict,
    table::{CLASSES, Class},
};

/// How many attacks of a class had each verdict, in the order of [`Verdict::ALL`].
fn by_class(report: &Report) -> Vec<(&'static Class, [usize; 6])> {
    let counts = |class: &'static Class| {
        let of_class = || report.findings.iter().filter(|finding| finding.attack.class() == class);
        let count = |verdict: Verdict| of_class().filter(|finding| finding.verdict == verdict).count();
        (class, Verdict::ALL.map(count))
    };
    CLASSES.iter().map(counts).filter(|(_, counts)| counts.iter().sum::<usize>() > 0).collect()
}

#[cfg(test)]
mod tests;
