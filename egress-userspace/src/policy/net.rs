//! Host names and address ranges as a policy speaks of them. Receives text or addresses, gives facts about them.

use std::net::IpAddr;

/// Longest name in its text form, without the trailing dot (RFC 1035 §3.1).
const NAME_MAX: usize = 253;
/// Longest label (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;

/// Whether `name` is an exact host name in normal form: lower-case A-labels (RFC 5890) without trailing dot, and
/// not an address.
pub fn is_host_name(name: &str) -> bool {
    host_name_fault(name).is_none()
}

/// Why `name` is no exact host name in normal form.
pub(super) fn host_name_fault(name: &str) -> Option<&'static str> {
    if name.len() > NAME_MAX {
        return Some("it is longer than 253 characters");
    }
    if let Some(fault) = name.split('.').find_map(label_fault) {
        return Some(fault);
    }
    looks_like_address(name).then_some("resolvers read a name that ends in a number as an address")
}

fn label_fault(label: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if label.is_empty() {
        Some("it has an empty label")
    } else if label.len() > LABEL_MAX {
        Some("it has a label longer than 63 characters")
    } else if !label.bytes().all(allowed) {
        Some("a label holds letters, digits, `-` and `_` only")
    } else if label.starts_with('-') || label.ends_with('-') {
        Some("a label neither begins nor ends with `-`")
    } else {
        None
    }
}

/// Whether resolvers would read the name as an IPv4 address: its last label is a number (as in URLs).
fn looks_like_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a name may resolve to this address only under `private: true`: private use (RFC 1918, RFC 4193), shared
/// address space (RFC 6598), benchmarking (RFC 2544, RFC 5180), the former site-local range (RFC 3879), translation of
/// IPv4 within a network (RFC 8215), where the IPv4 address can be anywhere inside, and loopback.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            let benchmarking = a == 198 && b & 0xfe == 18;
            v4.is_private() || v4.is_loopback() || a == 0 || shared || benchmarking
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => {
                let [first, second, third, ..] = v6.segments();
                let site_local = first & 0xffc0 == 0xfec0;
                let local =
                    site_local || matches!((first, second, third), (0x2001, 2, 0) | (0x64, 0xff9b, 1));
                v6.is_unique_local() || v6.is_loopback() || v6.is_unspecified() || local
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_told_from_what_is_none() {
        let long_label = "a".repeat(63);
        let name_253 = format!("{l}.{l}.{l}.{}", "a".repeat(61), l = long_label);
        for name in
            ["localhost", "a.example", "_srv._tcp.a.example", "xn--nxasmq6b.example", "1.a", &name_253]
        {
            assert!(is_host_name(name), "{name}");
        }
        let name_254 = format!("{name_253}a");
        let label_64 = format!("{long_label}a.example");
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "A.example",
            "-a.example",
            "a-.example",
            "é.example",
            "*.a.example",
            "a b",
            "192.0.2.1",
            "1",
            "0x7f.1",
            "a.0x7f",
            "2001:db8::1",
            &name_254,
            &label_64,
        ] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn private_ranges_end_where_they_end() {
        // Mutation seen to fail here: 100.64/10 taken as 100.64/9.
        for (address, expected) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.167.255.255", false),
            ("192.168.0.0", true),
            ("192.168.255.255", true),
            ("192.169.0.0", false),
            ("198.17.255.255", false),
            ("198.18.0.0", true),
            ("198.19.255.255", true),
            ("198.20.0.0", false),
            ("127.0.0.1", true),
            ("0.0.0.0", true),
            ("2001:1:ffff::", false),
            ("2001:2::", true),
            ("2001:2:1::", false),
            ("::1", true),
            ("::", true),
            ("::2", false),
            ("fbff::", false),
            ("fc00::", true),
            ("fdff::", true),
            ("fe00::", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:203.0.113.1", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), expected, "{address}");
        }
    }
}
