//! A frozen moment, for who copies the whole volume from outside.
//!
//! ```text
//! freeze   lock all writes ── note the place in the log on the volume ── sync ── guardian ── freeze the file system
//! thaw     the guardian thaws ── unlock
//! ```
//! The guardian is a process of its own: it thaws when we say so, when the limit has passed, and when we are dead. It needs nothing
//! that lies on the frozen volume. The lock ends with our connection, or at the limit.

use super::facts::read_log_place;
use crate::conn::Session;
use crate::datastore::Server;
use crate::errors;
use crate::flavour::{FSFREEZE, SYNC};
use datastore_api::{Change, Cmd, DeadMan, DriverError, ErrorKind, FileMode, Frozen, Owner, Position, chain};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// Limit of one program here, and of the wait for the lock.
const LIMIT: Duration = Duration::from_secs(30);
/// Where upstream's restore looks for the position.
const POSITION_FILE: &str = "xtrabackup_binlog_info";

/// The frozen volume. Dropped, it thaws.
pub(crate) struct Hold {
    frozen: Frozen,
    session: Session,
    guardian: DeadMan,
    ender: AbortHandle,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.ender.abort();
    }
}

/// `Invalid` if the mount point is no file system of its own: the whole guest would stand still, the agent with it.
fn check_is_own(mount: &Path) -> Result<(), DriverError> {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev());
    let parent = mount.parent().unwrap_or(mount);
    let own = device(mount).map_err(|error| errors::file("look at", mount, error))?;
    let other = device(parent).map_err(|error| errors::file("look at", parent, error))?;
    if own != other {
        return Ok(());
    }
    let text = format!(
        "{} is no file system of its own: freezing it would freeze the whole guest",
        mount.display()
    );
    Err(DriverError::new(ErrorKind::Invalid, text))
}

impl Server {
    /// Freezes.
    pub(super) async fn freeze_volume(&self, limit: Duration) -> Result<Frozen, DriverError> {
        let mut held = self.frozen.lock().await;
        if let Some(hold) = held.as_ref().filter(|hold| !hold.guardian.has_acted()) {
            return Ok(hold.frozen.clone());
        }
        if let Some(late) = held.take() {
            self.release(late).await?;
        }
        let mount = self.context.mount_point.clone();
        check_is_own(&mount)?;
        let mut session = self.role.session().await?;
        session.set_limit(LIMIT + Duration::from_secs(5));
        let locked = format!(
            "SET STATEMENT lock_wait_timeout = {} FOR FLUSH TABLES WITH READ LOCK",
            LIMIT.as_secs()
        );
        session.run("hold all writes", locked).await?;
        // From here on whatever goes wrong ends with an unlock.
        match self.freeze_locked(&mut session, &mount, limit).await {
            Ok((frozen, guardian)) => {
                let ender = self.end_in_time(limit);
                let answer = frozen.clone();
                *held = Some(Hold {
                    frozen,
                    session,
                    guardian,
                    ender,
                });
                tracing::info!(?limit, "the data volume is frozen");
                Ok(answer)
            }
            Err(error) => {
                session.run("let writes go on", "UNLOCK TABLES").await?;
                Err(error)
            }
        }
    }

    async fn freeze_locked(
        &self,
        session: &mut Session,
        mount: &Path,
        limit: Duration,
    ) -> Result<(Frozen, DeadMan), DriverError> {
        let frozen = self.read_frozen(session).await?;
        if let (Some(file), Some(offset)) = (&frozen.log_file, frozen.log_offset) {
            let path = self.layout.data.join(POSITION_FILE);
            let mode = FileMode {
                mode: 0o640,
                owner: Some(Owner {
                    user: self.context.service_user.clone(),
                }),
            };
            let text = format!("{file}\t{offset}\t{}\n", frozen.position.0);
            let written = self.context.host.write_atomic(&path, text.as_bytes(), &mode).await;
            written.map_err(|error| errors::file("write", &path, error))?;
        }
        let mount = mount.display().to_string();
        let sync = Cmd::new(SYNC).arg("--file-system").arg(mount.clone()).deadline(LIMIT);
        let host = &self.context.host;
        let synced = host.run(sync).await;
        synced.map_err(|error| errors::program("write the volume to its disk", error))?;
        // The guardian before the ice: it must not have to be made while the machine may stand still.
        let thaw = Cmd::new(FSFREEZE).arg("--unfreeze").arg(mount.clone());
        let guardian = host.dead_man(thaw, limit).await;
        let mut guardian = guardian.map_err(|error| errors::program("start what thaws the volume", error))?;
        let freeze = Cmd::new(FSFREEZE).arg("--freeze").arg(mount).deadline(LIMIT);
        if let Err(error) = host.run(freeze).await {
            let _ = guardian.fire().await;
            return Err(errors::program("freeze the volume", error));
        }
        Ok((frozen, guardian))
    }

    async fn read_frozen(&self, session: &mut Session) -> Result<Frozen, DriverError> {
        let doing = "read the place in the binary log";
        let rows: Vec<(bool, String)> = session.rows(doing, "SELECT @@log_bin, @@gtid_current_pos", ()).await?;
        let Some((true, position)) = rows.into_iter().next() else {
            return Ok(Frozen::default());
        };
        let (log_file, log_offset) = read_log_place(session).await?.unzip();
        Ok(Frozen {
            position: Position(position),
            log_file,
            log_offset,
        })
    }

    /// Lets writes go on at the limit: the guardian only thaws.
    fn end_in_time(&self, limit: Duration) -> AbortHandle {
        let held = Arc::clone(&self.frozen);
        let ender = tokio::spawn(async move {
            sleep(limit).await;
            if let Some(hold) = held.lock().await.as_mut() {
                tracing::warn!("nobody thawed the data volume in time");
                let unlocked = hold.session.run("let writes go on", "UNLOCK TABLES").await;
                if let Err(error) = unlocked {
                    tracing::error!(%error, "writes are still held after a snapshot");
                }
            }
        });
        ender.abort_handle()
    }

    /// Thaws.
    pub(super) async fn thaw_volume(&self) -> Result<Change, DriverError> {
        let Some(hold) = self.frozen.lock().await.take() else {
            return Ok(self.thaw_foreign().await);
        };
        let was_late = hold.guardian.has_acted();
        self.release(hold).await?;
        if was_late {
            let text = "the volume was thawed before this, at its limit: a snapshot taken meanwhile is worth nothing";
            return Err(DriverError::new(ErrorKind::Timeout, text));
        }
        Ok(Change::Done)
    }

    async fn release(&self, mut hold: Hold) -> Result<(), DriverError> {
        hold.ender.abort();
        let has_acted = hold.guardian.has_acted();
        let thawed = hold.guardian.fire().await;
        let unlocked = hold.session.run("let writes go on", "UNLOCK TABLES").await;
        if let Err(error) = thawed
            && !has_acted
        {
            return Err(errors::program("thaw the volume", error));
        }
        // A lock that was lost with its connection let writes in behind the snapshot's back.
        unlocked.inspect_err(|error| tracing::error!(error = chain(error), "the lock of a snapshot was lost"))
    }

    /// What an agent before us may have left frozen; its guardian has most likely seen to that.
    async fn thaw_foreign(&self) -> Change {
        let mount = &self.context.mount_point;
        if check_is_own(mount).is_err() {
            return Change::Unchanged;
        }
        let thaw = Cmd::new(FSFREEZE)
            .arg("--unfreeze")
            .arg(mount.display().to_string())
            .deadline(LIMIT);
        // Not frozen: it fails.
        self.context.host.run(thaw).await.map_or(Change::Unchanged, |_| Change::Done)
    }
}
