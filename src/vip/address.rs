//! What may be a VIP: an address with the length of its prefix, and the list of them that moves as one.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// More than this is no service address but a mistake.
const MOST: usize = 16;

/// One address that clients connect to, as in `10.0.0.9/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    ip: IpAddr,
    prefix: u8,
}

/// Why a text is no service address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressProblem {
    /// Not of the form.
    #[error("\"{0}\" is not an address with a prefix length, as in 10.0.0.9/24 or fd00::9/64")]
    Malformed(String),
    /// The length does not fit the family.
    #[error("the prefix length of {ip}/{prefix} is not between 1 and {most}")]
    Prefix {
        /// The address.
        ip: IpAddr,
        /// What was given.
        prefix: u8,
        /// 32 or 128.
        most: u8,
    },
    /// An address that no host can serve clients by.
    #[error("{address} is {what}, not the address of one host")]
    Special {
        /// What was given.
        address: String,
        /// "a multicast address", "the network's own address" and so on.
        what: &'static str,
    },
    /// The list is empty.
    #[error("the list of service addresses is empty")]
    None,
    /// The list is too long.
    #[error("{0} service addresses are more than {MOST}")]
    TooMany(usize),
    /// An address is there twice.
    #[error("the service address {0} is listed twice")]
    Twice(IpAddr),
}

impl Address {
    /// Checks and makes one.
    ///
    /// # Errors
    /// The prefix length does not fit; the address is multicast, loopback, unspecified, link-local, broadcast, reserved, an IPv4
    /// address in IPv6 clothes, or the network's own.
    pub fn new(ip: IpAddr, prefix: u8) -> Result<Self, AddressProblem> {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > most {
            return Err(AddressProblem::Prefix { ip, prefix, most });
        }
        let address = Self { ip, prefix };
        match special(ip).or_else(|| address.edge_of(prefix)) {
            Some(what) => Err(AddressProblem::Special {
                address: address.to_string(),
                what,
            }),
            None => Ok(address),
        }
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Length of the network's prefix in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Is this the prefix of a single host (`/32`, `/128`)?
    #[must_use]
    pub fn is_host_prefix(&self) -> bool {
        self.prefix == if self.ip.is_ipv4() { 32 } else { 128 }
    }

    /// What this address would be in a network with that prefix, if not a host's.
    pub(super) fn edge_of(&self, prefix: u8) -> Option<&'static str> {
        let (bits, width) = bits(self.ip);
        let host = width - prefix;
        if host < 2 {
            return None;
        }
        let mask = u128::MAX >> (128 - u32::from(host));
        match bits & mask {
            0 => Some("the network's own address"),
            part if part == mask && self.ip.is_ipv4() => Some("the network's broadcast address"),
            _ => None,
        }
    }
}

/// Are both in the network that `prefix` cuts out around `network`?
#[must_use]
pub fn in_network(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let ((a, width), (b, other)) = (bits(ip), bits(network));
    let host = u32::from(width.saturating_sub(prefix));
    width == other && (host >= 128 || a >> host == b >> host)
}

/// The address as a number, and its width in bits.
fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    }
}

fn special(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => is_link_local(ip),
    };
    match ip {
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        _ if link_local => Some("a link-local address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(ip) if ip.octets()[0] == 0 || ip.octets()[0] >= 240 => Some("a reserved address"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("an IPv4 address written as IPv6"),
        _ => None,
    }
}

/// `fe80::/10`.
pub(super) fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for Address {
    type Err = AddressProblem;

    fn from_str(text: &str) -> Result<Self, AddressProblem> {
        let malformed = || AddressProblem::Malformed(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(malformed)?;
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let ip: IpAddr = ip.parse().map_err(|_| malformed())?;
        Self::new(ip, prefix.parse().unwrap_or(u8::MAX))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The addresses of one service, IPv4 and IPv6; they move as one. Never empty, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Address>", into = "Vec<Address>")]
pub struct Vip(Vec<Address>);

impl Vip {
    /// Checks and makes one.
    ///
    /// # Errors
    /// No address, too many, or one twice.
    pub fn new(addresses: Vec<Address>) -> Result<Self, AddressProblem> {
        if addresses.is_empty() {
            return Err(AddressProblem::None);
        }
        if addresses.len() > MOST {
            return Err(AddressProblem::TooMany(addresses.len()));
        }
        for (at, address) in addresses.iter().enumerate() {
            if addresses[..at].iter().any(|other| other.ip == address.ip) {
                return Err(AddressProblem::Twice(address.ip));
            }
        }
        Ok(Self(addresses))
    }

    /// Reads each text.
    ///
    /// # Errors
    /// The first that is no service address, or what [`Vip::new`] refuses.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, AddressProblem> {
        Self::new(texts.iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>()?)
    }

    /// The addresses, as they were given.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.0
    }

    /// Is `ip` one of them?
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|address| address.ip == ip)
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl TryFrom<Vec<Address>> for Vip {
    type Error = AddressProblem;

    fn try_from(addresses: Vec<Address>) -> Result<Self, AddressProblem> {
        Self::new(addresses)
    }
}

impl From<Vip> for Vec<Address> {
    fn from(vip: Vip) -> Self {
        vip.0
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
