//! Questions to the kernel over netlink: receives the bytes of a request, gives the messages of the reply. Knows nothing of
//! what they mean.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Length of a message's header.
pub(crate) const HEADER: usize = 16;
/// Flags of a request for all there are.
pub(crate) const ALL: u16 = 0x301;
/// Flags of a request that is to be acknowledged.
pub(crate) const ACKNOWLEDGED: u16 = 0x5;

const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A netlink socket, for good in the network namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// As `socket(2)`.
    pub(crate) fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: makes a descriptor.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    /// Asks, and hands on the body of each message up to the end of the reply.
    ///
    /// # Errors
    /// As `send(2)` and `recv(2)`, and the error that the kernel answers.
    pub(crate) fn exchange(
        &self,
        kind: u16,
        flags: u16,
        body: &[u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut request = length.to_ne_bytes().to_vec();
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend([0; 8]);
        request.extend(body);
        let socket = self.0.as_raw_fd();
        // SAFETY: reads the request.
        if unsafe { libc::send(socket, request.as_ptr().cast(), request.len(), 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut buffer = vec![0_u8; 1 << 16];
        loop {
            // SAFETY: writes no more than the buffer holds.
            let length = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
            if messages(&buffer[..length], kind, take)? {
                return Ok(());
            }
        }
    }
}

/// Hands on the messages of one datagram of the reply; whether it was the last.
fn messages(mut bytes: &[u8], kind: u16, take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
    while bytes.len() >= HEADER {
        let length = usize::try_from(number(bytes, 0)).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(HEADER..length) else { return Err(io::ErrorKind::InvalidData.into()) };
        match short(bytes, 4) {
            DONE => return Ok(true),
            ERROR => match number(message, 0) {
                0 => return Ok(true),
                errno => return Err(io::Error::from_raw_os_error(errno.wrapping_neg().cast_signed())),
            },
            found if found == kind => take(message),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

/// Attributes at the end of a message: type and value; ends at the first that is cut.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes, 0));
        let attribute = (short(bytes, 2), bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(attribute)
    })
}

/// Four bytes in host order; 0 beyond the end.
pub(crate) fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// Two bytes in host order; 0 beyond the end.
pub(crate) fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_are_handed_on_up_to_the_end() {
        let mut found = Vec::new();
        let mut bytes = [message(20, b"first"), message(9, b"other"), message(20, b"second")].concat();
        assert!(!messages(&bytes, 20, &mut |body| found.push(body.to_vec())).expect("no error"));
        assert_eq!(found, [b"first".to_vec(), b"second".to_vec()]);
        bytes.extend(message(DONE, &[0; 4]));
        assert!(messages(&bytes, 20, &mut |_| {}).expect("no error"));
        assert!(messages(&message(ERROR, &[0; 4]), 20, &mut |_| {}).expect("acknowledged"));
        let refused = messages(&message(ERROR, &(-libc::EPERM).to_ne_bytes()), 20, &mut |_| {});
        assert_eq!(refused.map_err(|error| error.raw_os_error()), Err(Some(libc::EPERM)));
    }

    #[test]
    fn what_is_cut_is_an_error_or_the_end_and_never_a_panic() {
        let whole = message(20, b"body");
        for length in 0..64_u32 {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let result = messages(&bytes, 20, &mut |_| {});
            let end = u32::try_from(whole.len()).expect("short");
            assert_eq!(result.is_err(), length < 16 || length > end, "{length}");
        }
        for length in 0..=u16::from(u8::MAX) {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([7, 0, 1, 2, 3, 4]);
            assert!(attributes(&bytes).count() <= 1, "{length}");
        }
        assert_eq!(attributes(&[8, 0, 7, 0, 1, 2, 3, 4, 4, 0, 9, 0]).count(), 2);
    }
}
