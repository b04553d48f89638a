//! Where backups lie: a folder, Swift, an S3-compatible store, or the conductor's side of the bus.
//!
//! Owns: names of objects, the traits [`Store`] and [`Upload`], one implementation per kind of store, their retries, and the
//! suite [`contract`] that each of them passes. Uses: `bus` (the store behind the conductor). Never does: know what a backup
//! is, compress, encrypt, decide what is deleted.
//!
//! ```text
//! begin ─► part 0, 1, 2 … (several at once, each retried) ─► finish: confirmed, whole, visible
//!            └──────────── any error ─────────────────────► abort:  nothing that looks whole stays
//! ```
//!
//! A new store: a file with its `open`, one line in [`STORES`], one test that runs the suite.

mod body;
#[cfg(any(test, feature = "sim"))]
pub mod contract;
mod digest;
mod error;
mod file;
mod name;
mod parts;
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod settings;
#[cfg(feature = "swift")]
mod swift;
mod types;

pub use digest::PartsDigest;
pub use error::{StorageError, StorageErrorKind};
pub use name::ObjectName;
pub use parts::{PART_BYTES, PartPlan};
pub use retry::Retry;
pub use settings::{Access, Place, S3Settings, Settings, SwiftSettings};
pub use types::{Body, Meta, Receipt, Stat};

use async_trait::async_trait;
use bytes::Bytes;
use datastore_api::Change;
use std::sync::Arc;
use std::time::Duration;

/// A place for objects. Every call ends within the limits of the settings; what is transient is tried again inside.
#[async_trait]
pub trait Store: Send + Sync {
    /// `file`, `swift`, `s3` or `conductor`.
    fn kind(&self) -> &'static str;

    /// The place for people, without secrets: `file:///srv/backups`.
    fn place(&self) -> String;

    /// Whether objects can be written there now. Makes what may be made (a container, the last folder of a path).
    ///
    /// # Errors
    /// What [`Self::begin`] would meet: `Refused`, `Unreachable`, `NoSpace`, `NotFound` for what may not be made.
    async fn check(&self) -> Result<(), StorageError>;

    /// Begins a large object. Nothing is visible under `name` before [`Upload::finish`]; an object of that name stays readable
    /// until then and is replaced. `expected` is how many bytes will come at most, if that is known: it decides the size of parts.
    ///
    /// # Errors
    /// As [`Self::check`], which it does not replace: it makes nothing.
    async fn begin(&self, name: &ObjectName, expected: Option<u64>) -> Result<Box<dyn Upload>, StorageError>;

    /// Writes a small object as a whole: after it the name holds all of `body`, or what it held before. Replaces.
    ///
    /// # Errors
    /// `Refused`, `Unreachable`, `NoSpace`, `Failed`.
    async fn put(&self, name: &ObjectName, body: Bytes, meta: &Meta) -> Result<Receipt, StorageError>;

    /// Reads an object from its start. If the object is not as long as [`Stat::bytes`] says, the body ends with an error.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::put`].
    async fn get(&self, name: &ObjectName) -> Result<(Stat, Body), StorageError>;

    /// Reads an object from `offset`, to go on after a broken read. At the end of the object the body is empty.
    ///
    /// # Errors
    /// `Invalid` for an offset behind the end; as [`Self::get`].
    async fn get_from(&self, name: &ObjectName, offset: u64) -> Result<Body, StorageError>;

    /// What is known of an object; `None` if there is none.
    ///
    /// # Errors
    /// `Refused`, `Unreachable`, `Failed`.
    async fn stat(&self, name: &ObjectName) -> Result<Option<Stat>, StorageError>;

    /// All objects whose name begins with the text, sorted by name, only whole ones: never an unfinished upload, never a piece.
    /// `checksum` and `meta` of the answers may be missing where a list does not tell them.
    ///
    /// # Errors
    /// `Refused`, `Unreachable`, `Failed`. A place without objects answers an empty list, a place that is not there an error.
    async fn list(&self, prefix: &str) -> Result<Vec<Stat>, StorageError>;

    /// Deletes an object with all its pieces. Absent: `Unchanged`.
    ///
    /// # Errors
    /// `Refused`, `Unreachable`, `Failed`.
    async fn delete(&self, name: &ObjectName) -> Result<Change, StorageError>;

    /// URL of the object, without secrets. [`open_at`] finds the store again by it.
    fn location(&self, name: &ObjectName) -> String;

    /// The name of the object of that URL; `None` if it does not lie in this store.
    fn name_at(&self, location: &str) -> Option<ObjectName>;

    /// Removes what broken uploads of anybody left here and that is older than `older`. Answers how many were removed.
    ///
    /// # Errors
    /// `Refused`, `Unreachable`, `Failed`.
    async fn sweep(&self, older: Duration) -> Result<u64, StorageError>;
}

/// An upload that has begun. Dropping it without [`Self::finish`] leaves nothing visible; [`Self::abort`] leaves nothing at all,
/// or what [`Store::sweep`] finds later if the store does not answer.
#[async_trait]
pub trait Upload: Send + Sync {
    /// How long the part of this index must be; the last one may be shorter. The same for all as long as the object stays
    /// within what was expected; grows far behind that, where the store limits the number of parts.
    fn part_bytes(&self, index: u32) -> usize;

    /// Sends one part. Several tasks may do so at once, in any order; indices count from 0 without gaps. Sending a part again
    /// replaces it. Retried inside; an error here is final, and the upload can only be aborted.
    ///
    /// # Errors
    /// `Refused`, `Unreachable`, `NoSpace`, `Failed`; `Invalid` for a part longer than it may be.
    async fn part(&self, index: u32, body: Bytes) -> Result<(), StorageError>;

    /// Makes the object of the parts. Answers only after the store has confirmed each byte and the whole is visible under its
    /// name. Without any part the object is empty.
    ///
    /// # Errors
    /// As [`Self::part`]; `Invalid` if a part is missing or one before the last is short; `Corrupt` if the store has other bytes
    /// than were sent. After an error nothing that looks whole is there.
    async fn finish(&self, meta: &Meta) -> Result<Receipt, StorageError>;

    /// Gives up: nothing that looks whole stays. Ends within a minute also if the store does not answer; errors are logged.
    async fn abort(&self);
}

/// Opens a store of one kind. Reads its credentials, and talks to nobody.
pub type Open = fn(&Settings, &Place, &Access) -> Result<Arc<dyn Store>, StorageError>;

/// The kinds of stores: scheme and how it is opened.
pub const STORES: &[(&str, Open)] = &[
    ("file", file::open),
    #[cfg(feature = "s3")]
    ("s3", s3::open),
    #[cfg(feature = "swift")]
    ("swift", swift::open),
];

/// Opens the store of `backup_storage`.
///
/// # Errors
/// `Invalid` for a place that cannot be (a kind this build has not, a key that is missing), `Refused` for credentials that cannot
/// be read.
pub fn open(settings: &Settings, access: &Access) -> Result<Arc<dyn Store>, StorageError> {
    open_place(settings, &settings.place, access)
}

/// Opens another place than the configured one.
///
/// # Errors
/// As [`open`].
pub fn open_place(settings: &Settings, place: &Place, access: &Access) -> Result<Arc<dyn Store>, StorageError> {
    match STORES.iter().find(|(kind, _)| *kind == place.kind) {
        Some((_, open)) => open(settings, place, access),
        None => {
            let kinds: Vec<_> = STORES.iter().map(|(kind, _)| *kind).collect();
            let what = format!("there is no such storage; this build knows {}", kinds.join(", "));
            Err(StorageError::invalid("open", place, what))
        }
    }
}

/// Finds store and name of an object by its location, as a request or a manifest tells it: in the configured store if it lies
/// there, otherwise in the one that the URL names.
///
/// # Errors
/// `Invalid` for a text that is no location of an object; as [`open`].
pub fn open_at(settings: &Settings, location: &str, access: &Access) -> Result<(Arc<dyn Store>, ObjectName), StorageError> {
    if let Ok(store) = open(settings, access)
        && let Some(name) = store.name_at(location)
    {
        return Ok((store, name));
    }
    let place = Place::of_location(location).ok_or_else(|| {
        let what = "this is no location of a backup: expected file:///…, s3://…, https://… (Swift) or conductor://…";
        StorageError::invalid("open", location, what)
    })?;
    let store = open_place(settings, &place, access)?;
    match store.name_at(location) {
        Some(name) => Ok((store, name)),
        None => Err(StorageError::invalid("open", location, "this is no location of an object")),
    }
}
