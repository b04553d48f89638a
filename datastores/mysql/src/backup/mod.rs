//! Backups of the server: streams out of it while it runs, and servers made of streams.
//!
//! Owns: what a backup is of, the folder beside the data where a restore grows, the exchange of the two, the scratch server, the frozen
//! moment. Uses: `tool` (the engine's own), the marker, the life cycle. Never does: compress, encrypt, store, or know where a stream goes.
//!
//! ```text
//! send     lineage · sample ── tool | stream ──► facts                                  the server goes on
//! restore  room ── unpack base ── unpack increment, join ─ … ─► own accounts ─┬─ exchange   Replace: mark · stop · rename · start · unmark
//!                                                                             ├─ start      Empty
//!                                                                             └─ scratch    own socket, no network
//! settle   what a killed agent left: the old data go back, the room is emptied
//! ```

mod exchange;
mod facts;
mod freeze;
mod restore;
mod room;
mod sample;
mod scratch;
mod send;

use crate::datastore::Server;
use async_trait::async_trait;
use datastore_api::{BackupKind, Backups, Change, DriverError, EngineFacts, Frozen, Restore, RestorePlace, Step};
pub(crate) use freeze::Hold;
use std::time::Duration;
use tokio::io::AsyncWrite;

#[async_trait]
impl Backups for Server {
    fn strategy(&self) -> &'static str {
        self.flavour.backup_strategy
    }

    fn extension(&self) -> &'static str {
        "xbstream"
    }

    fn restore_step(&self) -> Step {
        Step("data")
    }

    async fn describe(&self) -> Result<EngineFacts, DriverError> {
        self.read_facts().await
    }

    async fn send_backup(
        &self,
        kind: &BackupKind,
        out: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<EngineFacts, DriverError> {
        self.stream_backup(kind, out).await
    }

    async fn check_restore(&self, facts: &EngineFacts, bytes: u64, place: &RestorePlace) -> Result<(), DriverError> {
        self.check_backup_fits(facts, bytes, place).await
    }

    async fn begin_restore(&self, id: &str, place: &RestorePlace) -> Result<Box<dyn Restore>, DriverError> {
        self.open_restore(id, place).await
    }

    async fn settle(&self) -> Result<Option<String>, DriverError> {
        self.settle_restore().await
    }

    async fn freeze(&self, limit: Duration) -> Result<Frozen, DriverError> {
        self.freeze_volume(limit).await
    }

    async fn thaw(&self) -> Result<Change, DriverError> {
        self.thaw_volume().await
    }
}
