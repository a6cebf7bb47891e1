//! Query types: numbers to the words of policies and events, and which of them a policy may list.

use std::borrow::Cow;

/// Query types that a policy may list, by name, with their numbers as IANA has them.
pub(super) const ASKABLE: [(&str, u16); 18] = [
    ("A", 1),
    ("AAAA", 28),
    ("CAA", 257),
    ("CNAME", 5),
    ("DNAME", 39),
    ("DNSKEY", 48),
    ("DS", 43),
    ("HINFO", 13),
    ("HTTPS", 65),
    ("MX", 15),
    ("NAPTR", 35),
    ("NS", 2),
    ("SOA", 6),
    ("SRV", 33),
    ("SSHFP", 44),
    ("SVCB", 64),
    ("TLSA", 52),
    ("TXT", 16),
];

/// Those that a policy may not list: transfers, all types at once, carriers of arbitrary data, what no answer is rebuilt
/// from, and PTR, which is answered from what is known.
const OTHERS: [(&str, u16); 11] = [
    ("ANY", 255),
    ("AXFR", 252),
    ("IXFR", 251),
    ("LOC", 29),
    ("NSEC", 47),
    ("NSEC3", 50),
    ("NULL", 10),
    ("OPT", 41),
    ("PTR", 12),
    ("RRSIG", 46),
    ("URI", 256),
];

/// The name of a query type; `TYPE` and the number where it has none here (RFC 3597 §5).
pub fn query_type_name(number: u16) -> Cow<'static, str> {
    let known = ASKABLE.iter().chain(&OTHERS).find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}").into(), |(name, _)| (*name).into())
}

/// Whether a policy may list the type.
pub(crate) fn may_be_listed(number: u16) -> bool {
    ASKABLE.iter().any(|(_, known)| *known == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::{Compiled, HostRule},
        dns::{
            filter::{Filter, Ruling},
            message::{self, Incoming},
        },
        policy::Dns,
    };

    #[test]
    fn what_a_policy_may_list_is_asked() {
        // Mutation seen to fail here: PTR among them.
        let host = HostRule {
            id: 1,
            host: "a.example".to_owned(),
            ports: Vec::new(),
            transports: Vec::new(),
            private: false,
            own: [].into(),
        };
        for (name, number) in ASKABLE {
            let dns = Dns { types: vec![number], ..Dns::default() };
            let compiled = Compiled { hosts: vec![host.clone()], dns, ..Compiled::default() };
            let bytes = message::ask(1, "a.example", number, false).unwrap();
            let Incoming::Question(question) = message::read(&bytes) else { panic!("{name}") };
            let ruling = Filter::new(&compiled, Vec::new()).judge(&question, 0);
            assert!(matches!(ruling, Ruling::Ask { .. }), "{name}: {ruling:?}");
        }
    }

    #[test]
    fn each_number_has_one_name_and_back() {
        let all: Vec<(&str, u16)> = ASKABLE.iter().chain(&OTHERS).copied().collect();
        for (name, number) in &all {
            assert_eq!(query_type_name(*number), *name);
            assert_eq!(all.iter().filter(|(other, _)| other == name).count(), 1, "{name}");
        }
        assert_eq!(query_type_name(0), "TYPE0");
        assert_eq!(query_type_name(u16::MAX), "TYPE65535");
    }
}
