//! What this room could not do.

use super::{Address, AddressProblem, Mac, NetlinkError};
use std::io;
use std::net::IpAddr;

/// What others match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VipErrorKind {
    /// The request can never work as it is: address, NIC or plan are wrong.
    Invalid,
    /// Another host has the address.
    Taken,
    /// The process may not do it.
    NotPermitted,
    /// The NIC cannot carry it now; later it may.
    Unavailable,
    /// The kernel or a program failed.
    Failed,
}

/// What this room could not do.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// A text is no service address.
    #[error(transparent)]
    Address(#[from] AddressProblem),
    /// There is no such interface.
    #[error("there is no network interface {0}")]
    NoSuchNic(String),
    /// Several interfaces have this hardware address.
    #[error("the hardware address {mac} is that of several interfaces: {names}")]
    Ambiguous {
        /// The address asked for.
        mac: Mac,
        /// Whose it is.
        names: String,
    },
    /// The interface has no hardware address, so it takes no part in ARP.
    #[error("the interface {0} is no Ethernet interface")]
    NotEthernet(String),
    /// The address is in none of the NIC's networks.
    #[error("the service address {address} is in no network of the data interface {nic} ({networks})")]
    OutsideNetwork {
        /// The address.
        address: Address,
        /// The NIC.
        nic: String,
        /// Its networks of that family.
        networks: String,
    },
    /// The prefix is neither that of the NIC's network nor that of a host.
    #[error("the service address {address} must have the prefix length of its network {network}, or that of a single host")]
    WrongPrefix {
        /// The address.
        address: Address,
        /// The NIC's address there, with prefix.
        network: String,
    },
    /// In the NIC's network this is no host's address.
    #[error("the service address {address} is {what} of {network} on the data interface")]
    NotAHost {
        /// The address.
        address: Address,
        /// The NIC's address there, with prefix.
        network: String,
        /// Network or broadcast address.
        what: &'static str,
    },
    /// The data NIC is the management NIC.
    #[error("the data interface {0} is the management interface")]
    ManagementNic(String),
    /// The address lies in a network of the management NIC.
    #[error("the service address {address} is in the network {network} of the management interface {nic}")]
    ManagementNetwork {
        /// The address.
        address: Address,
        /// The management NIC.
        nic: String,
        /// Its network.
        network: String,
    },
    /// The address is on an interface of this host already, and not by us.
    #[error("the service address {ip} is already configured on the interface {nic}, not by this agent")]
    Foreign {
        /// The address.
        ip: IpAddr,
        /// Where.
        nic: String,
    },
    /// Another host has the address.
    #[error("the service address {address} is in use by the host with the hardware address {by}")]
    Taken {
        /// The address.
        address: Address,
        /// Who answered.
        by: Mac,
    },
    /// The NIC is down or has no carrier.
    #[error("the data interface {0} is down or has no carrier")]
    LinkDown(String),
    /// The process lacks a capability.
    #[error("could not {doing}: the capability {name} is missing")]
    Capability {
        /// What was being done.
        doing: &'static str,
        /// `CAP_NET_ADMIN` or `CAP_NET_RAW`.
        name: &'static str,
    },
    /// IPv6 is switched off on the NIC, or in the kernel.
    #[error("IPv6 is disabled on the interface {0}")]
    Ipv6Disabled(String),
    /// The kernel refused something about interfaces or addresses.
    #[error(transparent)]
    Netlink(NetlinkError),
    /// The kernel refused something else.
    #[error("could not {doing} on {nic}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// On which interface.
        nic: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plane of this address is broken, or its program is.
    #[error("could not {doing}: {problem}")]
    Plane {
        /// What was being done.
        doing: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The task of the plane has ended: the agent is on its way out.
    #[error("the address plane has stopped")]
    Stopped,
}

impl VipError {
    /// What others match on.
    #[must_use]
    pub fn kind(&self) -> VipErrorKind {
        match self {
            VipError::Address(_)
            | VipError::NoSuchNic(_)
            | VipError::Ambiguous { .. }
            | VipError::NotEthernet(_)
            | VipError::OutsideNetwork { .. }
            | VipError::WrongPrefix { .. }
            | VipError::NotAHost { .. }
            | VipError::ManagementNic(_)
            | VipError::ManagementNetwork { .. }
            | VipError::Foreign { .. } => VipErrorKind::Invalid,
            VipError::Taken { .. } => VipErrorKind::Taken,
            VipError::Capability { .. } => VipErrorKind::NotPermitted,
            VipError::LinkDown(_) | VipError::Ipv6Disabled(_) => VipErrorKind::Unavailable,
            VipError::Netlink(_) | VipError::Kernel { .. } | VipError::Plane { .. } | VipError::Stopped => VipErrorKind::Failed,
        }
    }
}

impl From<NetlinkError> for VipError {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::NotPermitted { doing } => VipError::Capability {
                doing,
                name: "CAP_NET_ADMIN",
            },
            other => VipError::Netlink(other),
        }
    }
}
