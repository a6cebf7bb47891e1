//! The kernel and the tables in memory decide alike: verdict, rule and reason, for destinations at the edges of rules.
//!
//! Mutations of the kernel's copy seen to fail here: see the comments at the tests.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Stdio,
};

use egress::{compile::memory::MemoryTables, enforce::KernelProgram};
use egress_common::{Address, Decision, Flow, Hook, Peer, Transport, Verdict};
use egress_tests::{
    Attempt, Lab, policies,
    scope::{Scope, told},
};

/// Small, fast, and the same every time: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bits") % bound
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

/// A generated policy and the edges of its rules.
struct Generated {
    text: String,
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

const V4: [&str; 8] = [
    "203.0.113.0",
    "203.0.113.64",
    "203.0.113.128",
    "198.51.100.0",
    "198.51.100.8",
    "10.20.0.0",
    "169.254.169.254",
    "127.0.0.0",
];
const V6: [&str; 5] = ["2001:db8:10::", "2001:db8:10:8000::", "2001:db8:66::", "fd00:ec2::254", "fe80::"];

fn generate(random: &mut Random) -> Generated {
    let mut made = Generated { text: String::new(), addresses: BTreeSet::new(), ports: BTreeSet::new() };
    let mut lists = [Vec::new(), Vec::new()];
    for _ in 0..1 + random.below(7) {
        let rule = made.rule(random);
        lists[usize::from(random.below(3) == 0)].push(rule);
    }
    let loopback = random.of(&["none", "any", "[443, 8080]"]);
    let list = |name: &str, rules: &[String]| match rules {
        [] => format!("{name}: []\n"),
        rules => format!("{name}:\n{}", rules.concat()),
    };
    made.text = format!(
        "version: 1\nname: generated\nloopback: {loopback}\n{}{}",
        list("allow", &lists[0]),
        list("deny", &lists[1])
    );
    made
}

impl Generated {
    /// One rule; notes its edges.
    fn rule(&mut self, random: &mut Random) -> String {
        let (network, width) = if random.below(3) < 2 {
            let network: Ipv4Addr = random.of(&V4).parse().expect("an address");
            (IpAddr::V4(network), random.of(&[32_u32, 32, 31, 29, 26, 25, 24, 16, 8, 0]))
        } else {
            let network: Ipv6Addr = random.of(&V6).parse().expect("an address");
            (IpAddr::V6(network), random.of(&[128_u32, 128, 127, 112, 64, 49, 48, 32, 0]))
        };
        let (first, last) = ends(network, width);
        for address in [first, last] {
            self.addresses.extend(neighbours(address));
        }
        let ports = random.of(&[
            "[443]",
            "[1]",
            "[65535]",
            "[440-447]",
            "[443, 8000-8100]",
            "[1-65535]",
            "[8080, 1024-2047]",
        ]);
        for edge in
            [1, 439, 440, 443, 447, 448, 1023, 1024, 2047, 2048, 7999, 8000, 8080, 8100, 8101, 65534, 65535]
        {
            self.ports.insert(edge);
        }
        let protocol = random.of(&["tcp", "udp", "any"]);
        format!("  - {{ cidr: '{first}/{width}', ports: {ports}, protocol: {protocol} }}\n")
    }
}

fn ends(address: IpAddr, bits: u32) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            let first = u32::from(v4) & mask;
            (IpAddr::V4(first.into()), IpAddr::V4((first | !mask).into()))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let first = u128::from(v6) & mask;
            (IpAddr::V6(first.into()), IpAddr::V6((first | !mask).into()))
        }
    }
}

/// The address, the ones beside it, and the forms that stand for it.
fn neighbours(address: IpAddr) -> Vec<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let number = u32::from(v4);
            let beside = [number.wrapping_sub(1), number, number.wrapping_add(1)].map(Ipv4Addr::from);
            let o = v4.octets();
            let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
            let mapped = v4.to_ipv6_mapped();
            let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, word(o[0], o[1]), word(o[2], o[3]));
            let six_to_four = Ipv6Addr::new(0x2002, word(o[0], o[1]), word(o[2], o[3]), 0, 0, 0, 0, 1);
            let others = [mapped, nat64, six_to_four].map(IpAddr::V6);
            beside.into_iter().map(IpAddr::V4).chain(others).collect()
        }
        IpAddr::V6(v6) => {
            let number = u128::from(v6);
            [number.wrapping_sub(1), number, number.wrapping_add(1)].map(|n| IpAddr::V6(n.into())).to_vec()
        }
    }
}

/// Destinations that a program can send to: a zone for link-local ones; no group or unspecified ones for TCP, which
/// the kernel refuses before any hook.
fn usable(address: IpAddr, port: u16, transport: Transport) -> Option<SocketAddr> {
    let odd = address.to_canonical().is_multicast()
        || address.to_canonical().is_unspecified()
        || address.to_canonical() == IpAddr::V4(Ipv4Addr::BROADCAST)
        || matches!(address.to_canonical(), IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240);
    if odd && transport == Transport::Tcp || port == 0 {
        return None;
    }
    Some(match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast() => {
            std::net::SocketAddrV6::new(v6, port, 0, 2).into()
        }
        address => (address, port).into(),
    })
}

/// What a batch of destinations gave in the kernel.
fn kernel(scope: &mut Scope, lab: &Lab, list: &[(SocketAddr, Transport)]) -> Vec<Option<(Hook, Decision)>> {
    let mut command = Attempt::new(&["batch"]).command(lab);
    command.stdin(Stdio::piped());
    scope.place(&mut command).expect("the scope is there");
    scope.events();
    let mut child = command.spawn().expect("start the attempts");
    let mut input = child.stdin.take().expect("a pipe");
    let lines: String = list
        .iter()
        .map(|(to, transport)| format!("{} {to}\n", if *transport == Transport::Tcp { "tcp" } else { "udp" }))
        .collect();
    input.write_all(lines.as_bytes()).expect("write the destinations");
    drop(input);
    let pid = child.id();
    let output = child.wait_with_output().expect("the attempts end");
    assert!(output.status.success(), "{output:?}");
    let events = scope
        .events()
        .into_iter()
        .filter(|event| event.owner.tgid == pid || event.owner.tgid == 0)
        .collect::<Vec<_>>();
    let mut events = events.into_iter().peekable();
    let mut found = Vec::new();
    for (to, transport) in list {
        let address = Address::from(to.ip());
        let here = |event: &egress_common::Event| {
            event.address == address
                && event.port == to.port()
                && event.protocol == u16::from(*transport as u8)
        };
        let first = events.next_if(|event| here(event));
        while events.next_if(|event| here(event)).is_some() {}
        found.push(first.map(|event| {
            let (verdict, hook, reason) = told(&event);
            (hook, Decision { verdict, reason, rule: event.rule })
        }));
    }
    assert_eq!(events.next(), None, "an event that no destination explains");
    found
}

fn destinations(random: &mut Random, policy: &Generated, count: usize) -> Vec<(SocketAddr, Transport)> {
    let addresses: Vec<_> = policy.addresses.iter().copied().collect();
    let ports: Vec<_> = policy.ports.iter().copied().collect();
    let mut list = Vec::new();
    for _ in 0..count * 20 {
        let transport = random.of(&[Transport::Tcp, Transport::Udp]);
        let Some(to) = usable(random.of(&addresses), random.of(&ports), transport) else { continue };
        // One after the other in two forms of the same address, their events could not be told apart.
        let key = |to: &SocketAddr| (to.ip().to_canonical(), to.port());
        if list.last().is_none_or(|(last, _)| key(last) != key(&to)) {
            list.push((to, transport));
        }
        if list.len() == count {
            break;
        }
    }
    list
}

fn flow(to: SocketAddr, transport: Transport) -> Flow {
    // On this host nobody listens.
    let canonical = to.ip().to_canonical();
    // (0.0.0.0/8 but for its first address leads out as any other.)
    let local = canonical.is_loopback() || canonical.is_unspecified();
    let peer = if local { Peer::Nobody } else { Peer::Remote };
    Flow { transport, address: to.ip().into(), port: to.port(), local_port: 0, peer }
}

/// Compares the kernel with the tables in memory; how many destinations were compared, and how many were allowed.
fn compare(programs: &[KernelProgram], policies: usize, each: usize) -> (usize, usize) {
    let lab = Lab::new().expect("the lab");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut compared, mut allowed) = (0, 0);
    for number in 0..policies {
        let (generated, compiled) = loop {
            let generated = generate(&mut random);
            // A rule that another makes pointless is an error of the file: draw again.
            if let Ok(compiled) = policies::try_compiled(&generated.text) {
                break (generated, compiled);
            }
        };
        let memory = MemoryTables::new(&compiled);
        let mut scope = Scope::closed(programs).expect("a scope");
        scope.enforced.open(&compiled, 0).expect("a policy");
        let mut list = destinations(&mut random, &generated, each);
        if !programs.contains(&KernelProgram::Connect4) {
            // The kernel makes them the loopback addresses before a packet is there.
            list.retain(|(to, _)| !to.ip().to_canonical().is_unspecified());
        }
        let found = kernel(&mut scope, &lab, &list);
        for ((to, transport), found) in list.iter().zip(found) {
            let expected = memory.decide(&flow(*to, *transport));
            let Some((hook, decision)) = found else {
                // Allowed packets give no event of their own.
                let silent =
                    !programs.contains(&KernelProgram::Connect4) && expected.verdict == Verdict::Allow;
                assert!(
                    silent,
                    "policy {number}: no event for {transport:?} {to}, expected {expected:?}\n{}",
                    generated.text
                );
                continue;
            };
            assert_eq!(
                decision, expected,
                "policy {number}: {transport:?} {to} at {hook:?}\n{}",
                generated.text
            );
            compared += 1;
            allowed += usize::from(decision.verdict == Verdict::Allow);
        }
    }
    (compared, allowed)
}

/// Mutation seen to fail here: the kernel's port key made in host byte order.
#[test]
fn address_hooks_decide_as_the_tables_in_memory() {
    let (compared, allowed) = compare(&KernelProgram::ALL, 24, 100);
    assert!(compared >= 2000, "only {compared} destinations were compared");
    assert!(allowed * 10 > compared, "only {allowed} of {compared} were allowed: the drawing is lopsided");
}

/// The packet hook reads the destination from the packet.
#[test]
fn the_packet_hook_alone_decides_alike() {
    let (compared, _) = compare(&[KernelProgram::Packet], 20, 60);
    assert!(compared >= 400, "only {compared} destinations were compared");
}
