//! Exchanges with servers on the loopback interface.

use std::{collections::HashSet, time::Instant as StdInstant};

use domain::base::iana::Rcode;

use super::*;
use crate::dns::{
    answer::{self, Terms},
    testing::{Asked, Record, Server, Step, host, server},
};

const NAME: &str = "www.example";

fn limits() -> Limits {
    Limits {
        patience: Duration::from_millis(400),
        rounds: 2,
        total: Duration::from_millis(2_000),
        at_once: 4,
        waiting: 8,
    }
}

fn judge(name: &'static str, query_type: u16) -> Judge {
    let rules = [host(1, name, &[(443, 443)], false)];
    Arc::new(move |bytes, id| {
        let terms = Terms { rules: &rules, keep_ech: false, audit: false };
        answer::judge(bytes, id, name, query_type, &terms, |_| None)
    })
}

fn key(name: &str, query_type: u16) -> Key {
    Key { name: name.into(), query_type, opens: true }
}

fn exchanges(servers: &[&Server]) -> Exchanges {
    Exchanges::new(servers.iter().map(|server| server.address).collect(), limits())
}

async fn ask_for(exchanges: &mut Exchanges, query_type: u16) -> Result<Answer, UpstreamError> {
    exchanges.ask(key(NAME, query_type), judge(NAME, query_type)).unwrap();
    exchanges.next().await.1
}

async fn ask(exchanges: &mut Exchanges) -> Result<Vec<String>, UpstreamError> {
    let answer = ask_for(exchanges, 1).await?;
    Ok(answer.addresses.iter().map(|(address, _)| address.to_string()).collect())
}

fn good(asked: &Asked) -> Vec<Step> {
    vec![(0, asked.say_addresses(60, &["192.0.2.1"]))]
}

#[tokio::test]
async fn a_question_is_ours_and_nothing_else() {
    let server = server(good).await;
    let mut exchanges = exchanges(&[&server]);
    for _ in 0..64 {
        assert_eq!(ask(&mut exchanges).await.unwrap(), ["192.0.2.1"]);
    }
    let asked = server.asked();
    for question in &asked {
        assert_eq!(question.bytes, message::ask(question.id, NAME, 1, true).unwrap());
        assert!(!question.tcp && question.edns);
    }
    // Mutation seen to fail here: a fixed id.
    let ids: HashSet<u16> = asked.iter().map(|question| question.id).collect();
    let ports: HashSet<u16> = asked.iter().map(|question| question.from.port()).collect();
    assert!(ids.len() > 60 && ports.len() > 48, "{} ids, {} ports", ids.len(), ports.len());
}

#[tokio::test]
async fn a_truncated_reply_is_asked_again_over_tcp() {
    let server = server(|asked| {
        if asked.tcp {
            let addresses: Vec<String> = (1..=200).map(|n| format!("192.0.2.{n}")).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            vec![(0, asked.say_addresses(60, &addresses))]
        } else {
            vec![(0, asked.say_cut())]
        }
    })
    .await;
    assert_eq!(ask(&mut exchanges(&[&server])).await.unwrap().len(), 200);
    let ways: Vec<bool> = server.asked().iter().map(|asked| asked.tcp).collect();
    assert_eq!(ways, [false, true]);
}

#[tokio::test]
async fn forged_and_broken_datagrams_are_waited_out() {
    let server = server(|asked| {
        let with = |id: u16, name: &str, query_type: u16| {
            let forged = Asked { id, name: name.to_owned(), query_type, ..asked.clone() };
            forged.say(&[Record::A("www.example", 60, [192, 0, 2, 66])])
        };
        vec![
            (0, with(asked.id ^ 1, NAME, 1)),
            (0, with(asked.id, "ww.example", 1)),
            (0, with(asked.id, NAME, 28)),
            (0, asked.bytes.clone()),
            (0, vec![0; 11]),
            (50, asked.say_addresses(60, &["192.0.2.1"])),
        ]
    })
    .await;
    assert_eq!(ask(&mut exchanges(&[&server])).await.unwrap(), ["192.0.2.1"]);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn who_guesses_ids_only_drives_us_to_tcp() {
    let server = server(|asked| {
        if asked.tcp {
            return good(asked);
        }
        let forged = |n: u16| {
            Asked { id: asked.id.wrapping_add(n), ..asked.clone() }.say_addresses(60, &["192.0.2.66"])
        };
        // The last guess is right, and comes too late.
        (1..=40).map(|n| (0, forged(n % 40))).collect()
    })
    .await;
    // Mutation seen to fail here: MAX_FOREIGN taken as 64.
    assert_eq!(ask(&mut exchanges(&[&server])).await.unwrap(), ["192.0.2.1"]);
}

#[tokio::test]
async fn another_source_is_not_heard() {
    let stranger = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let server = server(move |asked| {
        stranger.send_to(&asked.say_addresses(60, &["192.0.2.66"]), asked.from).unwrap();
        vec![(50, asked.say_addresses(60, &["192.0.2.1"]))]
    })
    .await;
    // Mutation seen to fail here: the socket not connected.
    assert_eq!(ask(&mut exchanges(&[&server])).await.unwrap(), ["192.0.2.1"]);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_silent_or_fails_and_then_first() {
    let silent = server(|_| Vec::new()).await;
    let failing = server(|asked| vec![(0, asked.say_rcode(Rcode::SERVFAIL))]).await;
    let fine = server(good).await;
    let mut exchanges = exchanges(&[&silent, &failing, &fine]);
    let since = StdInstant::now();
    assert_eq!(ask(&mut exchanges).await.unwrap(), ["192.0.2.1"]);
    assert!(since.elapsed() < Duration::from_millis(1_500), "{:?}", since.elapsed());
    assert_eq!([silent.count(), failing.count(), fine.count()], [1, 1, 1]);
    assert_eq!(ask(&mut exchanges).await.unwrap(), ["192.0.2.1"]);
    // Mutation seen to fail here: `first` left at 0.
    assert_eq!([silent.count(), failing.count(), fine.count()], [1, 1, 2]);
    exchanges.forget_preference();
    ask(&mut exchanges).await.unwrap();
    assert_eq!(silent.count(), 2);
}

#[tokio::test]
async fn a_slow_server_may_still_answer_while_others_are_asked() {
    let slow = server(|asked| vec![(700, asked.say_addresses(60, &["192.0.2.1"]))]).await;
    let silent = server(|_| Vec::new()).await;
    // Mutation seen to fail here: an attempt dropped when the next begins.
    assert_eq!(ask(&mut exchanges(&[&slow, &silent])).await.unwrap(), ["192.0.2.1"]);
}

#[tokio::test]
async fn silence_ends_in_time_and_after_two_rounds() {
    let silent = server(|_| Vec::new()).await;
    let since = StdInstant::now();
    assert_eq!(ask(&mut exchanges(&[&silent])).await, Err(UpstreamError::TimedOut));
    assert!(since.elapsed() < Duration::from_millis(3_000), "{:?}", since.elapsed());
    assert_eq!(silent.count(), 2);
    assert!(Limits::default().total < Duration::from_secs(5), "a client's retry finds us done");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let refusing = server(|asked| vec![(0, asked.say_rcode(Rcode::REFUSED))]).await;
    let failure = UpstreamError::Failure { server: refusing.address, rcode: 5 };
    assert_eq!(ask(&mut exchanges(&[&refusing])).await, Err(failure));
    let nobody = { server(good).await.address };
    tokio::time::sleep(Duration::from_millis(20)).await;
    let since = StdInstant::now();
    let mut exchanges = Exchanges::new(vec![nobody], limits());
    assert!(matches!(ask(&mut exchanges).await, Err(UpstreamError::Io { .. } | UpstreamError::TimedOut)));
    assert!(since.elapsed() < Duration::from_millis(3_000));
    let mut exchanges = Exchanges::new(Vec::new(), limits());
    assert_eq!(ask(&mut exchanges).await, Err(UpstreamError::NoServer));
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let old =
        server(|asked| if asked.edns { vec![(0, asked.say_rcode(Rcode::FORMERR))] } else { good(asked) })
            .await;
    assert_eq!(ask(&mut exchanges(&[&old])).await.unwrap(), ["192.0.2.1"]);
    let always = server(|asked| vec![(0, asked.say_rcode(Rcode::FORMERR))]).await;
    assert!(matches!(ask(&mut exchanges(&[&always])).await, Err(UpstreamError::Failure { rcode: 1, .. })));
    assert_eq!(always.count(), 4);
}

#[tokio::test]
async fn a_negative_answer_is_an_answer() {
    let server = server(|asked| vec![(0, asked.say_rcode(Rcode::NXDOMAIN))]).await;
    assert_eq!(ask_for(&mut exchanges(&[&server]), 28).await.unwrap().rcode, 3);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn no_more_are_under_way_than_the_bound_and_no_more_wait() {
    let server = server(|asked| vec![(100, asked.say_addresses(60, &["192.0.2.1"]))]).await;
    let mut exchanges = exchanges(&[&server]);
    for _ in 0..12 {
        exchanges.ask(key(NAME, 1), judge(NAME, 1)).unwrap();
    }
    assert_eq!(exchanges.ask(key(NAME, 1), judge(NAME, 1)), Err(UpstreamError::Busy));
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Mutation seen to fail here: `at_once` not looked at.
    assert_eq!((server.count(), exchanges.len()), (4, 12));
    for _ in 0..12 {
        assert!(exchanges.next().await.1.is_ok());
    }
    assert!(exchanges.is_empty() && exchanges.try_next().is_none());
}
