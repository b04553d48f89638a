//! How a backup or its restore fails.

use super::manifest::ManifestError;
use crate::storage::StorageError;
use datastore_api::DriverError;
use std::io;
use std::path::PathBuf;

/// Why there is no backup, or no restore of it. The texts are shown to users; none holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Somebody asked for the end of it.
    #[error("the backup was cancelled")]
    Cancelled,
    /// It was ended for a reason.
    #[error("{0}")]
    Stopped(String),
    /// There is no such backup.
    #[error("there is no backup {id} in {place}")]
    Missing {
        /// Its id.
        id: String,
        /// Where it is not.
        place: String,
    },
    /// A backup that another builds on cannot be used.
    #[error("backup {id} builds on a backup that cannot be used")]
    Parent {
        /// The one that builds on it.
        id: String,
        /// Why.
        #[source]
        source: Box<BackupError>,
    },
    /// One that several have a part of.
    #[error(transparent)]
    Shared(#[from] std::sync::Arc<BackupError>),
    /// An argument is wrong. Nothing was touched.
    #[error("{0}")]
    Invalid(String),
    /// The database's side failed: its tool, its server, its end that never came.
    #[error("the database's side of the backup failed")]
    Engine(#[source] DriverError),
    /// The database's driver reported success and a stream of another length than what arrived.
    #[error("the backup tool wrote {said} bytes and {seen} arrived")]
    Length {
        /// By the driver.
        said: u64,
        /// By us.
        seen: u64,
    },
    /// The storage failed; its error says what was being done, and `kind` what to think of it.
    #[error("the storage failed")]
    Storage(#[from] StorageError),
    /// The blob in the storage is not what its manifest says.
    #[error("{blob} is damaged: {how}")]
    Damaged {
        /// Name of the blob.
        blob: String,
        /// In what way.
        how: String,
    },
    /// The manifest cannot be used.
    #[error("the manifest of the backup cannot be used")]
    Manifest(#[from] ManifestError),
    /// The backup is encrypted and we have no key of that name.
    #[error("the backup is encrypted with the key {key_id:?}, which is not among our keys ({have})")]
    NoKey {
        /// The key it needs.
        key_id: String,
        /// The names of those we have, for people.
        have: String,
    },
    /// We have a key of that name, and it is another one.
    #[error("the key {key_id:?} is not the one this backup was encrypted with")]
    WrongKey {
        /// Its name.
        key_id: String,
    },
    /// The key file cannot be used.
    #[error("the key file {} cannot be used: {why}", .path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// What is wrong, without any part of a key.
        why: String,
    },
    /// Packing or unpacking failed in itself.
    #[error("could not {doing}")]
    Pack {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
}
