//! Policies and destinations drawn from the edges of each other, for the tests of compiling and deciding.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use egress::policy::{
    Action, Bounds, Dns, Inbound, Loopback, Mode, OnEscape, Origin, Policy, PortRange, Refusal, Require,
    Restriction, Rule, Target, Unix, Upstream,
};
use egress_common::{Address, Flow, Peer, Transport};
use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::select};

/// Networks that hold, touch and miss each other and the special ranges.
pub(crate) const NETWORKS: [&str; 44] = [
    "0.0.0.0/0",
    "128.0.0.0/1",
    "10.0.0.0/8",
    "10.20.0.0/16",
    "10.20.8.0/23",
    "10.20.9.0/24",
    "10.20.9.0/32",
    "10.20.9.255/32",
    "10.21.0.0/16",
    "126.0.0.0/7",
    "127.0.0.0/8",
    "127.0.0.1/32",
    "127.0.0.53/32",
    "0.0.0.0/8",
    "0.0.0.0/32",
    "100.64.0.0/10",
    "100.100.100.200/32",
    "168.0.0.0/7",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "169.254.169.0/24",
    "169.254.169.254/32",
    "169.254.170.2/31",
    "192.0.0.192/32",
    "224.0.0.0/3",
    "224.0.0.0/4",
    "239.255.0.0/16",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/0",
    "::/1",
    "::/64",
    "::/127",
    "::1/128",
    "2000::/3",
    "2001:db8::/32",
    "2001:db8:7::/48",
    "2001:db8:7::1/128",
    "fd00::/8",
    "fd00:ec2::254/128",
    "fe80::/10",
    "fe80::/64",
    "ff00::/8",
    "ff02::1/128",
];

const PORTS: [(u16, u16); 15] = [
    (1, 1),
    (22, 22),
    (53, 53),
    (52, 53),
    (853, 853),
    (853, 854),
    (443, 443),
    (440, 450),
    (443, 444),
    (256, 511),
    (1, 65535),
    (8000, 8100),
    (65535, 65535),
    (65534, 65535),
    (32768, 65535),
];

const NAMES: [&str; 6] = [
    "api.example",
    "db.internal.example",
    "*.packages.example",
    "a.packages.example",
    "*.a.packages.example",
    "x",
];

pub(crate) fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    vec(select(&PORTS), 1..4).prop_map(|ports| {
        let mut ranges: Vec<PortRange> =
            ports.into_iter().map(|(first, last)| PortRange { first, last }).collect();
        ranges.sort_unstable();
        let mut joined: Vec<PortRange> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => joined.push(range),
            }
        }
        joined
    })
}

fn transports() -> impl Strategy<Value = Vec<Transport>> {
    select(vec![vec![Transport::Tcp], vec![Transport::Udp], vec![Transport::Tcp, Transport::Udp]])
}

const ALL_TRANSPORTS: [Transport; 3] = [Transport::Icmp, Transport::Tcp, Transport::Udp];

/// Ports and transports as a rule under `allow:` may have them.
fn opened() -> impl Strategy<Value = (Vec<PortRange>, Vec<Transport>)> {
    prop_oneof![
        4 => (ports(), transports()),
        1 => Just((vec![PortRange::one(0)], vec![Transport::Icmp])),
    ]
}

/// Ports and transports as a rule under `deny:` may have them.
fn closed() -> impl Strategy<Value = (Vec<PortRange>, Vec<Transport>)> {
    let all = |transports: &[Transport]| Just((vec![PortRange::ALL], transports.to_vec()));
    prop_oneof![
        6 => opened(),
        2 => all(&ALL_TRANSPORTS),
        1 => all(&[Transport::Udp]),
    ]
}

pub(crate) fn network_rule(action: Action) -> impl Strategy<Value = Rule> {
    let parts = if action == Action::Deny { closed().boxed() } else { opened().boxed() };
    (select(&NETWORKS), parts, 1..200usize).prop_map(move |(network, (ports, transports), line)| Rule {
        action,
        target: Target::Network(network.parse().unwrap()),
        ports,
        transports,
        origin: file(line),
    })
}

const SOCKETS: [&str; 7] = ["/run/a", "/run/a*", "/run/a.sock", "/*", "@a", "@*", "/run/a b \"c\": #'{"];

fn unix_rule() -> impl Strategy<Value = Rule> {
    (select(&SOCKETS), any::<bool>(), 500..600usize).prop_map(|(name, allow, line)| Rule {
        action: if allow { Action::Allow } else { Action::Deny },
        target: Target::Unix(name.into()),
        ports: Vec::new(),
        transports: Vec::new(),
        origin: file(line),
    })
}

pub(crate) fn host_rule() -> impl Strategy<Value = Rule> {
    (select(&NAMES), any::<bool>(), opened(), 200..400usize).prop_map(
        |(name, private, (ports, transports), line)| Rule {
            action: Action::Allow,
            target: Target::Host { name: name.into(), private, broad: false },
            ports,
            transports,
            origin: file(line),
        },
    )
}

pub(crate) fn file(line: usize) -> Origin {
    Origin::File { path: Arc::new(PathBuf::from("p.yaml")), line }
}

pub(crate) fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = prop_oneof![
        5 => network_rule(Action::Allow),
        2 => network_rule(Action::Deny),
        1 => host_rule(),
        1 => unix_rule(),
    ];
    vec(rule, 0..10)
}

pub(crate) fn loopback() -> impl Strategy<Value = Loopback> {
    prop_oneof![
        Just(Loopback::None),
        Just(Loopback::Own),
        Just(Loopback::Any),
        ports().prop_map(Loopback::Ports),
    ]
}

pub(crate) fn inbound() -> impl Strategy<Value = Inbound> {
    prop_oneof![
        2 => Just(Inbound::Deny),
        1 => Just(Inbound::Allow),
        2 => ports().prop_map(Inbound::Ports),
    ]
}

/// Some of the host's own addresses: plain ones, a metadata service, one that is loopback anyway, one that embeds another.
pub(crate) fn own() -> impl Strategy<Value = Vec<IpAddr>> {
    const OWN: [&str; 7] = [
        "10.20.9.0",
        "10.20.9.255",
        "127.0.0.53",
        "169.254.169.254",
        "2001:db8:7::1",
        "fe80::",
        "::ffff:203.0.113.1",
    ];
    proptest::sample::subsequence(OWN.map(|text| text.parse::<IpAddr>().unwrap()).to_vec(), 0..=OWN.len())
}

/// `require:`, `escape:`, `permit:`
fn bounds_of_scope() -> impl Strategy<Value = (Require, OnEscape, Vec<Restriction>)> {
    let require = select(vec![Require::Kernel, Require::Full]);
    let on_escape = select(vec![OnEscape::Report, OnEscape::Kill]);
    let all = Restriction::ALL.to_vec();
    (require, on_escape, proptest::sample::subsequence(all, 0..=Restriction::ALL.len()))
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
    prop_oneof![
        2 => Just(Upstream::System),
        1 => Just(Upstream::List(vec![socket("10.20.9.0:5353"), socket("[2001:db8:7::1]:53")], file(401))),
    ]
}

/// Settings at the edges of what they may be.
fn dns() -> impl Strategy<Value = Dns> {
    let types = select(vec![Dns::TYPES.to_vec(), vec![1], vec![16, 28, 257], vec![257]]);
    let refusal = select(vec![Refusal::NxDomain, Refusal::Refused]);
    let bounds = (select(vec![1, 40, 63]), select(vec![1, 100, 253]), select(vec![0, 30, 1_000_000]))
        .prop_map(|(label, name, new_names)| Bounds { label, name, new_names });
    let parts = (types, refusal, bounds, any::<bool>(), any::<bool>());
    parts.prop_map(|(types, refusal, wildcard, keep_ech, eager)| Dns {
        types,
        refusal,
        keep_ech,
        wildcard,
        eager,
    })
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let unix = select(vec![Unix::Own, Unix::Any, Unix::None]);
    let parts = (rules(), loopback(), unix, inbound(), bounds_of_scope(), upstream(), dns(), any::<bool>());
    parts.prop_map(|(rules, loopback, unix, inbound, bounds, dns_upstream, dns, audit)| Policy {
        name: "p".into(),
        description: None,
        mode: if audit { Mode::Audit } else { Mode::Enforce },
        rules,
        loopback,
        loopback_origin: Some(file(400)),
        unix,
        unix_origin: Some(file(402)),
        inbound,
        inbound_origin: Some(file(403)),
        require: bounds.0,
        on_escape: bounds.1,
        permits: bounds.2.into_iter().collect(),
        dns_upstream,
        dns,
        notices: Vec::new(),
        files: vec!["p.yaml".into()],
    })
}

/// Every destination at the edges of the networks and port ranges above: first, last and one beyond.
pub(crate) fn destinations() -> &'static [Flow] {
    static FLOWS: LazyLock<Vec<Flow>> = LazyLock::new(all_destinations);
    &FLOWS
}

/// A part of [`destinations`] that differs from case to case.
pub(crate) fn some_destinations() -> impl Strategy<Value = Vec<Flow>> {
    const STEP: usize = 7;
    (0..STEP).prop_map(|offset| destinations().iter().skip(offset).step_by(STEP).copied().collect())
}

fn all_destinations() -> Vec<Flow> {
    let mut addresses: Vec<Address> = NETWORKS
        .iter()
        .flat_map(|text| edges(text.parse().unwrap()))
        .chain(
            ["64:ff9b::169.254.169.254", "2002:a14:900::1", "203.0.113.1"].map(|text| text.parse().unwrap()),
        )
        .map(Address::from)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut ports: Vec<u16> = PORTS
        .iter()
        .flat_map(|(first, last)| [first.saturating_sub(1), *first, *last, last.saturating_add(1)])
        .chain([0, 5353])
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let mut flows = Vec::new();
    for address in addresses {
        let ip = address.judged().to_ip();
        let local = match ip {
            IpAddr::V4(v4) => matches!(v4.octets(), [0 | 127, ..] | [10, 20, 9, 0] | [203, 0, 113, 1]),
            IpAddr::V6(v6) => v6.to_bits() < 3,
        };
        let local_ports: &[u16] = if local { &[0, 443, 8000] } else { &[0] };
        let peers: &[Peer] =
            if local { &[Peer::Remote, Peer::Own, Peer::Foreign, Peer::Nobody] } else { &[Peer::Remote] };
        let with_ports = ports.iter().flat_map(|&port| [(Transport::Tcp, port), (Transport::Udp, port)]);
        for (transport, port) in with_ports.chain([(Transport::Icmp, 0)]) {
            for &peer in peers {
                flows.extend(local_ports.iter().map(|&local_port| Flow {
                    transport,
                    address,
                    port,
                    local_port,
                    peer,
                }));
            }
        }
    }
    flows
}

fn edges(network: IpNet) -> Vec<IpAddr> {
    match network {
        IpNet::V4(v4) => {
            let (first, last) = (v4.network().to_bits(), v4.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
                .to_vec()
        }
        IpNet::V6(v6) => {
            let (first, last) = (v6.network().to_bits(), v6.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
                .to_vec()
        }
    }
}
