//! Network devices, addresses and routes by rtnetlink, without any program of the system.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use super::call::{Done, Name, Stop, call, length, owned, stop};

/// A link of this process's network namespace to the kernel.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

/// The body of a request: a structure, then attributes.
#[derive(Clone, Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    /// With a structure of these bytes.
    pub(super) fn of(structure: &[u8]) -> Self {
        Self(structure.to_vec())
    }

    /// For a device: its index and flags that are to change to set.
    pub(super) fn device(index: u32, flags: i32) -> Self {
        let flags = flags.cast_unsigned();
        let mut bytes = vec![0; 4];
        for word in [index, flags, flags] {
            bytes.extend(word.to_ne_bytes());
        }
        Self(bytes)
    }

    /// With one more attribute.
    pub(super) fn with(mut self, kind: u16, data: &[u8]) -> Self {
        let size = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(size.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// With one more attribute that holds others.
    pub(super) fn within(self, kind: u16, inner: &Self) -> Self {
        self.with(kind, &inner.0)
    }
}

const VETH_INFO_PEER: u16 = 1;

impl Netlink {
    /// In this thread's network namespace.
    pub(super) fn open() -> Done<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd =
            call("netlink", || unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) }.into())?;
        Ok(Self(owned(fd)))
    }

    /// Makes a request and waits for the kernel's word.
    pub(super) fn request(&self, at: &'static str, kind: u16, flags: i32, body: &Body) -> Done {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or_default();
        let mut message = length(body.0.len() + 16).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(&body.0);
        let fd = self.0.as_raw_fd();
        let kernel = Name(vec![16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // SAFETY: message and name live through the call.
        call(at, || unsafe {
            libc::sendto(fd, message.as_ptr().cast(), message.len(), 0, kernel.as_ptr(), kernel.length())
                as libc::c_long
        })?;
        let mut answer = [0_u8; 8192];
        // SAFETY: the kernel writes at most the buffer's length.
        call(at, || unsafe { libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0) as libc::c_long })?;
        let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        if errno == 0 { Ok(()) } else { stop(at, -errno) }
    }

    fn add(&self, at: &'static str, kind: u16, body: &Body) -> Done {
        self.request(at, kind, libc::NLM_F_CREATE | libc::NLM_F_EXCL, body)
    }

    /// Makes a device of a kind; `data` are the kind's own attributes.
    pub(super) fn device(&self, kind: &str, name: &str, data: &Body, link: Option<u32>) -> Done {
        const IFLA_INFO_DATA: u16 = 2;
        let mut body = Body::device(0, 0).with(libc::IFLA_IFNAME, &zero_ended(name));
        if let Some(link) = link {
            body = body.with(libc::IFLA_LINK, &link.to_ne_bytes());
        }
        let info = Body::default().with(1, kind.as_bytes()).within(IFLA_INFO_DATA, data);
        self.add("newlink", libc::RTM_NEWLINK, &body.within(libc::IFLA_LINKINFO, &info))
    }

    /// Makes a wire to another network namespace; both ends have the index.
    pub(super) fn wire(&self, index: u32, here: &str, there: &str, namespace: RawFd) -> Done {
        const IFLA_INFO_DATA: u16 = 2;
        let peer = Body::device(index, 0)
            .with(libc::IFLA_IFNAME, &zero_ended(there))
            .with(libc::IFLA_NET_NS_FD, &namespace.to_ne_bytes());
        let data = Body::default().within(VETH_INFO_PEER, &peer);
        let info = Body::default().with(1, b"veth").within(IFLA_INFO_DATA, &data);
        let body = Body::device(index, 0)
            .with(libc::IFLA_IFNAME, &zero_ended(here))
            .within(libc::IFLA_LINKINFO, &info);
        self.add("make the wire", libc::RTM_NEWLINK, &body)
    }

    /// Switches a device on.
    pub(super) fn up(&self, index: u32) -> Done {
        self.request("switch a device on", libc::RTM_NEWLINK, 0, &Body::device(index, libc::IFF_UP))
    }

    /// Gives a device an address.
    pub(super) fn address(&self, index: u32, address: IpAddr, bits: u8, broadcast: Option<IpAddr>) -> Done {
        let (family, bytes) = octets(address);
        let mut structure = vec![family, bits, u8::try_from(libc::IFA_F_NODAD).unwrap_or_default(), 0];
        structure.extend(index.to_ne_bytes());
        let mut body = Body::of(&structure).with(libc::IFA_LOCAL, &bytes).with(libc::IFA_ADDRESS, &bytes);
        if let Some(broadcast) = broadcast {
            body = body.with(libc::IFA_BROADCAST, &octets(broadcast).1);
        }
        self.add("newaddr", libc::RTM_NEWADDR, &body)
    }

    /// Routes a network through a gateway or to a device; `local`: answered here.
    pub(super) fn route(
        &self,
        to: (IpAddr, u8),
        gateway: Option<IpAddr>,
        device: Option<u32>,
        local: bool,
    ) -> Done {
        let (family, bytes) = octets(to.0);
        let (scope, kind) = if local { (254, libc::RTN_LOCAL) } else { (0, libc::RTN_UNICAST) };
        let table = libc::RT_TABLE_MAIN;
        let mut body = Body::of(&[family, to.1, 0, 0, table, libc::RTPROT_STATIC, scope, kind, 0, 0, 0, 0]);
        if to.1 > 0 {
            body = body.with(libc::RTA_DST, &bytes);
        }
        if let Some(gateway) = gateway {
            body = body.with(libc::RTA_GATEWAY, &octets(gateway).1);
        }
        if let Some(device) = device {
            body = body.with(libc::RTA_OIF, &device.to_ne_bytes());
        }
        self.add("newroute", libc::RTM_NEWROUTE, &body)
    }

    /// Writes down where a neighbour is, whoever is there.
    pub(super) fn neighbour(&self, index: u32, address: IpAddr, hardware: [u8; 6]) -> Done {
        const NUD_PERMANENT: u16 = 0x80;
        let (family, bytes) = octets(address);
        let mut structure = vec![family, 0, 0, 0];
        structure.extend(index.to_ne_bytes());
        structure.extend(NUD_PERMANENT.to_ne_bytes());
        structure.extend([0, 0]);
        let body = Body::of(&structure).with(libc::NDA_DST, &bytes).with(libc::NDA_LLADDR, &hardware);
        self.request("newneigh", libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
    }
}

/// The index of a device by its name.
pub(super) fn index_of(name: &str) -> Done<u32> {
    let name = zero_ended(name);
    // SAFETY: the name ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr().cast()) } {
        0 => stop("ifindex", io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENODEV)),
        index => Ok(index),
    }
}

fn zero_ended(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    let family = |family: i32| u8::try_from(family).unwrap_or_default();
    match address {
        IpAddr::V4(v4) => (family(libc::AF_INET), v4.octets().to_vec()),
        IpAddr::V6(v6) => (family(libc::AF_INET6), v6.octets().to_vec()),
    }
}

impl From<Stop> for io::Error {
    fn from(stop: Stop) -> Self {
        let error = Self::from_raw_os_error(stop.errno);
        Self::new(error.kind(), format!("{}: {error}", stop.at))
    }
}
