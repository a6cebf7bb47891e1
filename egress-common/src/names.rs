//! Matching of host names against the names of a policy.
//!
//! Both sides come normalised: ASCII lower case, A-labels (RFC 5890), no trailing dot.

/// Whether `pattern`, an exact name or `*.suffix`, covers `name`. A wildcard covers any name below its suffix, at
/// any depth, and never the suffix itself.
pub fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == name,
        Some(suffix) => name
            .strip_suffix(suffix)
            .and_then(|front| front.strip_suffix('.'))
            .is_some_and(|front| !front.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wildcard_covers_what_is_below_and_nothing_else() {
        for (pattern, name, expected) in [
            ("packages.example", "packages.example", true),
            ("packages.example", "a.packages.example", false),
            ("*.packages.example", "a.packages.example", true),
            ("*.packages.example", "a.b.packages.example", true),
            ("*.packages.example", "packages.example", false),
            ("*.packages.example", ".packages.example", false),
            ("*.packages.example", "evil-packages.example", false),
            ("*.packages.example", "packages.example.evil.test", false),
            ("*.x", "x", false),
            ("*.x", "", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} against {name}");
        }
    }
}
