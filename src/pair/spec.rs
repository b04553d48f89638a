//! What a pair is, as it is told to each of its guests.

use datastore_api::{Durability, ExposeSecret, ReplicaLogin, Secret};
use serde::Deserialize;

/// Role a guest of a pair begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecRole {
    /// Clients write here.
    Source,
    /// Follows the source.
    Replica,
}

/// How the address is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// By the agent itself: netlink and gratuitous ARP.
    #[default]
    Arp,
    /// By keepalived, which the agent configures.
    Keepalived,
}

/// Who decides that a source is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailoverMode {
    /// A person or the control plane.
    #[default]
    Manual,
    /// The agents.
    Automatic,
}

/// The other guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its instance id.
    pub guest_id: String,
    /// Its data address.
    pub host: std::net::IpAddr,
    /// Port of its agent's link.
    pub port: u16,
    /// Port of its database.
    #[serde(default)]
    pub database_port: Option<u16>,
    /// Its management address, a second way for heartbeats.
    #[serde(default)]
    pub management_host: Option<std::net::IpAddr>,
}

/// A third party that knows whether the source lives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its address.
    pub host: std::net::IpAddr,
    /// Its port.
    pub port: u16,
}

/// What a pair is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSpec {
    /// Identity of the pair.
    pub id: String,
    /// What this guest begins as.
    pub role: SpecRole,
    /// The other guest.
    pub peer: Peer,
    /// Service addresses, `ADDR/PREFIX`, of both families.
    #[serde(default)]
    pub vip: Vec<String>,
    /// How they are held.
    #[serde(default)]
    pub plane: Plane,
    /// Key of the pair's link: 32 bytes in base64.
    pub key: Secret,
    /// The account replicas log in with, the same on both guests.
    pub replication: ReplicaLogin,
    /// What an acknowledged write is worth.
    #[serde(default)]
    pub durability: Durability,
    /// Who decides that the source is dead.
    #[serde(default)]
    pub failover: FailoverMode,
    /// A third party, for the automatic mode.
    #[serde(default)]
    pub witness: Option<Witness>,
    /// Longest time that a switchover may block writes, in milliseconds; it goes back then.
    #[serde(default = "blocked_ms")]
    pub blocked_ms: u64,
    /// What running writers get before they are killed, in milliseconds.
    #[serde(default = "grace_ms")]
    pub grace_ms: u64,
    /// How long the source's door stays open without a sign from elsewhere, in milliseconds (automatic mode).
    #[serde(default = "lease_ms")]
    pub lease_ms: u64,
    /// A replica that misses more transactions than this is not switched to, unless forced.
    #[serde(default = "max_behind")]
    pub max_behind: u64,
}

fn blocked_ms() -> u64 {
    5_000
}

fn grace_ms() -> u64 {
    500
}

fn lease_ms() -> u64 {
    1_500
}

fn max_behind() -> u64 {
    1_000
}

impl PairSpec {
    /// Whether a replica tells its source what it has received.
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        self.durability != Durability::Async
    }

    /// Everything, secrets included: for the sealed memory only.
    #[must_use]
    pub fn to_sealed(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id, "role": self.role, "peer": self.peer, "vip": self.vip, "plane": self.plane,
            "key": self.key.expose_secret(),
            "replication": {"user": self.replication.user, "password": self.replication.password.expose_secret()},
            "durability": self.durability, "failover": self.failover, "witness": self.witness,
            "blocked_ms": self.blocked_ms, "grace_ms": self.grace_ms, "lease_ms": self.lease_ms, "max_behind": self.max_behind,
        })
    }

    /// What may be shown.
    #[must_use]
    pub fn to_shown(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id, "peer": self.peer, "durability": self.durability, "failover": self.failover, "witness": self.witness,
            "blocked_ms": self.blocked_ms, "grace_ms": self.grace_ms, "lease_ms": self.lease_ms, "max_behind": self.max_behind,
        })
    }
}
