//! The capability to replicate: one source, replicas that follow it, changes of role without a restart of the server.

use crate::{Change, DriverError, Secret};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A place in the history of a server, in the engine's own form (MariaDB: a GTID list, `0-1-77`). Empty: nothing was ever written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub String);

impl Position {
    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_zero() { "(nothing)" } else { &self.0 })
    }
}

/// Where a source is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEndpoint {
    /// Data address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The account a replica logs in with.
#[derive(Debug, Clone, Deserialize)]
pub struct ReplicaLogin {
    /// User name.
    #[serde(alias = "name")]
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// What a server does when it starts by itself. The default is that of a server alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStart {
    /// It is read-only: a member of a pair.
    pub closed: bool,
    /// As a replica it tells its source what it has received.
    pub acknowledges: bool,
    /// After a crash it drops what its log has and it had not committed: another server has taken over and has all of it that anybody was
    /// told of. Without, it keeps whatever is in its log, for its replica may have lost it.
    pub yields: bool,
}

impl ServerStart {
    /// A member of a pair that may have what nobody else has.
    #[must_use]
    pub fn closed(acknowledges: bool) -> Self {
        Self {
            closed: true,
            acknowledges,
            yields: false,
        }
    }
}

/// What an acknowledged write is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Acknowledged when it is on the source.
    #[default]
    Async,
    /// Acknowledged when a replica has it, too; falls back to `Async` when none answers, visibly.
    SemiSync,
    /// Acknowledged only when a replica has it; waits for ever rather than lose it.
    Durable,
}

/// TLS material for the connection to a source, PEM texts.
#[derive(Debug, Clone)]
pub struct ReplicaTls {
    /// Certificate authority the source must be signed by.
    pub ca: String,
    /// Client certificate.
    pub certificate: Option<String>,
    /// Its key.
    pub private_key: Option<Secret>,
    /// Whether the source's name must match its certificate.
    pub verify_name: bool,
}

/// Where a replica begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Where this server is by itself (its current position).
    Current,
    /// The data were seeded from a copy taken at this position; the server's own history before is forgotten.
    At(Position),
}

/// How to follow a source.
#[derive(Debug, Clone)]
pub struct FollowPlan {
    /// Whom.
    pub source: SourceEndpoint,
    /// As whom.
    pub login: ReplicaLogin,
    /// From where.
    pub start: Start,
    /// Encrypted with this.
    pub tls: Option<ReplicaTls>,
}

/// How long blocking the writes may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLimits {
    /// What a running write statement or transaction gets before it is killed. Idle transactions get nothing.
    pub grace: Duration,
    /// The whole step; when it is passed, writes are open again and the error is `Timeout`.
    pub limit: Duration,
}

/// What blocking the writes did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Sessions with an open transaction that did nothing and were ended.
    pub idle_ended: u64,
    /// Sessions that were still writing after the grace and were killed.
    pub writers_killed: u64,
    /// Everything this server has; nothing follows.
    pub position: Position,
}

/// Semi-synchronous replication as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemiSync {
    /// Wanted as a source.
    pub source_on: bool,
    /// Wanted as a replica.
    pub replica_on: bool,
    /// Replicas that acknowledge now.
    pub replicas: u32,
    /// Wanted as a source, and not in force at the moment.
    pub degraded: bool,
    /// Commits that wait for an acknowledgement.
    pub waiting: u64,
}

/// Replication as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// Identity of this server among its peers.
    pub server_id: u32,
    /// Ordinary users cannot write.
    pub read_only: bool,
    /// Whom it follows, if it is configured as a replica.
    pub following: Option<SourceEndpoint>,
    /// The receiver runs and is connected.
    pub receiving: bool,
    /// The applier runs.
    pub applying: bool,
    /// How far behind in time, if it is known.
    pub lag: Option<Duration>,
    /// Everything this server has applied or written.
    pub position: Position,
    /// That, and what was received and not applied yet.
    pub received: Position,
    /// Why receiver or applier does not run.
    pub error: Option<String>,
    /// Semi-synchronous replication.
    pub semi_sync: SemiSync,
}

/// Transactions that were put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The file, mode 0600.
    pub path: PathBuf,
    /// How many.
    pub transactions: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// The capability to replicate. No verb restarts the server, except receiving a clone. Each may be repeated.
///
/// Errors beside the common ones: `Timeout` when a limit was passed (the state before is restored where the verb says so).
#[async_trait]
pub trait Replication: Send + Sync {
    /// Upstream's class name of the strategy, as the wire spells it.
    fn strategy(&self) -> &'static str;

    /// The TCP port clients and replicas connect to.
    fn port(&self) -> u16;

    /// Replication now. Milliseconds; never stuck behind other statements of the agent.
    async fn status(&self) -> Result<ReplicationStatus, DriverError>;

    /// Everything this server has applied or written.
    async fn position(&self) -> Result<Position, DriverError>;

    /// The state of this server's log, in the form [`Replication::errant`] takes.
    async fn log_state(&self) -> Result<Position, DriverError>;

    /// Whether `have` includes all of `want`. Pure. `Invalid` if either is no position.
    fn covers(&self, have: &Position, want: &Position) -> Result<bool, DriverError>;

    /// How many transactions of `want` are missing in `have`. Pure. `Invalid` if either is no position.
    fn missing(&self, have: &Position, want: &Position) -> Result<u64, DriverError>;

    /// Transactions in this server's log that a source with this log state never had. Empty: it can follow.
    async fn errant(&self, source_log_state: &Position) -> Result<Vec<String>, DriverError>;

    /// Saves what [`Replication::errant`] lists into a new file in `folder`. `None` if there is nothing.
    async fn save_errant(&self, source_log_state: &Position, folder: &Path) -> Result<Option<Saved>, DriverError>;

    /// Makes the running server fit to be a source. `options`: the control plane's text for a source.
    async fn make_source(&self, options: Option<&str>) -> Result<Change, DriverError>;

    /// Creates an account for a replica, with a password of its own and the least rights.
    async fn create_login(&self) -> Result<ReplicaLogin, DriverError>;

    /// Makes this account exist with this password and the least rights.
    async fn ensure_login(&self, login: &ReplicaLogin) -> Result<Change, DriverError>;

    /// Removes an account; one that is not there is `Unchanged`.
    async fn drop_login(&self, user: &str) -> Result<Change, DriverError>;

    /// Follows a source: read-only first, then the complete statement, then waits until the receiver is connected (at most `limit`) or
    /// says why it is not.
    async fn follow(&self, plan: &FollowPlan, limit: Duration) -> Result<Change, DriverError>;

    /// Applies all that was received (at most `limit`), then ends following and forgets the source. Stays read-only. On `Timeout` it
    /// still follows. Answers where it is.
    async fn detach(&self, limit: Duration) -> Result<Position, DriverError>;

    /// Waits until this server has `at`; `Timeout` after `limit`.
    async fn wait_for(&self, at: &Position, limit: Duration) -> Result<(), DriverError>;

    /// Blocks writes of ordinary users, ends idle transactions, gives writers the grace and kills them then. When the limit is passed,
    /// writes are as open as they were before, and the error is `Timeout`.
    async fn block_writes(&self, limits: &BlockLimits) -> Result<Blocked, DriverError>;

    /// Opens writes.
    async fn open_writes(&self) -> Result<Change, DriverError>;

    /// Ends all sessions of clients: not the agent's, not replication's. Commits that wait for an acknowledgement are ended unacknowledged.
    async fn end_sessions(&self) -> Result<u64, DriverError>;

    /// Sets what an acknowledged write is worth, in the role given.
    async fn set_durability(&self, mode: Durability, is_source: bool) -> Result<Change, DriverError>;

    /// Ends the sessions whose commits wait for an acknowledgement now, so that the next ones can be written. For a source whose commits
    /// wait (`semi_sync.waiting`) for seconds although a replica is connected (`replicas`) and has received everything: a replica that
    /// received a commit and lost its connection before it acknowledged is never asked again, and nothing is written behind such a commit.
    /// The clients are not told that they succeeded; the writes stay.
    async fn unblock_commits(&self) -> Result<Change, DriverError> {
        Ok(Change::Unchanged)
    }

    /// What the server does when it starts by itself.
    async fn set_start(&self, start: ServerStart) -> Result<Change, DriverError>;

    /// Names of the databases that users made: a replica to be must have none.
    async fn user_databases(&self) -> Result<Vec<String>, DriverError>;

    /// The number upstream orders replicas of a dead source by: the source's identity and how far this server is. `None`: no replica.
    async fn last_of_source(&self) -> Result<(Option<String>, u64), DriverError>;

    /// Streams a copy of the running server's data. Answers the position it was taken at.
    async fn send_clone(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Position, DriverError>;

    /// Replaces this server's data by a copy that another server streams, and starts it read-only. The agent's own accounts are set
    /// again. A copy that was cut off is never started: the data directory is marked until one has succeeded. Answers the copy's position.
    async fn receive_clone(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Position, DriverError>;
}
