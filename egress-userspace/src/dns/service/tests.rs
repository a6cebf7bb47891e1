//! The service on the loopback interface: clients' sockets in front, scripted servers behind, a table in memory.

mod names;
mod tcp;
mod udp;

use std::{collections::BTreeSet, net::IpAddr};

use egress_common::{Address, AskerKey, Transport, Verdict};
use tokio::{net::UdpSocket, time::timeout};

use super::*;
use crate::{
    compile::HostRule,
    dns::{
        listener::own_netns_cookie,
        message,
        testing::{Asked, FakeClock, FakeTable, Got, Guests, Server, Step, host, server},
        told::DnsReason,
    },
    policy::{Bounds, Dns},
};

const A: u16 = 1;
const AAAA: u16 = 28;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;

fn limits() -> upstream::Limits {
    upstream::Limits {
        patience: Duration::from_millis(400),
        total: Duration::from_millis(1_500),
        ..upstream::Limits::default()
    }
}

struct World {
    service: Service<FakeClock>,
    table: FakeTable,
    askers: Guests,
    clock: FakeClock,
    base: u16,
    netns: u64,
    happened: Vec<Happened>,
    directory: tempfile::TempDir,
}

/// What differs from test to test.
struct Setup {
    rules: Vec<HostRule>,
    denied: Vec<(String, u32)>,
    audit: bool,
    dns: Dns,
    hosts: &'static str,
    resolv_conf: String,
    upstream: Upstreams,
    limits: upstream::Limits,
}

/// `a.example` and everything below `wild.example` may be asked for, of this server.
fn setup(server: &Server) -> Setup {
    Setup {
        rules: vec![
            host(1, "a.example", &[(443, 443)], false),
            host(2, "*.wild.example", &[(443, 443)], false),
            host(3, "private.example", &[(443, 443)], true),
        ],
        denied: vec![("denied.wild.example".to_owned(), 9)],
        audit: false,
        dns: Dns { wildcard: Bounds { new_names: u32::MAX, ..Bounds::default() }, ..Dns::default() },
        hosts: "",
        resolv_conf: String::new(),
        upstream: Upstreams::List(vec![server.address]),
        limits: limits(),
    }
}

impl Setup {
    fn build(self) -> World {
        let directory = tempfile::tempdir().unwrap();
        let resolv_conf = directory.path().join("resolv.conf");
        std::fs::write(&resolv_conf, &self.resolv_conf).unwrap();
        let compiled = Compiled {
            hosts: self.rules,
            denied_hosts: self.denied,
            audit: self.audit,
            dns: self.dns,
            ..Compiled::default()
        };
        let settings = Settings {
            compiled: Arc::new(compiled),
            slot: 1,
            hosts: Hosts::parse(self.hosts),
            upstream: self.upstream,
            resolv_conf,
            limits: self.limits,
        };
        let clock = FakeClock::new();
        let mut service = Service::new(settings, clock.clone()).unwrap();
        let netns = own_netns_cookie().unwrap_or(0);
        let listener = Listener::open(None, netns).unwrap();
        let base = listener.base();
        assert_eq!(service.add(listener).unwrap(), None);
        World {
            service,
            table: FakeTable::default(),
            askers: Guests { all: true, ..Guests::default() },
            clock,
            base,
            netns,
            happened: Vec::new(),
            directory,
        }
    }
}

impl World {
    /// Runs the service until a client is through.
    async fn run<R>(&mut self, client: impl Future<Output = R>) -> R {
        tokio::pin!(client);
        loop {
            tokio::select! {
                result = &mut client => return result,
                happened = self.service.next(&mut self.table, &mut self.askers) => self.happened.extend(happened),
            }
        }
    }

    /// Asks over a socket of its own.
    async fn ask(&mut self, name: &str, query_type: u16) -> Got {
        let base = self.base;
        self.run(async { client().await.ask(base, name, query_type).await.expect("a reply") }).await
    }

    /// What was told of questions since the last call.
    fn told(&mut self) -> Vec<Told> {
        let happened = std::mem::take(&mut self.happened).into_iter();
        happened.filter_map(|it| if let Happened::Told(told) = it { Some(told) } else { None }).collect()
    }

    /// Verdict, reason and rule of the questions since the last call.
    fn rulings(&mut self) -> Vec<(Verdict, DnsReason, Option<u32>)> {
        self.told().iter().map(|told| (told.verdict, told.reason, told.rule)).collect()
    }

    /// What was told of names since the last call.
    fn outcomes(&mut self) -> Vec<Outcome> {
        let happened = std::mem::take(&mut self.happened).into_iter();
        happened
            .filter_map(|it| if let Happened::Names(outcome) = it { Some(outcome) } else { None })
            .collect()
    }
}

struct Client(UdpSocket);

async fn client() -> Client {
    Client(UdpSocket::bind("127.0.0.1:0").await.unwrap())
}

impl Client {
    async fn send(&self, port: u16, bytes: &[u8]) {
        self.0.send_to(bytes, ("127.0.0.1", port)).await.unwrap();
    }

    /// A reply and the port that it comes from.
    async fn hear(&self, patience: u64) -> Option<(Got, u16)> {
        let mut buffer = [0; 4096];
        let heard = timeout(Duration::from_millis(patience), self.0.recv_from(&mut buffer)).await;
        let (length, from) = heard.ok()?.unwrap();
        Some((Got::read(&buffer[..length]), from.port()))
    }

    async fn ask(&self, port: u16, name: &str, query_type: u16) -> Option<Got> {
        self.send(port, &message::ask(7, name, query_type, true).unwrap()).await;
        self.hear(10_000).await.map(|(got, _)| got)
    }
}

fn good(asked: &Asked) -> Vec<Step> {
    vec![(0, asked.say_addresses(60, &["192.0.2.1", "2001:db8::1"]))]
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
