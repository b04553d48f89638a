//! What a journal entry holds.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// Identity of an operation: the request's `_unique_id`, or `local-<hex>` for one from the local socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpId(pub String);

/// How an operation ended. `Debug` leaves out the value, which may hold a password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// With this result.
    Done(Value),
    /// With this failure (class, module, message; an object, opaque to the journal).
    Failed(Value),
}

/// One operation. `Debug` leaves out arguments and context, which may hold passwords and tokens.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Identity.
    pub id: OpId,
    /// Method name.
    pub method: String,
    /// Arguments (sealed on disk).
    pub args: Value,
    /// Context (sealed on disk).
    pub context: Value,
    /// Where the answer goes, opaque to the journal; null for a cast. No secret: it stays in the clear, so that an operation
    /// whose secrets are lost can still be answered.
    pub reply: Value,
    /// When it was accepted, seconds since the epoch.
    pub accepted: f64,
    /// After this nobody waits for the answer, seconds since the epoch.
    pub deadline: Option<f64>,
    /// Steps that are done, in order.
    pub steps: Vec<String>,
    /// The outcome, once there is one (sealed on disk).
    pub outcome: Option<Outcome>,
    /// Whether the answer has been delivered (or nobody waits for one).
    pub answered: bool,
}

impl Record {
    /// Whether its secrets could not be opened with our key (the instance key was changed): what was asked, or how it ended,
    /// is lost. Arguments are an object in every entry that is not closed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.args.is_null() && !self.answered
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Done(_) => "Done(..)",
            Outcome::Failed(_) => "Failed(..)",
        })
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("method", &self.method)
            .field("steps", &self.steps)
            .field("outcome", &self.outcome)
            .field("answered", &self.answered)
            .finish_non_exhaustive()
    }
}

/// What became of a request offered to the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// Recorded now; run it.
    New,
    /// Recorded before and not finished: it is running or waits for its turn. Do not run it again.
    Running,
    /// Finished before, with this outcome. Answer it again, do not run it.
    Finished(Outcome),
}

/// What can go wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be opened.
    #[error("could not open the journal {path}")]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was written by a version we do not know.
    #[error("the journal {path} has format {found}, this version reads {known}")]
    Format {
        /// Where.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Formats known, for people.
        known: String,
    },
    /// It could not be written (full disk, I/O error). Nothing was recorded.
    #[error("could not write the journal: {doing}")]
    Write {
        /// What was being recorded.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It could not be read (I/O error).
    #[error("could not read the journal: {doing}")]
    Read {
        /// What was being read.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has it open.
    #[error("the journal {path} is in use by another process")]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// A sealed part, or a sealed fact (`fact/NAME`), does not open with our key; it is kept, its secrets are lost.
    #[error("entry {id} of the journal cannot be unsealed")]
    Sealed {
        /// Which.
        id: String,
    },
    /// A part of the entry is larger than the journal takes.
    #[error("{what} takes {size} bytes, the journal takes at most {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A part of the entry is nested deeper than the journal takes.
    #[error("{what} is nested deeper than {limit} levels")]
    TooDeep {
        /// Which part.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// So many operations are unfinished that no more are taken.
    #[error("{unfinished} operations ({bytes} bytes) are unfinished, no more are taken")]
    Full {
        /// How many.
        unfinished: usize,
        /// How many bytes they take.
        bytes: u64,
    },
    /// No such operation.
    #[error("the journal has no operation {0}")]
    Unknown(String),
}
