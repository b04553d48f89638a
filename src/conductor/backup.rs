//! What the control plane is told of a backup: the columns of its row (contract section 7.4).

use super::{Conductor, context};
use serde_json::{Map, Value};

/// Only the newest progress of a backup waits for the broker; states all do.
const PROGRESS: &str = "update_backup";
/// The one key of ours beside upstream's, which its conductor leaves alone.
const OURS: &str = "trove_guestagent";

/// The states a guest reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupState {
    /// It runs.
    Building,
    /// The store has all of it.
    Completed,
    /// There is none.
    Failed,
}

impl BackupState {
    /// Its word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            BackupState::Building => "BUILDING",
            BackupState::Completed => "COMPLETED",
            BackupState::Failed => "FAILED",
        }
    }
}

/// A backup's row, as far as it is known. What is `None` stays as it is.
#[derive(Debug, Clone)]
pub struct BackupRow<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its state.
    pub state: BackupState,
    /// Used space of the data volume before the backup, GB.
    pub size: Option<f64>,
    /// `full` or `incremental`.
    pub kind: Option<&'a str>,
    /// The store's checksum of the whole.
    pub checksum: Option<&'a str>,
    /// URL of the whole.
    pub location: Option<&'a str>,
    /// Ours: how far it is, or why it failed.
    pub details: Option<Value>,
}

impl<'a> BackupRow<'a> {
    /// A row of which nothing but the state is known.
    #[must_use]
    pub fn new(id: &'a str, state: BackupState) -> Self {
        Self {
            id,
            state,
            size: None,
            kind: None,
            checksum: None,
            location: None,
            details: None,
        }
    }
}

impl Conductor {
    /// Reports the state of a backup that the request with this context asked for. Without a context nobody has a row for it, and
    /// nothing is sent.
    pub async fn update_backup(&self, context: &Map<String, Value>, row: &BackupRow<'_>) {
        if context.is_empty() {
            return;
        }
        let is_progress = row.state == BackupState::Building && row.details.is_some();
        let mut last = self.inner.last.lock().await;
        let sent = self.sent(&mut last).await;
        let mut args = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                args.insert(key.to_owned(), value);
            }
        };
        let success = match row.state {
            BackupState::Building => None,
            state => Some(Value::from(state == BackupState::Completed)),
        };
        put("backup_id", Some(Value::from(row.id)));
        put("sent", Some(Value::from(sent)));
        put("state", Some(Value::from(row.state.word())));
        put("size", row.size.map(Value::from));
        put("backup_type", row.kind.map(Value::from));
        put("checksum", row.checksum.map(Value::from));
        put("location", row.location.map(Value::from));
        put("success", success);
        put(OURS, row.details.clone());
        let collapse = is_progress.then_some(PROGRESS);
        self.cast("update_backup", args, context::echo(context, None), collapse);
    }

    /// Reports that a backup failed, so that its row does not wait for ever.
    pub async fn backup_failed(&self, context: &Map<String, Value>, backup_id: &str) {
        self.update_backup(context, &BackupRow::new(backup_id, BackupState::Failed))
            .await;
    }
}
