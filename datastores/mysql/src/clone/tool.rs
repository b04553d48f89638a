//! The account and the option file that the backup tool logs in with. The password is in this file only, and the file is there only
//! until the tool has logged in. And room in the redo log: the tool reads it while the server goes round in it, and a receiver that is
//! slower than the writers would let the server come round first.

use super::COMPLETED;
use crate::conn::{Session, Sql};
use crate::datastore::Server;
use crate::{errors, password, sql};
use datastore_api::{Account, DriverError, ErrorKind, ExecError, ExposeSecret, FileMode, Host, Owner, Position};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// User of the tool, on this host only, and only while a copy is taken. Not replicated.
pub(crate) const USER: &str = "os_clone";
/// What the tool needs: to hold commits back for a moment, to see the engine's state, to read where the log is.
const RIGHTS: &str = "RELOAD, PROCESS, BINLOG MONITOR";

/// The tool's way in. Dropped, it is closed in the background.
pub(super) struct Login {
    host: Arc<dyn Host>,
    sql: Arc<Sql>,
    /// The option file.
    pub file: PathBuf,
    /// The size of the redo log to go back to, in bytes.
    redo_log: Option<u64>,
    /// Given back when all is removed: the next copy makes the same things. `None` once it is closed.
    turn: Option<OwnedMutexGuard<()>>,
}

/// Size of the redo log while a copy is taken, in bytes; a larger one stays as it is.
const REDO_LOG: u64 = 1 << 30;
/// How long the server may take to change it.
const RESIZE_LIMIT: Duration = Duration::from_secs(120);

impl Server {
    /// Makes account and file anew; what a killed agent left of them is replaced.
    pub(super) async fn open_login(&self, turn: OwnedMutexGuard<()>) -> Result<Login, DriverError> {
        let mut login = Login {
            host: Arc::clone(&self.context.host),
            sql: Arc::clone(&self.role),
            file: self.layout.run.join("clone.cnf"),
            redo_log: None,
            turn: Some(turn),
        };
        let password = password::generate(self.context.password_length)?;
        let account = account();
        let clause = self.flavour.scheme.clause(&password);
        let mut session = self.role.session().await?;
        let doing = "create the account of the backup tool";
        session
            .run(doing, format!("CREATE OR REPLACE USER {account} {clause}"))
            .await?;
        session.run(doing, format!("GRANT {RIGHTS} ON *.* TO {account}")).await?;
        let text = format!(
            "[client]\nuser = {USER}\npassword = {}\nsocket = {}\n",
            password.expose_secret(),
            self.layout.socket.display()
        );
        let mode = FileMode {
            mode: 0o600,
            owner: Some(Owner {
                user: self.context.service_user.clone(),
            }),
        };
        let written = self.context.host.write_atomic(&login.file, text.as_bytes(), &mode).await;
        written.map_err(|error| errors::file("write", &login.file, error))?;
        login.redo_log = self.widen_redo_log().await?;
        Ok(login)
    }

    /// Makes the redo log large, where the disk has the room. Answers its size before if that was another.
    async fn widen_redo_log(&self) -> Result<Option<u64>, DriverError> {
        let mut session = self.role.session().await?;
        let rows: Vec<u64> = session
            .rows("look at the redo log", "SELECT @@innodb_log_file_size", ())
            .await?;
        let now = rows.into_iter().next().unwrap_or(REDO_LOG);
        if now >= REDO_LOG || self.free_space(&self.layout.data).await? < 4 * REDO_LOG {
            return Ok(None);
        }
        // A small one is enough most of the time, and the tool says when it was not.
        let widened = set_redo_log(&mut session, REDO_LOG).await;
        Ok(widened
            .inspect_err(|error| tracing::warn!(%error, "a copy is taken with a small redo log"))
            .ok()
            .map(|()| now))
    }
}

impl Login {
    /// Removes the file: the tool has read it.
    pub async fn hide(&self) -> Result<(), DriverError> {
        let removed = self.host.remove(&self.file).await;
        removed.map(drop).map_err(|error| errors::file("remove", &self.file, error))
    }

    /// Removes file and account.
    pub async fn close(mut self) -> Result<(), DriverError> {
        self.hide().await?;
        end(&self.sql, self.redo_log).await?;
        self.turn = None;
        Ok(())
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if let Some(turn) = self.turn.take() {
            let (host, sql, file, redo_log) = (
                Arc::clone(&self.host),
                Arc::clone(&self.sql),
                self.file.clone(),
                self.redo_log,
            );
            runtime.spawn(async move {
                let _ = host.remove(&file).await;
                if let Err(error) = end(&sql, redo_log).await {
                    tracing::warn!(%error, "the account of the backup tool stays until the next copy");
                }
                drop(turn);
            });
        }
    }
}

fn account() -> String {
    sql::account(&Account {
        name: USER.to_owned(),
        host: "localhost".to_owned(),
    })
}

/// The statement that removes the account.
pub(super) fn drop_statement() -> String {
    format!("DROP USER IF EXISTS {}", account())
}

/// Removes the account and gives the redo log its size back.
async fn end(sql: &Sql, redo_log: Option<u64>) -> Result<(), DriverError> {
    let mut session = sql.session().await?;
    session.run("remove the account of the backup tool", drop_statement()).await?;
    if let Some(size) = redo_log
        && let Err(error) = set_redo_log(&mut session, size).await
    {
        // The copy is as good as any, and the next start of the server puts it right.
        tracing::warn!(%error, "the redo log stays large until the server is restarted");
    }
    Ok(())
}

async fn set_redo_log(session: &mut Session, size: u64) -> Result<(), DriverError> {
    session.set_limit(RESIZE_LIMIT);
    let statement = format!("SET GLOBAL innodb_log_file_size = {size}");
    session.run("resize the redo log", statement).await
}

/// `Failed` unless the tool's last word is that it is through.
pub(super) fn check_completed(words: &str) -> Result<(), DriverError> {
    if words.trim_end().lines().last().is_some_and(|line| line.ends_with(COMPLETED)) {
        return Ok(());
    }
    let text = format!("the backup tool ended without a word of success: {}", last_lines(words));
    Err(DriverError::new(ErrorKind::Failed, text))
}

/// Binary log and position, as the tool tells them at its end.
pub(super) fn log_and_position(words: &str) -> Option<(&str, Position)> {
    let line = words
        .lines()
        .rev()
        .find(|line| line.contains("binlog position: filename '"))?;
    let quoted = |after: &str| {
        let rest = &line[line.find(after)? + after.len()..];
        Some(&rest[..rest.find('\'')?])
    };
    let gtid = quoted("GTID of the last change '").unwrap_or_default();
    Some((quoted("filename '")?, Position(gtid.to_owned())))
}

/// An error of a tool: of all that it said, what people need.
pub(super) fn failed(doing: &'static str) -> impl Fn(ExecError) -> DriverError {
    move |mut error| {
        let words = match &mut error {
            ExecError::Exit { stderr_tail, .. }
            | ExecError::Deadline { stderr_tail, .. }
            | ExecError::Stalled { stderr_tail, .. } => stderr_tail,
            ExecError::Start { .. } => return errors::program(doing, error),
        };
        *words = last_lines(words);
        errors::program(doing, error)
    }
}

/// The last errors in what a program said, or its last line, in one line for people.
fn last_lines(words: &str) -> String {
    let is_error =
        |line: &&str| ["rror", "ailed", "denied"].iter().any(|sign| line.contains(sign)) && !line.contains("setrlimit");
    let mut lines: Vec<&str> = words.lines().filter(is_error).collect();
    if lines.is_empty() {
        lines = words.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(1));
    }
    lines[lines.len().saturating_sub(3)..].join("; ").chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_read_from_the_tools_words() {
        let words = "[00] x All tables unlocked\n\
                     [00] x MySQL binlog position: filename 'mysqld-bin.000003', position '974', GTID of the last change '0-1-4,1-1-2'\n\
                     [00] x completed OK!\n";
        assert_eq!(
            log_and_position(words),
            Some(("mysqld-bin.000003", Position("0-1-4,1-1-2".into())))
        );
        check_completed(words).unwrap();
        let fresh = "MySQL binlog position: filename 'a.000001', position '329', GTID of the last change ''";
        assert_eq!(log_and_position(fresh), Some(("a.000001", Position::default())));
        let error = check_completed(fresh).unwrap_err().to_string();
        assert!(error.contains("a.000001"), "{error}");
        assert_eq!(log_and_position("completed OK!"), None);
        assert!(check_completed("").is_err());
    }
}
