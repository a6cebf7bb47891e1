//! Ports and port ranges: receives numbers and texts such as `8000-8100`, gives sorted ranges that do not touch.

use egress_common::question::is_dns;

use super::{
    Fault, PortRange,
    reader::Reader,
    yaml::{Node, Value, shorten},
};

/// A list of ports. `None` if there is a fault in it.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<PortRange>> {
    let items = reader.list(node, "a list of ports such as [443, 8000-8100]")?;
    if items.is_empty() {
        reader.fault(&node.span, Fault::EmptyList("port list"));
        return None;
    }
    let mut ranges = Vec::new();
    let mut sound = true;
    for item in items {
        match range_of(&item.value) {
            Ok(range) => ranges.push(range),
            Err(fault) => {
                reader.fault(&item.span, fault);
                sound = false;
            }
        }
    }
    sound.then(|| normalize(ranges))
}

fn range_of(value: &Value) -> Result<PortRange, Fault> {
    match value {
        Value::Integer(text) => Ok(PortRange::one(port(text)?)),
        Value::Text(text) if text.contains('-') => range(text),
        Value::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(Fault::Port { port: shorten(text), why: "it is a text; write the number without quotes" })
        }
        Value::Text(text) => Err(Fault::Port { port: shorten(text), why: "it is not a number" }),
        Value::Number(text) => {
            Err(Fault::Port { port: shorten(text), why: "it is not a plain decimal number" })
        }
        other => {
            Err(Fault::WrongType { expected: "a port or a range such as 8000-8100", found: other.describe() })
        }
    }
}

/// A range such as `8000-8100`.
pub(super) fn range(text: &str) -> Result<PortRange, Fault> {
    match text.split_once('-') {
        // `-1` is a number with a sign.
        None | Some(("", _)) => Ok(PortRange::one(port(text)?)),
        Some((first, last)) => {
            let range = PortRange { first: port(first.trim())?, last: port(last.trim())? };
            if range.first > range.last {
                return Err(Fault::ReversedRange(text.to_owned()));
            }
            Ok(range)
        }
    }
}

/// A port from 1 to 65535.
pub(super) fn port(text: &str) -> Result<u16, Fault> {
    let fault = |why| Err(Fault::Port { port: shorten(text), why });
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return fault("it is not a number");
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return fault("it begins with 0");
    }
    match text.parse::<u16>() {
        Ok(0) => fault("port 0 is never sent to"),
        Ok(port) => Ok(port),
        Err(_) => fault("it is out of range"),
    }
}

/// Whether every port is one that names are asked at, which no rule opens.
pub(super) fn is_dns_only(ranges: &[PortRange]) -> bool {
    !ranges.is_empty() && ranges.iter().all(|range| range.first == range.last && is_dns(range.first))
}

/// Sorts, and joins ranges that overlap or touch.
pub(crate) fn normalize(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_where_they_overlap_or_touch() {
        // Mutation seen to fail here: `<` for `<=`, which leaves touching ranges apart.
        let range = |first, last| PortRange { first, last };
        assert_eq!(
            normalize(vec![range(22, 22), range(1, 9), range(10, 12), range(5, 6), range(14, 14)]),
            [range(1, 12), range(14, 14), range(22, 22)]
        );
        assert_eq!(normalize(vec![range(0, 65535), range(65535, 65535)]), [PortRange::ALL]);
    }

    #[test]
    fn only_53_and_853_alone_are_dns() {
        for (ports, expected) in [
            (&["53"][..], true),
            (&["853"], true),
            (&["53", "853"], true),
            (&["52-53"], false),
            (&["53-54"], false),
            (&["53", "854"], false),
            (&[], false),
        ] {
            let ranges = ports.iter().map(|text| range(text).unwrap()).collect::<Vec<_>>();
            assert_eq!(is_dns_only(&normalize(ranges)), expected, "{ports:?}");
        }
    }

    #[test]
    fn ports_are_plain_numbers_from_1_to_65535() {
        assert_eq!(port("1"), Ok(1));
        assert_eq!(port("65535"), Ok(65535));
        for text in ["0", "65536", "-1", "01", "", "4e2", "0x50", " 80", "99999999999999999999"] {
            assert!(port(text).is_err(), "{text}");
        }
        assert_eq!(range("8000-8100"), Ok(PortRange { first: 8000, last: 8100 }));
        assert_eq!(range("443-443"), Ok(PortRange::one(443)));
        assert_eq!(range("8100-8000"), Err(Fault::ReversedRange("8100-8000".into())));
        assert!(range("1-2-3").is_err());
        assert!(range("-1").is_err());
    }
}
