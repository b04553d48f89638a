//! The file that says that a preparation is under way on this volume, whose it is, and how far the data directory is; or that the
//! data are being replaced by a copy of another server's.
//!
//! ```text
//! (none) ── begin ──► Begun ── before the installer ──► Filling ── after it ──► Filled ── verified ──► (none)
//! Begun ── a backup is unpacked ──► Restoring ── it is whole ──► Restored ── verified ──► (none)
//! (none) ── restored data are put in place ──► Exchanging ── they have answered, or the old ones are back ──► (none)
//! (none) ── before the old data are thrown away ──► Replacing ── the copy has been started and has answered ──► (none)
//! ```

use crate::datastore::Server;
use crate::errors;
use datastore_api::{Change, DriverError, FileMode};

/// How far the data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing in it is ours yet; it must be empty.
    Begun,
    /// The installer writes to it, or was killed: what is in it is ours and worthless.
    Filling,
    /// Complete.
    Filled,
    /// A copy of another server comes in, or was cut off: the data are neither the old nor the new.
    Replacing,
    /// A backup is unpacked into the data directory of a new guest, or that was cut off: what is in it is ours and worthless.
    Restoring,
    /// Complete, out of a backup.
    Restored,
    /// The data are being exchanged for restored ones. The old ones are the good ones, wherever they lie.
    Exchanging,
}

impl Progress {
    const ALL: [(Progress, &'static str); 7] = [
        (Self::Begun, "begun"),
        (Self::Filling, "filling"),
        (Self::Filled, "filled"),
        (Self::Replacing, "replacing"),
        (Self::Restoring, "restoring"),
        (Self::Restored, "restored"),
        (Self::Exchanging, "exchanging"),
    ];

    fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(progress, _)| *progress == self)
            .map_or("", |(_, word)| word)
    }
}

/// The marker's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The instance that began.
    pub instance: String,
    /// How far it is.
    pub progress: Progress,
}

impl Marker {
    fn parse(text: &str) -> Option<Self> {
        let (progress, instance) = text.trim_end().split_once(' ')?;
        let progress = Progress::ALL.iter().find(|(_, word)| *word == progress)?.0;
        Some(Self {
            instance: instance.to_owned(),
            progress,
        })
    }
}

impl Server {
    /// The marker; `None` if no preparation is under way. A damaged one counts as another instance's.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, DriverError> {
        let path = &self.layout.marker;
        let bytes = self
            .context
            .host
            .read(path)
            .await
            .map_err(|error| errors::file("read", path, error))?;
        let foreign = || Marker {
            instance: "(unreadable)".to_owned(),
            progress: Progress::Begun,
        };
        Ok(bytes.map(|bytes| Marker::parse(&String::from_utf8_lossy(&bytes)).unwrap_or_else(foreign)))
    }

    /// Writes the marker of this instance. The data become others: what they were is forgotten first.
    pub(crate) async fn mark(&self, progress: Progress) -> Result<Change, DriverError> {
        let lineage = &self.layout.lineage;
        let removed = self.context.host.remove(lineage).await;
        removed.map_err(|error| errors::file("remove", lineage, error))?;
        let path = &self.layout.marker;
        let text = format!("{} {}\n", progress.word(), self.context.instance_id);
        let mode = FileMode {
            mode: 0o600,
            owner: None,
        };
        self.context
            .host
            .write_atomic(path, text.as_bytes(), &mode)
            .await
            .map_err(|error| errors::file("write", path, error))
    }

    /// Removes the marker: from here on the data is an instance's.
    pub(crate) async fn unmark(&self) -> Result<Change, DriverError> {
        let path = &self.layout.marker;
        self.context
            .host
            .remove(path)
            .await
            .map_err(|error| errors::file("remove", path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (progress, word) in Progress::ALL {
            let marker = Marker {
                instance: "9d1c".into(),
                progress,
            };
            assert_eq!(Marker::parse(&format!("{word} 9d1c\n")), Some(marker));
        }
        for bad in ["", "filled", "done 9d1c"] {
            assert_eq!(Marker::parse(bad), None);
        }
    }
}
