//! The address that a call names: receives its bytes, gives a path or a name.

/// An address of a unix socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Address {
    /// A path, up to its first zero byte.
    Path(Vec<u8>),
    /// An abstract name, all of its bytes.
    Abstract(Vec<u8>),
}

/// Bytes of a `sockaddr_un` before the name, and with the longest.
const FAMILY: usize = 2;
pub(super) const LONGEST: usize = 110;

impl Address {
    /// `None` if it is of another family, or none that the kernel would take.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (family, name) = bytes.split_first_chunk::<FAMILY>()?;
        if i32::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX || bytes.len() > LONGEST {
            return None;
        }
        match name.split_first()? {
            (0, name) => Some(Self::Abstract(name.to_vec())),
            _ => Some(Self::Path(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())),
        }
    }

    /// As rules write it.
    pub(super) fn rule_name(&self) -> Vec<u8> {
        match self {
            Self::Path(path) => path.clone(),
            Self::Abstract(name) => [b"@", name.as_slice()].concat(),
        }
    }

    /// The bytes for a call. Longer names than fit are cut, which no valid one is.
    pub(super) fn to_raw(&self) -> (libc::sockaddr_un, libc::socklen_t) {
        // SAFETY: plain data, zero is valid.
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        raw.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1);
        let name = match self {
            Self::Path(path) => [path.as_slice(), &[0]].concat(),
            Self::Abstract(name) => [&[0], name.as_slice()].concat(),
        };
        for (to, from) in raw.sun_path.iter_mut().zip(&name) {
            *to = std::ffi::c_char::from_ne_bytes([*from]);
        }
        let length = FAMILY + name.len().min(raw.sun_path.len());
        (raw, libc::socklen_t::try_from(length).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let path = |text: &[u8]| Some(Address::Path(text.to_vec()));
        let name = |text: &[u8]| Some(Address::Abstract(text.to_vec()));
        let longest = [&[1, 0][..], &[b'x'; 108]].concat();
        for (bytes, expected) in [
            (&[][..], None),
            (&[1], None),
            (&[1, 0], None),
            (&[2, 0, b'a'], None),
            (&[1, 0, b'a'], path(b"a")),
            (&[1, 0, b'a', 0], path(b"a")),
            (&[1, 0, b'a', 0, b'b'], path(b"a")),
            (&[1, 0, 0], name(b"")),
            (&[1, 0, 0, b'a', 0], name(b"a\0")),
            (&longest, path(&[b'x'; 108])),
            (&[&longest[..], b"x"].concat(), None),
        ] {
            assert_eq!(Address::parse(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for address in [Address::Path(b"/run/x".to_vec()), Address::Abstract(b"a\0b".to_vec())] {
            let (raw, length) = address.to_raw();
            let length = usize::try_from(length).expect("a length");
            // SAFETY: reads the structure's own bytes.
            let bytes = unsafe { std::slice::from_raw_parts((&raw const raw).cast::<u8>(), length) };
            assert_eq!(Address::parse(bytes), Some(address));
        }
    }
}
