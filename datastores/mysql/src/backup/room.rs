//! Where a restore grows, and whether it may.

use crate::datastore::Server;
use crate::marker::Progress;
use crate::{errors, prepare};
use datastore_api::{DriverError, EngineFacts, ErrorKind, FileMode, Owner, RestorePlace};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Says that a folder for a scratch server is one of ours, which may be emptied.
const SCRATCH_MARK: &str = "trove-scratch";
/// Longest path of a folder for a scratch server in bytes: its socket's must fit.
const LONGEST_SCRATCH: usize = 90;

/// How long a killed tool may go on writing.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// The folders of a restore.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// The whole, removed at the end.
    pub folder: PathBuf,
    /// The data directory that grows.
    pub new: PathBuf,
    /// An increment, until it is joined.
    pub increment: PathBuf,
    /// The old data while the new ones are tried.
    pub old: PathBuf,
    /// New data that did not start.
    pub failed: PathBuf,
}

fn no_fit(text: String) -> DriverError {
    DriverError::new(ErrorKind::WrongData, text)
}

impl Server {
    /// The room for this place.
    pub(super) fn room(&self, place: &RestorePlace) -> Room {
        let folder = match place {
            RestorePlace::Scratch(folder) => folder.clone(),
            RestorePlace::Empty | RestorePlace::Replace => self.layout.restore.clone(),
        };
        Room {
            new: match place {
                RestorePlace::Empty => self.layout.data.clone(),
                _ => folder.join("data"),
            },
            increment: folder.join("increment"),
            old: folder.join("old"),
            failed: folder.join("failed"),
            folder,
        }
    }

    /// Whether a chain could be restored there. Touches nothing.
    pub(super) async fn check_backup_fits(
        &self,
        facts: &EngineFacts,
        bytes: u64,
        place: &RestorePlace,
    ) -> Result<(), DriverError> {
        let own = self.flavour.info.name;
        if facts.engine != own {
            return Err(no_fit(format!(
                "the backup is of a {} server, this is a {own} server",
                facts.engine.escape_debug()
            )));
        }
        if !self.flavour.restores.contains(&facts.strategy.as_str()) {
            return Err(no_fit(format!(
                "the backup was made by '{}', which this driver cannot restore",
                facts.strategy.escape_debug()
            )));
        }
        if !facts.version.is_empty() {
            self.check_backup_version(&facts.version).await?;
        }
        match place {
            RestorePlace::Empty => self.check_is_empty().await?,
            RestorePlace::Replace => self.check_is_settled().await?,
            RestorePlace::Scratch(folder) => self.check_scratch(folder).await?,
        }
        let room = self.room(place);
        let needed = bytes.saturating_add(bytes / 20).saturating_add(self.flavour.least_space / 4);
        let free = self.free_space(&room.new).await?;
        if free < needed {
            let text = format!("the backup needs {needed} bytes, {} has room for {free}", room.new.display());
            return Err(DriverError::new(ErrorKind::NoSpace, text));
        }
        Ok(())
    }

    /// `WrongData` unless a backup of this version can be restored here: the redo log is of one release series.
    pub(super) async fn check_backup_version(&self, version: &str) -> Result<(), DriverError> {
        let own = self.installed_version().await?;
        let theirs = prepare::numbers(version).unwrap_or_default();
        let same_series = own.len() >= 2 && own.iter().zip(&theirs).take(2).filter(|(own, theirs)| own == theirs).count() == 2;
        if same_series && theirs.get(2) <= own.get(2) {
            return Ok(());
        }
        // A newer patch release of the same series reads and writes the same: only another series is refused.
        if same_series {
            tracing::warn!(version, "the backup is of a newer patch release than the server");
            return Ok(());
        }
        let own: Vec<String> = own.iter().map(u32::to_string).collect();
        Err(no_fit(format!(
            "the backup is of a server {}, installed is {} {}",
            version.escape_debug(),
            self.flavour.title,
            own.join(".")
        )))
    }

    async fn check_is_empty(&self) -> Result<(), DriverError> {
        match self.check_data_dir().await {
            Ok(Progress::Filled | Progress::Restored) => {
                let text = "the data directory holds data already";
                Err(DriverError::new(ErrorKind::Exists, text))
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WrongData => {
                Err(DriverError::caused(ErrorKind::Exists, "there is something already", error))
            }
            Err(error) => Err(error),
        }
    }

    async fn check_is_settled(&self) -> Result<(), DriverError> {
        match self.marker().await? {
            None => Ok(()),
            // A copy that was cut off is replaced like anything else.
            Some(marker) if marker.progress == Progress::Replacing => Ok(()),
            Some(_) => Err(no_fit("the data directory is being prepared or restored".to_owned())),
        }
    }

    async fn check_scratch(&self, folder: &Path) -> Result<(), DriverError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:=,".contains(c);
        let text = folder.to_str().unwrap_or_default();
        let is_plain = folder.is_absolute() && !text.is_empty() && text.chars().all(plain) && !text.contains("..");
        if !is_plain
            || text.len() > LONGEST_SCRATCH
            || self.layout.data.starts_with(folder)
            || folder.starts_with(&self.layout.data)
        {
            let text = format!("{} cannot be the folder of a scratch server", folder.display());
            return Err(DriverError::new(ErrorKind::Invalid, text));
        }
        let names = self.context.host.list_dir(folder).await;
        let names = names
            .map_err(|error| errors::file("list", folder, error))?
            .unwrap_or_default();
        if names.is_empty() || names.iter().any(|name| name == SCRATCH_MARK) {
            return Ok(());
        }
        let text = format!("{} holds something else and cannot be a scratch folder", folder.display());
        Err(DriverError::new(ErrorKind::Exists, text))
    }

    /// Makes the room anew.
    pub(super) async fn make_room(&self, place: &RestorePlace) -> Result<Room, DriverError> {
        match place {
            RestorePlace::Empty => self.check_is_empty().await?,
            RestorePlace::Replace => self.check_is_settled().await?,
            RestorePlace::Scratch(folder) => self.check_scratch(folder).await?,
        }
        let room = self.room(place);
        self.remove_room(&room).await?;
        if *place == RestorePlace::Empty {
            self.mark(Progress::Restoring).await?;
            let cleared = self.context.host.clear_dir(&room.new).await;
            cleared.map_err(|error| errors::file("clear", &room.new, error))?;
        }
        self.make_own_dir(&room.folder).await?;
        if let RestorePlace::Scratch(folder) = place {
            let mode = FileMode {
                mode: 0o600,
                owner: None,
            };
            let path = folder.join(SCRATCH_MARK);
            let written = self.context.host.write_atomic(&path, b"may be removed\n", &mode).await;
            written.map_err(|error| errors::file("write", &path, error))?;
        }
        self.make_own_dir(&room.new).await?;
        Ok(room)
    }

    /// Makes a folder of the server's user.
    pub(super) async fn make_own_dir(&self, path: &Path) -> Result<(), DriverError> {
        let mode = FileMode {
            mode: 0o700,
            owner: Some(Owner {
                user: self.context.service_user.clone(),
            }),
        };
        let made = self.context.host.make_dir(path, &mode).await;
        made.map(drop).map_err(|error| errors::file("make", path, error))
    }

    /// Removes the room with all in it.
    pub(super) async fn remove_room(&self, room: &Room) -> Result<(), DriverError> {
        self.remove_folder(&room.folder).await
    }

    /// Removes a folder in which a tool that was killed just now may still have made a file.
    pub(super) async fn remove_folder(&self, folder: &Path) -> Result<(), DriverError> {
        let end = Instant::now() + LAST_BREATH;
        loop {
            match self.context.host.remove_tree(folder).await {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < end => {
                    sleep(Duration::from_millis(50)).await;
                }
                removed => return removed.map(drop).map_err(|error| errors::file("remove", folder, error)),
            }
        }
    }
}
