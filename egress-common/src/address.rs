//! One address form for both families: 16 bytes, IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
//!
//! Receives addresses as the kernel, a packet or a file gives them; gives the form that every table is keyed by.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An IPv4 or IPv6 address in network byte order, IPv4 in its mapped form.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    Ord,
    PartialOrd,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// The first twelve bytes of every IPv4-mapped address.
    pub const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

    /// Bits in front of the IPv4 part: an IPv4 prefix of `n` bits is `96 + n` bits here.
    pub const MAPPED_BITS: u8 = 96;

    /// From four bytes in network byte order.
    #[inline(always)]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]])
    }

    /// The four bytes of an IPv4 address, or `None` if this is an IPv6 address.
    #[inline(always)]
    pub fn as_v4(&self) -> Option<[u8; 4]> {
        if self.is_v4() { Some([self.0[12], self.0[13], self.0[14], self.0[15]]) } else { None }
    }

    /// Whether this is an IPv4 address in mapped form.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        let (high, mid) = self.high_mid();
        high == 0 && mid == 0x0000_ffff
    }

    /// The address that a verdict is about: the IPv4 address inside a NAT64 (`64:ff9b::/96`, RFC 6052),
    /// 6to4 (`2002::/16`, RFC 3056) or Teredo (`2001::/32`, RFC 4380 §4) address, otherwise the address itself.
    ///
    /// A translator or relay delivers to that inner address, so judging the outer one would let a policy that
    /// denies `169.254.169.254` be passed by `64:ff9b::a9fe:a9fe`.
    #[inline(always)]
    pub fn judged(&self) -> Self {
        let b = &self.0;
        let (high, mid) = self.high_mid();
        if high == 0x0064_ff9b_0000_0000 && mid == 0 {
            return Self::from_v4([b[12], b[13], b[14], b[15]]);
        }
        if b[0] == 0x20 && b[1] == 0x02 {
            return Self::from_v4([b[2], b[3], b[4], b[5]]);
        }
        if high >> 32 == 0x2001_0000 {
            // Teredo stores the client's address with every bit inverted.
            return Self::from_v4([!b[12], !b[13], !b[14], !b[15]]);
        }
        *self
    }

    #[inline(always)]
    fn high_mid(&self) -> (u64, u32) {
        let b = &self.0;
        (
            u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
        )
    }

    /// As the standard library's type, IPv4 unwrapped from its mapped form.
    pub fn to_ip(self) -> IpAddr {
        match self.as_v4() {
            Some(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(v4: Ipv4Addr) -> Self {
        Self::from_v4(v4.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(v6: Ipv6Addr) -> Self {
        Self(v6.octets())
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn judged(text: &str) -> std::string::String {
        use std::string::ToString;
        Address::from(text.parse::<IpAddr>().unwrap()).judged().to_string()
    }

    #[test]
    fn embedded_ipv4_is_judged_by_what_is_inside() {
        assert_eq!(judged("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(judged("64:ff9b::169.254.169.254"), "169.254.169.254");
        assert_eq!(judged("2002:a9fe:a9fe::1"), "169.254.169.254");
        // 169.254.169.254 inverted is 86.1.86.1
        assert_eq!(judged("2001:0:4136:e378:8000:63bf:5601:5601"), "169.254.169.254");
    }

    #[test]
    fn neighbours_of_embedding_prefixes_are_left_alone() {
        // Mutations seen to fail here: /96 taken as /64; 2001::/32 taken as 2001::/16.
        for plain in
            ["64:ff9b::1:c000:201", "64:ff9b:1::c000:201", "2001:db8::1", "2001:1::1", "2003::1", "::1"]
        {
            assert_eq!(judged(plain), plain);
        }
    }
}
