//! The table itself; longer than other files, since it is data. Grouped by class, within a class from the plain to the rare.

use super::{
    Class,
    Guard::{self, Hook, Hygiene, Launch, Lsm},
    Path, Setting,
    Severity::{High, Limited, Severe},
};
use crate::policy::Restriction;

const PACKET: Guard = Hook("packet");
const CREATE: Guard = Hook("create");
const SETSOCKOPT: Guard = Hook("setsockopt");
const INGRESS: Guard = Hook("ingress");
const STREAMS: &[Guard] = &[Hook("connect4"), Hook("connect6"), PACKET];
const DATAGRAMS: &[Guard] = &[Hook("sendmsg4"), Hook("sendmsg6"), PACKET];
const ALL_INET: &[Guard] =
    &[Hook("connect4"), Hook("connect6"), Hook("sendmsg4"), Hook("sendmsg6"), CREATE, PACKET];
const FAMILIES: &[&[Guard]] = &[&[Launch(Restriction::Families)], &[Lsm("socket_create")]];
const PTRACE: &[&[Guard]] = &[&[Launch(Restriction::Ptrace)], &[Lsm("ptrace_access_check")]];
const UNIX: &[&[Guard]] = &[
    &[Lsm("unix_stream_connect"), Lsm("unix_may_send")],
    &[Hook("connect_unix"), Hook("sendmsg_unix")],
    &[Launch(Restriction::UnixSockets)],
];

const fn path(
    class: Class,
    id: &'static str,
    title: &'static str,
    closed_by: &'static [&'static [Guard]],
    since: &'static str,
) -> Path {
    Path { id, class, title, closed_by, since, left: "", severity: Severe, setting: None }
}

impl Path {
    const fn left(self, left: &'static str) -> Self {
        Self { left, ..self }
    }

    const fn high(self) -> Self {
        Self { severity: High, ..self }
    }

    const fn limited(self) -> Self {
        Self { severity: Limited, ..self }
    }

    const fn opened_by(self, setting: Setting) -> Self {
        Self { setting: Some(setting), ..self }
    }
}

/// Every path.
pub static PATHS: &[Path] = &[
    path(Class::Tcp, "tcp", "connect over IPv4, IPv6, IPv4-mapped or link-local addresses", &[STREAMS], "5.10"),
    path(Class::Tcp, "tcp-again", "another connect of a socket that was dissolved with AF_UNSPEC", &[STREAMS], "5.10"),
    path(Class::Tcp, "tcp-fast-open", "MSG_FASTOPEN, TCP_FASTOPEN_CONNECT", &[STREAMS], "5.10"),
    path(Class::Tcp, "tcp-repair", "TCP_REPAIR: a connection without a handshake", &[&[SETSOCKOPT, PACKET]], "5.10"),
    path(Class::Tcp, "tcp-earlier", "connections from before the policy, or of an older one", &[&[PACKET]], "5.10"),
    path(Class::Tcp, "tcp-after-exit", "data that was refused and waits in a closed socket", &[&[PACKET]], "5.10"),
    path(Class::Udp, "udp", "connected datagrams", &[&[PACKET]], "5.10"),
    path(Class::Udp, "udp-sendto", "sendto, sendmsg and sendmmsg with an address, AF_UNSPEC and IPv4-mapped ones", &[DATAGRAMS], "5.10"),
    path(Class::Udp, "udp-pktinfo", "IP_PKTINFO, IPV6_PKTINFO", &[DATAGRAMS], "5.10"),
    path(Class::Udp, "udp-corked", "data corked for one peer and sent to another", &[&[PACKET]], "5.10"),
    path(Class::Udp, "udp-fragments", "datagrams that the kernel cuts, and segmentation offload", &[&[PACKET]], "5.10"),
    path(Class::Udp, "udp-source", "a foreign source address, so that the answer goes elsewhere (IP_FREEBIND, IPV6_FREEBIND, IP_TRANSPARENT)", &[&[SETSOCKOPT]], "5.10").limited(),
    path(Class::Transports, "mptcp", "MPTCP, and the subflows that the kernel opens by itself", &[&[CREATE, PACKET]], "5.10").left("clients fall back to TCP"),
    path(Class::Transports, "udplite", "UDP-Lite", &[&[CREATE, PACKET]], "5.10"),
    path(Class::Transports, "sctp-dccp", "SCTP, DCCP, L2TP over IP", &[&[CREATE, PACKET]], "5.10"),
    path(Class::Transports, "ping", "ping sockets", &[&[CREATE, PACKET]], "5.10").left("`protocol: icmp` opens them by destination"),
    path(Class::Raw, "raw", "raw IP sockets, headers and fragments of one's own", &[&[CREATE, PACKET]], "5.10"),
    path(Class::Raw, "packet", "AF_PACKET, also past the queue", FAMILIES, "5.10").left("needs CAP_NET_RAW").high(),
    path(Class::Raw, "sock-packet", "SOCK_PACKET of AF_INET", FAMILIES, "5.10").left("needs CAP_NET_RAW").high(),
    path(Class::Raw, "xdp", "AF_XDP", FAMILIES, "5.10").left("needs CAP_NET_RAW").high(),
    path(Class::Families, "pppox", "PPPoE, PPTP and L2TP sockets (AF_PPPOX)", FAMILIES, "5.10").left("needs the module; no privilege"),
    path(Class::Families, "vsock", "the hypervisor and other machines on it (AF_VSOCK)", FAMILIES, "5.10").left("needs such a machine"),
    path(Class::Families, "families", "Bluetooth, TIPC, CAN, SMC, RDS, RxRPC, QIPCRTR, AF_ALG and every other family", FAMILIES, "5.10").left("most need a module"),
    path(Class::Families, "netlink", "netlink between processes (NETLINK_USERSOCK) and to the kernel's rarer parts", &[&[Launch(Restriction::Netlink)]], "5.10").high(),
    path(Class::Headers, "source-route", "source routing by IP_OPTIONS or a control message", &[&[PACKET, SETSOCKOPT]], "5.10"),
    path(Class::Headers, "routing-header", "IPv6 routing headers, set before or after connecting", &[&[PACKET, SETSOCKOPT]], "5.10"),
    path(Class::Headers, "header-payload", "data in destination options or hop-by-hop options", &[&[PACKET, SETSOCKOPT]], "5.10"),
    path(Class::Headers, "device", "SO_BINDTODEVICE, SO_BINDTOIFINDEX, IP_UNICAST_IF: a device of one's choice", &[&[SETSOCKOPT, PACKET]], "5.10").limited(),
    path(Class::Headers, "mark", "SO_MARK: another route, another NAT", &[&[SETSOCKOPT, PACKET]], "5.10").limited(),
    path(Class::IoUring, "io-uring", "every operation of io_uring, inline, by workers and by polling threads", &[ALL_INET, &[Launch(Restriction::IoUring)]], "5.10"),
    path(Class::IoUring, "io-uring-unix", "unix connects by io_uring, which no system call filter sees", &[&[Lsm("unix_stream_connect"), Lsm("unix_may_send")], &[Hook("connect_unix"), Hook("sendmsg_unix")], &[Launch(Restriction::IoUring)]], "5.10").opened_by(Setting::UnixAny),
    path(Class::Descriptors, "inherited", "sockets open at the start, connected or not", &[&[Hygiene], &[Lsm("socket_sendmsg"), Lsm("socket_connect")]], "5.10").left("of a live scope, sockets from before it"),
    path(Class::Descriptors, "passed", "sockets handed in over a unix socket (SCM_RIGHTS)", &[&[Lsm("file_receive")], &[Hygiene, Hook("connect_unix"), Hook("sendmsg_unix")], &[Hygiene, Launch(Restriction::UnixSockets)]], "5.10").left("without LSM: somebody outside who connects to a listener of the scope and hands one in").limited(),
    path(Class::Descriptors, "pidfd-getfd", "descriptors taken from another process (pidfd_getfd, /proc/PID/fd)", PTRACE, "5.13").high(),
    path(Class::Descriptors, "ring-outside", "a ring of io_uring whose thread is outside", &[&[Launch(Restriction::IoUring)], &[Lsm("file_receive")]], "5.10").left("needs a process outside that hands it in").limited(),
    path(Class::Leaving, "cgroup-procs", "write to cgroup.procs or cgroup.threads of another cgroup", &[&[Hygiene], &[Lsm("inode_permission")]], "5.10").left("needs root, or a delegated subtree"),
    path(Class::Leaving, "cgroup-opened", "a cgroup.procs that was opened outside", &[&[Hygiene], &[Lsm("file_permission")]], "5.10").high(),
    path(Class::Leaving, "cgroup-mount", "a cgroup2 mount of one's own", &[&[Hygiene], &[Lsm("sb_mount")]], "5.10").left("needs root").high(),
    path(Class::Leaving, "clone-into", "clone3 with CLONE_INTO_CGROUP, which a filter cannot see", &[&[Launch(Restriction::Clone3)], &[Lsm("inode_permission")]], "5.10").left("needs root").high(),
    path(Class::Leaving, "namespaces", "other network namespaces: unshare, setns, user namespaces", &[ALL_INET], "5.10").left("the hooks go along with the cgroup"),
    path(Class::Leaving, "user-namespace", "capabilities of a user namespace, for commands of root", &[&[Launch(Restriction::UserNamespaces)], &[Lsm("inode_permission"), Lsm("sb_mount")]], "5.10").high(),
    path(Class::Leaving, "children", "fork, setsid, threads, other programs", &[ALL_INET], "5.10"),
    path(Class::Leaving, "foreign-abi", "system calls under another architecture's numbers", &[&[Launch(Restriction::ForeignAbi)]], "5.10").high(),
    path(Class::Leaving, "host-root", "root on the host moves a process out, or detaches the programs", &[], "").left("seen by the supervisor: an `escape` event; `escape: kill` ends the scope").high(),
    path(Class::Inbound, "inbound", "answers on connections from outside, with and without bind", &[&[INGRESS, PACKET]], "5.10").opened_by(Setting::InboundAllow),
    path(Class::Inbound, "inbound-udp", "answers to datagrams from outside", &[&[INGRESS, PACKET]], "5.10").opened_by(Setting::InboundAllow),
    path(Class::Local, "loopback", "relays on loopback: 127.0.0.0/8, ::1, 0.0.0.0, ::", &[ALL_INET], "5.10").left("listeners of the same scope are reached").opened_by(Setting::LoopbackAny),
    path(Class::Local, "own-address", "relays on the host's own addresses", &[ALL_INET], "5.10").opened_by(Setting::LoopbackAny),
    path(Class::Local, "shared-port", "a UDP port of the scope that somebody else's socket shares, bound to a device or to all addresses", &[&[Hook("setsockopt"), PACKET]], "5.10").left("SO_REUSEADDR and SO_REUSEPORT have no effect on UDP sockets"),
    path(Class::Multicast, "broadcast", "broadcast and multicast, mDNS and LLMNR, and the copy that sockets of this host get first", &[ALL_INET], "5.10"),
    path(Class::Multicast, "membership", "IGMP and MLD joins: a few bytes in a group address", &[&[SETSOCKOPT]], "5.10").limited(),
    path(Class::Unix, "unix-path", "unix sockets by path: stream, datagram, seqpacket; D-Bus, docker.sock, nscd, resolved", UNIX, "5.10").left("before 6.7 and without LSM a launched command can make no unix sockets but pairs").opened_by(Setting::UnixAny).high(),
    path(Class::Unix, "unix-abstract", "abstract unix sockets", UNIX, "5.10").left("as above").opened_by(Setting::UnixAny).high(),
    path(Class::Unix, "unix-inbound", "somebody outside connects to a unix listener of the scope", &[&[Lsm("unix_stream_connect"), Lsm("unix_may_send")], &[Launch(Restriction::UnixSockets)]], "6.1").left("needs a process outside that wants to").opened_by(Setting::UnixAny).limited(),
    path(Class::Unix, "socketpair", "a unix socket or pipe to somebody outside that was open at the start", &[&[Hygiene]], "5.10").left("standard input, output and error stay").limited(),
    path(Class::Tunnels, "tun", "TUN, vhost and PPP devices", &[&[Hook("device")], &[Hygiene]], "5.10").left("needs CAP_NET_ADMIN").high(),
    path(Class::Tunnels, "memory", "/dev/mem, /dev/kmem, /dev/port", &[&[Hook("device")], &[Hygiene]], "5.10").left("needs root").high(),
    path(Class::Tunnels, "lines", "serial lines, USB, InfiniBand, uinput, and what is written to the kernel's log", &[&[Hook("device")]], "5.10").left("needs access to the device; devices whose numbers a kernel hands out as it goes (vport, tap) are root's"),
    path(Class::Tunnels, "net-admin", "tunnels, neighbours, routes, NAT and tc rules of the host", &[&[Hygiene]], "5.10").left("of a live scope: needs CAP_NET_ADMIN").high(),
    path(Class::Tunnels, "sysctl", "kernel settings (/proc/sys), core_pattern", &[&[Hook("sysctl")], &[Hygiene]], "5.10").left("needs root").high(),
    path(Class::Processes, "bpf", "bpf(2): detaching programs, changing maps", &[&[Launch(Restriction::Bpf)], &[Lsm("bpf")]], "5.10").left("needs CAP_BPF or CAP_SYS_ADMIN").high(),
    path(Class::Processes, "ptrace", "ptrace, /proc/PID/mem and process_vm_writev of processes outside", PTRACE, "5.10").left("same user, and Yama's ptrace_scope 0").high(),
    path(Class::Processes, "signals", "signals to processes outside, their limits, priorities and CPU masks", &[&[Launch(Restriction::Signals)], &[Lsm("task_kill")]], "6.12").left("same user; one signal carries a few bits").limited(),
    path(Class::Processes, "terminal", "characters pushed into a shared terminal (TIOCSTI, TIOCLINUX)", &[&[Launch(Restriction::Terminal)]], "5.10").high(),
    path(Class::Processes, "keys", "key requests that the kernel hands to a process of root outside", &[&[Launch(Restriction::Keys)]], "5.10").limited(),
    path(Class::Names, "dns-direct", "other name servers, DNS over TLS and over QUIC", &[ALL_INET], "5.10").left("ports 53 and 853 are closed whatever a rule says"),
    path(Class::Names, "dns-names", "names that no rule lists, and data within names", &[ALL_INET], "5.10").left("refused before any server is asked"),
    path(Class::Names, "dns-wildcard", "names below an allowed wildcard, asked one by one", &[], "").left("a wildcard rule, and the domain's owner: bounded by `dns.wildcard`; exact names close it").limited(),
    path(Class::Beyond, "allowed", "what is sent to an allowed destination, and to whoever else answers at its address", &[], "").left("narrow rules"),
    path(Class::Beyond, "cooperation", "a process outside that cooperates: a FIFO, shared memory, files that it reads or executes", &[], "").left("a user and directories of its own").limited(),
    path(Class::Beyond, "peers", "oom_score_adj of other processes of the same user", &[], "").left("a user of its own").limited(),
    path(Class::Beyond, "root-peers", "of a command of root: processes of root with as few capabilities, and files that others execute", &[], "").left("run the command as a user").high(),
    path(Class::Beyond, "upcalls", "requests that the kernel passes to root outside by itself, such as automounts", &[], "").left("such a service on the host").limited(),
];
