//! The table of paths as SECURITY.md has it.

use super::{Guard, PATHS, Path};

/// The line before the table.
pub const BEGIN: &str = "<!-- paths: written by the tests, EGRESS_UPDATE=1 writes it anew -->";
/// The line after it.
pub const END: &str = "<!-- paths: end -->";

/// The table in Markdown.
pub fn table() -> String {
    let mut text =
        "| path | what closes it | since Linux | what is left, or needed |\n|---|---|---|---|\n".to_owned();
    let mut class = None;
    for path in PATHS {
        if class.replace(path.class) != Some(path.class) {
            text.push_str(&format!("| **{}** | | | |\n", path.class.name()));
        }
        text.push_str(&row(path));
    }
    text
}

fn row(path: &Path) -> String {
    let ways: Vec<String> = path.closed_by.iter().map(|guards| guards_text(guards)).collect();
    let closed_by = if ways.is_empty() { "nothing".to_owned() } else { ways.join("; or ") };
    let opened = path.setting.map_or(String::new(), |setting| format!("opened by `{}`", setting.text()));
    let left: Vec<&str> = [path.left, &opened].into_iter().filter(|text| !text.is_empty()).collect();
    let since = if path.since.is_empty() { "–" } else { path.since };
    format!("| {}: {} | {closed_by} | {since} | {} |\n", path.id, path.title, left.join("; "))
}

/// Guards in one line.
pub(super) fn guards_text(guards: &[Guard]) -> String {
    guards.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ")
}
