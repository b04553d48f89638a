//! The pair: one source and its replica behind a service address.
//!
//! Owns: the role of this guest (through [`crate::instance::role`]), switchover, failover, rejoin, the lease, and what is remembered of
//! them. Uses: `instance`, `journal`, `link`, `vip`, the driver's replication. Never does: parse what comes over the bus.

pub mod lease;
mod spec;
pub mod witness;

pub use spec::{FailoverMode, PairSpec, Peer, Plane, SpecRole, Witness};
