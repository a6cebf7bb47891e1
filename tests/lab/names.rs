//! A lab with names: a DNS server on the far side, and commands that are told to use it.

use std::process::Output;

use crate::{
    Lab,
    dns::{Asked, Dns, SERVER4, SERVER6, asked_for, settle},
    network::PORTS,
    run::Run,
    sniffer::Frame,
};

/// What a process is told to ask: the lab's resolver over IPv4.
pub const RESOLVER: &str = "nameserver 203.0.113.53\n";

/// A lab with names.
#[derive(Debug)]
pub struct Names {
    /// The two sides.
    pub lab: Lab,
    /// The DNS server.
    pub dns: Dns,
}

/// What reached the far side.
#[derive(Debug)]
pub struct Seen {
    /// The questions that the DNS server got.
    pub asked: Vec<Asked>,
    /// The packets.
    pub frames: Vec<Frame>,
}

impl Seen {
    /// Whether a packet carries the label, in whatever case, or the server was asked for it.
    pub fn label(&self, label: &str) -> bool {
        asked_for(&self.asked, label) || self.frames.iter().any(|frame| frame.carries_in_any_case(label))
    }

    /// Whether a server other than the lab's resolver got anything on port 53 or 853.
    pub fn strangers_asked(&self) -> bool {
        let resolver = |frame: &&Frame| frame.to == SERVER4 || frame.to == SERVER6;
        let asks = |frame: &Frame| frame.ports.is_some_and(|(_, to)| matches!(to, 53 | 853));
        self.frames.iter().filter(|frame| !resolver(frame)).any(asks)
    }
}

impl Names {
    /// A lab in which these names are (see [`crate::zone`]); servers on the usual ports but for 53.
    pub fn new(zone: &str) -> Self {
        let ports: Vec<_> = PORTS.into_iter().filter(|port| *port != 53).collect();
        Self::serving(zone, &ports, &[443])
    }

    /// With TCP and UDP servers on these ports only.
    pub fn serving(zone: &str, tcp: &[u16], udp: &[u16]) -> Self {
        let lab = Lab::serving(tcp, udp).expect("the lab");
        let dns = Dns::start(&lab.net, zone).expect("the lab's DNS server");
        Self { lab, dns }
    }

    /// A run under this policy whose resolver is the lab's.
    pub fn run(&self, policy: &str) -> Run<'_> {
        Run::with_policy(&self.lab, policy)
            .cover("/etc/resolv.conf", RESOLVER)
            .cover("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
            .cover("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    }

    /// Forgets what reached the far side so far.
    pub fn forget(&self) {
        settle();
        self.lab.forget();
        self.dns.take();
    }

    /// What reached the far side since the last call.
    pub fn seen(&self) -> Seen {
        settle();
        Seen { frames: self.lab.frames(), asked: self.dns.take() }
    }

    /// Runs a command without `egress`; what it wrote, and what reached the far side.
    pub fn free(&self, command: &[&str]) -> (Output, Seen) {
        self.forget();
        let output = self.run("version: 1\nname: none\nallow: []\n").free(command);
        (output, self.seen())
    }
}
