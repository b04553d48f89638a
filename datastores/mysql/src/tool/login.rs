//! The account and the option file that the backup tool logs in with. The password is in this file only, and the file is there only
//! until the tool has logged in. And room in the redo log: the tool reads it while the server goes round in it, and a receiver that is
//! slower than the writers would let the server come round first.

use crate::conn::{Session, Sql};
use crate::datastore::Server;
use crate::{errors, password, sql};
use datastore_api::{Account, DriverError, ExposeSecret, FileMode, Host, Owner};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// What the tool runs for: a copy for a replica and a backup may run at the same time, each with its own account. On this host only,
/// and only while the tool runs. Not replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A copy for another server.
    Clone,
    /// A backup.
    Backup,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::Clone, Self::Backup];

    /// User of the tool.
    pub fn user(self) -> &'static str {
        match self {
            Self::Clone => "os_clone",
            Self::Backup => "os_backup",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Clone => "clone.cnf",
            Self::Backup => "backup.cnf",
        }
    }

    fn account(self) -> String {
        sql::account(&Account {
            name: self.user().to_owned(),
            host: "localhost".to_owned(),
        })
    }
}

/// What the tool needs: to hold commits back for a moment, to see the engine's state, to read where the log is,
/// to stop appliers for that moment.
const RIGHTS: &str = "RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR, REPLICATION SLAVE ADMIN";

/// The redo log is large as long as somebody needs that.
#[derive(Debug, Default)]
pub(crate) struct Widened {
    users: u32,
    /// The size to go back to, in bytes.
    before: Option<u64>,
}

/// The tool's way in. Dropped, it is closed in the background.
pub(crate) struct Login {
    purpose: Purpose,
    host: Arc<dyn Host>,
    sql: Arc<Sql>,
    /// The option file.
    pub file: PathBuf,
    /// Present while we are one of those who need a large redo log.
    redo_log: Option<Arc<Mutex<Widened>>>,
    /// Whether the tool stops the appliers of a replica: should it be killed meanwhile, they are started again.
    pub stops_appliers: bool,
    /// Given back when all is removed: the next copy makes the same things. `None` once it is closed.
    turn: Option<OwnedMutexGuard<()>>,
}

/// Size of the redo log while a copy is taken, in bytes; a larger one stays as it is.
const REDO_LOG: u64 = 1 << 30;
/// How long the server may take to change it.
const RESIZE_LIMIT: Duration = Duration::from_secs(120);

impl Server {
    /// Makes account and file anew; what a killed agent left of them is replaced.
    pub(crate) async fn open_login(&self, purpose: Purpose, turn: OwnedMutexGuard<()>) -> Result<Login, DriverError> {
        let user = purpose.user();
        let mut login = Login {
            purpose,
            host: Arc::clone(&self.context.host),
            sql: Arc::clone(&self.role),
            file: self.layout.run.join(purpose.file()),
            redo_log: None,
            stops_appliers: false,
            turn: Some(turn),
        };
        let password = password::generate(self.context.password_length)?;
        let account = purpose.account();
        let clause = self.flavour.scheme.clause(&password);
        let mut session = self.role.session().await?;
        let doing = "create the account of the backup tool";
        session
            .run(doing, format!("CREATE OR REPLACE USER {account} {clause}"))
            .await?;
        session.run(doing, format!("GRANT {RIGHTS} ON *.* TO {account}")).await?;
        let text = format!(
            "[client]\nuser = {user}\npassword = {}\nsocket = {}\n",
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
        login.redo_log = Some(Arc::clone(&self.redo_log));
        let mut widened = self.redo_log.lock().await;
        widened.users += 1;
        if widened.before.is_none() {
            widened.before = self.widen_redo_log().await?;
        }
        drop(widened);
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
    /// User of the tool.
    pub fn user(&self) -> &'static str {
        self.purpose.user()
    }

    /// Removes the file: the tool has read it.
    pub async fn hide(&self) -> Result<(), DriverError> {
        let removed = self.host.remove(&self.file).await;
        removed.map(drop).map_err(|error| errors::file("remove", &self.file, error))
    }

    /// Removes file and account.
    pub async fn close(mut self) -> Result<(), DriverError> {
        self.hide().await?;
        // A close that is given up half way is finished in the background.
        let mut rest = self.rest();
        rest.end().await?;
        drop(rest.turn.take());
        Ok(())
    }
}

/// What is left to do at the end of the tool.
struct Rest {
    purpose: Purpose,
    host: Arc<dyn Host>,
    sql: Arc<Sql>,
    file: PathBuf,
    redo_log: Option<Arc<Mutex<Widened>>>,
    stops_appliers: bool,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Login {
    fn rest(&mut self) -> Rest {
        Rest {
            purpose: self.purpose,
            host: Arc::clone(&self.host),
            sql: Arc::clone(&self.sql),
            file: self.file.clone(),
            redo_log: self.redo_log.take(),
            stops_appliers: self.stops_appliers,
            turn: self.turn.take(),
        }
    }
}

impl Rest {
    /// Removes the account and gives the redo log its size back. May be repeated.
    async fn end(&mut self) -> Result<(), DriverError> {
        let mut session = self.sql.session().await?;
        if self.stops_appliers {
            // They run already after a tool that ended by itself; and who has become a source meanwhile has none.
            let _ = session.try_run("start the appliers again", "START SLAVE SQL_THREAD").await?;
        }
        session
            .run("remove the account of the backup tool", drop_statement(self.purpose))
            .await?;
        if let Some(redo_log) = self.redo_log.take() {
            let mut widened = redo_log.lock().await;
            widened.users = widened.users.saturating_sub(1);
            if widened.users == 0
                && let Some(size) = widened.before.take()
                && let Err(error) = set_redo_log(&mut session, size).await
            {
                // The copy is as good as any, and the next start of the server puts it right.
                tracing::warn!(%error, "the redo log stays large until the server is restarted");
            }
        }
        Ok(())
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let (Ok(runtime), Some(turn)) = (tokio::runtime::Handle::try_current(), self.turn.take()) else {
            return;
        };
        let mut rest = Rest {
            purpose: self.purpose,
            host: Arc::clone(&self.host),
            sql: Arc::clone(&self.sql),
            file: self.file.clone(),
            redo_log: self.redo_log.take(),
            stops_appliers: self.stops_appliers,
            turn: None,
        };
        runtime.spawn(async move {
            let _ = rest.host.remove(&rest.file).await;
            if let Err(error) = rest.end().await {
                tracing::warn!(%error, "the account of the backup tool stays until the next copy");
            }
            drop(turn);
        });
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if self.turn.is_some() {
            drop(self.rest());
        }
    }
}

/// The statement that removes the account.
fn drop_statement(purpose: Purpose) -> String {
    format!("DROP USER IF EXISTS {}", purpose.account())
}

/// The statements that remove all accounts of the tool, which a copy may have of its source.
pub(crate) fn drop_statements() -> impl Iterator<Item = String> {
    Purpose::ALL.into_iter().map(drop_statement)
}

async fn set_redo_log(session: &mut Session, size: u64) -> Result<(), DriverError> {
    session.set_limit(RESIZE_LIMIT);
    let statement = format!("SET GLOBAL innodb_log_file_size = {size}");
    session.run("resize the redo log", statement).await
}
