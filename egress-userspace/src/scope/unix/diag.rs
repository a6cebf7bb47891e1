//! The kernel's list of unix sockets (`sock_diag(7)`): receives a network namespace, gives its sockets with what they are
//! bound to. Judges nothing.

use std::io;

use crate::enforce::netlink::{ALL, Netlink, attributes, number};

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
const MESSAGE: usize = 16;

/// The unix sockets of the calling thread's network namespace.
///
/// # Errors
/// As `socket(2)`, `send(2)` and `recv(2)`; ENOENT where the kernel has no such list.
pub(super) fn list() -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let netlink = Netlink::open(libc::NETLINK_SOCK_DIAG)?;
    netlink.exchange(SOCK_DIAG_BY_FAMILY, ALL, &request(), &mut |message| listed.extend(parse(message)))?;
    Ok(listed)
}

/// A `struct unix_diag_req` for sockets in every state.
fn request() -> Vec<u8> {
    let mut request = vec![1, 0, 0, 0];
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend((SHOW_NAME | SHOW_FILE).to_ne_bytes());
    request.extend([0xff; 8]);
    request
}

/// Reads a `struct unix_diag_msg` and its attributes; `None` if it is cut.
fn parse(message: &[u8]) -> Option<Listed> {
    let (head, rest) = message.split_at_checked(MESSAGE)?;
    let cookie = u64::from(number(head, 8)) | u64::from(number(head, 12)) << 32;
    let mut listed = Listed {
        kind: head[1],
        state: head[2],
        inode: number(head, 4),
        cookie,
        name: Vec::new(),
        file: None,
    };
    let mut read = 0;
    for (kind, value) in attributes(rest) {
        read += (4 + value.len()).next_multiple_of(4);
        match kind {
            ATTRIBUTE_NAME => listed.name = value.to_vec(),
            ATTRIBUTE_FILE if value.len() >= 8 => listed.file = Some((number(value, 4), number(value, 0))),
            _ => {}
        }
    }
    // An attribute that is cut may be the very one that says where the socket is.
    (rest.len() < read + 4).then_some(listed)
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

    /// What is cut between messages is `netlink`'s to find.
    #[test]
    fn a_cut_message_is_no_socket_and_never_a_panic() {
        for length in 0..64_u16 {
            let mut bytes = vec![0xff; MESSAGE];
            bytes.extend(length.to_ne_bytes());
            bytes.extend([ATTRIBUTE_NAME.to_ne_bytes(), [0xff; 2]].concat());
            bytes.resize(MESSAGE + 24, 0xff);
            // Behind a whole attribute stands a cut one, unless there is no room for one.
            assert_eq!(parse(&bytes).is_some(), (21..=24).contains(&length), "{length}");
            assert_eq!(parse(&bytes[..usize::from(length).min(MESSAGE - 1)]), None, "{length}");
        }
    }
}
