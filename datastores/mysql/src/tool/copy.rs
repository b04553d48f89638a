//! The tool reads a running server and writes a stream. Writes go on; commits wait for moments only, or the tool gives way.

use super::locks::Limit;
use super::xbstream::{Found, Scanner};
use super::{BUFFER, IDLE, Login, check_completed, failed};
use crate::datastore::Server;
use crate::errors;
use datastore_api::{Cmd, DriverError, ErrorKind, Pipes};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How often the tool looks for new redo log, in milliseconds. Its own default of a second is what commits wait for at the end.
const LOG_INTERVAL: u32 = 50;
/// Open files the tool may need: one for each table.
const OPEN_FILES: u32 = 65_536;
/// How long the appliers of a replica may have temporary tables open, in seconds.
const APPLIERS_LIMIT: u32 = 60;

/// What to copy, and how.
pub(crate) struct Copying<'c> {
    /// The tool's way in.
    pub login: &'c Login,
    /// Written before the first byte of the stream, once there is one.
    pub first: Option<String>,
    /// The log sequence number to begin at; everything if `None`.
    pub since: Option<u64>,
    /// Whether everybody else goes first.
    pub gives_way: bool,
    /// How long anybody may wait for a lock because of it.
    pub lock_limit: Option<Duration>,
}

impl Server {
    /// Streams a copy. `Ok` only if the tool says so by its exit code and its last word, and the stream is whole.
    pub(crate) async fn copy_out(
        &self,
        copying: Copying<'_>,
        out: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<Found, DriverError> {
        let Some(limit) = copying.lock_limit else {
            return self.stream(copying, out).await;
        };
        let locks = self.too_long_a_lock(Limit {
            user: copying.login.user(),
            limit,
        });
        // Whoever loses is dropped: with the stream, the tool.
        tokio::select! {
            biased;
            copied = self.stream(copying, out) => copied,
            error = locks => Err(error),
        }
    }

    async fn stream(&self, copying: Copying<'_>, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Found, DriverError> {
        let doing = "take a copy of the server";
        let spawned = self.context.host.spawn(self.copy_command(&copying), Pipes::Stdout).await;
        let mut running = spawned.map_err(failed(doing))?;
        let mut output = running.stdout.take().expect("its standard output was asked for");
        let mut buffer = vec![0; BUFFER];
        let mut scanner = Scanner::default();
        let mut first = Some(copying.first.unwrap_or_default());
        loop {
            let read = output.read(&mut buffer).await;
            let n = read.map_err(|error| DriverError::caused(ErrorKind::Failed, "could not read the copy", error))?;
            if n == 0 {
                break;
            }
            scanner.feed(&buffer[..n])?;
            if let Some(first) = first.take() {
                // What cannot be begun is not announced; and from here on the tool does not need its option file.
                copying.login.hide().await?;
                if !first.is_empty() {
                    pass(out, first.as_bytes()).await?;
                }
            }
            pass(out, &buffer[..n]).await?;
        }
        let ended = running.wait().await.map_err(failed(doing))?;
        check_completed(&ended.stderr_tail)?;
        let found = scanner.finish()?;
        pass(out, &[]).await?;
        Ok(found)
    }

    fn copy_command(&self, copying: &Copying<'_>) -> Cmd {
        let mut cmd = Cmd::new(self.flavour.backup_tool)
            .arg(format!("--defaults-file={}", copying.login.file.display()))
            .arg("--backup")
            .arg("--stream=mbstream")
            .arg(format!("--datadir={}", self.layout.data.display()))
            .arg(format!("--log-copy-interval={LOG_INTERVAL}"))
            .arg(format!("--open-files-limit={OPEN_FILES}"))
            .user(self.context.service_user.clone())
            .deadline(IDLE);
        if let Some(since) = copying.since {
            cmd = cmd.arg(format!("--incremental-lsn={since}"));
        }
        if copying.login.stops_appliers {
            // Parallel appliers let go of the lock that holds commits back while they wait for one another: only when they stand still
            // is the position what is in the data.
            cmd = cmd
                .arg("--safe-slave-backup")
                .arg(format!("--safe-slave-backup-timeout={APPLIERS_LIMIT}"));
        }
        cmd.gives_way = copying.gives_way;
        cmd
    }

    /// A copy is worth something only as long as what came after it can be had.
    pub(crate) async fn check_log_is_kept(&self, log: &str) -> Result<(), DriverError> {
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
