//! Packets made by hand.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// A UDP datagram with its header; no checksum, which IPv4 allows.
pub(super) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let mut bytes = Vec::new();
    for word in [port, port, size, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// An IPv4 packet; `flags`: fragment bits and offset.
pub(super) fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(payload.len() + 20).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![0x45, 0, size[0], size[1], 0, 1];
    bytes.extend(flags.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    let sum = checksum(&bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend(payload);
    bytes
}

/// An IPv6 packet.
pub(super) fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, size[0], size[1], next, 64];
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(payload);
    bytes
}

/// An Ethernet frame to whoever hears it.
pub(super) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An ICMP echo request, version 4 or 6; the kernel sums up version 6 by itself.
pub(super) fn echo(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0, 1, 0, 1];
    bytes.extend(payload);
    let sum = checksum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

fn checksum(bytes: &[u8]) -> u16 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    let mut sum: u32 = bytes.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// A DNS question for `token.example`, of a type, with what a client adds behind it.
pub(super) fn question(name: &[&[u8]], kind: u16, additional: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!additional.is_empty())];
    for label in name {
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend(*label);
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(additional);
    bytes
}

/// The same address without a port, as raw sockets take it.
pub(super) fn portless(address: SocketAddr) -> SocketAddr {
    (address.ip(), 0).into()
}
