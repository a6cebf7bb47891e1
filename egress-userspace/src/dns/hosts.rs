//! The hosts file, hosts(5): names to addresses and back.

use std::{collections::BTreeMap, fs, io, net::IpAddr, path::Path};

use super::normal;

/// Where the C library looks.
pub const HOSTS: &str = "/etc/hosts";

/// What a hosts file says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hosts {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, Vec<String>>,
}

impl Hosts {
    /// Reads a file; one that does not exist is empty.
    pub fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// From the text of a file. As the C library, lines that make no sense are passed over.
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            // A zone is of no use to a permit, whose key has none.
            let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
            if let Some(address) = address {
                words.for_each(|name| hosts.add(address, normal(name)));
            }
        }
        hosts
    }

    fn add(&mut self, address: IpAddr, name: String) {
        let names = self.names.entry(address).or_default();
        if !names.contains(&name) {
            names.push(name.clone());
        }
        let addresses = self.addresses.entry(name).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// Addresses of a name in the order of the file.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.addresses_of_normal(&normal(name))
    }

    /// As [`Hosts::addresses`], of a name in normal form, as every question's is: without a copy of it.
    pub(super) fn addresses_of_normal(&self, name: &str) -> &[IpAddr] {
        self.addresses.get(name).map_or(&[], Vec::as_slice)
    }

    /// Names of an address, the canonical one first.
    pub fn names(&self, address: IpAddr) -> &[String] {
        self.names.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Every address with its names.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &[String])> {
        self.names.iter().map(|(&address, names)| (address, names.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_addresses_and_back() {
        let hosts = Hosts::parse(
            "# comment 192.0.2.9 x.example\n\
             192.0.2.1\tWWW.Example. www  # alias\n\
             192.0.2.2 www.example\n\
             2001:db8::1 www.example www.example\n\
             fe80::1%eth0 router\n\
             192.0.2.999 nobody\n\
             192.0.2.3\n",
        );
        let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(hosts.addresses("www.EXAMPLE."), ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
        assert_eq!(hosts.addresses("www"), ips(&["192.0.2.1"]));
        assert_eq!(hosts.addresses("router"), ips(&["fe80::1"]));
        for none in ["x.example", "nobody", "#", "alias", ""] {
            assert!(hosts.addresses(none).is_empty(), "{none}");
        }
        assert_eq!(hosts.names("192.0.2.1".parse().unwrap()), ["www.example", "www"]);
        assert_eq!(hosts.names("2001:db8::1".parse().unwrap()), ["www.example"]);
        assert!(hosts.names("192.0.2.3".parse().unwrap()).is_empty());
    }

    #[test]
    fn a_missing_file_is_empty_and_an_unreadable_one_is_an_error() {
        assert_eq!(Hosts::read(Path::new("/nonexistent/hosts")).unwrap(), Hosts::default());
        assert!(Hosts::read(Path::new("/")).is_err());
    }
}
