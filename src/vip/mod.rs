//! The service address (VIP) on the data NIC: whose it is, and how clients' packets find it.
//!
//! Owns: [`Address`] and [`Vip`] (what may be a VIP), [`DataNic`] (facts of the NIC, and what must not be
//! put on it), the planes that hold an address ([`AddressPlane`]: [`ArpPlane`] by netlink and our own frames, and keepalived), the
//! conflict [`probe`]; the [`door`] of the database's port (packet filter) and the end of connections ([`sockets`]).
//! Uses: netlink and packet sockets in the network namespace of the thread that opens them; nothing of `/sys` or `/proc`.
//! Never does: start a program (but for keepalived's own, through `host`), decide who may hold the address (that is the
//! pair's), bounce a NIC, touch an address that is not ours.
//!
//! ```text
//!            hold                     somebody removed it: put back, announced
//!  released ------> held ------------------------------------------------.
//!     ^              | ^-------------------------------------------------'
//!     |              | release(linger)
//!     '-- leaving <--'      no more announcing, defending, putting back; the address goes when `linger` is over
//! ```
//!
//! Held after a pause of more than a second (the process was stopped) it is silent: it listens for two seconds whether somebody else
//! has it by now, and if so stays silent until it is told what to do.
//!
//! Needs CAP_NET_ADMIN (addresses) and CAP_NET_RAW (frames); [`VipError::Capability`] names the one that is missing.

mod address;
mod arp;
pub mod door;
mod error;
mod frames;
mod keepalived;
mod mac;
mod monitor;
mod nft;
mod nic;
mod nlmsg;
mod packet;
mod plane;
mod probe;
pub mod routes;
mod rtnl;
pub mod sockets;

pub use address::{Address, AddressProblem, Vip, in_network};
pub use arp::{ArpPlane, cleanup};
pub use error::{VipError, VipErrorKind};
pub use keepalived::{KeepalivedPlane, KeepalivedSettings};
pub use mac::Mac;
pub use nic::{DataNic, NicAddress};
pub use nlmsg::NetlinkError;
pub use plane::{AddressPlane, HoldOptions, Probe, ProbeOptions, Rival, VipEvent, VipState};
pub use probe::probe;
