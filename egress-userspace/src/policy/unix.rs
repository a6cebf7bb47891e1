//! Names of unix sockets as written in a policy: receives a text, gives it back or says what is wrong with it.

use super::{Fault, yaml::shorten};

/// Longest name that a socket can be bound to, without the zero that a path ends with and an abstract name begins with.
const NAME_MAX: usize = 107;

/// An absolute path in its shortest form, or `@` and an abstract name; either may end with a `*`.
pub(crate) fn pattern(text: &str) -> Result<String, Fault> {
    let fault = |why, hint| Err(Fault::UnixName { name: shorten(text), why, hint });
    if text.is_empty() {
        return fault("it is empty", EXAMPLE);
    }
    if text.contains('\0') {
        return fault("it holds a zero byte", "write an abstract name with `@` in place of the leading zero");
    }
    let (name, wildcard) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
    if name.contains('*') {
        return fault(
            "a `*` stands only as the last character",
            "as in /run/service/*: any rest, `/` included",
        );
    }
    let (path, length) = match name.strip_prefix('@') {
        Some(rest) => (None, rest.len()),
        None => (Some(name), name.len()),
    };
    if length > NAME_MAX {
        return fault("it is longer than 107 bytes, and no socket can be bound to it", "");
    }
    match path {
        None if length == 0 && !wildcard => fault("the abstract name behind `@` is empty", EXAMPLE),
        None => Ok(text.to_owned()),
        Some(path) => match path_fault(path, wildcard) {
            Some((why, hint)) => fault(why, hint),
            None => Ok(text.to_owned()),
        },
    }
}

/// Whether every name that `other` speaks of is one that `pattern` speaks of.
pub(super) fn covers(pattern: &str, other: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(front) => other.starts_with(front),
        None => pattern == other,
    }
}

/// What is expected of a name.
const EXAMPLE: &str =
    "expected an absolute path, as in /run/postgresql/.s.PGSQL.5432, or @ and an abstract name";

fn path_fault(path: &str, wildcard: bool) -> Option<(&'static str, &'static str)> {
    let Some(rest) = path.strip_prefix('/') else {
        return Some(("it is no absolute path", EXAMPLE));
    };
    if rest.is_empty() && !wildcard {
        return Some(("it is a directory", EXAMPLE));
    }
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            // What a wildcard follows need not be whole.
            "" | "." | ".." if last && wildcard => {}
            "" if last => return Some(("it is a directory", "leave the last `/` out")),
            "" | "." | ".." => {
                return Some((
                    "it has a part that leads nowhere else",
                    "leave out empty parts, `.` and `..`",
                ));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_names_and_patterns_within() {
        for (pattern, other, expected) in [
            ("/a", "/a", true),
            ("/a", "/a*", false),
            ("/a*", "/a", true),
            ("/a*", "/a*", true),
            ("/a*", "/ab*", true),
            ("/ab*", "/a*", false),
            ("/*", "@a", false),
            ("@*", "@a*", true),
        ] {
            assert_eq!(covers(pattern, other), expected, "{pattern} over {other}");
        }
    }

    #[test]
    fn names_end_where_they_end() {
        // Mutations seen to fail here: `>=` for `>` at the length; the `@` or the `*` counted.
        let path = format!("/{}", "a".repeat(106));
        let name = format!("@{}", "a".repeat(107));
        for text in [
            "/a",
            "/run/postgresql/.s.PGSQL.5432",
            "/run/a/*",
            "/run/a*",
            "/run/..*",
            "/*",
            "@*",
            "@/tmp/.X11-unix/X0",
            "@a/../b",
            "@ ",
            &path,
            &format!("{path}*"),
            &name,
            &format!("{name}*"),
        ] {
            assert_eq!(pattern(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "a",
            "run/a.sock",
            "./a",
            "*",
            "**",
            "/",
            "/run/a/",
            "/run/*/a",
            "/run/**",
            "@",
            "@*a",
            "//a",
            "/run//a",
            "/run/./a",
            "/run/../a",
            "/run/..",
            "/../*",
            "/a\0b",
            "@a\0",
            "\0a",
            &format!("{path}a"),
            &format!("{path}a*"),
            &format!("{name}a"),
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
