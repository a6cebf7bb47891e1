//! Text that someone else chose, made fit for a terminal: it can neither steer it nor pass as another part of a line.

use std::fmt::Write as _;

/// A process's name. One that holds anything but ordinary characters is quoted and escaped.
pub fn process_name(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+:/@".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        String::from_utf8_lossy(bytes).into_owned()
    } else {
        format!("\"{}\"", bytes.escape_ascii())
    }
}

/// A host name, which came from a hosts file or an answer.
pub fn host_name(name: &str) -> String {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_*".contains(&byte)) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.escape_default())
    }
}

/// Text of the operator's, such as a path or a rule: only what steers a terminal or hides is escaped.
pub fn plain_text(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            // Writing to a string cannot fail.
            let _ = write!(plain, "{}", c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Characters that reorder text, join it or have no width.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c), 0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
        | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_name_cannot_steer_the_terminal_or_fake_a_line() {
        for (name, shown) in [
            (&b"python3"[..], "python3"),
            (b"kworker/0:1-ev", "kworker/0:1-ev"),
            (b"Web Content", "\"Web Content\""),
            (b"\x1b[2J\x1b]0;x\x07", r#""\x1b[2J\x1b]0;x\x07""#),
            (b"a\nDENY tcp", r#""a\nDENY tcp""#),
            (b"\"x\"\\", r#""\"x\"\\""#),
            (b"\xff\x9b2J", r#""\xff\x9b2J""#),
            ("\u{202e}abc".as_bytes(), r#""\xe2\x80\xaeabc""#),
            (b"a[1] rule:", "\"a[1] rule:\""),
            (b"", "\"\""),
        ] {
            assert_eq!(process_name(name), shown);
        }
    }

    #[test]
    fn names_and_paths_lose_what_steers() {
        assert_eq!(host_name("api.example"), "api.example");
        assert_eq!(host_name("a\u{1b}[1m.example"), r#""a\u{1b}[1m.example""#);
        assert_eq!(
            plain_text("/tmp/é 日/\u{1b}[1m\u{9b}x\u{202e}\n"),
            "/tmp/é 日/\\u{1b}[1m\\u{9b}x\\u{202e}\\n"
        );
    }
}
