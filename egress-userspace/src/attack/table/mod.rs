//! The table of attacks: every way out that is known, each a few lines. An attack is a call or a path of its own, never
//! another port; what it takes to notice that it worked is part of it.

mod descriptors;
mod group;
mod kinds;
mod leave;
mod local;
mod names;
mod options;
mod process;
mod raw;
mod reach;
mod ring;
mod route;
mod tcp;
mod tunnel;
mod udp;
mod unix;

pub(super) use descriptors::inherited_number;
pub(super) use local::unbound_port;
pub(super) use process::executed;
pub(super) use unix::path_as_long;

use super::{
    aim::Aim,
    call::{Done, Sock},
};

/// A class of attacks, with the letter that begins their ids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Class {
    /// Its letter.
    pub letter: char,
    /// What its attacks have in common.
    pub title: &'static str,
    /// What to do when one of them gets out.
    pub advice: &'static str,
}

const fn class(letter: char, title: &'static str, advice: &'static str) -> Class {
    Class { letter, title, advice }
}

const HOOKS: &str = "a hook is missing or another eBPF program undoes it: see `egress doctor`, and check what else is attached \
                     (`bpftool cgroup tree`)";

/// All classes, in the order of their letters.
pub const CLASSES: [Class; 17] = [
    class('a', "TCP", HOOKS),
    class('b', "UDP", HOOKS),
    class('c', "TCP Fast Open and repair", HOOKS),
    class('d', "other transports", "the hook `create` must refuse such sockets: see `egress doctor`"),
    class('e', "raw, ping and packet sockets", "start the command with `egress run`, as an ordinary user"),
    class('f', "source routes and extension headers", HOOKS),
    class('g', "io_uring", "do not lift the restriction `io_uring`; start the command with `egress run`"),
    class(
        'h',
        "sockets from outside",
        "start the command with `egress run`, which hands nothing down; `unix: own` and BPF LSM close the rest",
    ),
    class(
        'i',
        "leaving the cgroup",
        "run the command as an ordinary user, below a cgroup that belongs to root",
    ),
    class(
        'j',
        "processes and namespaces",
        "do not lift the restrictions `userns`, `clone3` and `foreign-abi`",
    ),
    class('k', "inbound and local relays", "set `loopback: own` and `inbound: deny`, or list single ports"),
    class('l', "broadcast and groups", "the hook `setsockopt` must refuse joins: see `egress doctor`"),
    class(
        'm',
        "unix sockets and other families",
        "set `unix: own`; do not lift the restrictions `families` and `netlink`",
    ),
    class(
        'n',
        "devices, tunnels and settings",
        "run the command as an ordinary user, or as root through `egress run`",
    ),
    class('o', "names", "set no rule for ports 53 and 853; see `egress policy explain`"),
    class(
        'p',
        "reaching into processes outside",
        "do not lift the restrictions `ptrace`, `signals` and `bpf`; give agents a user of their own",
    ),
    class('q', "socket options", "the hook `setsockopt` must refuse them: see `egress doctor`"),
];

/// What shows that an attack got out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// A frame on the wire to or from an address, to a port, or with the token, of this attack.
    Wire,
    /// A frame on the wire with the token of this attack.
    Token,
    /// A process outside the scope was reached.
    Outside,
    /// That the calls succeed: with what they give, anything else can be had.
    Success,
}

/// What must be around for an attack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Around {
    /// Nothing special.
    Nothing,
    /// A process of the same user outside the scope.
    Holder,
    /// Somebody on the net who connects to the attack's TCP port.
    VisitTcp,
    /// Somebody on the net who sends to the attack's UDP port.
    VisitUdp,
    /// A process on the same host who connects to the attack's TCP port on loopback.
    VisitLoopback,
    /// A process on the same host who connects to the attack's unix socket.
    VisitUnix,
    /// A server on the same host, at the attack's port, TCP and UDP.
    Server,
    /// The same, over IPv4 and bound to the wire's device.
    ServerOfDevice,
    /// A UDP server over IPv4 that lets others have its port too.
    ServerThatShares,
    /// A descriptor that is open when the command is started.
    Inherited(Handed),
    /// A descriptor that a process outside hands to whoever asks.
    Given(Handed),
}

/// A descriptor that was made outside the scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handed {
    /// TCP, connected.
    TcpConnected,
    /// TCP.
    Tcp,
    /// UDP, connected.
    UdpConnected,
    /// UDP.
    Udp,
    /// TCP, listening at the attack's port, and visited.
    Listener,
    /// One end of a pair.
    Pair,
    /// `cgroup.procs` of the uppermost cgroup.
    Procs,
    /// The directory of the uppermost cgroup.
    CgroupDirectory,
    /// Another network namespace.
    Namespace,
    /// Link-layer packets.
    Packet,
    /// Raw IP packets.
    Raw,
    /// The writing end of a pipe.
    Pipe,
}

/// A setting by which a policy may allow what an attack does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opened {
    /// Rules about the addresses that the attack uses.
    Address,
    /// `loopback:`
    Loopback,
    /// `inbound:`
    Inbound,
    /// `unix:`
    Unix,
}

/// One way out.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Stable: letter of its class, and words.
    pub id: &'static str,
    /// What it does.
    pub title: &'static str,
    /// What it needs beyond an ordinary user on Linux; empty if nothing.
    pub needs: &'static str,
    /// What shows that it got out.
    pub proof: Proof,
    /// What must be around.
    pub around: Around,
    /// The setting that may allow it.
    pub opened: Opened,
    /// It needs somebody outside who helps and whom no policy binds: it is told, but cannot fail the machine.
    pub conspires: bool,
    pub(super) how: fn(&Aim<'_>) -> Done,
}

type How = fn(&Aim<'_>) -> Done;

const fn attack(id: &'static str, title: &'static str, proof: Proof, how: How) -> Attack {
    let (around, opened) = (Around::Nothing, Opened::Address);
    Attack { id, title, needs: "", proof, around, opened, conspires: false, how }
}

/// Judged by a frame to an address of its own, or with its token.
const fn wire(id: &'static str, title: &'static str, how: How) -> Attack {
    attack(id, title, Proof::Wire, how)
}

/// Judged by its token on the wire.
const fn token(id: &'static str, title: &'static str, how: How) -> Attack {
    attack(id, title, Proof::Token, how)
}

/// Judged by a process outside.
const fn outside(id: &'static str, title: &'static str, how: How) -> Attack {
    attack(id, title, Proof::Outside, how)
}

/// Judged by its success.
const fn success(id: &'static str, title: &'static str, how: How) -> Attack {
    attack(id, title, Proof::Success, how)
}

impl Attack {
    const fn needs(self, needs: &'static str) -> Self {
        Self { needs, ..self }
    }

    const fn root(self) -> Self {
        self.needs("root")
    }

    const fn around(self, around: Around) -> Self {
        let opened = match around {
            Around::VisitTcp | Around::VisitUdp | Around::VisitLoopback => Opened::Inbound,
            Around::Server | Around::ServerOfDevice | Around::ServerThatShares => Opened::Loopback,
            Around::VisitUnix | Around::Given(_) => Opened::Unix,
            Around::Nothing | Around::Holder | Around::Inherited(_) => self.opened,
        };
        Self { around, opened, ..self }
    }

    const fn unix(self) -> Self {
        Self { opened: Opened::Unix, ..self }
    }

    const fn conspires(self) -> Self {
        Self { conspires: true, ..self }
    }

    /// Its class.
    ///
    /// # Panics
    /// Never: a test reads each id.
    pub fn class(&self) -> &'static Class {
        let letter = self.id.chars().next().unwrap_or_default();
        CLASSES.iter().find(|class| class.letter == letter).unwrap_or(&CLASSES[0])
    }
}

const PARTS: [&[Attack]; 16] = [
    tcp::ATTACKS,
    udp::ATTACKS,
    kinds::ATTACKS,
    raw::ATTACKS,
    route::ATTACKS,
    ring::ATTACKS,
    descriptors::ATTACKS,
    leave::ATTACKS,
    process::ATTACKS,
    local::ATTACKS,
    group::ATTACKS,
    unix::ATTACKS,
    tunnel::ATTACKS,
    names::ATTACKS,
    reach::ATTACKS,
    options::ATTACKS,
];

/// No attack: what the policy of a run allows. If it does not arrive, nobody can say what the silence of others means.
pub(super) const HONEST: Attack = attack("honest", "what the policy allows", Proof::Token, |aim| {
    let socket = Sock::tcp4()?;
    socket.connect(aim.good4())?;
    socket.send(&aim.token())
});

/// All attacks, in a stable order; an attack's place in it tells its addresses.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    PARTS.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::attack::aim::MOST;

    #[test]
    fn every_attack_is_its_own_and_has_a_class() {
        let ids: BTreeSet<_> = all().map(|attack| attack.id).collect();
        let titles: BTreeSet<_> = all().map(|attack| (attack.class().letter, attack.title)).collect();
        assert_eq!(ids.len(), all().count(), "two attacks have one id");
        assert_eq!(titles.len(), all().count(), "two attacks have one title");
        assert!(ids.len() >= 120, "only {} attacks", ids.len());
        assert!(ids.len() <= MOST, "more attacks than addresses: {}", ids.len());
        for attack in all() {
            let (letter, word) = attack.id.split_once('-').expect("letter and words");
            assert_eq!(letter, attack.class().letter.to_string(), "{}", attack.id);
            assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{}", attack.id);
        }
        for class in &CLASSES {
            assert!(all().any(|attack| attack.class() == class), "no attack of class {}", class.letter);
        }
    }
}
