//! The table of system calls that are taken away: which, with which arguments, what the caller gets and what is told.
//! The filter is made from it, and what the filter hands over is judged by it once more.

use crate::policy::Restriction;

/// The architecture whose numbers this program's own calls have.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system call filter knows x86_64 and aarch64");

/// First number of another numbering under the same architecture: x32.
#[cfg(target_arch = "x86_64")]
pub(super) const FOREIGN_NUMBERS: Option<u32> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
pub(super) const FOREIGN_NUMBERS: Option<u32> = None;

/// What a tracer writes over a number so that the call is skipped.
pub(super) const SKIPPED: u32 = u32::MAX;

/// `BPF_JEQ` and the kernel itself see the lower half of an argument that is an `int`.
const WHOLE: u32 = u32::MAX;

/// A condition on one argument.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// Its lower half under a mask is one of these.
    Is(u8, u32, Vec<u32>),
    /// Its lower half under a mask is none of these.
    IsNot(u8, u32, Vec<u32>),
    /// It is no null pointer.
    Given(u8),
}

/// What becomes of a call that meets all its conditions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// Fails, and nobody is told: honest programs make it all the time and fall back.
    Quiet(i32),
    /// Fails, and is told.
    Denied(i32),
    /// Is told, and fails, if the process that it is about is outside; else goes on.
    DeniedOutside(i32),
    /// The broker of unix sockets makes it.
    Brokered,
}

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Its number.
    pub(super) nr: u32,
    /// Its name.
    pub(super) name: &'static str,
    /// All must hold.
    pub(super) tests: Vec<Test>,
    /// What follows.
    pub(super) fate: Fate,
    /// Whose row it is.
    pub(super) restriction: Option<Restriction>,
}

impl Test {
    /// Whether it holds for these arguments.
    pub(super) fn holds(&self, args: &[u64; 6]) -> bool {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lower half is what the kernel takes of an int"
        )]
        let lower = |arg: u8| args[usize::from(arg)] as u32;
        match self {
            Self::Is(arg, mask, values) => values.contains(&(lower(*arg) & mask)),
            Self::IsNot(arg, mask, values) => !values.contains(&(lower(*arg) & mask)),
            Self::Given(arg) => args[usize::from(*arg)] != 0,
        }
    }
}

impl Call {
    fn new(nr: libc::c_long, name: &'static str, tests: Vec<Test>, fate: Fate) -> Self {
        // Every number of the table is small and positive; one that were not would be no call at all.
        Self { nr: u32::try_from(nr).unwrap_or(SKIPPED), name, tests, fate, restriction: None }
    }

    /// A row of its own, to try the filter out.
    pub(super) fn probe(nr: libc::c_long, fate: Fate) -> Self {
        Self::new(nr, "probe", vec![], fate)
    }

    fn denied(nr: libc::c_long, name: &'static str, tests: Vec<Test>, errno: i32) -> Self {
        Self::new(nr, name, tests, Fate::Denied(errno))
    }
}

/// A number of the C library's headers as a register's lower half.
fn number(constant: i32) -> u32 {
    constant.cast_unsigned()
}

/// The rows that take away what a restriction names. None for what only Landlock can take.
pub(super) fn rows(restriction: Restriction) -> Vec<Call> {
    let mut rows = match restriction {
        Restriction::IoUring => io_uring(),
        Restriction::UserNamespaces => user_namespaces(),
        Restriction::Clone3 => vec![Call::new(libc::SYS_clone3, "clone3", vec![], Fate::Quiet(libc::ENOSYS))],
        Restriction::Ptrace => ptrace(),
        Restriction::Keys => {
            let upcall = vec![Test::Given(2)];
            vec![Call::denied(libc::SYS_request_key, "request_key", upcall, libc::EPERM)]
        }
        Restriction::Families => families(),
        Restriction::Netlink => netlink(),
        Restriction::Terminal => {
            let pushed = vec![Test::Is(1, WHOLE, TERMINAL.iter().map(|(request, _)| *request).collect())];
            vec![Call::denied(libc::SYS_ioctl, "ioctl", pushed, libc::EPERM)]
        }
        Restriction::Bpf => vec![Call::denied(libc::SYS_bpf, "bpf", vec![], libc::EPERM)],
        Restriction::UnixSockets => unix_sockets(),
        Restriction::Signals => influencing(),
        Restriction::ForeignAbi => vec![],
    };
    for row in &mut rows {
        row.restriction = Some(restriction);
    }
    rows
}

fn io_uring() -> Vec<Call> {
    [
        (libc::SYS_io_uring_setup, "io_uring_setup"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_io_uring_register, "io_uring_register"),
    ]
    .map(|(nr, name)| Call::denied(nr, name, vec![], libc::ENOSYS))
    .into()
}

/// `clone3` has its flags behind a pointer: it goes with [`Restriction::Clone3`].
fn user_namespaces() -> Vec<Call> {
    let flag = number(libc::CLONE_NEWUSER);
    let asked = || vec![Test::Is(0, flag, vec![flag])];
    vec![
        Call::denied(libc::SYS_unshare, "unshare", asked(), libc::EPERM),
        Call::denied(libc::SYS_clone, "clone", asked(), libc::EPERM),
        // Without a type it may be any, a user namespace too.
        Call::denied(libc::SYS_setns, "setns", vec![], libc::EPERM),
    ]
}

fn ptrace() -> Vec<Call> {
    [
        (libc::SYS_ptrace, "ptrace"),
        (libc::SYS_process_vm_readv, "process_vm_readv"),
        (libc::SYS_process_vm_writev, "process_vm_writev"),
        (libc::SYS_pidfd_getfd, "pidfd_getfd"),
    ]
    .map(|(nr, name)| Call::denied(nr, name, vec![], libc::EPERM))
    .into()
}

/// The calls by which a process reaches into another, where a Landlock domain or BPF LSM keeps them within the scope: only so
/// that somebody hears of it. Reading is left out, since tracers do it for each string they show.
pub(super) fn reaching() -> Vec<Call> {
    let fate = Fate::DeniedOutside(libc::EPERM);
    let attach = vec![Test::Is(0, WHOLE, vec![PTRACE_ATTACH, PTRACE_SEIZE])];
    let mut rows = vec![
        Call::new(libc::SYS_ptrace, "ptrace", attach, fate),
        Call::new(libc::SYS_process_vm_writev, "process_vm_writev", vec![], fate),
        Call::new(libc::SYS_pidfd_getfd, "pidfd_getfd", vec![], fate),
    ];
    for row in &mut rows {
        row.restriction = Some(Restriction::Ptrace);
    }
    rows
}

/// The calls that change limits and priorities of another process of the same user, which no domain keeps within: a limit of
/// no processor time kills as a signal does.
fn influencing() -> Vec<Call> {
    let outside = Fate::DeniedOutside(libc::EPERM);
    let another = |arg| Test::IsNot(arg, WHOLE, vec![0]);
    let mut rows = vec![
        Call::new(libc::SYS_prlimit64, "prlimit64", vec![another(0), Test::Given(2)], outside),
        Call::new(
            libc::SYS_setpriority,
            "setpriority",
            vec![Test::Is(0, WHOLE, vec![0]), another(1)],
            outside,
        ),
        Call::new(libc::SYS_ioprio_set, "ioprio_set", vec![Test::Is(0, WHOLE, vec![1]), another(1)], outside),
        // Of groups of processes, or all of a user.
        Call::denied(libc::SYS_setpriority, "setpriority", vec![another(0)], libc::EPERM),
        Call::denied(libc::SYS_ioprio_set, "ioprio_set", vec![Test::IsNot(0, WHOLE, vec![1])], libc::EPERM),
    ];
    let by_thread = [
        (libc::SYS_sched_setaffinity, "sched_setaffinity"),
        (libc::SYS_sched_setscheduler, "sched_setscheduler"),
        (libc::SYS_sched_setparam, "sched_setparam"),
        (libc::SYS_sched_setattr, "sched_setattr"),
    ];
    rows.extend(by_thread.map(|(nr, name)| Call::new(nr, name, vec![another(0)], outside)));
    rows
}

pub(super) const PTRACE_ATTACH: u32 = 16;
pub(super) const PTRACE_SEIZE: u32 = 0x4206;

/// Kind of a socket without its flags.
const KIND: u32 = 0xf;
const SOCK_PACKET: u32 = 10;

fn families() -> Vec<Call> {
    let open = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(number).to_vec();
    let other = vec![Test::IsNot(0, WHOLE, open)];
    // The kernel makes a packet socket of an internet one of this kind.
    let packet = vec![Test::Is(1, KIND, vec![SOCK_PACKET])];
    [(libc::SYS_socket, "socket"), (libc::SYS_socketpair, "socketpair")]
        .into_iter()
        .flat_map(|(nr, name)| [&other, &packet].map(|tests| (nr, name, tests.clone())))
        .map(|(nr, name, tests)| Call::denied(nr, name, tests, libc::EAFNOSUPPORT))
        .collect()
}

/// Among those that are left out is `NETLINK_USERSOCK`, which other processes read.
fn netlink() -> Vec<Call> {
    let open = [
        libc::NETLINK_ROUTE,
        libc::NETLINK_SOCK_DIAG,
        libc::NETLINK_AUDIT,
        libc::NETLINK_KOBJECT_UEVENT,
        libc::NETLINK_GENERIC,
    ];
    let other = vec![
        Test::Is(0, WHOLE, vec![number(libc::AF_NETLINK)]),
        Test::IsNot(2, WHOLE, open.map(number).to_vec()),
    ];
    vec![Call::denied(libc::SYS_socket, "socket", other, libc::EPROTONOSUPPORT)]
}

/// A pair of datagram sockets is no pair for ever: each can send to any name.
fn unix_sockets() -> Vec<Call> {
    let unix = || Test::Is(0, WHOLE, vec![number(libc::AF_UNIX)]);
    let lasting = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(number).to_vec();
    let datagram = vec![unix(), Test::IsNot(1, KIND, lasting)];
    vec![
        Call::denied(libc::SYS_socket, "socket", vec![unix()], libc::EAFNOSUPPORT),
        Call::denied(libc::SYS_socketpair, "socketpair", datagram, libc::EAFNOSUPPORT),
    ]
}

/// What may have the name of a unix socket for an address. A connect is told apart by the broker itself, at once. A datagram is
/// told by its address's length: those of the internet have 16 and 28 bytes, so UDP waits for nobody.
pub(super) fn brokered() -> Vec<Call> {
    let unlike_internet = Test::IsNot(5, WHOLE, vec![0, 16, 28]);
    vec![
        Call::new(libc::SYS_connect, "connect", vec![], Fate::Brokered),
        Call::new(libc::SYS_sendto, "sendto", vec![Test::Given(4), unlike_internet], Fate::Brokered),
    ]
}

/// Requests that put characters into a terminal or change what reads them, by number and name.
pub(super) const TERMINAL: [(u32, &str); 3] =
    [(0x5412, "TIOCSTI"), (0x541c, "TIOCLINUX"), (0x5423, "TIOCSETD")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_knows_its_restriction_and_a_real_number() {
        for restriction in Restriction::ALL {
            for row in rows(restriction) {
                assert_eq!(row.restriction, Some(restriction));
                assert!(row.nr < 1000, "{}", row.name);
            }
        }
    }

    #[test]
    fn only_the_lower_half_of_a_number_counts_but_all_of_a_pointer() {
        let family = Test::Is(0, WHOLE, vec![17]);
        assert!(family.holds(&[0x1_0000_0011, 0, 0, 0, 0, 0]));
        assert!(!family.holds(&[0x11_0000_0000, 0, 0, 0, 0, 0]));
        assert!(Test::Given(2).holds(&[0, 0, 1 << 32, 0, 0, 0]));
        assert!(!Test::Given(2).holds(&[1, 1, 0, 1, 1, 1]));
    }
}
