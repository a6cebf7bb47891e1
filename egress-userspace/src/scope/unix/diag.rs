//! The kernel's list of unix sockets (`sock_diag(7)`): receives a network namespace, gives its sockets with what they are
//! bound to. Judges nothing.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// One socket of the list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Listed {
    /// `SOCK_STREAM` …
    pub(super) kind: u8,
    /// TCP's number of its state.
    pub(super) state: u8,
    /// Inode in the kernel's own file system of sockets, as `/proc/PID/fd` shows it.
    pub(super) inode: u32,
    /// Unique for as long as the machine runs.
    pub(super) cookie: u64,
    /// What it was bound to, as the program wrote it; an abstract name begins with a zero byte.
    pub(super) name: Vec<u8>,
    /// Device and inode of a socket bound to a path, as the kernel counts them; of the inode the lower half.
    pub(super) file: Option<(u32, u32)>,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_NAME: u32 = 1;
const SHOW_FILE: u32 = 2;
const ATTRIBUTE_NAME: u16 = 0;
const ATTRIBUTE_FILE: u16 = 1;
const HEADER: usize = 16;
const MESSAGE: usize = 16;
const DONE: u16 = 3;
const ERROR: u16 = 2;

/// The unix sockets of the calling thread's network namespace.
///
/// # Errors
/// As `socket(2)`, `send(2)` and `recv(2)`; ENOENT where the kernel has no such list.
pub(super) fn list() -> io::Result<Vec<Listed>> {
    let socket = open()?;
    ask(&socket)?;
    let mut listed = Vec::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        // SAFETY: writes no more than the buffer holds.
        let length = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        if take(&buffer[..length], &mut listed)? {
            return Ok(listed);
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: makes a descriptor.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn ask(socket: &OwnedFd) -> io::Result<()> {
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    // NLM_F_REQUEST, NLM_F_ROOT, NLM_F_MATCH: all there are.
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([1, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend((SHOW_NAME | SHOW_FILE).to_ne_bytes());
    request.extend([0xff; 8]);
    // SAFETY: reads the request.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the messages of one reply; whether it was the last.
fn take(mut bytes: &[u8], listed: &mut Vec<Listed>) -> io::Result<bool> {
    while bytes.len() >= HEADER {
        let length = usize::try_from(number(bytes, 0)).unwrap_or(usize::MAX);
        let kind = short(bytes, 4);
        let Some(message) = bytes.get(HEADER..length) else { return Err(io::ErrorKind::InvalidData.into()) };
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let errno = i32::from_ne_bytes(number(message, 0).to_ne_bytes());
                return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
            }
            SOCK_DIAG_BY_FAMILY => listed.extend(parse(message)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

fn parse(message: &[u8]) -> Option<Listed> {
    let (head, mut attributes) = message.split_at_checked(MESSAGE)?;
    let cookie = u64::from(number(head, 8)) | u64::from(number(head, 12)) << 32;
    let mut listed = Listed {
        kind: head[1],
        state: head[2],
        inode: number(head, 4),
        cookie,
        name: Vec::new(),
        file: None,
    };
    while attributes.len() >= 4 {
        let length = usize::from(short(attributes, 0));
        let value = attributes.get(4..length)?;
        match short(attributes, 2) {
            ATTRIBUTE_NAME => listed.name = value.to_vec(),
            ATTRIBUTE_FILE if value.len() >= 8 => listed.file = Some((number(value, 4), number(value, 0))),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(listed)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

impl Listed {
    /// Whether a connect or datagram could arrive here, now or once it listens: all but connections, which have the name of
    /// their listener.
    pub(super) fn may_be_reached(&self) -> bool {
        const ESTABLISHED: u8 = 1;
        i32::from(self.kind) == libc::SOCK_DGRAM || self.state != ESTABLISHED
    }

    /// Its name as rules write it: a path, or `@` and an abstract name; `None` if it has none.
    pub(super) fn rule_name(&self) -> Option<Vec<u8>> {
        match self.name.split_first()? {
            (0, rest) => Some([b"@", rest].concat()),
            _ => Some(self.name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{
        linux::{fs::MetadataExt as _, net::SocketAddrExt as _},
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    };

    use super::*;

    #[test]
    fn sockets_are_listed_with_what_they_are_bound_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("listener");
        let listener = UnixListener::bind(&path).expect("bind");
        let _client = UnixStream::connect(&path).expect("connect");
        let _accepted = listener.accept().expect("accept");
        let abstract_name = format!("egress-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let _datagram = UnixDatagram::bind_addr(&address).expect("bind");

        let listed = list().expect("the list");
        let inode = std::fs::metadata(&path).expect("look").st_ino();
        let at_path: Vec<_> = listed
            .iter()
            .filter(|socket| socket.file.is_some_and(|(_, found)| u64::from(found) == inode & 0xffff_ffff))
            .filter(|socket| socket.rule_name().as_deref() == path.to_str().map(str::as_bytes))
            .collect();
        // The connection has the listener's name and file, and can be reached by nobody.
        assert_eq!(at_path.len(), 2, "{at_path:?}");
        assert_eq!(at_path.iter().filter(|socket| socket.may_be_reached()).count(), 1, "{at_path:?}");
        let wanted = format!("@{abstract_name}");
        let found = listed.iter().find(|socket| socket.rule_name().as_deref() == Some(wanted.as_bytes()));
        assert!(found.is_some_and(|found| found.may_be_reached() && found.file.is_none()), "{found:?}");
    }

    #[test]
    fn a_cut_reply_is_an_error_not_a_panic() {
        for length in 0..64_u32 {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            bytes.resize(40, 0xff);
            let _may_fail = take(&bytes, &mut Vec::new());
        }
    }
}
