//! The restored data take the place of the old ones, or do not.
//!
//! ```text
//! mark Exchanging ── stop ── data → old ── new → data ── start, closed ── it answers ── unmark ── remove old
//!        └──────────── an error, or a kill of the agent: stop ── data → failed ── old → data ── unmark ── start ┘
//! ```
//! The marker decides: as long as it is there the old data are the good ones, wherever they lie; no server is started over it.

use super::room::Room;
use crate::datastore::Server;
use crate::errors;
use crate::marker::Progress;
use datastore_api::{DriverError, ErrorKind, Position, RestorePlace, RestoredAs, ServiceState, chain};
use std::path::Path;
use std::time::Duration;

/// How long a server over new data that are given up may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

impl Server {
    /// Exchanges the data. After an error the old ones are back and the server runs as it did.
    pub(super) async fn exchange(&self, room: &Room, position: &Position, as_what: RestoredAs) -> Result<(), DriverError> {
        // A copy of a source that was cut off left nothing that is worth keeping, and nothing that runs.
        let was_cut_off = self.marker().await?.is_some();
        let ran = !was_cut_off
            && matches!(
                self.service_state().await?,
                ServiceState::Running { .. } | ServiceState::Restarting { .. }
            );
        self.mark(Progress::Exchanging).await?;
        if let Err(error) = self.put_in_place(room, position).await {
            return Err(self.undo(error, ran, was_cut_off).await);
        }
        self.unmark().await?;
        if as_what == RestoredAs::Open {
            self.open_as_configured().await?;
        }
        if let Err(error) = self.remove_room(room).await {
            tracing::warn!(%error, "the data from before the restore stay until the next start");
        }
        Ok(())
    }

    async fn put_in_place(&self, room: &Room, position: &Position) -> Result<(), DriverError> {
        let data = &self.layout.data;
        self.stop_server(self.context.state_change_limit).await?;
        if self.is_there(data).await? {
            self.rename(data, &room.old).await?;
        }
        self.rename(&room.new, data).await?;
        self.start_copy(position).await.map(drop)
    }

    /// Takes the exchange back; answers the error with what became of it.
    async fn undo(&self, error: DriverError, ran: bool, was_cut_off: bool) -> DriverError {
        let kind = error.kind();
        let taken_back = async {
            self.put_old_back().await?;
            if was_cut_off {
                self.mark(Progress::Replacing).await?;
            } else {
                self.unmark().await?;
                if ran {
                    self.start_server().await?;
                }
            }
            Ok::<(), DriverError>(())
        };
        match taken_back.await {
            Ok(()) => DriverError::caused(
                kind,
                "the restored data could not be put in place; the old data are back",
                error,
            ),
            Err(second) => {
                let text = format!(
                    "the restored data could not be put in place, and the old data could not be brought back: {}",
                    chain(&second)
                );
                DriverError::caused(kind, text, error)
            }
        }
    }

    /// The old data where they belong, from wherever an exchange was left. May be repeated.
    async fn put_old_back(&self) -> Result<(), DriverError> {
        let (room, data) = (self.room(&RestorePlace::Replace), &self.layout.data);
        self.stop_server(STOP_LIMIT).await?;
        if !self.is_there(&room.old).await? {
            return Ok(());
        }
        if self.is_there(data).await? {
            let removed = self.context.host.remove_tree(&room.failed).await;
            removed.map_err(|error| errors::file("remove", &room.failed, error))?;
            self.rename(data, &room.failed).await?;
        }
        self.rename(&room.old, data).await
    }

    /// Takes an exchange back that a killed agent left; starts nothing. Whether there was one.
    pub(crate) async fn take_back(&self) -> Result<bool, DriverError> {
        if !matches!(self.marker().await?, Some(marker) if marker.progress == Progress::Exchanging) {
            return Ok(false);
        }
        self.put_old_back().await?;
        self.unmark().await?;
        tracing::warn!("a restore was cut off while the data were exchanged: the old data are back");
        Ok(true)
    }

    /// Finishes what a killed agent left.
    pub(super) async fn settle_restore(&self) -> Result<Option<String>, DriverError> {
        let Ok(_turn) = self.restoring.try_lock() else {
            return Ok(None);
        };
        let was_taken_back = self.take_back().await?;
        let room = self.room(&RestorePlace::Replace);
        let had_room = self.is_there(&room.folder).await?;
        self.remove_room(&room).await?;
        if was_taken_back {
            self.start_server().await?;
            let text = "a restore was cut off while the data were exchanged: the old data are back and the server runs";
            return Ok(Some(text.to_owned()));
        }
        let text = "a restore was cut off: what it had unpacked was removed";
        Ok(had_room.then(|| text.to_owned()))
    }

    /// Lets writes in, unless the configuration says that the server starts closed.
    pub(super) async fn open_as_configured(&self) -> Result<(), DriverError> {
        if self.starts_closed().await? {
            return Ok(());
        }
        let mut session = self.role.session().await?;
        session.run("open the restored server", "SET GLOBAL read_only = 0").await
    }

    async fn is_there(&self, folder: &Path) -> Result<bool, DriverError> {
        let listed = self.context.host.list_dir(folder).await;
        let names =
            listed.map_err(|error| DriverError::caused(ErrorKind::Failed, "could not look at a data directory", error))?;
        Ok(names.is_some())
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DriverError> {
        let renamed = self.context.host.rename(from, to).await;
        renamed.map_err(|error| errors::file("rename", from, error))
    }
}
