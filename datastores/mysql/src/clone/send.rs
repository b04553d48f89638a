//! Sending: the backup tool reads the running server and writes to the stream. Writes go on; commits wait for moments only.

use super::header::Header;
use super::{BUFFER, IDLE, tool};
use crate::datastore::Server;
use crate::errors;
use datastore_api::{Cmd, DriverError, ErrorKind, Pipes, Position};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How often the tool looks for new redo log, in milliseconds. Its own default of a second is what commits wait for at the end.
const LOG_INTERVAL: u32 = 50;
/// How long to wait for the end of another copy.
const TURN_LIMIT: Duration = Duration::from_secs(10);
/// Open files the tool may need: one for each table.
const OPEN_FILES: u32 = 65_536;

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
        let header = self.describe().await?;
        let login = self.open_login(turn).await?;
        let sent = self.stream(&header, &login, out).await;
        let closed = login.close().await;
        let words = sent?;
        closed?;
        let (log, position) = tool::log_and_position(&words)
            .ok_or_else(|| DriverError::new(ErrorKind::Failed, "the backup tool did not say at which position the copy is"))?;
        self.check_log_is_kept(log).await?;
        Ok(position)
    }

    async fn describe(&self) -> Result<Header, DriverError> {
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

    async fn stream(
        &self,
        header: &Header,
        login: &tool::Login,
        out: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<String, DriverError> {
        let host = &self.context.host;
        let cmd = Cmd::new(self.flavour.backup_tool)
            .arg(format!("--defaults-file={}", login.file.display()))
            .arg("--backup")
            .arg("--stream=mbstream")
            .arg(format!("--datadir={}", self.layout.data.display()))
            .arg(format!("--log-copy-interval={LOG_INTERVAL}"))
            .arg(format!("--open-files-limit={OPEN_FILES}"))
            .user(self.context.service_user.clone())
            .deadline(IDLE);
        let doing = "take a copy of the server";
        let mut running = host.spawn(cmd, Pipes::Stdout).await.map_err(tool::failed(doing))?;
        let mut output = running.stdout.take().expect("its standard output was asked for");
        let mut buffer = vec![0; BUFFER];
        let mut has_begun = false;
        loop {
            let read = output.read(&mut buffer).await;
            let n = read.map_err(|error| DriverError::caused(ErrorKind::Failed, "could not read the copy", error))?;
            if n == 0 {
                break;
            }
            if !has_begun {
                // What cannot be begun is not announced; and from here on the tool does not need its option file.
                has_begun = true;
                login.hide().await?;
                pass(out, header.line().as_bytes()).await?;
            }
            pass(out, &buffer[..n]).await?;
        }
        let output = running.wait().await.map_err(tool::failed(doing))?;
        tool::check_completed(&output.stderr_tail)?;
        pass(out, &[]).await?;
        Ok(output.stderr_tail)
    }

    /// A copy is worth something only as long as what came after it can be had.
    async fn check_log_is_kept(&self, log: &str) -> Result<(), DriverError> {
        let mut session = self.role.session().await?;
        let doing = "list the binary logs";
        let logs = session.try_text_rows::<(String, u64)>(doing, "SHOW BINARY LOGS").await?;
        let logs = logs.map_err(|error| errors::sql(doing, error))?;
        if logs.iter().any(|(name, _)| name == log) {
            return Ok(());
        }
        let text = format!("binary log {log}, where the copy begins, was removed while it was taken: keep the logs for longer");
        Err(DriverError::new(ErrorKind::Failed, text))
    }
}

/// Writes to the receiver; nothing to write: makes sure that all is on its way.
async fn pass(out: &mut (dyn AsyncWrite + Send + Unpin), bytes: &[u8]) -> Result<(), DriverError> {
    let passing = async {
        match bytes {
            [] => out.flush().await,
            bytes => out.write_all(bytes).await,
        }
    };
    match timeout(IDLE, passing).await {
        Ok(passed) => {
            passed.map_err(|error| DriverError::caused(ErrorKind::Unavailable, "the receiver of the copy went away", error))
        }
        Err(_) => {
            let text = format!("the receiver of the copy took nothing for {IDLE:?}");
            Err(DriverError::new(ErrorKind::Timeout, text))
        }
    }
}
