//! What two agents of a pair say to each other over the link.

use crate::instance::role::{Role, Switch};
use datastore_api::{Blocked, Position};
use serde::{Deserialize, Serialize};

/// A question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Ask {
    /// Who and how are you?
    Hello {
        /// The asker's generation.
        generation: u64,
    },
    /// A source shows that it lives, and asks for an echo.
    Ping {
        /// Its pair, for a witness that serves several.
        pair: String,
        /// The source's generation.
        generation: u64,
        /// Number of the ping.
        seq: u64,
        /// Whether the replica may later take silence for a reason to promote.
        arms: bool,
        /// An announced absence that is over.
        #[serde(default)]
        ends_hold: Option<u64>,
        /// It would lose what it acknowledged, if it died now: semi-synchronous replication is not in force.
        #[serde(default)]
        degraded: bool,
    },
    /// A source goes away for a moment, with its door open.
    Away {
        /// The source's generation.
        generation: u64,
        /// It is back by then.
        within_ms: u64,
        /// Number of the absence.
        number: u64,
    },
    /// A candidate wants to take over.
    Begin {
        /// The operation.
        op: String,
        /// The generation that follows.
        next: u64,
    },
    /// Block writes now.
    Fence {
        /// The operation.
        op: String,
    },
    /// Decide: the candidate is the source.
    Release {
        /// The operation.
        op: String,
    },
    /// Go back to what was before.
    Abort {
        /// The operation.
        op: String,
    },
    /// What was decided?
    Decision {
        /// The operation.
        op: String,
    },
    /// Give way at once: writes closed, address released, whatever state the database is in.
    Yield {
        /// The operation.
        op: String,
        /// The generation that follows.
        next: u64,
    },
    /// A source whose database died asks the replica to take over.
    TakeOver {
        /// The asker's generation, whose writes are closed.
        generation: u64,
    },
    /// Run a switchover as its candidate, for somebody who asked the source.
    Switchover {
        /// The operation.
        op: String,
        /// Although the replica is far behind.
        force: bool,
    },
}

/// Who and how an agent is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Instance id.
    pub guest_id: String,
    /// Role.
    pub role: Role,
    /// Generation.
    pub generation: u64,
    /// Whether clients may write there.
    pub writable: bool,
    /// A switchover under way.
    pub switch: Option<Switch>,
    /// The database answers.
    pub healthy: bool,
    /// A replica that has lost nothing of what it acknowledged.
    #[serde(default)]
    pub keeps: bool,
    /// Everything its server has; `None` if it does not answer.
    pub position: Option<Position>,
    /// That, and what it received and has not applied yet.
    #[serde(default)]
    pub received: Option<Position>,
    /// Its server's log, for the search for errant transactions.
    pub log_state: Option<Position>,
    /// Hardware address of its data NIC.
    pub mac: Option<String>,
    /// Port of its database.
    pub database_port: u16,
    /// Identity of its database server.
    pub server_id: u32,
}

/// What blocking the writes did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fenced {
    /// Counts and the final position.
    pub blocked: Blocked,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// What the source decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The candidate is the source.
    Released,
    /// It has not released and never will.
    Stayed,
    /// Not decided yet.
    Open,
}
