//! The resolver against servers on the loopback interface.

use std::{
    net::Ipv6Addr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use simple_dns::{Packet, PacketFlag, QTYPE, RCODE, TYPE};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::dns::wire::tests::{Record, message};

const NAME: &str = "www.example";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Via {
    Udp,
    Tcp,
}

/// A question as a server sees it.
struct Asked {
    id: u16,
    name: String,
    kind: Kind,
    via: Via,
    edns: bool,
}

impl Asked {
    fn read(bytes: &[u8], via: Via) -> Self {
        let packet = Packet::parse(bytes).unwrap();
        let question = &packet.questions[0];
        let kind = if question.qtype == QTYPE::TYPE(TYPE::AAAA) { Kind::Aaaa } else { Kind::A };
        Self { id: packet.id(), name: question.qname.to_string(), kind, via, edns: packet.opt().is_some() }
    }

    fn say(&self, rcode: RCODE, records: &[Record]) -> Vec<u8> {
        message(self.id, &self.name, self.kind, rcode, PacketFlag::empty(), records)
    }

    /// The given records to a question for A, no data to one for AAAA.
    fn say_v4(&self, records: &[Record]) -> Vec<Vec<u8>> {
        let records = if self.kind == Kind::A { records } else { &[] };
        vec![self.say(RCODE::NoError, records)]
    }
}

struct Server {
    address: SocketAddr,
    questions: Arc<AtomicU32>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A server whose every reply, datagrams or TCP messages, is what `answer` says.
async fn server(answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Server {
    let answer = Arc::new(answer);
    let questions = Arc::new(AtomicU32::new(0));
    let (tcp, udp) = sockets().await;
    let address = tcp.local_addr().unwrap();
    let (answer_tcp, questions_tcp) = (Arc::clone(&answer), Arc::clone(&questions));
    let over_udp = tokio::spawn({
        let questions = Arc::clone(&questions);
        async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                questions.fetch_add(1, Ordering::Relaxed);
                for reply in answer(&Asked::read(&buffer[..length], Via::Udp)) {
                    udp.send_to(&reply, from).await.unwrap();
                }
            }
        }
    });
    let over_tcp = tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            questions_tcp.fetch_add(1, Ordering::Relaxed);
            let Ok(length) = stream.read_u16().await else { continue };
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await.unwrap();
            for reply in answer_tcp(&Asked::read(&question, Via::Tcp)) {
                stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        }
    });
    Server { address, questions, tasks: [over_udp, over_tcp] }
}

/// One port for both; the kernel chooses it for TCP, so it may be taken for UDP.
async fn sockets() -> (TcpListener, UdpSocket) {
    for _ in 0..50 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (tcp, udp);
        }
    }
    panic!("no port is free for both TCP and UDP");
}

fn limits() -> Limits {
    Limits { attempt: Duration::from_millis(150), rounds: 2, total: Duration::from_secs(2) }
}

fn resolver(servers: &[&Server]) -> Resolver {
    let servers = servers.iter().map(|server| server.address).collect();
    Resolver::new(servers, Hosts::default(), limits())
}

fn listed(answer: &Answer) -> Vec<(String, u64)> {
    answer.addresses.iter().map(|found| (found.address.to_string(), found.ttl.as_secs())).collect()
}

fn listing(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(address, ttl)| ((*address).to_owned(), *ttl)).collect()
}

#[tokio::test]
async fn both_families_are_asked_and_names_are_normalised() {
    let server = server(|asked| {
        assert_eq!((asked.name.as_str(), asked.edns), (NAME, true));
        match asked.kind {
            Kind::A => vec![asked.say(RCODE::NoError, &[Record::A(NAME, 60, [192, 0, 2, 1])])],
            Kind::Aaaa => {
                let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
                vec![asked.say(RCODE::NoError, &[Record::Aaaa(NAME, 30, v6)])]
            }
        }
    })
    .await;
    let answer = resolver(&[&server]).lookup("WWW.Example.").await.unwrap();
    assert_eq!(listed(&answer), listing(&[("192.0.2.1", 60), ("2001:db8::1", 30)]));
    assert_eq!((answer.source, answer.missing), (Source::Server(server.address), None));
    assert_eq!(server.questions.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_hosts_file_goes_first() {
    let server = server(|_| panic!("asked")).await;
    let hosts = Hosts::parse("192.0.2.7 www.example\n2001:db8::7 www.example\n");
    let resolver = Resolver::new(vec![server.address], hosts, limits());
    let answer = resolver.lookup("WWW.example").await.unwrap();
    assert_eq!(listed(&answer), listing(&[("192.0.2.7", 60), ("2001:db8::7", 60)]));
    assert_eq!(answer.source, Source::HostsFile);
    assert_eq!(server.questions.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_truncated_reply_is_asked_again_over_tcp() {
    // More records than a datagram of the usual size holds.
    let server = server(|asked| {
        if asked.via == Via::Udp {
            let cut = [Record::A(NAME, 60, [192, 0, 2, 250])];
            return vec![message(asked.id, NAME, asked.kind, RCODE::NoError, PacketFlag::TRUNCATION, &cut)];
        }
        let records: Vec<Record> = (0..200).map(|n| Record::A(NAME, 60, [198, 51, 100, n])).collect();
        asked.say_v4(&records)
    })
    .await;
    let answer = resolver(&[&server]).lookup(NAME).await.unwrap();
    assert_eq!(answer.addresses.len(), 200);
    assert!(answer.addresses.iter().all(|found| found.address.to_string().starts_with("198.51.100.")));
    assert_eq!(server.questions.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn thirty_records_come_in_one_datagram() {
    let server = server(|asked| {
        let records: Vec<Record> = (0..30).map(|n| Record::A(NAME, 60, [192, 0, 2, n])).collect();
        asked.say_v4(&records)
    })
    .await;
    assert_eq!(resolver(&[&server]).lookup(NAME).await.unwrap().addresses.len(), 30);
}

#[tokio::test]
async fn forged_and_broken_datagrams_are_waited_out() {
    // Mutation seen to fail here: `Foreign` ends the wait; the id is not compared.
    let server = server(|asked| {
        let evil = [Record::A(NAME, 60, [203, 0, 113, 66])];
        let forged = |id, name| message(id, name, asked.kind, RCODE::NoError, PacketFlag::empty(), &evil);
        let mut replies: Vec<Vec<u8>> = (0..=64).map(|length| vec![0xff; length]).collect();
        replies.push(forged(asked.id.wrapping_add(1), NAME));
        replies.push(forged(asked.id, "other.example"));
        replies.extend(asked.say_v4(&[Record::A(NAME, 60, [192, 0, 2, 1])]));
        replies
    })
    .await;
    let answer = resolver(&[&server]).lookup(NAME).await.unwrap();
    assert_eq!(listed(&answer), listing(&[("192.0.2.1", 60)]));
}

#[tokio::test]
async fn aliases_out_of_order_are_followed() {
    let server = server(|asked| {
        asked.say_v4(&[
            Record::A("edge.example", 300, [192, 0, 2, 1]),
            Record::Cname("cdn.example", 20, "edge.example"),
            Record::Cname(NAME, 60, "cdn.example"),
        ])
    })
    .await;
    let answer = resolver(&[&server]).lookup(NAME).await.unwrap();
    assert_eq!(listed(&answer), listing(&[("192.0.2.1", 20)]));
}

#[tokio::test]
async fn failures_are_told_apart() {
    for (rcode, expected) in [
        (RCODE::NameError, "the name does not exist"),
        (RCODE::NoError, "the name has no address"),
        (RCODE::ServerFailure, "server SERVER answered SERVFAIL"),
        (RCODE::Refused, "server SERVER answered REFUSED"),
    ] {
        let server = server(move |asked| vec![asked.say(rcode, &[])]).await;
        let error = resolver(&[&server]).lookup(NAME).await.unwrap_err();
        assert_eq!(error.to_string(), expected.replace("SERVER", &server.address.to_string()));
    }
    let looped = server(|asked| vec![asked.say(RCODE::NoError, &[Record::Cname(NAME, 60, NAME)])]).await;
    let error = resolver(&[&looped]).lookup(NAME).await.unwrap_err();
    assert_eq!(error, ResolveError::BadChain { server: looped.address });
    let error = Resolver::new(Vec::new(), Hosts::default(), limits()).lookup(NAME).await.unwrap_err();
    assert_eq!(error, ResolveError::NoServer);
    let long = "a".repeat(64);
    assert_eq!(resolver(&[&looped]).lookup(&long).await.unwrap_err(), ResolveError::BadName);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_silent_or_fails() {
    let silent = server(|_| Vec::new()).await;
    let failing = server(|asked| vec![asked.say(RCODE::ServerFailure, &[])]).await;
    let good = server(|asked| asked.say_v4(&[Record::A(NAME, 60, [192, 0, 2, 1])])).await;
    let answer = resolver(&[&silent, &failing, &good]).lookup(NAME).await.unwrap();
    assert_eq!((listed(&answer).len(), answer.source), (1, Source::Server(good.address)));
    // NXDOMAIN is an answer: nobody else is asked.
    let gone = server(|asked| vec![asked.say(RCODE::NameError, &[])]).await;
    let asked_before = good.questions.load(Ordering::Relaxed);
    assert_eq!(resolver(&[&gone, &good]).lookup(NAME).await.unwrap_err(), ResolveError::NotFound);
    assert_eq!(good.questions.load(Ordering::Relaxed), asked_before);
}

#[tokio::test]
async fn silence_ends_in_time_and_after_two_rounds() {
    let silent = server(|_| Vec::new()).await;
    let begun = Instant::now();
    assert_eq!(resolver(&[&silent]).lookup(NAME).await.unwrap_err(), ResolveError::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // Two rounds of two families.
    assert_eq!(silent.questions.load(Ordering::Relaxed), 4);
    let short = Limits { total: Duration::from_millis(50), ..limits() };
    let begun = Instant::now();
    let error = Resolver::new(vec![silent.address], Hosts::default(), short).lookup(NAME).await.unwrap_err();
    assert_eq!(error, ResolveError::TimedOut);
    assert!(begun.elapsed() < Duration::from_millis(140), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn one_family_may_fail_while_the_other_answers() {
    for silent in [true, false] {
        let server = server(move |asked| match asked.kind {
            Kind::A => asked.say_v4(&[Record::A(NAME, 60, [192, 0, 2, 1])]),
            Kind::Aaaa if silent => Vec::new(),
            Kind::Aaaa => vec![asked.say(RCODE::ServerFailure, &[])],
        })
        .await;
        let many_rounds = Limits { rounds: 100, total: Duration::from_secs(20), ..limits() };
        let resolver = Resolver::new(vec![server.address], Hosts::default(), many_rounds);
        let begun = Instant::now();
        let answer = resolver.lookup(NAME).await.unwrap();
        assert_eq!(listed(&answer), listing(&[("192.0.2.1", 60)]));
        assert!(answer.missing.is_some());
        // The other family has been given one more attempt, not the whole bound.
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let server = server(|asked| {
        if asked.edns {
            return vec![asked.say(RCODE::FormatError, &[])];
        }
        asked.say_v4(&[Record::A(NAME, 60, [192, 0, 2, 1])])
    })
    .await;
    assert_eq!(listed(&resolver(&[&server]).lookup(NAME).await.unwrap()), listing(&[("192.0.2.1", 60)]));
}

#[tokio::test]
async fn nobody_listening_is_a_failure_at_once() {
    let address = {
        let gone = server(|_| Vec::new()).await;
        gone.tasks.iter().for_each(JoinHandle::abort);
        gone.address
    };
    tokio::task::yield_now().await;
    let slow = Limits { attempt: Duration::from_secs(5), total: Duration::from_secs(20), rounds: 2 };
    let begun = Instant::now();
    let error = Resolver::new(vec![address], Hosts::default(), slow).lookup(NAME).await.unwrap_err();
    assert!(matches!(error, ResolveError::Io { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
