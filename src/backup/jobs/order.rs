//! What is asked for: a backup, or the restore of one.

use crate::backup::{BackupId, Format};
use crate::storage::{Access, Place};
use datastore_api::Secret;
use serde_json::{Map, Value};

/// A backup to be made. No `Debug`: the context has a token in it.
#[derive(Clone)]
pub struct Order {
    /// Its id.
    pub id: BackupId,
    /// Its name, for people.
    pub name: Option<String>,
    /// What it builds on; `None`: a full one.
    pub parent: Option<ParentOf>,
    /// Where it goes.
    pub place: Place,
    /// What the request adds to the settings of that store.
    pub access: Access,
    /// Whose format; `None`: as configured.
    pub format: Option<Format>,
    /// Name and text of a key for this one alone.
    pub key: Option<(String, Secret)>,
    /// Name of the datastore, in the caller's words.
    pub datastore: Option<String>,
    /// Name of its version, in the caller's words.
    pub datastore_version: Option<String>,
    /// Context of the request; empty: nobody in the control plane has a row for it.
    pub context: Map<String, Value>,
}

impl Order {
    /// The control plane's word for its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.parent {
            None => "full",
            Some(_) => "incremental",
        }
    }
}

/// How the parent of an increment is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentOf {
    /// By the URL of its blob, as the control plane does.
    Location {
        /// The URL.
        location: String,
        /// The store's checksum of it, if it was told.
        checksum: Option<String>,
    },
    /// By its id, in the store that the increment goes to.
    Id(BackupId),
    /// The newest one of this guest in that store.
    Last,
}

/// A backup to be read.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Its id.
    pub id: Option<BackupId>,
    /// URL of its blob.
    pub location: Option<String>,
    /// The store's checksum of the blob, if it was told.
    pub checksum: Option<String>,
    /// The store it is in, where there is no URL; `None`: the configured one.
    pub place: Option<Place>,
    /// What the request adds to the settings of the store.
    pub access: Access,
    /// Name and text of a key that came along.
    pub key: Option<(String, Secret)>,
}
