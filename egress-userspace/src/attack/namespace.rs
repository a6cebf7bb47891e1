//! Network namespaces without a name: gone with their last descriptor, whatever becomes of this process.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{
    aim::{AGENT4, AGENT6, DEVICE, GATEWAY4, GATEWAY6, GOOD6, LINK, WIRE},
    call::Done,
    netlink::Netlink,
};

/// Name of the far end of the wire.
pub(super) const FAR: &str = "net0";

/// A network namespace.
#[derive(Debug)]
pub(super) struct Namespace(File);

impl Namespace {
    fn new() -> io::Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        made.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked"))).map(Self)
    }

    /// Its descriptor.
    pub(super) fn file(&self) -> &File {
        &self.0
    }

    /// Runs `work` on a thread inside. Sockets made there stay in the namespace.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// Has `command` start inside.
    pub(super) fn place(&self, command: &mut Command) -> io::Result<()> {
        let file = self.0.try_clone()?;
        // SAFETY: after the fork only one system call is made, and nothing is allocated.
        unsafe { command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?)) };
        Ok(())
    }
}

/// Both sides of the wire: `agent`, where attacks are made, and `net`, which answers under every address there is. No
/// route leads out of either.
#[derive(Debug)]
pub(super) struct Sides {
    /// Where attacks are made.
    pub(super) agent: Namespace,
    /// Where they are to arrive.
    pub(super) net: Namespace,
}

/// Retries end soon, so that no socket of an attack keeps a namespace, and the scope's programs, alive for minutes.
const SETTINGS: [(&str, &str); 21] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/all/seg6_enabled", "1"),
    ("ipv6/conf/default/seg6_enabled", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/accept_source_route", "1"),
    ("ipv4/conf/default/accept_source_route", "1"),
    ("ipv4/conf/all/accept_local", "1"),
    ("ipv4/ip_forward", "1"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/tcp_fastopen", "1543"),
    ("ipv4/tcp_orphan_retries", "1"),
    ("ipv4/tcp_retries2", "3"),
    ("ipv4/tcp_syn_retries", "2"),
    ("ipv4/tcp_fin_timeout", "1"),
    ("ipv4/igmp_max_memberships", "200"),
];

impl Sides {
    /// Makes both sides and the wire between them.
    pub(super) fn new() -> io::Result<Self> {
        let sides = Self { agent: Namespace::new()?, net: Namespace::new()? };
        for side in [&sides.agent, &sides.net] {
            side.enter(|| {
                for (name, value) in SETTINGS {
                    // What this kernel does not have makes attacks impossible, and the control run says so.
                    let _missing = std::fs::write(format!("/proc/sys/net/{name}"), value);
                }
                Ok(())
            })?;
        }
        let far = sides.net.file().as_raw_fd();
        sides.agent.enter(|| Ok(Netlink::open()?.wire(WIRE, DEVICE, FAR, far)?))?;
        sides.net.enter(|| Ok(far_side()?))?;
        sides.agent.enter(|| Ok(near_side()?))?;
        Ok(sides)
    }
}

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn far_side() -> Done {
    let netlink = Netlink::open()?;
    netlink.up(1)?;
    let broadcast = Some(Ipv4Addr::new(192, 0, 2, 255).into());
    netlink.address(WIRE, GATEWAY4.into(), 24, broadcast)?;
    netlink.up(WIRE)?;
    netlink.route((ANY4, 0), None, Some(1), true)?;
    without_ipv6(|| {
        netlink.address(WIRE, GATEWAY6.into(), 64, None)?;
        netlink.address(WIRE, LINK.into(), 64, None)?;
        netlink.address(1, GOOD6.into(), 128, None)?;
        netlink.route((ANY6, 0), None, Some(1), true)
    });
    Ok(())
}

fn near_side() -> Done {
    let netlink = Netlink::open()?;
    netlink.up(1)?;
    netlink.address(WIRE, AGENT4.into(), 24, Some(Ipv4Addr::new(192, 0, 2, 255).into()))?;
    netlink.up(WIRE)?;
    netlink.route((ANY4, 0), Some(GATEWAY4.into()), None, false)?;
    without_ipv6(|| {
        netlink.address(WIRE, AGENT6.into(), 64, None)?;
        netlink.route((ANY6, 0), Some(GATEWAY6.into()), None, false)
    });
    Ok(())
}

/// A host may have none: then its attacks are not possible, and the control run says so.
fn without_ipv6(work: impl FnOnce() -> Done) {
    if let Err(stop) = work() {
        tracing::debug!(at = stop.at, errno = stop.errno, "no IPv6");
    }
}
