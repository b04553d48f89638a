//! The capability to follow the server's own log of changes, and to replay it over restored data: recovery to a point in time.
//!
//! Engine-neutral: a transaction is a [`Mark`] (MariaDB: a GTID; PostgreSQL: timeline, 0, LSN). What a mark's text looks like, and what
//! the log's bytes mean, only the driver knows.

use crate::{Change, DriverError, Position};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One transaction, and everything before it in its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The history it belongs to; numbers are compared within one only.
    pub domain: u32,
    /// The server that wrote it.
    pub writer: u32,
    /// Its number: grows from transaction to transaction of a domain.
    pub number: u64,
}

/// Transactions of one writer that follow one another in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Their history.
    pub domain: u32,
    /// Their writer.
    pub writer: u32,
    /// Number of the first one.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
}

impl Run {
    /// Whether this transaction is one of them.
    #[must_use]
    pub fn has(&self, mark: Mark) -> bool {
        (self.domain, self.writer) == (mark.domain, mark.writer) && (self.first..=self.last).contains(&mark.number)
    }
}

/// What is known of a stretch of one log file without reading it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Name of the file.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
    /// The last transaction of each domain before it. A domain may be missing: nobody knows.
    pub before: Vec<Mark>,
    /// The last transaction of each domain at its end.
    pub after: Vec<Mark>,
    /// Its transactions in the order of the log. One that goes on in the next stretch is counted there.
    pub runs: Vec<Run>,
    /// How many.
    pub transactions: u64,
    /// When the first and the last one were made, by the writer's clock, in seconds since 1970.
    pub times: Option<(u64, u64)>,
    /// It begins in the middle of a transaction.
    pub begins_inside: bool,
    /// It ends in the middle of one (which is complete in the file).
    pub ends_inside: bool,
    /// What a reader of it must know of the file's beginning, in the driver's form.
    pub head: String,
}

impl Stretch {
    /// Joins the one that follows it without a hole.
    #[must_use]
    pub fn and(mut self, next: &Stretch) -> Self {
        self.to = next.to;
        self.after.clone_from(&next.after);
        for run in &next.runs {
            push_run(&mut self.runs, *run);
        }
        self.transactions += next.transactions;
        self.times = match (self.times, next.times) {
            (Some((first, a)), Some((_, b))) => Some((first, a.max(b))),
            (a, b) => a.or(b),
        };
        self.ends_inside = next.ends_inside;
        self
    }
}

/// Adds transactions to others that come before them in a log.
pub fn push_run(runs: &mut Vec<Run>, next: Run) {
    match runs.last_mut() {
        Some(last) if (last.domain, last.writer) == (next.domain, next.writer) && last.last < next.first => last.last = next.last,
        _ => runs.push(next),
    }
}

/// Where to go on reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    /// Name of the file.
    pub file: String,
    /// The next byte.
    pub offset: u64,
    /// The last transaction of each domain before that byte.
    pub before: Vec<Mark>,
    /// That byte is in the middle of a transaction.
    pub inside: bool,
    /// Which one, and when it was made, in seconds since 1970.
    #[serde(default)]
    pub open: Option<(Mark, u64)>,
    /// By which the driver knows again that the bytes before are the ones it has read.
    pub seal: String,
}

/// A log file that the server keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Why a reader could not go on where another one had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogBreak {
    /// There was nothing before.
    First,
    /// The log was begun anew, or the data were replaced.
    Reset,
    /// The log is shorter than what was read of it: transactions were taken back after a crash.
    Truncated,
    /// Files that were not read are gone.
    Gap,
    /// The log cannot be read there.
    Damaged,
}

/// How a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// Exactly where the cursor says.
    Resumed,
    /// Elsewhere: what follows must not be joined to what came before.
    Anew {
        /// Why.
        why: LogBreak,
        /// The same for people.
        text: String,
    },
}

/// A stretch with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub stretch: Stretch,
    /// Its bytes, `to - from` of them.
    pub bytes: Vec<u8>,
    /// Where to go on.
    pub next: LogCursor,
}

/// What a reader found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRead {
    /// The next piece: whole transactions, or a part of one that is complete in the file.
    Piece(Box<Piece>),
    /// There is nothing more at the moment.
    UpToDate,
    /// It does not go on from here; [`Logs::follow`] with the last cursor says where it goes on.
    Broken {
        /// Why.
        why: LogBreak,
        /// The same for people.
        text: String,
    },
}

/// Reads a log as it grows. Reads files; the server may run or not.
#[async_trait]
pub trait LogReader: Send {
    /// The next piece of at most about `limit` bytes (one event that is larger comes whole). Never waits for the server to write.
    async fn next(&mut self, limit: usize) -> Result<LogRead, DriverError>;
}

/// Where a replay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// With the last transaction there is.
    End,
    /// Before the first transaction that was made at or after this time, in seconds since 1970.
    Time(u64),
    /// After this transaction.
    Including(Mark),
    /// Before this transaction, with everything that comes before it in the log.
    Before(Mark),
}

/// The next bytes of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// What they are.
    pub stretch: Stretch,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Only transactions up to these are good: another log goes on from there. Empty: all.
    pub good_to: Vec<Mark>,
}

/// Gives the log in order. Stretches may overlap; a transaction that comes again is left out.
#[async_trait]
pub trait LogSource: Send {
    /// The next stretch; `None` at the end.
    async fn next(&mut self) -> Result<Option<Feed>, DriverError>;
}

/// What a replay is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayPlan {
    /// Where to stop.
    pub until: Until,
    /// Bytes of log that will come, about: for the free space.
    pub bytes: u64,
    /// Limit of the whole.
    pub limit: Duration,
}

/// What a replay did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Where the data are now.
    pub position: Position,
    /// Transactions that were applied.
    pub transactions: u64,
    /// When the last of them was made, in seconds since 1970.
    pub last_time: Option<u64>,
}

/// The capability to follow the log. Replaying it is a part of a restore: [`crate::Restore::replay`].
#[async_trait]
pub trait Logs: Send + Sync {
    /// The log files that the server keeps, oldest first.
    async fn files(&self) -> Result<Vec<LogFile>, DriverError>;

    /// Reads on from the cursor, if what was read up to it is still what the server has; otherwise, or without one, from where the
    /// history can be joined best. `NotSupported` if the log is encrypted or the server keeps none.
    async fn follow(&self, from: Option<&LogCursor>) -> Result<(Box<dyn LogReader>, Beginning), DriverError>;

    /// The same bytes as once were read; `None` if they are gone.
    async fn bytes(&self, file: &str, from: u64, to: u64) -> Result<Option<Vec<u8>>, DriverError>;

    /// Keeps the files from this one on, whatever the server's own rule says; `None`: the server's own rule.
    async fn hold(&self, from: Option<&str>) -> Result<Change, DriverError>;

    /// Drops the files before this one, however young they are.
    async fn drop_before(&self, file: &str) -> Result<Change, DriverError>;

    /// A position as marks. Pure. `Invalid` if it is none.
    fn marks(&self, position: &Position) -> Result<Vec<Mark>, DriverError>;

    /// Marks as the engine writes them. Pure.
    fn position(&self, marks: &[Mark]) -> Position;
}
