//! Taking a backup.

use super::sample;
use crate::datastore::Server;
use crate::tool::{Copying, Purpose};
use datastore_api::{BackupKind, DriverError, EngineFacts, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

/// How long to wait for the end of another backup, which was given up just now and is still being cleared away.
const TURN_LIMIT: Duration = Duration::from_secs(10);

impl Server {
    /// Streams a backup.
    pub(super) async fn stream_backup(
        &self,
        kind: &BackupKind,
        out: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<EngineFacts, DriverError> {
        let waiting = timeout(TURN_LIMIT, Arc::clone(&self.backing_up).lock_owned());
        let turn = waiting.await.map_err(|_| {
            let text = "another backup of this server is being taken";
            DriverError::new(ErrorKind::Failed, text)
        })?;
        let (before, lsn) = self.read_facts_and_lsn().await?;
        let since = match kind {
            BackupKind::Full => None,
            BackupKind::Incremental { parent } => Some(self.check_parent(parent, self.lineage().await?.as_deref(), lsn)?),
        };
        let lineage = self.ensure_lineage().await?;
        let chosen = self.sample_tables().await;
        let applies = self.read_status().await?.applying;
        let mut login = self.open_login(Purpose::Backup, turn).await?;
        login.stops_appliers = applies;
        let copying = Copying {
            login: &login,
            first: None,
            since,
            gives_way: true,
            lock_limit: Some(self.settings.backup_lock_limit),
        };
        let sent = self.copy_out(copying, out).await;
        let closed = login.close().await;
        let found = sent?;
        closed?;
        let mut facts = EngineFacts {
            lineage,
            stream_bytes: found.bytes,
            sample: sample::unchanged(chosen, &self.sample_tables().await),
            ..before
        };
        (facts.log_file, facts.log_offset) = (None, None);
        found.notes.tell(&mut facts)?;
        let checkpoints = found.notes.checkpoints()?;
        let wanted = if since.is_some() { "incremental" } else { "full-backuped" };
        if checkpoints.kind != wanted || checkpoints.from_lsn != since.unwrap_or_default() {
            let text = format!(
                "the backup tool was asked for {wanted} from {} and made {} from {}",
                since.unwrap_or_default(),
                checkpoints.kind,
                checkpoints.from_lsn
            );
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        if let Some(log) = &facts.log_file {
            self.check_log_is_kept(log).await?;
        }
        Ok(facts)
    }
}
