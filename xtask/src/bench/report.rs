//! The figures as a table for people and as JSON for programs.

use std::fmt::Write as _;

/// The most that something should cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Altogether.
    Total(f64),
    /// More than without.
    Over(f64),
    /// At least as much as without, of what there cannot be too much.
    NoLess,
}

/// A figure, measured once without and once with enforcement where that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// In what.
    pub(crate) unit: &'static str,
    /// Without `egress`; inside the kernel, of a program that does nothing; or what the name says it is beside.
    pub(crate) without: Option<f64>,
    /// With it.
    pub(crate) with: f64,
    /// What it should not exceed.
    pub(crate) target: Option<Target>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Total(most) => write!(f, "<= {most}"),
            Self::Over(most) => write!(f, "+ <= {most}"),
            Self::NoLess => write!(f, "ratio >= 1"),
        }
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.without.filter(|without| *without > 0.0).map(|without| self.with / without)
    }

    fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::Total(most) => self.with <= most,
            Target::Over(most) => self.with - self.without.unwrap_or(0.0) <= most,
            Target::NoLess => self.with >= self.without.unwrap_or(f64::INFINITY),
        })
    }
}

/// A table with one line a figure.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text =
        format!("\n{:<44}{:>10}{:>12}{:>12}{:>8}{:>12}\n", "", "unit", "without", "with", "ratio", "target");
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    for row in rows {
        let ratio = row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let verdict = row.met().map_or("", |met| if met { "  met" } else { "  MISSED" });
        let target = row.target.map_or("-".to_owned(), |target| target.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<44}{:>10}{:>12}{:>12}{ratio:>8}{target:>12}{verdict}",
            row.name,
            row.unit,
            number(row.without),
            number(Some(row.with)),
        );
    }
    text
}

/// The same as JSON; names and units are this program's own and need no escaping but of quotes.
pub(crate) fn json(rows: &[Row]) -> String {
    let number = |value: Option<f64>| {
        value.filter(|value| value.is_finite()).map_or("null".to_owned(), |value| format!("{value}"))
    };
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "    {{\"name\": \"{}\", \"unit\": \"{}\", \"without\": {}, \"with\": {}, \"ratio\": {}, \"target\": {}, \"met\": {}}}",
                row.name.replace('"', "'"),
                row.unit,
                number(row.without),
                number(Some(row.with)),
                number(row.ratio()),
                row.target.map_or("null".to_owned(), |target| format!("\"{target}\"")),
                row.met().map_or("null".to_owned(), |met| met.to_string()),
            )
        })
        .collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{{\n  \"version\": 1,\n  \"kernel\": \"{}\",\n  \"results\": [\n{}\n  ]\n}}\n",
        kernel.trim(),
        rows.join(",\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(with: f64, target: Option<f64>) -> Row {
        Row { name: "a".to_owned(), unit: "ms", without: Some(2.0), with, target: target.map(Target::Total) }
    }

    /// Seen to fail with `<` for `<=`.
    #[test]
    fn a_target_is_met_when_reached() {
        assert_eq!(row(150.0, Some(150.0)).met(), Some(true));
        assert_eq!(row(150.1, Some(150.0)).met(), Some(false));
        let over = Row { target: Some(Target::Over(60.0)), ..row(62.0, None) };
        assert_eq!(over.met(), Some(true));
        assert_eq!(Row { with: 62.1, ..over }.met(), Some(false));
        let no_less = Row { target: Some(Target::NoLess), ..row(2.0, None) };
        assert_eq!(no_less.met(), Some(true));
        assert_eq!(Row { with: 1.9, ..no_less }.met(), Some(false));
        assert!(table(&[row(151.0, Some(150.0))]).contains("MISSED"));
    }

    #[test]
    fn what_is_no_number_is_null() {
        let text = json(&[row(f64::NAN, None)]);
        assert!(text.contains("\"with\": null"), "{text}");
        assert!(text.contains("\"met\": null"), "{text}");
    }
}
