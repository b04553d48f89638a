//! The journal: what was asked, how far it got, how it ended. On disk, fsync'd, crash-safe, bounded.
//!
//! Owns: `journal.redb`, `journal.key` and `journal.lock` in the state directory. Uses: nothing of ours. Never does: run
//! anything, or hold a secret in the clear (arguments, contexts, outcomes and sealed facts are sealed).
//!
//! ```text
//!  callers ──Job──► one writer thread ──one transaction, one fsync──► journal.redb
//!     ▲                  │ drains what waits (group commit); after an I/O error it opens the file again
//!     └────answer────────┘
//!
//!  accept ─► unfinished ─ step_done* ─► finish ─► unanswered ─► answered ─► closed (arguments forgotten, newest 1,000 kept)
//! ```
//!
//! An answer means "on disk". When the disk is full the answer is [`JournalError::Write`], nothing is half recorded, and the
//! journal works again by itself as soon as there is space.

mod entry;
mod failpoint;
mod file;
mod index;
mod record;
mod seal;
mod store;
#[cfg(test)]
mod tests;
mod write;
mod writer;

pub use failpoint::{STEPS as FAILPOINT_STEPS, failpoint};
pub use record::{Admission, JournalError, OpId, Outcome, Record};
pub use write::later;

use datastore_api::Secret;
use secrecy::SecretSlice;
use std::path::Path;
use std::sync::Arc;
use store::Shared;
use write::{Reply, Write};
use writer::Writer;
use zeroize::Zeroizing;

/// Largest sealed part of an entry (arguments with context, or outcome), bytes.
pub const MAX_PART: usize = 8 << 20;
/// How many operations may be unfinished; more are refused.
pub const MAX_UNFINISHED: usize = 10_000;
/// How many bytes unfinished operations may take; more are refused.
pub const MAX_UNFINISHED_BYTES: u64 = 64 << 20;
/// How many finished operations are kept to recognise repeats.
pub const KEEP_FINISHED: usize = 1_000;
/// How many bytes finished operations may take.
pub const KEEP_FINISHED_BYTES: u64 = 8 << 20;
/// Largest small fact, bytes.
pub const MAX_FACT: usize = 64 << 10;

/// Handle to the journal; clones share it. The file is closed when the last clone is dropped (this waits for what is being
/// written).
#[derive(Clone, Debug)]
pub struct Journal {
    writer: Arc<Writer>,
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens the journal in the state directory `dir`, which is made (mode 0700) if it is not there. Entries are sealed with a
    /// key derived from the instance key, or, without one, from `journal.key` beside the journal.
    ///
    /// A damaged file is moved aside and a fresh one started, see [`Journal::opened_damaged`]. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// `Busy` if another process has it, `Format` if a version we do not know wrote it, `Open` for anything else.
    pub fn open(dir: &Path, instance_key: Option<&Secret>) -> Result<Self, JournalError> {
        let shared = Arc::new(Shared::default());
        let store = store::Store::open(dir, instance_key, Arc::clone(&shared))?;
        let writer = Writer::start(store)?;
        Ok(Self {
            writer: Arc::new(writer),
            shared,
        })
    }

    /// Whether the file was damaged and a fresh one was started: what ran before is not known.
    #[must_use]
    pub fn opened_damaged(&self) -> bool {
        self.shared.damaged()
    }

    /// How many operations are unfinished.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.shared.depth()
    }

    /// Records a request, or tells what became of it when it was offered before. It is on disk when the answer comes; its place
    /// among the others is taken at once, by the call itself. The list `steps` and the fields `outcome` and `answered` of the
    /// record are taken as empty.
    ///
    /// # Errors
    /// `Write`; `TooLarge`, `TooDeep` and `Full` when it is refused; `Sealed` for a repeat whose outcome is lost.
    pub fn accept(&self, record: Record) -> impl Future<Output = Result<Admission, JournalError>> + Send + use<> {
        let written = self.writer.write("an operation", Write::Accept(Box::new(record)));
        async move {
            match written.await? {
                Reply::Admission(admission) => Ok(admission),
                _ => Ok(Admission::New),
            }
        }
    }

    /// Records that a step is done. A step that is recorded already stays where it is.
    ///
    /// # Errors
    /// `Write`, `Unknown`.
    pub async fn step_done(&self, id: &OpId, step: &str) -> Result<(), JournalError> {
        let write = Write::Step(id.clone(), step.to_owned());
        self.write("a step", write).await.map(drop)
    }

    /// Records the outcome; the first one stays. With nobody to answer (`reply` null) the entry is closed at once.
    ///
    /// # Errors
    /// `Write`, `Unknown`, `TooLarge`, `TooDeep`.
    pub async fn finish(&self, id: &OpId, outcome: &Outcome) -> Result<(), JournalError> {
        let write = Write::Finish(id.clone(), Box::new(outcome.clone()));
        self.write("an outcome", write).await.map(drop)
    }

    /// Records that the answer was delivered, or cannot be. Closes the entry: its arguments and context are forgotten.
    ///
    /// # Errors
    /// `Write`, `Unknown`.
    pub async fn answered(&self, id: &OpId) -> Result<(), JournalError> {
        self.write("an answer", Write::Answered(id.clone())).await.map(drop)
    }

    /// Unfinished operations in order of arrival. One whose secrets do not open with our key is among them, see
    /// [`Record::is_sealed`].
    ///
    /// # Errors
    /// `Read` when the file cannot be read.
    pub async fn unfinished(&self) -> Result<Vec<Record>, JournalError> {
        self.writer.read("unfinished operations", |store| store.unfinished()).await
    }

    /// Finished operations whose answer was not delivered, in order of arrival. One whose outcome does not open with our key
    /// has a null outcome, see [`Record::is_sealed`].
    ///
    /// # Errors
    /// `Read` when the file cannot be read.
    pub async fn unanswered(&self) -> Result<Vec<Record>, JournalError> {
        self.writer.read("unanswered operations", |store| store.unanswered()).await
    }

    /// One operation. Arguments and context of a closed one are null.
    ///
    /// # Errors
    /// `Sealed` if it does not open with our key, `Read` when the file cannot be read.
    pub async fn find(&self, id: &OpId) -> Result<Option<Record>, JournalError> {
        let id = id.clone();
        self.writer.read("an operation", move |store| store.find(&id)).await
    }

    /// The newest `n` operations, newest first.
    ///
    /// # Errors
    /// `Read` when the file cannot be read.
    pub async fn recent(&self, n: usize) -> Result<Vec<Record>, JournalError> {
        self.writer.read("recent operations", move |store| store.recent(n)).await
    }

    /// A small durable fact.
    ///
    /// # Errors
    /// `Read` when the file cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let key = key.to_owned();
        self.writer.read("a fact", move |store| store.fact(&key)).await
    }

    /// Stores a small durable fact (at most [`MAX_FACT`] bytes, in the clear: no secrets).
    ///
    /// # Errors
    /// `Write`, `TooLarge`.
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), JournalError> {
        let write = Write::Put(key.to_owned(), value);
        self.write("a fact", write).await.map(drop)
    }

    /// A small durable fact that was stored with [`Journal::put_sealed`].
    ///
    /// # Errors
    /// `Sealed` if it does not open with our key (the instance key was changed, or it was stored in the clear), `Read` when the
    /// file cannot be read.
    pub async fn get_sealed(&self, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, JournalError> {
        let key = key.to_owned();
        self.writer.read("a sealed fact", move |store| store.sealed_fact(&key)).await
    }

    /// Stores a small durable fact that holds secrets: it is sealed on disk, under a name of its own.
    ///
    /// # Errors
    /// `Write`, `TooLarge` (more than [`MAX_FACT`] bytes, some 30 of which the seal takes).
    pub async fn put_sealed(&self, key: &str, value: Vec<u8>) -> Result<(), JournalError> {
        let write = Write::PutSealed(key.to_owned(), SecretSlice::from(value));
        self.write("a sealed fact", write).await.map(drop)
    }

    /// The time stamp of the next message to the conductor: the later of `now` and one millisecond after the last one, in
    /// seconds with microseconds. Grows strictly over restarts, crashes and steps of the clock.
    ///
    /// # Errors
    /// `Write`: the time stamp was not recorded; the caller keeps its own order in memory.
    pub async fn next_sent(&self, now: f64) -> Result<f64, JournalError> {
        match self.write("the time of a message", Write::NextSent(now)).await? {
            Reply::Sent(sent) => Ok(sent),
            _ => Ok(now),
        }
    }

    async fn write(&self, doing: &'static str, write: Write) -> Result<Reply, JournalError> {
        self.writer.write(doing, write).await
    }
}
