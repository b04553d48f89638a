//! What people and programs see of the jobs: the one that runs, and how the last ones ended.

use super::Order;
use crate::backup::pipeline::Progress;
use crate::journal::Journal;
use chrono::{DateTime, SecondsFormat, Utc};
use datastore_api::chain;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tracing::warn;

/// Ended jobs that are remembered.
const KEPT: usize = 16;
/// Longest error that is remembered, characters.
const ERROR: usize = 1000;
/// The fact they are kept in.
const FACT: &str = "backup/ended";

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// Takes a backup.
    Backup,
    /// Replaces the data by a backup.
    Restore,
    /// Restores a backup to see whether it can be.
    Verify,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// As it should.
    Completed,
    /// It did not.
    Failed,
    /// Somebody wanted its end.
    Cancelled,
}

/// A job that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Id of the backup.
    pub id: String,
    /// What it did.
    pub doing: Doing,
    /// `full` or `incremental`.
    pub kind: Option<String>,
    /// How it ended.
    pub state: End,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// Why it did not end as it should.
    #[serde(default)]
    pub error: Option<String>,
    /// What there is to tell of it.
    #[serde(default)]
    pub result: Value,
}

/// A job that runs.
#[derive(Debug)]
struct Running {
    id: String,
    doing: Doing,
    kind: Option<String>,
    place: String,
    began: DateTime<Utc>,
    progress: watch::Receiver<Progress>,
}

/// The jobs, as they are seen.
pub struct Board {
    journal: Journal,
    running: Mutex<Option<Running>>,
    ended: Mutex<VecDeque<Ended>>,
}

/// A job on the board; it is taken off by [`Job::ended`], or, with no word, when this is dropped.
pub struct Job<'a> {
    board: &'a Board,
    began: DateTime<Utc>,
    progress: watch::Sender<Progress>,
}

impl Board {
    /// Reads how the last jobs ended.
    pub async fn load(journal: Journal) -> Self {
        let kept = match journal.get(FACT).await {
            Ok(kept) => kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            Err(error) => {
                warn!(error = chain(&error), "how the last backups ended is not known");
                None
            }
        };
        Self {
            journal,
            running: Mutex::default(),
            ended: Mutex::new(kept.unwrap_or_default()),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job begins.
    pub fn begin(&self, id: &str, doing: Doing, kind: Option<&str>, place: &str) -> Job<'_> {
        let (progress, seen) = watch::channel(Progress::default());
        let began = Utc::now();
        *self.running() = Some(Running {
            id: id.to_owned(),
            doing,
            kind: kind.map(ToOwned::to_owned),
            place: place.to_owned(),
            began,
            progress: seen,
        });
        Job {
            board: self,
            began,
            progress,
        }
    }

    /// A job that was cut off, or refused, before it was on the board.
    pub async fn note(&self, ended: Ended) {
        let bytes = {
            let mut list = self.list();
            list.retain(|other| other.id != ended.id || other.doing != ended.doing);
            list.push_front(ended);
            list.truncate(KEPT);
            serde_json::to_vec(&*list).expect("texts and numbers always encode")
        };
        if let Err(error) = self.journal.put(FACT, bytes).await {
            warn!(error = chain(&error), "how a backup ended is not recorded");
        }
    }

    /// All of it, as `get_backup_status` answers it. With an id only what is of that backup.
    #[must_use]
    pub fn shown(&self, id: Option<&str>) -> Value {
        let is_wanted = |other: &str| id.is_none_or(|id| id == other);
        let running = self
            .running()
            .as_ref()
            .filter(|running| is_wanted(&running.id))
            .map(|running| {
                json!({
                    "id": running.id,
                    "doing": running.doing,
                    "kind": running.kind,
                    "state": "running",
                    "storage": running.place,
                    "began": running.began.to_rfc3339_opts(SecondsFormat::Secs, true),
                    "progress": *running.progress.borrow(),
                })
            });
        let ended: Vec<_> = self.list().iter().filter(|ended| is_wanted(&ended.id)).cloned().collect();
        json!({"running": running, "ended": ended})
    }
}

impl Job<'_> {
    /// Where its progress is written.
    pub fn progress(&self) -> &watch::Sender<Progress> {
        &self.progress
    }

    /// Takes it off the board and remembers how it ended.
    pub async fn ended(self, state: End, error: Option<&str>, result: Value) {
        let running = self.board.running().take();
        let Some(running) = running else { return };
        let error = error.map(|error| error.chars().take(ERROR).collect());
        let ended = Ended {
            id: running.id,
            doing: running.doing,
            kind: running.kind,
            state,
            began: self.began,
            ended: Utc::now(),
            error,
            result,
        };
        self.board.note(ended).await;
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        *self.board.running() = None;
    }
}

/// What the control plane hears of the progress: the key of ours in `update_backup`.
#[must_use]
pub fn told(order: &Order, progress: &Progress) -> Value {
    json!({"id": order.id.as_str(), "progress": progress})
}
