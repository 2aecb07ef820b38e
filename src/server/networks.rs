//! The networks whose word about a client is taken.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Most networks of one list: each connection is compared with all of them.
const MAX: usize = 256;

/// Networks, such as those of the proxies in front. Empty unless told otherwise: nobody is believed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Networks(Box<[IpNet]>);

/// What is wrong with a list of networks, as the end of a sentence that begins with the setting's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworksError {
    /// Not an address with or without a prefix length.
    #[error("has `{0}`, expected networks such as `10.0.0.0/24,192.0.2.7,2001:db8::/64`")]
    NotOne(String),
    /// Bits behind the prefix: a network was meant, or an address, and the two differ in whom they trust.
    #[error("has `{given}`, expected the network `{network}` or the address `{address}`")]
    HostBits {
        /// What was given.
        given: String,
        /// The whole network.
        network: String,
        /// The one address.
        address: String,
    },
    /// Everybody.
    #[error("has `{0}`, which is every address there is: anybody could claim to be anybody")]
    Everybody(String),
    /// More than are compared with.
    #[error("has more than {MAX} networks")]
    TooMany,
}

impl Networks {
    /// Reads a comma-separated list of networks in CIDR notation; an address alone is a network of one.
    ///
    /// # Errors
    /// The first [`NetworksError`].
    pub fn parse(text: &str) -> Result<Self, NetworksError> {
        let mut networks = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if networks.len() == MAX {
                return Err(NetworksError::TooMany);
            }
            networks.push(network(item)?);
        }
        Ok(Self(networks.into_boxed_slice()))
    }

    /// Whether an address is in one of them. One of IPv4 in the clothes of IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn network(item: &str) -> Result<IpNet, NetworksError> {
    if let Ok(address) = item.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let given = || item.escape_debug().to_string();
    let network: IpNet = item.parse().map_err(|_| NetworksError::NotOne(given()))?;
    if network.prefix_len() == 0 {
        return Err(NetworksError::Everybody(given()));
    }
    if network != network.trunc() {
        let (network, address) = (network.trunc().to_string(), network.addr().to_string());
        return Err(NetworksError::HostBits { given: given(), network, address });
    }
    Ok(network)
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(ToString::to_string)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(list: &str, address: &str) -> bool {
        Networks::parse(list).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_list_has_networks_and_addresses_of_both_families() {
        let list = " 10.1.0.0/16, 192.0.2.7 ,2001:db8::/32,::1,";
        for inside in ["10.1.255.3", "192.0.2.7", "2001:db8:1::2", "::1", "::ffff:10.1.2.3"] {
            assert!(has(list, inside), "{inside}");
        }
        for outside in ["10.2.0.1", "192.0.2.8", "2001:db9::1", "::2", "127.0.0.1", "::ffff:192.0.2.8"] {
            assert!(!has(list, outside), "{outside}");
        }
        assert!(has("::ffff:192.0.2.7", "192.0.2.7"));
    }

    #[test]
    fn nobody_is_in_an_empty_list() {
        assert!(Networks::parse("").unwrap().is_empty() && Networks::default().is_empty());
        assert!(!has(" , ", "127.0.0.1"));
    }

    #[test]
    fn what_trusts_more_than_was_meant_is_an_error() {
        let wrong = |text: &str| Networks::parse(text).unwrap_err().to_string();
        assert!(wrong("10.0.0.5/8").contains("the network `10.0.0.0/8` or the address `10.0.0.5`"));
        assert!(wrong("0.0.0.0/0").contains("every address") && wrong("10.0.0.1,::/0").contains("`::/0`"));
        for text in ["10.0.0", "proxy.example", "10.0.0.0/33", "10.0.0.1:80", "[::1]", "10.0.0.0/8 10.1.0.0/16"] {
            assert!(wrong(text).contains("expected networks such as"), "{text}");
        }
        let many = vec!["10.0.0.1"; MAX + 1].join(",");
        assert_eq!(Networks::parse(&many), Err(NetworksError::TooMany));
    }
}
