//! What the broker tells the supervisor: one message a call that is the supervisor's, one a refusal, over a pair of packet
//! sockets; and the listener, which it is given before.

use std::{
    io::{self, IoSlice, IoSliceMut, Write},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use egress_common::Escape;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, send, sendmsg};
use zerocopy::FromBytes as _;

use crate::scope::confine::notify::Notification;

/// Message apart by their lengths.
const CALL: usize = 68;
const _: () = assert!(size_of::<Escape>() > CALL);

/// A message of the broker's.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// It refused something.
    Refused(Escape),
    /// A call that it does not judge.
    Call(Notification),
}

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

/// The next message that is there; `None` at the broker's end.
pub(super) fn receive(channel: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut bytes = [0_u8; size_of::<Escape>()];
    let length = recv(channel.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
    let told = match length {
        0 => return Ok(None),
        CALL => parse_call(&bytes).map(Message::Call),
        _ => Escape::read_from_bytes(&bytes[..length]).map(Message::Refused).ok(),
    };
    told.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
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

    use zerocopy::IntoBytes as _;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
        let call =
            Notification { id: u64::MAX, pid: 7, nr: -1, arch: u32::MAX, args: [1, 2, 3, 4, 5, u64::MAX] };
        send_call(ours.as_fd(), &call).expect("send");
        let refused = Escape { number: 9, ..Escape::ZERO };
        Channel(ours.as_fd()).write_all(refused.as_bytes()).expect("send");
        let received = || receive(theirs.as_fd()).expect("receive");
        assert!(matches!(received(), Some(Message::Call(received)) if received == call));
        assert!(matches!(received(), Some(Message::Refused(received)) if received.number == 9));
        drop(ours);
        assert!(received().is_none());
    }
}
