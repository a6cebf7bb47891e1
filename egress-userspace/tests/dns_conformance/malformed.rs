//! Messages of every length from nothing to 64 bytes, in both directions.

use egress::dns::{
    answer::{Judged, Terms, judge},
    message::{self, Incoming},
};

use crate::{IDS, question_bytes, upstream_bytes, wire};

/// Zeroes, ones, a count, and the front of a good message.
fn patterns(good: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for length in 0..=64_usize {
        all.push(vec![0; length]);
        all.push(vec![0xff; length]);
        all.push((0..length).map(|at| u8::try_from(at).unwrap()).collect());
        all.push(good.iter().copied().cycle().take(length).collect());
        // A plain question's header in front of nonsense.
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for byte in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
            all.push(header.iter().copied().chain(std::iter::repeat(byte)).take(length).collect());
        }
    }
    all
}

#[test]
fn questions() {
    let good = question_bytes("www.example A edns=1232");
    assert!(good.len() < 64, "the whole of it is among the patterns");
    let mut counts = (0, 0, 0);
    for bytes in patterns(&good) {
        match message::read(&bytes) {
            Incoming::Silence => {
                assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0, "{bytes:02x?}");
                counts.0 += 1;
            }
            Incoming::Answer { reply, rcode, .. } => {
                assert!([1, 4, 16].contains(&rcode), "{bytes:02x?}");
                let shown = wire::show(&reply);
                assert_eq!((shown.id.to_be_bytes().as_slice(), shown.response), (&bytes[..2], true));
                assert!(reply.len() <= 512);
                counts.1 += 1;
            }
            Incoming::Question(question) => {
                let end = 12 + question.name.wire().len() + 4;
                assert!(bytes.len() >= end && bytes[5] == 1, "{bytes:02x?}");
                counts.2 += 1;
            }
        }
    }
    assert!(counts.0 > 100 && counts.1 > 100 && counts.2 > 20, "{counts:?}");
}

#[test]
fn answers() {
    let good = upstream_bytes("| www.example 60 A 192.0.2.1", "www.example", 1);
    let terms = Terms { rules: &[], keep_ech: false, audit: false };
    let ask = |bytes: &[u8]| judge(bytes, IDS.1, "www.example", 1, &terms, |_| None);
    let mut answers = 0;
    for mut bytes in patterns(&good).into_iter().chain([good.clone()]) {
        // With the right id and the flag of a response, so that what follows counts.
        for honest in [false, true] {
            if honest && bytes.len() >= 12 {
                bytes[..3].copy_from_slice(&good[..3]);
            }
            match ask(&bytes) {
                Judged::Answer(answer) => {
                    assert_eq!(answer.addresses, [([192, 0, 2, 1].into(), 60)], "{bytes:02x?}");
                    assert!(bytes.starts_with(&good), "{bytes:02x?}");
                    answers += 1;
                }
                Judged::Failure(_) => assert!(bytes.len() >= 12 && bytes[..2] == good[..2], "{bytes:02x?}"),
                Judged::NoEdns | Judged::Truncated => {
                    assert!(honest && bytes.len() >= 12, "{bytes:02x?}");
                }
                Judged::Foreign => {}
            }
        }
    }
    assert!(answers > 4, "{answers}");
    assert_eq!(good.len(), 56, "its every front is among the patterns");
}

/// A name of so many bytes in wire form, in labels of at most 63.
fn name_of(length: usize) -> Vec<u8> {
    let mut name = Vec::new();
    while name.len() + 1 < length {
        let label = (length - name.len() - 2).min(63);
        name.push(u8::try_from(label).unwrap());
        name.extend(std::iter::repeat_n(b'a', label));
    }
    name.push(0);
    assert_eq!(name.len(), length);
    name
}

#[test]
fn names_end_at_255_bytes() {
    let terms = Terms { rules: &[], keep_ech: false, audit: false };
    // 256 would be a label without bytes, which is the end of the name.
    for (length, fits) in [(254, true), (255, true), (257, false), (258, false), (400, false)] {
        let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend(name_of(length));
        question.extend([0, 1, 0, 1]);
        assert_eq!(matches!(message::read(&question), Incoming::Question(_)), fits, "{length}");
        let mut answer = upstream_bytes("an=1", "www.example", 1);
        let target = name_of(length);
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(target.len()).unwrap().to_be_bytes());
        answer.extend(target);
        let judged = judge(&answer, IDS.1, "www.example", 1, &terms, |_| None);
        assert_eq!(matches!(judged, Judged::Answer(_)), fits, "{length}");
        assert_eq!(matches!(judged, Judged::Failure(2)), !fits, "{length}");
    }
}

#[test]
fn ways_end_at_sixteen_aliases() {
    let terms = Terms { rules: &[], keep_ech: false, audit: false };
    for (hops, fits) in [(15, true), (16, true), (17, false)] {
        let name = |n: usize| if n == 0 { "www.example".to_owned() } else { format!("n{n}.example") };
        let mut text = format!("| {} 60 A 192.0.2.1", name(hops));
        for n in (0..hops).rev() {
            text += &format!(" | {} 60 CNAME {}", name(n), name(n + 1));
        }
        let bytes = upstream_bytes(&text, "www.example", 1);
        match judge(&bytes, IDS.1, "www.example", 1, &terms, |_| None) {
            Judged::Answer(answer) => {
                assert_eq!((fits, answer.aliases.len(), answer.addresses.len()), (true, hops, 1));
            }
            other => assert_eq!((fits, other), (false, Judged::Failure(2))),
        }
    }
}
