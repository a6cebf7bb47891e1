//! The addresses of this host: asks the kernel for those of every interface in the caller's network namespace.

use std::{
    io,
    net::{IpAddr, SocketAddrV4, SocketAddrV6},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{SockaddrLike as _, SockaddrStorage},
};

/// Every address of every interface, each once, sorted.
///
/// # Errors
/// The kernel's.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = getifaddrs()?.filter_map(|interface| ip(&interface.address?)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        nix::sys::socket::AddressFamily::Inet => {
            address.as_sockaddr_in().map(|v4| IpAddr::V4(*SocketAddrV4::from(*v4).ip()))
        }
        nix::sys::socket::AddressFamily::Inet6 => {
            address.as_sockaddr_in6().map(|v6| IpAddr::V6(*SocketAddrV6::from(*v6).ip()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn loopback_is_among_them() {
        // Where it fails, the loopback device of the test's own network namespace is down.
        let addresses = own_addresses().unwrap();
        assert!(addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{addresses:?}");
        assert!(addresses.is_sorted() && addresses.windows(2).all(|two| two[0] != two[1]));
    }
}
