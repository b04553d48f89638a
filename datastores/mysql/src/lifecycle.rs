//! Start and stop: each ends as soon as the server does what was wanted, or as soon as it is clear that it will not.

use crate::datastore::Server;
use crate::errors;
use crate::marker::Progress;
use datastore_api::{Change, Cmd, DriverError, ErrorKind, FileMode, Owner, ServiceId, ServiceSpec, ServiceState};
use mysql_async::Conn;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks whether a starting server answers.
const POLL: Duration = Duration::from_millis(20);
/// How much of the error log is looked at.
const LOG_TAIL: usize = 16 << 10;
/// Limit of open files of the server.
const OPEN_FILES: u64 = 65_536;

impl Server {
    /// The server's service.
    pub(crate) fn service(&self) -> ServiceId {
        ServiceId(self.flavour.service.to_owned())
    }

    fn spec(&self, more: &[&str]) -> ServiceSpec {
        let more = more.iter().map(|arg| (*arg).to_owned());
        ServiceSpec {
            id: self.service(),
            program: self.flavour.server.into(),
            args: [
                format!("--defaults-file={}", self.layout.base.display()),
                format!("--datadir={}", self.layout.data.display()),
            ]
            .into_iter()
            .chain(more)
            .collect(),
            user: self.context.service_user.clone(),
            log_file: self.layout.error_log.clone(),
            open_files: OPEN_FILES,
        }
    }

    /// What the supervisor says about the service.
    pub(crate) async fn service_state(&self) -> Result<ServiceState, DriverError> {
        self.context
            .host
            .service_state(&self.service())
            .await
            .map_err(|error| errors::service("look at the server", error))
    }

    /// Folders that a reboot empties, and those of the logs.
    pub(crate) async fn make_runtime_folders(&self) -> Result<Change, DriverError> {
        let owner = || {
            Some(Owner {
                user: self.context.service_user.clone(),
            })
        };
        let mut folders = vec![(&self.layout.run, 0o755, owner()), (&self.layout.logs, 0o755, owner())];
        if self.layout.moved {
            folders.push((&self.layout.tmp, 0o1777, None));
        }
        let mut change = Change::Unchanged;
        for (path, mode, owner) in folders {
            let made = self.context.host.make_dir(path, &FileMode { mode, owner }).await;
            change = change.or(made.map_err(|error| errors::file("make", path, error))?);
        }
        Ok(change)
    }

    /// Starts the server and waits until it answers. `Failed` with the end of its log as soon as it has died, `Timeout` at the limit,
    /// `WrongData` if its data are an unfinished copy of another server's.
    pub(crate) async fn start_server(&self) -> Result<Change, DriverError> {
        self.take_back().await?;
        let unfinished = match self.marker().await?.map(|marker| marker.progress) {
            Some(Progress::Replacing) => {
                "an unfinished copy of another server's data and cannot be started: a copy must be received again"
            }
            Some(Progress::Restoring) => "an unfinished restore and cannot be started: the backup must be restored again",
            _ => return self.launch(&[]).await,
        };
        let text = format!("{} holds {unfinished}", self.layout.data.display());
        Err(DriverError::new(ErrorKind::WrongData, text))
    }

    /// Makes the next start of the running server an ordinary one.
    pub(crate) async fn remember_spec(&self) -> Result<Change, DriverError> {
        let started = self.context.host.start_service(&self.spec(&[])).await;
        started.map_err(|error| errors::service("start the server", error))
    }

    /// The same whatever the data are, and with these arguments.
    pub(crate) async fn launch(&self, more: &[&str]) -> Result<Change, DriverError> {
        self.make_runtime_folders().await?;
        if matches!(
            self.service_state().await?,
            ServiceState::Restarting { .. } | ServiceState::Failed { .. }
        ) {
            // Out of the supervisor's pauses, so that this start is judged by its own outcome.
            self.stop_server(self.context.state_change_limit).await?;
        }
        let log_before = self.log_tail().await;
        let started = self.context.host.start_service(&self.spec(more)).await;
        let change = started.map_err(|error| errors::service("start the server", error))?;
        self.wait_until_it_answers(&log_before).await?;
        Ok(change)
    }

    async fn wait_until_it_answers(&self, log_before: &str) -> Result<(), DriverError> {
        let limit = self.context.state_change_limit;
        let end = Instant::now() + limit;
        let options = self.sql.options().await?;
        let mut last_error = None;
        loop {
            let state = self.service_state().await?;
            match &state {
                ServiceState::Running { .. } => {}
                ServiceState::Stopped => {
                    return Err(DriverError::new(ErrorKind::Failed, "the server was stopped while it started"));
                }
                ServiceState::Restarting { last_exit } | ServiceState::Failed { last_exit } => {
                    return Err(self.died(last_exit, log_before).await);
                }
            }
            // A connection refused comes back at once; one that hangs is bounded by the limit of the whole.
            if self.layout.socket.exists() {
                let left = end.saturating_duration_since(Instant::now());
                match timeout(left, Conn::new(options.clone())).await {
                    Ok(Ok(conn)) => {
                        drop(conn);
                        return Ok(());
                    }
                    Ok(Err(error)) if errors::kind(&error) == ErrorKind::Unavailable => last_error = Some(error),
                    Ok(Err(error)) => return Err(errors::sql("log in to the server that just started", error)),
                    Err(_) => {}
                }
            }
            if Instant::now() >= end {
                let text = format!("the server did not answer within {limit:?}");
                return Err(match last_error {
                    Some(error) => DriverError::caused(ErrorKind::Timeout, text, error),
                    None => DriverError::new(ErrorKind::Timeout, text),
                });
            }
            let id = self.service();
            tokio::select! {
                () = self.context.host.service_changed(&id, &state) => {}
                () = sleep(POLL) => {}
            }
        }
    }

    async fn died(&self, last_exit: &str, log_before: &str) -> DriverError {
        let log = self.log_tail().await;
        let reason = reason(new_part(log_before, &log));
        let kind = if errors::is_full(&reason) {
            ErrorKind::NoSpace
        } else {
            ErrorKind::Failed
        };
        DriverError::new(
            kind,
            format!(
                "the server did not start: {last_exit}{}{reason}",
                if reason.is_empty() { "" } else { ": " }
            ),
        )
    }

    /// Stops the server and keeps it down.
    pub(crate) async fn stop_server(&self, limit: Duration) -> Result<Change, DriverError> {
        self.sql.forget_idle();
        self.role.forget_idle();
        self.forget_probe();
        let stopped = self.context.host.stop_service(&self.service(), limit).await;
        stopped.map_err(|error| errors::service("stop the server", error))
    }

    /// Free bytes where `path` is, or will be.
    pub(crate) async fn free_space(&self, path: &Path) -> Result<u64, DriverError> {
        let mut place = path;
        loop {
            match (self.context.host.free_space(place).await, place.parent()) {
                (Ok(free), _) => return Ok(free),
                (Err(error), Some(parent)) if error.kind() == std::io::ErrorKind::NotFound => place = parent,
                (Err(error), _) => return Err(errors::file("look at the free space of", path, error)),
            }
        }
    }

    /// The version of the installed server; empty if it does not tell.
    pub(crate) async fn installed_version(&self) -> Result<Vec<u32>, DriverError> {
        let doing = format!("ask {} for its version", self.flavour.server);
        let asked = Cmd::new(self.flavour.server)
            .arg("--no-defaults")
            .arg("--version")
            .deadline(Duration::from_secs(10));
        let output = self
            .context
            .host
            .run(asked)
            .await
            .map_err(|error| errors::program(&doing, error))?;
        let installed = String::from_utf8_lossy(&output.stdout);
        Ok(crate::prepare::numbers(installed.split("Ver ").nth(1).unwrap_or(&installed)).unwrap_or_default())
    }

    /// The end of the error log; empty if it cannot be read.
    pub(crate) async fn log_tail(&self) -> String {
        let bytes = self.context.host.read_tail(&self.layout.error_log, LOG_TAIL).await;
        String::from_utf8_lossy(&bytes.ok().flatten().unwrap_or_default()).into_owned()
    }
}

/// The lines of the log that are not in its earlier state.
fn new_part<'t>(before: &str, now: &'t str) -> &'t str {
    let mut from = before.len().saturating_sub(256);
    while !before.is_char_boundary(from) {
        from += 1;
    }
    let mark = &before[from..];
    match (mark.is_empty(), now.rfind(mark)) {
        (false, Some(at)) => &now[at + mark.len()..],
        _ => now,
    }
}

/// The last errors of a log, or its last line, in one line for people.
pub(crate) fn reason(log: &str) -> String {
    let error = |line: &&str| line.contains("[ERROR]") && !line.contains("Aborting");
    let mut lines: Vec<&str> = log.lines().filter(error).collect();
    if lines.is_empty() {
        lines = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(1));
    }
    let from = lines.len().saturating_sub(3);
    let words = lines[from..]
        .iter()
        .map(|line| line.split_once("[ERROR]").map_or(*line, |(_, words)| words).trim());
    words.collect::<Vec<_>>().join("; ").chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_the_last_errors_say() {
        let old = "2026-01-01  1:00:00 0 [ERROR] old trouble\n";
        let new = "2026-01-02  1:00:00 0 [Note] starting\n2026-01-02  1:00:00 0 [ERROR] mariadbd: unknown variable 'x=1'\n\
                   2026-01-02  1:00:00 0 [ERROR] Aborting\n";
        let log = format!("{old}{new}");
        assert_eq!(reason(new_part(old, &log)), "mariadbd: unknown variable 'x=1'");
        assert_eq!(reason(new_part("", "just a note\n\n")), "just a note");
        assert_eq!(reason(new_part(old, old)), "");
        assert_eq!(new_part("gone", "rotated"), "rotated");
    }
}
