//! A restore under way.

use super::room::Room;
use crate::datastore::Server;
use crate::errors;
use crate::marker::Progress;
use crate::tool::checkpoints::Notes;
use async_trait::async_trait;
use datastore_api::{
    DriverError, ErrorKind, LogSource, Position, ReplayPlan, Replayed, Restore, RestorePlace, Restored, RestoredAs,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

/// How long to wait for the end of another restore, which was given up just now and is still being cleared away.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// How long a server over restored data that are given up may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A restore under way.
struct Restoring {
    server: Server,
    id: String,
    place: RestorePlace,
    room: Room,
    /// What the last stream said of itself; `None` before the first.
    last: Option<Notes>,
    /// Where the next increment must begin: known once the redo log was applied.
    joined: Option<u64>,
    /// Where a log that was replayed over it has come to.
    replayed: Option<Position>,
    /// Given back when the room is empty again. A scratch server is in nobody's way.
    turn: Option<OwnedMutexGuard<()>>,
    is_over: bool,
}

fn no_fit(text: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::WrongData, text)
}

impl Server {
    /// Begins a restore.
    pub(super) async fn open_restore(&self, id: &str, place: &RestorePlace) -> Result<Box<dyn Restore>, DriverError> {
        let mut turn = None;
        if !matches!(place, RestorePlace::Scratch(_)) {
            let waiting = timeout(TURN_LIMIT, Arc::clone(&self.restoring).lock_owned());
            turn = Some(waiting.await.map_err(|_| {
                let text = "another backup is being restored here";
                DriverError::new(ErrorKind::Exists, text)
            })?);
            self.take_back().await?;
        }
        let room = self.make_room(place).await?;
        tracing::info!(backup = id, folder = %room.new.display(), "a backup is being restored");
        Ok(Box::new(Restoring {
            server: self.clone(),
            id: id.to_owned(),
            place: place.clone(),
            room,
            last: None,
            joined: None,
            replayed: None,
            turn,
            is_over: false,
        }))
    }

    /// Leaves nothing of it behind. The half-filled data directory of a new guest is empty again.
    async fn clear_restore(&self, place: &RestorePlace, room: &Room) -> Result<(), DriverError> {
        if *place == RestorePlace::Empty {
            self.stop_server(STOP_LIMIT).await?;
            self.mark(Progress::Restoring).await?;
            self.remove_folder(&room.new).await?;
            self.make_own_dir(&room.new).await?;
        }
        self.remove_room(room).await
    }
}

impl Restoring {
    /// Whether everybody else goes first: where another server runs beside it.
    fn gives_way(&self) -> bool {
        self.place != RestorePlace::Empty
    }

    async fn unpack_base(&mut self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<(), DriverError> {
        let found = self.server.unpack_into(&self.room.new, from, self.gives_way()).await?;
        let checkpoints = found.notes.checkpoints()?;
        if checkpoints.kind != "full-backuped" {
            let text = format!(
                "the first stream is not of a full backup but '{}'",
                checkpoints.kind.escape_debug()
            );
            return Err(no_fit(text));
        }
        self.server
            .check_backup_version(&found.notes.server_version().unwrap_or_default())
            .await?;
        self.last = Some(found.notes);
        Ok(())
    }

    /// Applies the redo log to what is there, if that was not done.
    async fn join(&mut self) -> Result<u64, DriverError> {
        if let Some(lsn) = self.joined {
            return Ok(lsn);
        }
        let checkpoints = self.server.apply(&self.room.new, None, self.gives_way()).await?;
        self.joined = Some(checkpoints.to_lsn);
        Ok(checkpoints.to_lsn)
    }

    async fn unpack_increment(&mut self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<(), DriverError> {
        let have = self.join().await?;
        let increment = self.room.increment.clone();
        let removed = self.server.context.host.remove_tree(&increment).await;
        removed.map_err(|error| errors::file("remove", &increment, error))?;
        self.server.make_own_dir(&increment).await?;
        let found = self.server.unpack_into(&increment, from, self.gives_way()).await?;
        let checkpoints = found.notes.checkpoints()?;
        if checkpoints.kind != "incremental" || checkpoints.from_lsn != have {
            let text = format!(
                "the next stream is '{}' from {} of the redo log, what came before it ends at {have}: it does not come next",
                checkpoints.kind.escape_debug(),
                checkpoints.from_lsn
            );
            return Err(no_fit(text));
        }
        let joined = self.server.apply(&self.room.new, Some(&increment), self.gives_way()).await?;
        // Versions of the tool differ in whether they note the new end in the folder.
        if joined.to_lsn != checkpoints.to_lsn && joined.to_lsn != have {
            let text = format!(
                "after the increment the copy ends at {}, not at {}",
                joined.to_lsn, checkpoints.to_lsn
            );
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        self.joined = Some(checkpoints.to_lsn);
        self.last = Some(found.notes);
        let removed = self.server.context.host.remove_tree(&increment).await;
        removed.map(drop).map_err(|error| errors::file("remove", &increment, error))
    }

    async fn make_server(&mut self, as_what: RestoredAs) -> Result<Restored, DriverError> {
        let notes = self.last.take().ok_or_else(|| {
            let text = "nothing was unpacked that could become a server";
            DriverError::new(ErrorKind::Failed, text)
        })?;
        self.join().await?;
        let (server, room) = (&self.server, &self.room);
        server.remove_tools_files(&room.new).await?;
        server.set_own_accounts(&room.new).await?;
        let (log_file, log_offset, position) = match (self.replayed.take(), notes.binlog()) {
            // The files of the log from which it came are another server's.
            (Some(position), _) => (None, None, position),
            (None, Some((file, offset, position))) => (Some(file), Some(offset), position),
            (None, None) => Default::default(),
        };
        let mut restored = Restored {
            position,
            log_file,
            log_offset,
            scratch: None,
        };
        match &self.place {
            RestorePlace::Scratch(_) => {
                restored.scratch = Some(server.start_scratch(room).await?);
                return Ok(restored);
            }
            RestorePlace::Empty => {
                server.sync_disk_of(&room.new).await?;
                server.mark(Progress::Restored).await?;
                server.start_copy(&restored.position).await?;
                if as_what == RestoredAs::Open {
                    server.open_as_configured().await?;
                }
                server.remove_room(room).await?;
            }
            RestorePlace::Replace => {
                server.sync_disk_of(&room.new).await?;
                // In a task of its own: whoever waits for it may go away, the exchange does not stop half way.
                let (server, room, position) = (server.clone(), room.clone(), restored.position.clone());
                let exchanging = tokio::spawn(async move { server.exchange(&room, &position, as_what).await });
                exchanging
                    .await
                    .map_err(|error| DriverError::caused(ErrorKind::Failed, "could not exchange the data", error))??;
            }
        }
        tracing::info!(backup = self.id, position = %restored.position, "a backup was restored");
        Ok(restored)
    }
}

#[async_trait]
impl Restore for Restoring {
    async fn unpack(&mut self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<(), DriverError> {
        match self.last {
            None => self.unpack_base(from).await,
            Some(_) => self.unpack_increment(from).await,
        }
    }

    async fn replay(&mut self, plan: &ReplayPlan, log: &mut dyn LogSource) -> Result<Replayed, DriverError> {
        let from = self.last.as_ref().and_then(Notes::binlog).map(|(_, _, position)| position);
        let from = from
            .ok_or_else(|| no_fit("what was unpacked does not say at which transaction it is: no log can be replayed over it"))?;
        self.join().await?;
        self.server.set_own_accounts(&self.room.new).await?;
        let replayed = self.server.replay_into(&self.room.new, &from, plan, log).await?;
        self.replayed = Some(replayed.position.clone());
        Ok(replayed)
    }

    async fn finish(mut self: Box<Self>, as_what: RestoredAs) -> Result<Restored, DriverError> {
        let made = self.make_server(as_what).await;
        if made.is_ok() {
            self.is_over = true;
        } else if let Err(error) = self.server.clear_restore(&self.place, &self.room).await {
            tracing::warn!(%error, "something of a failed restore stays behind");
        } else {
            self.is_over = true;
        }
        made
    }

    async fn abandon(mut self: Box<Self>) -> Result<(), DriverError> {
        self.server.clear_restore(&self.place, &self.room).await?;
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.is_over {
            return;
        }
        let (server, place, room, turn) = (self.server.clone(), self.place.clone(), self.room.clone(), self.turn.take());
        runtime.spawn(async move {
            // An exchange that goes on by itself is not disturbed.
            let exchanges = matches!(server.marker().await, Ok(Some(marker)) if marker.progress == Progress::Exchanging);
            if !exchanges && let Err(error) = server.clear_restore(&place, &room).await {
                tracing::warn!(%error, "something of a restore that was given up stays behind");
            }
            drop(turn);
        });
    }
}
