//! What supervisor and broker say to each other: one message a call, one an event, over a pair of packet sockets.

use std::{
    io::{self, IoSlice, IoSliceMut, Write},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use egress_common::Escape;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, send, sendmsg};
use zerocopy::FromBytes as _;

use crate::scope::confine::notify::Notification;

const CALL: usize = 68;

/// Hands a call over; without waiting.
pub(super) fn send_call(channel: BorrowedFd<'_>, call: &Notification) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CALL);
    bytes.extend(call.id.to_ne_bytes());
    bytes.extend(call.pid.to_ne_bytes());
    bytes.extend(call.nr.to_ne_bytes());
    bytes.extend(call.arch.to_ne_bytes());
    bytes.extend(call.args.iter().flat_map(|word| word.to_ne_bytes()));
    send(channel.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// The next call; `None` once the supervisor is gone.
pub(super) fn receive_call(channel: BorrowedFd<'_>) -> io::Result<Option<Notification>> {
    let mut bytes = [0_u8; CALL + 1];
    match recv(channel.as_raw_fd(), &mut bytes, MsgFlags::empty())? {
        0 => Ok(None),
        CALL => Ok(parse_call(&bytes)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn parse_call(bytes: &[u8]) -> Option<Notification> {
    let (id, bytes) = bytes.split_first_chunk()?;
    let (pid, bytes) = bytes.split_first_chunk()?;
    let (nr, bytes) = bytes.split_first_chunk()?;
    let (arch, mut bytes) = bytes.split_first_chunk()?;
    let mut args = [0; 6];
    for word in &mut args {
        let (first, rest) = bytes.split_first_chunk()?;
        (*word, bytes) = (u64::from_ne_bytes(*first), rest);
    }
    Some(Notification {
        id: u64::from_ne_bytes(*id),
        pid: u32::from_ne_bytes(*pid),
        nr: i32::from_ne_bytes(*nr),
        arch: u32::from_ne_bytes(*arch),
        args,
    })
}

/// Passes a descriptor on.
pub(super) fn send_descriptor(channel: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(&[0])], &control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Takes the descriptor that was passed on; `None` if the supervisor ended before.
pub(super) fn receive_descriptor(channel: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let Some(descriptor) = descriptors.first()
        {
            // SAFETY: the kernel just gave this descriptor to us alone.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*descriptor) }));
        }
    }
    Ok(None)
}

/// The next event that is there; `None` at the broker's end.
pub(super) fn receive_told(channel: BorrowedFd<'_>) -> io::Result<Option<Escape>> {
    let mut bytes = [0_u8; size_of::<Escape>()];
    match recv(channel.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)? {
        0 => Ok(None),
        _ => Escape::read_from_bytes(&bytes).map(Some).map_err(|_| io::ErrorKind::InvalidData.into()),
    }
}

/// The channel, to write whole messages to.
pub(super) struct Channel<'a>(pub(super) BorrowedFd<'a>);

impl Write for Channel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn a_call_arrives_as_it_was_sent() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
        let call =
            Notification { id: u64::MAX, pid: 7, nr: -1, arch: u32::MAX, args: [1, 2, 3, 4, 5, u64::MAX] };
        send_call(ours.as_fd(), &call).expect("send");
        assert_eq!(receive_call(theirs.as_fd()).expect("receive"), Some(call));
        drop(ours);
        assert_eq!(receive_call(theirs.as_fd()).expect("receive"), None);
    }
}
