//! One call of the scope, from its registers to its answer: whose socket it asks for, whether that may be reached, and if so
//! the same call made in the caller's place. Runs in a thread of its own, whose rights and places it changes.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use egress_common::{Escape, Hook, Reason, Verdict};

use super::{
    address::{Address, LONGEST},
    caller::{Caller, Rights},
    diag::Listed,
    judge::UnixPolicy,
    own::Own,
    place,
    stand_in::StandIn,
};
use crate::{
    dns::clock::{BootClock, Clock as _},
    scope::confine::notify::{Answer, Listener, Notification},
};

/// What all calls of a scope have in common.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) scope: u64,
    pub(super) audit: bool,
    pub(super) policy: UnixPolicy,
    pub(super) own: Own,
    pub(super) listener: Listener,
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Outcome {
    /// `None` if nobody waits for it any more.
    pub(super) answer: Option<Answer>,
    /// What is to be told of it.
    pub(super) told: Option<Escape>,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self { answer: Some(answer), told: None }
    }
}

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    socket: i32,
    address: u64,
    length: usize,
    /// Buffer, length and flags of a datagram.
    datagram: Option<(u64, usize, i32)>,
}

impl Asked {
    /// `None` if nothing of it concerns us. Only the lower halves of integers count.
    fn read(call: &Notification) -> Option<Self> {
        let int = |index: usize| {
            let bytes = call.args[index].to_le_bytes();
            i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        let number = libc::c_long::from(call.nr);
        let (address, length, datagram) = if number == libc::SYS_connect {
            (call.args[1], int(2), None)
        } else if number == libc::SYS_sendto {
            let length = usize::try_from(call.args[2]).ok()?;
            (call.args[4], int(5), Some((call.args[1], length, int(3))))
        } else {
            return None;
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST)?;
        (address != 0).then_some(Self { socket: int(0), address, length, datagram })
    }
}

/// Judges a call and makes it, if it may be.
pub(super) fn perform(scene: &Scene, call: &Notification) -> Outcome {
    // What the kernel refuses by itself, or other hooks judge. If the caller changes its mind meanwhile, the unix hooks refuse.
    let Some(asked) = Asked::read(call) else { return Answer::Continue.into() };
    match Attempt::open(scene, call, asked) {
        Ok(Some(attempt)) => attempt.perform(),
        Ok(None) => Answer::Continue.into(),
        Err(_) if !scene.listener.waits(call.id) => Outcome { answer: None, told: None },
        Err(error) => errno(&error).into(),
    }
}

/// A call on a unix socket.
struct Attempt<'a> {
    scene: &'a Scene,
    call: u64,
    asked: Asked,
    caller: Caller,
    socket: OwnedFd,
    address: Address,
    message: Vec<u8>,
}

/// The socket that a call leads to.
struct Target {
    address: Address,
    /// Holds the inode, which `address` speaks of, or own sockets, which so keep their name.
    _holds: Vec<OwnedFd>,
    refused: Option<Vec<u8>>,
}

impl<'a> Attempt<'a> {
    /// Reads the call; `None` if it is not about a unix socket.
    fn open(scene: &'a Scene, call: &Notification, asked: Asked) -> io::Result<Option<Self>> {
        let caller = Caller::open(call.pid)?;
        if !scene.listener.waits(call.id) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let bytes = caller.read(asked.address, asked.length).map_err(|_| fault())?;
        let Some(address) = Address::parse(&bytes) else { return Ok(None) };
        let socket = caller.descriptor(asked.socket)?;
        if option(&socket, libc::SO_DOMAIN) != Some(libc::AF_UNIX) {
            return Ok(None);
        }
        let message = match asked.datagram {
            // Streams refuse an address, packet streams do not look at it.
            Some(_) if option(&socket, libc::SO_TYPE) != Some(libc::SOCK_DGRAM) => return Ok(None),
            // What the socket has no room for is not even read.
            Some((_, length, _)) if length > room(&socket) => {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            Some((buffer, length, _)) => caller.read(buffer, length).map_err(|_| fault())?,
            None => Vec::new(),
        };
        Ok(Some(Self { scene, call: call.id, asked, caller, socket, address, message }))
    }

    fn perform(mut self) -> Outcome {
        let result = self.stand_in().and_then(|stand_in| {
            let target = self.target(&stand_in)?;
            Ok((stand_in, target))
        });
        let (stand_in, target) = match result {
            Ok(found) => found,
            Err(error) => return errno(&error).into(),
        };
        let told = target.refused.as_deref().map(|name| self.tell(name));
        if told.is_some() && !self.scene.audit {
            return Outcome { answer: Some(Answer::Errno(libc::EPERM)), told };
        }
        if !self.waits() {
            return Outcome { answer: None, told };
        }
        let done = stand_in.as_caller(|| self.act(&target.address));
        let answer = match done {
            Ok(value) => Some(Answer::Value(value)),
            // Only the supervisor interrupts, and only once nobody waits any more.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) && !self.waits() => None,
            Err(error) => Some(errno(&error)),
        };
        Outcome { answer, told }
    }

    fn stand_in(&self) -> io::Result<StandIn> {
        let home = File::open("/")?;
        StandIn::new(self.caller.rights.clone(), home)
    }

    fn waits(&self) -> bool {
        self.scene.listener.waits(self.call)
    }

    fn target(&mut self, stand_in: &StandIn) -> io::Result<Target> {
        match self.address.clone() {
            Address::Path(path) => {
                let place = place::resolve(&mut self.caller, stand_in, &path)?;
                let number = place.inode.as_raw_fd();
                let sockets = match place.own(&self.socket, &self.scene.own) {
                    Some(own) => vec![own],
                    None => place.sockets()?,
                };
                let (mut holds, refused) = self.judge(&sockets, Some(&place.path));
                holds.push(place.inode.into());
                // Bound by nobody: as the kernel would say, which is not asked, since it might know better.
                self.refuse_nobody(&sockets)?;
                let address = Address::Path(format!("/proc/self/fd/{number}").into_bytes());
                Ok(Target { address, _holds: holds, refused })
            }
            Address::Abstract(name) => {
                let sockets = place::named(&self.socket, &name)?;
                self.refuse_nobody(&sockets)?;
                let (holds, refused) = self.judge(&sockets, None);
                Ok(Target { address: self.address.clone(), _holds: holds, refused })
            }
        }
    }

    fn refuse_nobody(&self, sockets: &[Listed]) -> io::Result<()> {
        let nobody = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        if sockets.is_empty() { Err(nobody) } else { Ok(()) }
    }

    /// Judges all that it could be; the name of the first that may not be reached.
    fn judge(&self, sockets: &[Listed], place: Option<&[u8]>) -> (Vec<OwnedFd>, Option<Vec<u8>>) {
        let mut holds = Vec::new();
        for listed in sockets {
            let own = self.scene.own.find(listed);
            let name = listed.rule_name();
            let verdict = self.scene.policy.judge(own.is_some(), name.as_deref(), place);
            if !verdict.allowed {
                tracing::debug!(rule = verdict.rule, "a unix socket outside is refused");
                return (holds, Some(name.unwrap_or_else(|| self.address.rule_name())));
            }
            holds.extend(own);
        }
        (holds, None)
    }

    /// The call itself, on the caller's own socket.
    fn act(&self, address: &Address) -> io::Result<i64> {
        let (mut raw, length) = address.to_raw();
        let Some((_, _, flags)) = self.asked.datagram else {
            // SAFETY: reads the address, whose length it is told.
            let result = unsafe { libc::connect(self.socket.as_raw_fd(), (&raw const raw).cast(), length) };
            return if result < 0 { Err(io::Error::last_os_error()) } else { Ok(0) };
        };
        send(&self.socket, (&mut raw, length), &self.message, flags, &self.caller.rights)
    }

    fn tell(&self, name: &[u8]) -> Escape {
        let mut escape = Escape {
            time: BootClock.now(),
            scope: self.scene.scope,
            cgroup: self.scene.scope,
            owner: self.caller.owner,
            hook: Hook::Unix as u8,
            verdict: if self.scene.audit { Verdict::Audit } else { Verdict::Deny } as u8,
            reason: Reason::Unix as u8,
            ..Escape::ZERO
        };
        for (to, from) in escape.text.iter_mut().zip(name) {
            *to = *from;
        }
        escape
    }
}

/// Sends a datagram. Its credentials are written out: the kernel would put the real user in, which is root.
fn send(
    socket: &OwnedFd,
    (address, address_length): (&mut libc::sockaddr_un, libc::socklen_t),
    message: &[u8],
    flags: i32,
    rights: &Rights,
) -> io::Result<i64> {
    const CREDENTIALS: usize = size_of::<libc::ucred>();
    #[repr(C, align(8))]
    struct Control {
        header: libc::cmsghdr,
        credentials: libc::ucred,
    }
    let process = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let mut control = Control {
        header: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + CREDENTIALS,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_CREDENTIALS,
        },
        credentials: libc::ucred { pid: process, uid: rights.user, gid: rights.group },
    };
    let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: plain data, zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut *address).cast();
    header.msg_namelen = address_length;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>();
    // SAFETY: all that the header points to lives through the call, which only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL) };
    i64::try_from(sent).ok().filter(|sent| *sent >= 0).ok_or_else(io::Error::last_os_error)
}

fn option(socket: &OwnedFd, name: libc::c_int) -> Option<i32> {
    let mut value = 0_i32;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4);
    // SAFETY: a number and its size.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length)
    };
    (result == 0).then_some(value)
}

/// Bytes that a datagram of this socket may have at most.
fn room(socket: &OwnedFd) -> usize {
    option(socket, libc::SO_SNDBUF).and_then(|room| usize::try_from(room).ok()).unwrap_or(0)
}

fn fault() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

/// What has no errno of the kernel's is refused.
fn errno(error: &io::Error) -> Answer {
    Answer::Errno(error.raw_os_error().unwrap_or(libc::EPERM))
}
