//! The address that clients use, and the kernel's side of fencing.
//!
//! Owns: the door of the database port (packet filter), the end of connections. Uses: netlink.
//! Never does: decide who may hold the address.

pub mod door;
mod nft;
mod nlmsg;
pub mod sockets;

pub use nlmsg::NetlinkError;
