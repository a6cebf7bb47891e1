//! What the tests of this directory share: servers on the loopback interface that say what they are told to, a table of
//! permits, a clock.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype, StaticCompressor, ToName, Ttl,
        iana::{Class, Rcode},
    },
    rdata::{A, Aaaa, AllRecordData, Cname, Txt},
};
use egress_common::{Address, Asker, AskerKey, Permit, PermitKey, Transport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use super::{
    clock::Clock,
    permit::{PermitError, PermitTable},
    service::Askers,
};
use crate::compile::{HostRule, PortRange};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const START: u64 = 1_000 * SECOND;

/// A clock that stands still until it is told to go on.
#[derive(Clone, Debug)]
pub(crate) struct FakeClock(Rc<Cell<u64>>);

impl FakeClock {
    pub(crate) fn new() -> Self {
        Self(Rc::new(Cell::new(START)))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.set(self.0.get() + seconds * SECOND);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> u64 {
        self.0.get()
    }
}

/// A table in memory; clones are the same table.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeTable(Rc<RefCell<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    entries: BTreeMap<PermitKey, Permit>,
    room: Option<usize>,
    broken: bool,
    stuck: bool,
    delay: Duration,
    writes: usize,
}

impl FakeTable {
    /// As many entries fit.
    pub(crate) fn room(&self, room: usize) {
        self.0.borrow_mut().room = Some(room);
    }

    /// Nothing can be written.
    pub(crate) fn broken(&self, broken: bool) {
        self.0.borrow_mut().broken = broken;
    }

    /// Nothing can be removed.
    pub(crate) fn stuck(&self, stuck: bool) {
        self.0.borrow_mut().stuck = stuck;
    }

    /// Each write takes so long.
    pub(crate) fn delay(&self, delay: Duration) {
        self.0.borrow_mut().delay = delay;
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.borrow().writes
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().entries.len()
    }

    pub(crate) fn entries(&self) -> BTreeMap<PermitKey, Permit> {
        self.0.borrow().entries.clone()
    }

    /// Rule and seconds from [`START`] to the expiry of the permit for a block of TCP ports of an address.
    pub(crate) fn block(&self, address: &str, port: u16, block: u8) -> Option<(u32, u64)> {
        let address = Address::from(address.parse::<IpAddr>().unwrap());
        let entries = &self.0.borrow().entries;
        let permit = entries.get(&PermitKey::new(1, Transport::Tcp, address, port, block))?;
        Some((permit.rule, (permit.expires - START) / SECOND))
    }

    /// Of a single port.
    pub(crate) fn permit(&self, address: &str, port: u16) -> Option<(u32, u64)> {
        self.block(address, port, 0)
    }
}

impl PermitTable for FakeTable {
    fn write(&mut self, key: &PermitKey, permit: &Permit) -> Result<(), PermitError> {
        let mut table = self.0.borrow_mut();
        if !table.delay.is_zero() {
            std::thread::sleep(table.delay);
        }
        table.writes += 1;
        if table.broken {
            return Err(std::io::Error::other("broken").into());
        }
        let full = table.room.is_some_and(|room| table.entries.len() >= room);
        if full && !table.entries.contains_key(key) {
            return Err(PermitError::Full);
        }
        table.entries.insert(*key, *permit);
        Ok(())
    }

    fn remove(&mut self, key: &PermitKey) -> Result<(), PermitError> {
        let mut table = self.0.borrow_mut();
        if table.stuck {
            return Err(std::io::Error::other("stuck").into());
        }
        table.entries.remove(key);
        Ok(())
    }
}

/// Who may ask.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    /// Everybody, as often as they like.
    pub(crate) all: bool,
    /// These, once.
    pub(crate) known: HashSet<AskerKey>,
    /// Who has been asked for.
    pub(crate) sought: Vec<AskerKey>,
}

impl Askers for Guests {
    fn take(&mut self, key: &AskerKey) -> Option<Asker> {
        self.sought.push(*key);
        (self.known.remove(key) || self.all)
            .then(|| Asker { cookie: u64::from(key.port), ..Asker::default() })
    }
}

/// A rule for single TCP ports or ranges.
pub(crate) fn host(id: u32, host: &str, ports: &[(u16, u16)], private: bool) -> HostRule {
    HostRule {
        id,
        host: host.to_owned(),
        ports: ports.iter().map(|&(first, last)| PortRange { first, last }).collect(),
        transports: vec![Transport::Tcp],
        private,
        own: [].into(),
    }
}

/// A question as a server sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) query_type: u16,
    pub(crate) tcp: bool,
    pub(crate) edns: bool,
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// A record of a server.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    A(&'static str, u32, [u8; 4]),
    Cname(&'static str, u32, &'static str),
    Txt(&'static str, u32, Vec<u8>),
}

impl Asked {
    fn read(bytes: &[u8], tcp: bool, from: SocketAddr) -> Self {
        let message = Message::from_slice(bytes).unwrap();
        let question = message.sole_question().unwrap();
        Self {
            id: message.header().id(),
            name: question.qname().to_string(),
            query_type: question.qtype().to_int(),
            tcp,
            edns: message.opt().is_some(),
            from,
            bytes: bytes.to_vec(),
        }
    }

    /// These addresses under the name that was asked for, if it was asked for their family.
    pub(crate) fn say_addresses(&self, ttl: u32, addresses: &[&str]) -> Vec<u8> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        message(self.id, &self.name, self.query_type, Rcode::NOERROR, false, |push| {
            for address in &addresses {
                match address {
                    IpAddr::V4(v4) if self.query_type == 1 => push(&self.name, ttl, A::new(*v4).into()),
                    IpAddr::V6(v6) if self.query_type == 28 => push(&self.name, ttl, Aaaa::new(*v6).into()),
                    _ => {}
                }
            }
        })
    }

    /// These records.
    pub(crate) fn say(&self, records: &[Record]) -> Vec<u8> {
        message(self.id, &self.name, self.query_type, Rcode::NOERROR, false, |push| {
            for record in records.iter().cloned() {
                match record {
                    Record::A(owner, ttl, ip) => push(owner, ttl, A::new(ip.into()).into()),
                    Record::Cname(owner, ttl, to) => push(owner, ttl, Cname::new(name_of(to)).into()),
                    Record::Txt(owner, ttl, text) => {
                        push(owner, ttl, Txt::build_from_slice(&text).unwrap().into());
                    }
                }
            }
        })
    }

    /// A response code without records.
    pub(crate) fn say_rcode(&self, rcode: Rcode) -> Vec<u8> {
        message(self.id, &self.name, self.query_type, rcode, false, |_| {})
    }

    /// That it is too long for a datagram.
    pub(crate) fn say_cut(&self) -> Vec<u8> {
        message(self.id, &self.name, self.query_type, Rcode::NOERROR, true, |_| {})
    }
}

type AnyData = AllRecordData<Vec<u8>, Name<Vec<u8>>>;

fn name_of(text: &str) -> Name<Vec<u8>> {
    Name::vec_from_str(text).unwrap()
}

fn message(
    id: u16,
    name: &str,
    query_type: u16,
    rcode: Rcode,
    cut: bool,
    fill: impl FnOnce(&mut dyn FnMut(&str, u32, AnyData)),
) -> Vec<u8> {
    let mut builder = MessageBuilder::from_target(StaticCompressor::new(Vec::new())).unwrap();
    builder.header_mut().set_id(id);
    builder.header_mut().set_qr(true);
    builder.header_mut().set_tc(cut);
    builder.header_mut().set_rcode(rcode);
    let mut builder = builder.question();
    builder.push((name_of(name), Rtype::from_int(query_type))).unwrap();
    let mut builder = builder.answer();
    fill(&mut |owner: &str, ttl: u32, data: AnyData| {
        builder.push((name_of(owner), Class::IN, Ttl::from_secs(ttl), data)).unwrap();
    });
    builder.finish().into_target()
}

/// What a server does: after so many milliseconds, says this.
pub(crate) type Step = (u64, Vec<u8>);

/// A server on the loopback interface.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// The questions so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// A server whose every reply, datagrams or TCP messages, is what `answer` says.
pub(crate) async fn server(answer: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Server {
    let answer = Arc::new(answer);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (tcp, udp) = sockets().await;
    let udp = Arc::new(udp);
    let address = tcp.local_addr().unwrap();
    let over_udp = tokio::spawn({
        let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
        async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let question = Asked::read(&buffer[..length], false, from);
                asked.lock().unwrap().push(question.clone());
                for (wait, reply) in answer(&question) {
                    let udp = Arc::clone(&udp);
                    let send = async move { drop(udp.send_to(&reply, from).await) };
                    after(wait, send).await;
                }
            }
        }
    });
    let over_tcp = tokio::spawn({
        let asked = Arc::clone(&asked);
        async move {
            while let Ok((mut stream, from)) = tcp.accept().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut bytes = vec![0; usize::from(length)];
                stream.read_exact(&mut bytes).await.unwrap();
                let question = Asked::read(&bytes, true, from);
                asked.lock().unwrap().push(question.clone());
                for (wait, reply) in answer(&question) {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            }
        }
    });
    Server { address, asked, tasks: [over_udp, over_tcp] }
}

async fn after(wait: u64, send: impl Future<Output = ()> + Send + 'static) {
    if wait == 0 {
        return send.await;
    }
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        send.await;
    });
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

/// A reply as a client sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Got {
    pub(crate) id: u16,
    pub(crate) rcode: u16,
    pub(crate) cut: bool,
    pub(crate) name: String,
    /// Addresses with their time to live, in order.
    pub(crate) addresses: Vec<(String, u32)>,
    /// Info code of the extended error.
    pub(crate) extended: Option<u16>,
}

impl Got {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let message = Message::from_slice(bytes).unwrap();
        assert!(message.header().qr());
        let mut addresses = Vec::new();
        for record in message.answer().unwrap().map(Result::unwrap) {
            let ttl = record.ttl().as_secs();
            if let Ok(Some(a)) = record.to_record::<A>() {
                addresses.push((Ipv4Addr::to_string(&a.data().addr()), ttl));
            } else if let Ok(Some(aaaa)) = record.to_record::<Aaaa>() {
                addresses.push((aaaa.data().addr().to_string(), ttl));
            }
        }
        let extended = message.opt().and_then(|opt| {
            let option = opt.opt().first::<domain::base::opt::ExtendedError<&[u8]>>()?;
            Some(option.code().to_int())
        });
        let question = message.sole_question().unwrap();
        Self {
            id: message.header().id(),
            rcode: message.opt_rcode().to_int(),
            cut: message.header().tc(),
            name: question.qname().to_name::<Vec<u8>>().to_string(),
            addresses,
            extended,
        }
    }

    /// Addresses alone.
    pub(crate) fn ips(&self) -> Vec<&str> {
        self.addresses.iter().map(|(address, _)| address.as_str()).collect()
    }
}
