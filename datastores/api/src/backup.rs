//! The capability to back up: one stream out, one or several streams in, a scratch server to prove that they are good, and a frozen
//! moment for who copies the whole volume.
//!
//! It fits engines of three kinds: a tool that streams pages (MariaDB, MySQL), a base backup whose log is replayed (PostgreSQL), a
//! copy that the server makes of itself (MySQL CLONE). What an engine's numbers mean only the engine's driver knows.

use crate::{Change, DriverError, ErrorKind, LogSource, Position, ReplayPlan, Replayed, Step};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// What to stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupKind {
    /// Everything.
    Full,
    /// What has changed since another backup of this server.
    Incremental {
        /// What that backup said of itself.
        parent: Box<EngineFacts>,
    },
}

impl BackupKind {
    /// The control plane's word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental { .. } => "incremental",
        }
    }
}

/// What a backup is of, in the engine's own words. It goes into the manifest; unknown things are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineFacts {
    /// Datastore manager (`mariadb`).
    pub engine: String,
    /// How the stream was made, in upstream's words (`mariabackup`).
    pub strategy: String,
    /// The server's version text. Empty: unknown (a backup that another agent took).
    pub version: String,
    /// Version text of the tool that made the stream.
    pub tool: String,
    /// The transactions in it, as a replica would count them.
    pub position: Position,
    /// File of the server's log (binary log, WAL segment) from which on the log must be replayed over it.
    pub log_file: Option<String>,
    /// Byte in that file.
    pub log_offset: Option<u64>,
    /// Log sequence number since which pages are in it: zero for a full backup.
    pub from_lsn: Option<String>,
    /// Log sequence number an increment to it starts at.
    pub to_lsn: Option<String>,
    /// Bytes the data take on the server's disk, about.
    pub data_bytes: u64,
    /// Bytes of the plain stream. Who passed the stream on must have seen exactly as many.
    pub stream_bytes: u64,
    /// Identity of the server among its replicas.
    pub server_id: u32,
    /// Identity of its data: another after they were replaced (restored, copied from a source). Only a backup of the same data can be
    /// built upon. Empty: unknown.
    pub lineage: String,
    /// Tables that did not change while the backup was taken, and what was in them.
    pub sample: Vec<TableSample>,
}

/// What was in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSample {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// Number of rows.
    pub rows: u64,
    /// A checksum over all of them, in the engine's own way.
    pub checksum: String,
}

/// Where a backup is restored to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestorePlace {
    /// Into the data directory of a guest that has no data yet: as the step of a preparation that would install empty ones.
    Empty,
    /// Beside the running server's data, which it replaces at the end. The old ones come back if the new server does not answer.
    Replace,
    /// Into this folder (absolute; made anew, removed at the end), for a server that nobody but its holder reaches.
    Scratch(PathBuf),
}

/// What the restored server is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredAs {
    /// A server of its own, open as its configuration says.
    Open,
    /// Closed for writes: a log is replayed over it, or it is told to follow a source.
    Closed,
}

/// A restored server.
pub struct Restored {
    /// The transactions it has.
    pub position: Position,
    /// File of the backed-up server's log from which on the log can be replayed.
    pub log_file: Option<String>,
    /// Byte in that file.
    pub log_offset: Option<u64>,
    /// The running scratch server, for [`RestorePlace::Scratch`].
    pub scratch: Option<Box<dyn ScratchServer>>,
}

impl std::fmt::Debug for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restored")
            .field("position", &self.position)
            .field("log_file", &self.log_file)
            .field("log_offset", &self.log_offset)
            .field("scratch", &self.scratch.is_some())
            .finish()
    }
}

/// What the engine's checks found in a scratch server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Tables the server has.
    pub tables: u64,
    /// Tables that its checks were run on.
    pub checked: u64,
    /// Tables that were compared with what the backup's facts say.
    pub compared: u64,
    /// What is wrong, one sentence each; empty: nothing.
    pub problems: Vec<String>,
    /// Whether there was time for all of it.
    pub complete: bool,
}

/// What a snapshot of the frozen volume has in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frozen {
    /// The transactions in it.
    pub position: Position,
    /// File of the server's log, `None` if it writes none.
    pub log_file: Option<String>,
    /// Byte in that file.
    pub log_offset: Option<u64>,
}

/// The capability to back up and restore.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Upstream's word for how it is done (`mariabackup`).
    fn strategy(&self) -> &'static str;

    /// Ending of an object that holds the plain stream, without the dot (`xbstream`).
    fn extension(&self) -> &'static str;

    /// The step of a preparation that a restore to [`RestorePlace::Empty`] stands in for: those before it are done first, then the
    /// restore, then it and the others, which find their work done.
    fn restore_step(&self) -> Step;

    /// What a backup taken now would be of: engine, strategy, versions, size, server id, position. Cheap. `Unavailable` if the server
    /// does not run, `NotSupported` if it cannot be backed up.
    async fn describe(&self) -> Result<EngineFacts, DriverError>;

    /// Streams a backup of the running server; writes go on. `Ok` only if the tool's exit code, its last word and its numbers say so.
    /// Dropped, the tool is killed and what it needed is removed. `out` is flushed at the end, not shut down.
    ///
    /// Errors: `Unavailable`: the server does not run, or `out` was closed; `Timeout`: a lock was not to be had in time (the backup gives
    /// way, never the workload), or `out` took nothing; `WrongData`: the parent is not of this server or cannot be built upon.
    async fn send_backup(&self, kind: &BackupKind, out: &mut (dyn AsyncWrite + Send + Unpin))
    -> Result<EngineFacts, DriverError>;

    /// Whether a chain that ends with `facts` and takes about `bytes` when it is unpacked could be restored there. Touches nothing.
    /// `WrongData`: another engine or a newer version; `NoSpace`; `Exists`: there are data where there must be none.
    async fn check_restore(&self, facts: &EngineFacts, bytes: u64, place: &RestorePlace) -> Result<(), DriverError>;

    /// Begins to restore: makes the room. `id` names the restore in messages (a backup id). Replaces what a killed agent left there;
    /// `Exists` while another restore is under way.
    async fn begin_restore(&self, id: &str, place: &RestorePlace) -> Result<Box<dyn Restore>, DriverError>;

    /// Finishes or takes back what a killed agent left of a restore, and says which, for people. To be called before the agent looks at
    /// the server for the first time; [`crate::Datastore::start`] does it, too. `None`: there was nothing.
    async fn settle(&self) -> Result<Option<String>, DriverError>;

    /// Holds all writes and freezes the volume's file system, for a snapshot from outside. It thaws by itself after `limit`, and when
    /// the agent dies. Frozen already: the same answer again, the limit is not prolonged.
    async fn freeze(&self, limit: Duration) -> Result<Frozen, DriverError>;

    /// Thaws the file system and lets writes go on. `Unchanged` if nothing was frozen. `Timeout` if it had thawed by itself before: a
    /// snapshot taken meanwhile is worth nothing.
    async fn thaw(&self) -> Result<Change, DriverError>;
}

/// A restore under way: the full backup first, then its increments in order. Dropped, it cleans up in the background like
/// [`Restore::abandon`].
#[async_trait]
pub trait Restore: Send {
    /// Unpacks one blob's plain stream and joins it to what came before. `WrongData` if it is not the one that comes next; `Failed` if
    /// it is damaged or not whole; `NoSpace`. After an error only [`Restore::abandon`] makes sense.
    async fn unpack(&mut self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<(), DriverError>;

    /// Replays a log over what was unpacked: behind closed doors, before anything of the old data is touched. At most once, after the last
    /// [`Restore::unpack`]; after an error only [`Restore::abandon`] makes sense. Transactions that the data have already are left out.
    ///
    /// Errors: `WrongData`: the log does not go on from the data, or what it ends with is not what was asked for; `NoSpace`; `Timeout`;
    /// `Failed`: the server refuses a transaction, or the log is damaged.
    async fn replay(&mut self, plan: &ReplayPlan, log: &mut dyn LogSource) -> Result<Replayed, DriverError> {
        let _ = (plan, log);
        let text = "this engine cannot replay a log over a backup";
        Err(DriverError::new(ErrorKind::NotSupported, text))
    }

    /// Makes it a running server that has answered. Until it has, the old data are kept; after an error they are back and the old
    /// server runs as it did (the error says so if even that failed).
    async fn finish(self: Box<Self>, as_what: RestoredAs) -> Result<Restored, DriverError>;

    /// Everything as it was before.
    async fn abandon(self: Box<Self>) -> Result<(), DriverError>;
}

/// A restored server that nobody else reaches: own folder, own socket, no network, low priority. Dropped, it is closed in the background.
#[async_trait]
pub trait ScratchServer: Send + Sync {
    /// Runs the engine's checks for at most `budget` (small tables first) and compares the tables of the sample.
    async fn check(&self, sample: &[TableSample], budget: Duration) -> Result<CheckReport, DriverError>;

    /// Ends the server and removes its folder.
    async fn close(self: Box<Self>) -> Result<(), DriverError>;
}
