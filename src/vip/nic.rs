//! The data NIC: facts, and what must not be put on it.

use super::address::{Address, Vip, in_network, is_link_local};
use super::rtnl::{Found, Link, Rtnl};
use super::{Mac, VipError};
use std::net::IpAddr;

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NicAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// This agent, or an earlier run of it, put it there.
    pub ours: bool,
}

/// A network interface as it was when it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataNic {
    pub(super) link: Link,
    mac: Mac,
    addresses: Vec<NicAddress>,
}

impl DataNic {
    /// The interface of that name.
    ///
    /// # Errors
    /// There is none, or it is not Ethernet.
    pub fn by_name(name: &str) -> Result<Self, VipError> {
        let mut rtnl = Rtnl::open()?;
        let link = named(&mut rtnl, name)?;
        Self::with(&mut rtnl, link)
    }

    /// The interface with that hardware address. Of several (a bridge and its port, a NIC and its VLANs) none is taken.
    ///
    /// # Errors
    /// There is none, or not exactly one.
    pub fn by_mac(mac: Mac) -> Result<Self, VipError> {
        let mut rtnl = Rtnl::open()?;
        let mut links = rtnl.links()?;
        links.retain(|link| link.mac == Some(mac));
        match links.len() {
            0 => Err(VipError::NoSuchNic(format!("with the hardware address {mac}"))),
            1 => Self::with(&mut rtnl, links.swap_remove(0)),
            _ => Err(VipError::Ambiguous {
                mac,
                names: links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    fn with(rtnl: &mut Rtnl, link: Link) -> Result<Self, VipError> {
        let mac = link.mac.ok_or_else(|| VipError::NotEthernet(link.name.clone()))?;
        let all = rtnl.addresses()?;
        let addresses = all
            .iter()
            .filter(|found| found.nic == link.index)
            .map(NicAddress::from)
            .collect();
        Ok(Self { link, mac, addresses })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// Its number in the kernel.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.link.index
    }

    /// Its hardware address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Set up, and with a carrier.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.up
    }

    /// Its addresses, ours among them.
    #[must_use]
    pub fn addresses(&self) -> &[NicAddress] {
        &self.addresses
    }

    /// May the VIP be put on this interface? A NIC without an address of a family takes any of it. Changes nothing.
    ///
    /// # Errors
    /// An address is in no network of the NIC, has another prefix than its network, or is no host's there; it is configured on an
    /// interface of this host by somebody else; the NIC is `management`, or the address is in one of its networks.
    pub fn check(&self, vip: &Vip, management: Option<&str>) -> Result<(), VipError> {
        let mut rtnl = Rtnl::open()?;
        let links = rtnl.links()?;
        let all = rtnl.addresses()?;
        for address in vip.addresses() {
            if let Some(there) = all.iter().find(|found| found.ip == address.ip() && !found.ours) {
                let nic = links.iter().find(|link| link.index == there.nic);
                return Err(VipError::Foreign {
                    ip: address.ip(),
                    nic: nic.map_or_else(|| there.nic.to_string(), |link| link.name.clone()),
                });
            }
            self.check_network(address, &all)?;
        }
        let Some(name) = management else { return Ok(()) };
        let management = named(&mut rtnl, name)?;
        if management.index == self.link.index {
            return Err(VipError::ManagementNic(management.name));
        }
        for address in vip.addresses() {
            if let Some(there) =
                networks(&all, management.index, address).find(|net| in_network(address.ip(), net.ip, net.prefix))
            {
                return Err(VipError::ManagementNetwork {
                    address: *address,
                    nic: management.name,
                    network: show(there),
                });
            }
        }
        Ok(())
    }

    fn check_network(&self, address: &Address, all: &[Found]) -> Result<(), VipError> {
        let own: Vec<&Found> = networks(all, self.link.index, address).collect();
        if own.is_empty() {
            return Ok(());
        }
        // The narrowest network that has it decides, as in the kernel's own choice.
        let inside = own.iter().filter(|net| in_network(address.ip(), net.ip, net.prefix));
        let Some(net) = inside.max_by_key(|net| net.prefix) else {
            return Err(VipError::OutsideNetwork {
                address: *address,
                nic: self.link.name.clone(),
                networks: own.iter().map(|net| show(net)).collect::<Vec<_>>().join(", "),
            });
        };
        if let Some(what) = address.edge_of(net.prefix) {
            return Err(VipError::NotAHost {
                address: *address,
                network: show(net),
                what,
            });
        }
        if address.prefix() != net.prefix && !address.is_host_prefix() {
            return Err(VipError::WrongPrefix {
                address: *address,
                network: show(net),
            });
        }
        Ok(())
    }
}

impl From<&Found> for NicAddress {
    fn from(found: &Found) -> Self {
        Self {
            ip: found.ip,
            prefix: found.prefix,
            ours: found.ours,
        }
    }
}

fn named(rtnl: &mut Rtnl, name: &str) -> Result<Link, VipError> {
    let found = rtnl.links()?.into_iter().find(|link| link.name == name);
    found.ok_or_else(|| VipError::NoSuchNic(name.to_owned()))
}

/// The addresses of others on an interface that say which networks of the address' family it is in.
fn networks<'a>(all: &'a [Found], nic: u32, address: &Address) -> impl Iterator<Item = &'a Found> {
    let v4 = address.ip().is_ipv4();
    all.iter().filter(move |found| {
        let link_local = matches!(found.ip, IpAddr::V6(ip) if is_link_local(ip));
        found.nic == nic && found.ip.is_ipv4() == v4 && !found.ours && !link_local
    })
}

fn show(net: &Found) -> String {
    format!("{}/{}", net.ip, net.prefix)
}
