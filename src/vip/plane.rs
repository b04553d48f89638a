//! What every way to hold an address can do.

use super::{Address, Mac, Vip, VipError};
use async_trait::async_trait;
use datastore_api::Change;
use serde::Serialize;
use std::time::{Duration, SystemTime};
use tokio::sync::{broadcast, watch};

/// A way to have the VIP on the data NIC. Every verb may be repeated and says whether it changed anything; dropping the future
/// of a verb does not undo it.
#[async_trait]
pub trait AddressPlane: Send + Sync {
    /// Its word in a pair's plan: `arp` or `keepalived`.
    fn name(&self) -> &'static str;

    /// What it holds when it holds.
    fn vip(&self) -> &Vip;

    /// Are all addresses of the VIP on the NIC now? The kernel is asked.
    ///
    /// # Errors
    /// The kernel could not be asked.
    async fn holds(&self) -> Result<bool, VipError>;

    /// Does another host have an address of the VIP (R2)? Changes nothing. Answers at the first that is taken.
    ///
    /// # Errors
    /// The NIC cannot send, or a capability is missing.
    async fn probe(&self, options: &ProbeOptions) -> Result<Probe, VipError>;

    /// Puts the VIP on the NIC and tells the neighbours. Answers as soon as the first announcement of each address is out;
    /// repeats follow by themselves. All or nothing: after an error none of the addresses is ours, if it
    /// was not held before.
    /// `Unchanged`: it was held; it is announced all the same.
    ///
    /// # Errors
    /// [`VipError::Taken`] if a probe was asked for and somebody answered, [`VipError::LinkDown`], or the kernel's refusal.
    async fn hold(&self, options: &HoldOptions) -> Result<Change, VipError>;

    /// Stops announcing, defending and putting back at once, and takes the VIP off the NIC `linger` later. Answers when it is off.
    /// A linger lets the old host refuse clients' late packets with resets while the new one announces.
    ///
    /// # Errors
    /// The kernel's refusal; what could be removed is removed.
    async fn release(&self, linger: Duration) -> Result<Change, VipError>;

    /// Tells the neighbours again, now. Nothing if the VIP is not held.
    ///
    /// # Errors
    /// Nothing could be sent.
    async fn announce(&self) -> Result<(), VipError>;

    /// The state as it changes.
    fn state(&self) -> watch::Receiver<VipState>;

    /// What happens to the VIP. A slow reader is told how many it missed.
    fn events(&self) -> broadcast::Receiver<VipEvent>;
}

/// How to take the address.
#[derive(Debug, Clone, Default)]
pub struct HoldOptions {
    /// Probe first. `None`: the caller has probed, or knows who has it.
    pub probe: Option<ProbeOptions>,
    /// Hardware addresses that are expected to have it still for a moment (the source of a planned switchover): no rivals.
    pub expected: Vec<Mac>,
}

/// How to look for another host that has the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Probes sent, evenly over the limit.
    pub count: u32,
    /// When nobody has answered by then, the address is free.
    pub limit: Duration,
    /// Hardware addresses whose answers do not count.
    pub ignore: Vec<Mac>,
}

impl Default for ProbeOptions {
    /// Three probes in 300 ms; every answer counts.
    fn default() -> Self {
        Self {
            count: 3,
            limit: Duration::from_millis(300),
            ignore: Vec::new(),
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Nobody answered.
    Free,
    /// Somebody did.
    Taken {
        /// For which address.
        address: Address,
        /// Who.
        by: Mac,
    },
}

/// Another host that says an address of ours is its.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rival {
    /// Which address.
    pub address: Address,
    /// Who.
    pub mac: Mac,
    /// How often it was heard.
    pub heard: u64,
    /// When it was heard last, for people.
    #[serde(with = "unix_ms")]
    pub last: SystemTime,
}

/// The VIP as it is at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VipState {
    /// All addresses are ours: on the NIC, announced and defended.
    pub held: bool,
    /// It shall be held (what `hold` and `release` last said).
    pub wanted: bool,
    /// The addresses of the VIP that are on the NIC.
    pub addresses: Vec<Address>,
    /// The NIC is up and has a carrier.
    pub link: bool,
    /// Last announcement, for people.
    #[serde(with = "unix_ms::option")]
    pub last_announce: Option<SystemTime>,
    /// Who claimed the address in the last minute.
    pub rivals: Vec<Rival>,
    /// Why it is not as wanted.
    pub reason: Option<String>,
}

/// What happened to the VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VipEvent {
    /// It is on the NIC and announced.
    Held,
    /// It is off the NIC by our own doing.
    Released,
    /// Somebody removed the address; it was put back and announced.
    PutBack(Address),
    /// Somebody removed the address, and it could not be put back: why. It is tried again.
    Lost(Address, String),
    /// Another host claims the address. It was announced again, unless that was done a moment ago,
    /// or this process was stopped for longer than a second before (then nothing is said until `hold`, `announce` or `release`).
    Rival {
        /// Which address.
        address: Address,
        /// Who.
        mac: Mac,
    },
    /// The kernel says that somebody else has this IPv6 address (`dadfailed`). It is added again.
    DadFailed(Address),
    /// The NIC lost its carrier, or was set down.
    LinkDown,
    /// The NIC is back; the VIP was announced.
    LinkUp,
    /// The plane itself failed (its program died, its sockets broke): what is wrong.
    Broken(String),
}

/// Times as milliseconds since 1970.
mod unix_ms {
    use serde::Serializer;
    use std::time::{SystemTime, UNIX_EPOCH};

    fn ms(time: SystemTime) -> u64 {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(ms(*time))
    }

    pub(super) mod option {
        use super::{Serializer, SystemTime, ms};

        // The signature is serde's.
        #[expect(clippy::ref_option, reason = "serde calls it so")]
        pub(in super::super) fn serialize<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => to.serialize_some(&ms(*time)),
                None => to.serialize_none(),
            }
        }
    }
}
