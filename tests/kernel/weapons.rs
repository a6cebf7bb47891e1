//! Packaged attack and tunnel tools, used as their users use them: without `egress` each attempt arrives on the far side,
//! through `egress run` nothing does, for an ordinary user and for root.
//!
//! What they need is in `packages.txt`, what is tried in `weapons/`.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::chown,
    time::{Duration, Instant},
};

use egress_tests::{
    Names,
    dns::{SERVER4, settle},
    ears::Ears,
    network::address::{AGENT4, BAD4, BAD6, GATEWAY4, GOOD4, GOOD6},
    run::{Ended, Run},
    sniffer::Frame,
    ssh::{SSH, SshServer},
};

const POLICY: &str = "version: 1
name: weapons
allow:
  - { cidr: 203.0.113.10/32, ports: [443], protocol: any }
  - { cidr: 2001:db8:10::10/128, ports: [443], protocol: any }
  - { host: api.listed.example, ports: [443] }
";
const ZONE: &str = "api.listed.example 60 A 203.0.113.10\n";
const LIB: &str = include_str!("../weapons/lib.sh");
/// What the scripts read.
const FILES: [(&str, &str); 3] = [
    ("forge.py", include_str!("../weapons/forge.py")),
    ("raw.py", include_str!("../weapons/raw.py")),
    ("packet.py", include_str!("../weapons/packet.py")),
];
/// The group that `raw.py` joins.
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 7, 7);
/// Seconds for an attempt.
const TIME: u64 = 3;
/// So are all of them together, on a machine that has time: nothing hangs.
const AT_MOST: Duration = Duration::from_secs(60);

/// What shows that an attempt arrived.
#[derive(Clone, Copy, Debug)]
enum Proof {
    /// A packet with this text.
    Text(&'static str),
    /// A packet of this protocol.
    Protocol(u8),
    /// A report that somebody joined this group.
    Joined(Ipv6Addr),
    /// A TCP packet to this port of an address that nobody allows.
    Tcp(u16),
    /// A UDP packet to this port of an address that nobody allows.
    Udp(u16),
    /// A question that has this label.
    Asked(&'static str),
    /// A socket outside, on this machine, heard this.
    Heard(&'static str),
}

use Proof::{Asked, Heard, Joined, Protocol, Tcp, Text, Udp};

/// What came to the far side and to the sockets outside.
#[derive(Debug)]
struct Arrived {
    frames: Vec<Frame>,
    asked: Vec<String>,
    heard: Vec<String>,
}

/// One place where weapons are tried: each try has its own, for they leave devices and rules.
struct Range {
    names: Names,
    ears: Ears,
    ssh: SshServer,
}

impl Range {
    fn new() -> Self {
        let names = Names::serving(ZONE, &[443, 444, 80], &[443]);
        names.lab.agent.sysctl("net.ipv4.ip_forward = 1").expect("forward packets");
        let ears = Ears::start(&names.lab);
        let ssh = SshServer::start(&names.lab);
        names.forget();
        Self { names, ears, ssh }
    }

    /// The run and the words with which `sh` does what the script says, each attempt within so many seconds.
    fn prepare(&self, script: &str, time: u64) -> (Run<'_>, [String; 3]) {
        let run = self.names.run(POLICY);
        for (name, text) in FILES {
            run.file(name, text);
        }
        let keys = run.directory().join("keys");
        fs::create_dir(&keys).expect("make a directory");
        fs::copy(self.ssh.keys().join("user"), keys.join("user")).expect("copy the key");
        chown(keys.join("user"), Some(65534), Some(65534)).expect("give the key away");
        let settings = [
            ("TIME", time.to_string()),
            ("BAD4", BAD4.to_string()),
            ("BAD6", BAD6.to_string()),
            ("AGENT4", AGENT4.to_string()),
            ("GATEWAY4", GATEWAY4.to_string()),
            ("GOOD4", GOOD4.to_string()),
            ("GOOD6", GOOD6.to_string()),
            ("RESOLVER", SERVER4.to_string()),
            ("FILES", run.directory().display().to_string()),
            ("EARS", self.ears.directory().display().to_string()),
            ("ABSTRACT", self.ears.name().to_owned()),
            ("SSH", format!("'{}'", SSH.replace("KEYS", &keys.display().to_string()))),
        ];
        let settings: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        (run, ["sh".to_owned(), "-c".to_owned(), format!("{settings}{LIB}{script}")])
    }

    fn arrived(&self) -> Arrived {
        let seen = self.names.seen();
        settle();
        let name =
            |asked: egress_tests::dns::Asked| asked.question.map_or("?".to_owned(), |question| question.name);
        Arrived {
            frames: seen.frames.into_iter().filter(is_somebodys).collect(),
            asked: seen.asked.into_iter().map(name).collect(),
            heard: self.ears.take(),
        }
    }
}

impl Proof {
    fn holds(self, arrived: &Arrived) -> bool {
        let to_bad = |frame: &&Frame| frame.to == IpAddr::V4(BAD4) || frame.to == IpAddr::V6(BAD6);
        let packet = |protocol: u8, port: u16| {
            let mut frames = arrived.frames.iter().filter(to_bad);
            frames.any(|frame| frame.protocol == protocol && frame.ports.is_some_and(|(_, to)| to == port))
        };
        match self {
            Text(text) => arrived.frames.iter().any(|frame| frame.carries(text)),
            Protocol(protocol) => arrived.frames.iter().any(|frame| frame.protocol == protocol),
            Joined(group) => arrived.frames.iter().any(|frame| names(frame, group)),
            Tcp(port) => packet(6, port),
            Udp(port) => packet(17, port),
            Asked(label) => arrived
                .asked
                .iter()
                .flat_map(|name| name.split('.'))
                .any(|found| found.eq_ignore_ascii_case(label)),
            Heard(text) => arrived.heard.iter().any(|heard| heard.contains(text)),
        }
    }
}

/// Whether a program caused the packet, and not the kernel's own talk with its neighbours.
fn is_somebodys(frame: &Frame) -> bool {
    !frame.is_neighbour_discovery() || names(frame, GROUP6)
}

/// Whether the packet has the address anywhere.
fn names(frame: &Frame, address: Ipv6Addr) -> bool {
    frame.bytes.windows(16).any(|window| window == address.octets())
}

/// What came, in a few words each.
fn told(arrived: &Arrived) -> String {
    let frame = |frame: &Frame| {
        let text: String =
            String::from_utf8_lossy(&frame.bytes).chars().filter(char::is_ascii_graphic).collect();
        let tail = text.len().saturating_sub(24);
        format!(
            "{} -> {} protocol {} ports {:?} …{}",
            frame.from,
            frame.to,
            frame.protocol,
            frame.ports,
            &text[tail..]
        )
    };
    let frames: BTreeSet<_> = arrived.frames.iter().map(frame).collect();
    format!("{frames:#?}, asked {:?}, heard {:?}", arrived.asked, arrived.heard)
}

/// Without `egress`, and as root, every attempt arrives; with it, none.
fn fire(script: &str, proofs: &[Proof]) {
    control(script, proofs);
    for user in ["nobody", "root"] {
        enforced(script, user);
    }
}

/// What did not arrive on a busy machine may do so when all is tried once more and has more time.
fn control(script: &str, proofs: &[Proof]) {
    let mut missed = proofs.to_vec();
    let mut text = String::new();
    for time in [TIME, 3 * TIME, 9 * TIME] {
        let range = Range::new();
        let (run, words) = range.prepare(script, time);
        let output = run.free(&words.each_ref().map(String::as_str));
        let arrived = range.arrived();
        missed.retain(|proof| !proof.holds(&arrived));
        if missed.is_empty() {
            return;
        }
        text = format!("{}\n{}", told(&arrived), String::from_utf8_lossy(&output.stdout));
    }
    panic!("without egress {missed:?} did not arrive: {text}");
}

fn enforced(script: &str, user: &str) -> Ended {
    let range = Range::new();
    let (run, words) = range.prepare(script, TIME);
    let run = run.option(&["--user", user]);
    let start = Instant::now();
    let ended = run.run(&words.each_ref().map(String::as_str));
    let took = start.elapsed();
    let arrived = range.arrived();
    let said = format!("as {user}: {}{}", ended.stdout, ended.stderr);
    // What goes to the allowed address and no other way is no leak: some need it to stand in for the rest.
    let allowed = |frame: &&Frame| {
        (frame.to == IpAddr::V4(GOOD4) || frame.to == IpAddr::V6(GOOD6))
            && matches!(frame.ports, Some((_, 443)))
            && frame.bytes[0] & 15 <= 5
    };
    let leaked: Vec<_> = arrived.frames.iter().filter(|frame| !allowed(frame)).collect();
    let got_out = !leaked.is_empty() || !arrived.asked.is_empty() || !arrived.heard.is_empty();
    assert!(!got_out, "it got out {}\n{said}", told(&arrived));
    assert!(!ended.stdout.contains("not found"), "{said}");
    assert!(took < AT_MOST, "it took {took:?}; {said}");
    ended
}

macro_rules! weapon {
    ($name:ident, $file:literal, $proofs:expr) => {
        #[test]
        fn $name() {
            fire(include_str!(concat!("../weapons/", $file, ".sh")), $proofs);
        }
    };
}

weapon!(
    hping3,
    "hping3",
    &[Tcp(443), Udp(444), Text("hp-udp"), Text("hp-icmp"), Protocol(200), Tcp(445), Tcp(446)]
);
weapon!(
    nmap,
    "nmap",
    &[
        Tcp(443),
        Text("nm-udp"),
        Tcp(446),
        Tcp(447),
        Tcp(448),
        Protocol(132),
        Protocol(47),
        Tcp(450),
        Tcp(451),
        Text("nm-echo"),
        Tcp(452)
    ]
);
weapon!(
    nping,
    "nping",
    &[Tcp(443), Text("np-tcp"), Text("np-udp"), Text("np-icmp"), Text("np-frame"), Tcp(448), Udp(449)]
);
weapon!(
    socat,
    "socat",
    &[
        Text("sk-tcp"),
        Text("sk-tcp6"),
        Text("sk-udp"),
        Text("sk-datagram"),
        Text("sk-udp6"),
        Text("sk-device"),
        Text("sk-bound"),
        Text("sk-icmp"),
        Text("sk-gre"),
        Text("sk-six"),
        Text("sk-multicast"),
        Text("sk-broadcast"),
        Text("sk-mptcp"),
        Text("sk-lite"),
        Tcp(443),
        Tcp(80),
        Tcp(444),
        Text("sk-frame"),
        Text("sk-tunnel")
    ]
);
weapon!(
    netcat,
    "netcat",
    &[
        Text("nc-tcp"),
        Text("nc-udp"),
        Text("nc-six"),
        Tcp(444),
        Tcp(80),
        Text("bsd-tcp"),
        Text("bsd-udp"),
        Text("bsd-six"),
        Text("bsd-bound"),
        Tcp(53)
    ]
);
weapon!(
    tunnels,
    "tunnel",
    &[
        Asked("iodine"),
        Asked("iodine-two"),
        Asked("dns2tcp"),
        Asked("dns2tcp-two"),
        Protocol(1),
        Text("tx-data")
    ]
);
weapon!(
    curl,
    "curl",
    &[
        Text("/plain"),
        Text("/plain6"),
        Text("/fastopen"),
        Text("/device"),
        Text("/bound"),
        Text("/resolved"),
        Text("/elsewhere"),
        Text("/proxied"),
        Tcp(444),
        Tcp(443),
        Text("cu-tftp"),
        Text("/fronted"),
        Text("/port"),
        Asked("attacker")
    ]
);
weapon!(openssl, "openssl", &[Text("ssl-name"), Text("ssl-name6"), Udp(443), Tcp(80)]);
weapon!(ssh, "ssh", &[Tcp(22), Tcp(80)]);
weapon!(devices, "devices", &[Udp(4789), Text("mv-data"), Text("nat-data"), Text("neigh-data")]);
weapon!(
    unix_sockets,
    "unix",
    &[
        Heard("lo-path"),
        Heard("lo-datagram"),
        Heard("lo-abstract"),
        Heard("lo-abstract-datagram"),
        Heard("lo-ncat"),
        Heard("lo-bsd"),
        Heard("lo-curl"),
        Heard("lo-curl-abstract")
    ]
);
weapon!(
    loopback,
    "loopback",
    &[
        Heard("lo-tcp"),
        Heard("lo-any"),
        Heard("lo-six"),
        Heard("lo-own"),
        Heard("lo-odd"),
        Heard("lo-udp"),
        Heard("7007")
    ]
);

#[test]
fn scapy() {
    fire(
        "/usr/bin/python3 \"$FILES/forge.py\" \"$BAD4\" \"$BAD6\" \"$GOOD4\" \"$GOOD6\" \"$GATEWAY4\"",
        &[
            Text("sc-udp"),
            Text("sc-icmp"),
            Text("sc-syn"),
            Text("sc-gre"),
            Asked("sc-dns"),
            Text("sc-part"),
            Text("sc-lsrr"),
            Text("sc-six"),
            Text("sc-routed"),
            Text("sc-option"),
            Text("sc-frame"),
            Text("sc-spoofed"),
            Text("sc-frame6"),
            Text("sc-rawsock"),
        ],
    );
}

#[test]
fn python() {
    fire(
        "/usr/bin/python3 \"$FILES/raw.py\" \"$BAD4\" \"$BAD6\" \"$GOOD4\" \"$GOOD6\"",
        &[
            Text("py-udp"),
            Text("py-udp6"),
            Text("py-mapped"),
            Text("py-tcp"),
            Text("py-mptcp"),
            Tcp(53),
            Text("py-lite"),
            Text("py-ping"),
            Text("py-ping6"),
            Text("py-echo"),
            Text("py-other"),
            Text("py-header"),
            Text("py-lsrr"),
            Text("py-device"),
            Text("py-broad"),
            Text("py-multi"),
            Text("py-frame"),
            Protocol(2),
            Joined(GROUP6),
        ],
    );
}

/// What has no way through here even without `egress`, and why: words, and what they say then.
const IMPOSSIBLE: [(&[&str], &str); 5] = [
    // Built without.
    (
        &["curl", "-sS", "--dns-servers", "203.0.113.66", "http://named.attacker.example/"],
        "libcurl version doesn't support",
    ),
    // The kernel is built without.
    (&["ip", "link", "add", "wg0", "type", "wireguard"], "Unknown device type"),
    (&["ip", "link", "add", "gre7", "type", "gre", "remote", "203.0.113.66"], "Unknown device type"),
    (&["ncat", "--sctp", "--send-only", "-w", "1", "203.0.113.66", "443"], "Protocol not supported"),
    (&["socat", "-u", "-", "DCCP-CONNECT:203.0.113.66:443"], "unknown device/address"),
];

/// Where one of these does get through, it belongs among the weapons: on such a machine the test says so.
#[test]
fn what_is_not_possible_here() {
    let range = Range::new();
    for (words, says) in IMPOSSIBLE {
        let run = range.names.run(POLICY);
        let output = run.free(words);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains(says) && !output.status.success(), "{words:?} without egress: {text}");
        for user in ["nobody", "root"] {
            let ended = range.names.run(POLICY).option(&["--user", user]).run_apart(words);
            assert_ne!(ended.code(), 0, "{words:?} as {user}: {}", ended.stdout);
        }
        let arrived = range.arrived();
        assert!(arrived.frames.is_empty() && arrived.asked.is_empty(), "{words:?}: {}", told(&arrived));
    }
}

/// A socket to the machine's host. Whatever it sent would arrive there, outside of the lab, so it is only made.
#[test]
fn vsock() {
    let range = Range::new();
    let words =
        ["/usr/bin/python3", "-c", "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"];
    let free = range.names.run(POLICY).free(&words);
    assert!(free.status.success(), "without egress it is made: {}", String::from_utf8_lossy(&free.stderr));
    for user in ["nobody", "root"] {
        let ended = range.names.run(POLICY).option(&["--user", user]).run_apart(&words);
        assert_eq!(ended.code(), 1, "as {user} it was made: {}", ended.stdout);
        assert!(
            ended.stdout.contains("OSError") || ended.stdout.contains("PermissionError"),
            "{}",
            ended.stdout
        );
    }
}

/// Listening tools, to which somebody on the far side connects once all of them listen.
#[test]
fn listeners() {
    // They read before they answer: what comes for one that has answered and ended would end the tool before it passes the answer on.
    let script = "l() { timeout -k 1 30 \"$@\" & all=\"$all $!\"; }; \
                  l ncat -l -k 8081 -c 'read line; echo in-ncat'; \
                  l socat TCP-LISTEN:8082,fork,reuseaddr SYSTEM:'read line; echo in-socat'; \
                  l nc.openbsd -u -l 8083; l /usr/bin/python3 -m http.server -d /nonexistent 8084; \
                  l socat UDP-LISTEN:8085,fork SYSTEM:'read line; echo in-udp'; \
                  for turn in $(seq 300); do [ -e \"$FILES/knocked\" ] && break; sleep 0.1; done; \
                  kill $all; wait";
    for user in [None, Some("nobody"), Some("root")] {
        let range = Range::new();
        let (run, words) = range.prepare(script, TIME);
        let words = words.each_ref().map(String::as_str);
        let knocked = run.directory().join("knocked");
        let heard = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let all = range.names.lab.agent.await_ports(&[8081, 8082, 8083, 8084, 8085]);
                let heard = range.names.lab.net.enter(|| knock(if user.is_none() { 5 } else { 1 }));
                fs::write(&knocked, "").expect("write a file");
                assert!(all, "as {user:?}: not all of them listen");
                heard
            });
            match user {
                None => drop(run.free(&words)),
                Some(user) => drop(run.option(&["--user", user]).run(&words)),
            }
            asked.join().expect("nobody panics")
        });
        let expected: &[&str] = if user.is_none() { &["in-ncat", "in-socat", "HTTP", "in-udp"] } else { &[] };
        let found: Vec<_> = ["in-ncat", "in-socat", "HTTP", "in-udp"]
            .into_iter()
            .filter(|word| heard.contains(word))
            .collect();
        assert_eq!(found, expected, "as {user:?}: {heard}");
        if user.is_some() {
            assert_eq!(heard, "", "as {user:?}: not even a connection");
        }
    }
}

/// What the agent's side answers to connections and datagrams from the far side, within so many seconds each.
fn knock(patience: u64) -> String {
    let mut heard = String::new();
    for port in [8081, 8082, 8084] {
        let to = SocketAddr::from((AGENT4, port));
        let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) else { continue };
        heard += "connected ";
        let _ = stream.set_read_timeout(Some(Duration::from_secs(patience)));
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let mut buffer = [0; 100];
        let length = stream.read(&mut buffer).unwrap_or(0);
        heard += &String::from_utf8_lossy(&buffer[..length]);
    }
    for port in [8083, 8085] {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let _ = socket.set_read_timeout(Some(Duration::from_secs(patience)));
        let _ = socket.send_to(b"hello\n", (AGENT4, port));
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap_or(0);
        heard += &String::from_utf8_lossy(&buffer[..length]);
    }
    heard
}
