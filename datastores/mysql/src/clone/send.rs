//! Sending: the backup tool reads the running server and writes to the stream. Writes go on; commits wait for moments only.

use super::header::Header;
use crate::datastore::Server;
use crate::tool::{Copying, Purpose};
use datastore_api::{DriverError, ErrorKind, Position};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

/// How long to wait for the end of another copy.
const TURN_LIMIT: Duration = Duration::from_secs(10);

impl Server {
    /// Streams a copy and answers the position it was taken at. `NotSupported` without a binary log, `Unavailable` when the reader of
    /// the stream has gone.
    pub(crate) async fn send_copy(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Position, DriverError> {
        // A copy that was given up just now is still being cleared away.
        let waiting = timeout(TURN_LIMIT, Arc::clone(&self.copying).lock_owned());
        let turn = waiting.await.map_err(|_| {
            let text = "another copy of this server is being taken";
            DriverError::new(ErrorKind::Failed, text)
        })?;
        let header = self.describe_copy().await?;
        let login = self.open_login(Purpose::Clone, turn).await?;
        let copying = Copying {
            login: &login,
            first: Some(header.line()),
            since: None,
            gives_way: false,
            lock_limit: None,
        };
        let sent = self.copy_out(copying, out).await;
        let closed = login.close().await;
        let copied = sent?;
        closed?;
        let (log, _, position) = copied.notes.binlog().ok_or_else(|| {
            let text = "the backup tool did not say at which position the copy is";
            DriverError::new(ErrorKind::Failed, text)
        })?;
        self.check_log_is_kept(&log).await?;
        Ok(position)
    }

    async fn describe_copy(&self) -> Result<Header, DriverError> {
        let mut session = self.role.session().await?;
        let query = "SELECT @@log_bin, @@version, @@binlog_expire_logs_seconds, \
                     (SELECT CAST(COALESCE(SUM(ALLOCATED_SIZE), 0) AS UNSIGNED) FROM information_schema.INNODB_SYS_TABLESPACES)";
        let rows: Vec<(bool, String, u64, u64)> = session.rows("look at the data to copy", query, ()).await?;
        let (has_log, version, expiry, bytes) = rows
            .into_iter()
            .next()
            .ok_or_else(|| DriverError::new(ErrorKind::Failed, "the server did not describe its data"))?;
        if !has_log {
            let text = "this server writes no binary log: who has a copy of it could not follow it";
            return Err(DriverError::new(ErrorKind::NotSupported, text));
        }
        if (1..86_400).contains(&expiry) {
            tracing::warn!(
                expiry,
                "binary logs are kept for less than a day: a copy that takes longer cannot be followed"
            );
        }
        Ok(Header { version, bytes })
    }
}
