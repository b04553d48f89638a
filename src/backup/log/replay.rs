//! The log on its way from the store to a restore.

use super::segment::Named;
use super::shelf::Shelf;
use super::window::Plan;
use crate::backup::BackupError;
use crate::storage::StorageErrorKind;
use async_trait::async_trait;
use datastore_api::{DriverError, ErrorKind, Feed, LogSource, Mark, ReplayPlan, Stretch};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

type Fetched = Result<Option<(Stretch, Vec<u8>)>, BackupError>;

/// Gives a plan's log to [`datastore_api::Restore::replay`]. The next piece is fetched while one is used.
pub struct Replay {
    shelf: Arc<Shelf>,
    left: VecDeque<(Named, Vec<Mark>)>,
    /// Where the last piece ended: timeline, file, byte.
    at: Option<(u64, String, u64)>,
    ahead: Option<Ahead>,
}

struct Ahead {
    named: Named,
    good_to: Vec<Mark>,
    task: JoinHandle<Fetched>,
}

impl Replay {
    /// For this plan.
    #[must_use]
    pub fn new(shelf: Arc<Shelf>, plan: &Plan) -> Self {
        let left = plan
            .pieces
            .iter()
            .map(|(piece, good_to)| (piece.named.clone(), good_to.clone()));
        Self {
            shelf,
            left: left.collect(),
            at: None,
            ahead: None,
        }
    }

    fn fetch_ahead(&mut self) {
        let Some((named, good_to)) = self.left.pop_front() else {
            return;
        };
        let (shelf, wanted) = (Arc::clone(&self.shelf), named.clone());
        let task = tokio::spawn(async move { fetch(&shelf, &wanted).await });
        self.ahead = Some(Ahead { named, good_to, task });
    }
}

impl Plan {
    /// What the driver is told.
    #[must_use]
    pub fn replay_plan(&self, limit: Duration) -> ReplayPlan {
        ReplayPlan {
            until: self.until,
            bytes: self.bytes,
            limit,
        }
    }

    /// Whether there is anything to replay.
    #[must_use]
    pub fn has_log(&self) -> bool {
        !self.pieces.is_empty()
    }
}

#[async_trait]
impl LogSource for Replay {
    async fn next(&mut self) -> Result<Option<Feed>, DriverError> {
        loop {
            if self.ahead.is_none() {
                self.fetch_ahead();
            }
            let Some(Ahead { named, good_to, task }) = self.ahead.take() else {
                return Ok(None);
            };
            self.fetch_ahead();
            let fetched = task.await.map_err(|error| failed(&named, error))?;
            let Some((stretch, bytes)) = fetched.map_err(|error| failed(&named, error))? else {
                let text = format!("{} is gone from the store", named.name);
                return Err(DriverError::new(ErrorKind::Failed, text));
            };
            // A piece that was joined to others in the meantime came already with one of them.
            let came = (named.timeline, stretch.file.clone(), stretch.to);
            let is_old = self
                .at
                .as_ref()
                .is_some_and(|(timeline, file, to)| (*timeline, file) == (came.0, &came.1) && came.2 <= *to);
            if !is_old {
                self.at = Some(came);
                return Ok(Some(Feed { stretch, bytes, good_to }));
            }
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.task.abort();
        }
    }
}

async fn fetch(shelf: &Shelf, wanted: &Named) -> Fetched {
    match shelf.read(wanted).await {
        Ok((header, bytes)) => return Ok(Some((header.stretch, bytes))),
        Err(BackupError::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let is_in = |named: &&Named| {
        let same = (named.timeline, &named.file) == (wanted.timeline, &wanted.file);
        same && named.from <= wanted.from && named.to >= wanted.to
    };
    let guest = wanted.name.as_str().split('/').nth(1).unwrap_or_default();
    if let Some(named) = shelf.names(guest).await?.iter().find(is_in) {
        let (header, bytes) = shelf.read(named).await?;
        return Ok(Some((header.stretch, bytes)));
    }
    Ok(None)
}

fn failed(named: &Named, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DriverError {
    DriverError::caused(
        ErrorKind::Failed,
        format!("could not read {} from the store", named.name),
        error,
    )
}
