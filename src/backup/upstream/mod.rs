//! Backups that upstream's agent took.
//!
//! Such a backup has no manifest. Its object tells all: the name says how it is packed, the facts beside it say what it builds on,
//! the storage's ETag is its checksum.
//!
//! ```text
//! open:  GET ─► [thread: openssl's encryption, gzip] ─► the tool's stream   it ends only after all of it was read and fits
//! ```

mod openssl;
mod plain;
#[cfg(test)]
mod tests;

pub use plain::{PlainStream, open};

use super::{BackupError, BackupId, Compression, Digest, Format, Kind, MANIFEST_VERSION, Manifest, Method, Parent, Parts};
use crate::storage::{ObjectName, Stat, Store};
use chrono::{DateTime, Utc};
use datastore_api::EngineFacts;
use std::sync::Arc;

/// Stands as the agent's version in what is put together here.
const FOREIGN: &str = "upstream";
/// How much longer than gzip's result the stream is, about.
const PACKED: u64 = 3;

/// An object of upstream's: one version of it, which is read or none.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub name: ObjectName,
    /// URL of it.
    pub location: String,
    /// The storage's checksum of it, lower case.
    pub checksum: Option<String>,
    /// Length of the object, packed as it is.
    pub stored_bytes: u64,
}

impl Found {
    /// Whether the object is encrypted, so that `backup_aes_cbc_key` is needed.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.name.as_str().ends_with(".enc")
    }

    /// Whether it is packed by gzip, by its name.
    fn is_packed(&self) -> bool {
        self.name.as_str().split('.').any(|part| part == "gz")
    }
}

/// Looks at an object that has no manifest. `None` if it is not there, or not upstream's by its name. What a manifest would say is
/// put together from what stands beside it: the digests in it mean nothing, and the length of the stream is a guess.
///
/// # Errors
/// The store's.
pub async fn find(
    store: &Arc<dyn Store>,
    name: &ObjectName,
    location: &str,
    id: &BackupId,
) -> Result<Option<(Manifest, Found)>, BackupError> {
    let Some(stat) = store.stat(name).await? else {
        return Ok(None);
    };
    let found = Found {
        name: name.clone(),
        location: location.to_owned(),
        checksum: stat.checksum.clone(),
        stored_bytes: stat.bytes,
    };
    if !found.is_packed() {
        return Ok(None);
    }
    let fact = |key: &str| stat.meta.get(key).filter(|text| !text.is_empty()).cloned();
    let parent = fact("parent_location").map(|location| Parent {
        id: None,
        location,
        checksum: fact("parent_checksum").unwrap_or_default(),
    });
    let at = stat.modified.map_or_else(Utc::now, DateTime::from);
    let nothing = Digest::from(blake3::hash(b""));
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        id: id.clone(),
        name: None,
        guest: String::new(),
        created: at,
        finished: at,
        kind: if parent.is_some() { Kind::Incremental } else { Kind::Full },
        parent,
        engine: facts_of(&stat),
        format: Format::Upstream,
        compression: Compression {
            method: Method::Gzip,
            level: 0,
            window_log: 0,
        },
        encryption: None,
        plain_bytes: stat.bytes.saturating_mul(PACKED),
        stored_bytes: stat.bytes,
        plain_digest: nothing,
        stored_digest: nothing,
        parts: Parts { bytes: 0, count: 0 },
        blob: name.to_string(),
        location: location.to_owned(),
        checksum: stat.checksum.unwrap_or_default(),
        verified: None,
        agent: FOREIGN.to_owned(),
    };
    Ok(Some((manifest, found)))
}

/// Whether this was put together by [`find`]. Such a manifest must never be written.
#[must_use]
pub fn is_foreign(manifest: &Manifest) -> bool {
    manifest.agent == FOREIGN
}

/// What upstream's facts say, in our words.
fn facts_of(stat: &Stat) -> EngineFacts {
    let get = |key: &str| stat.meta.get(key).cloned().unwrap_or_default();
    let engine = get("datastore");
    let endings: Vec<_> = stat.name.as_str().split('.').skip(1).collect();
    let strategy = match (endings.first().copied(), engine.as_str()) {
        (Some("xbstream"), "mysql") => "xtrabackup",
        (Some("xbstream"), _) => "mariabackup",
        (Some("tar"), _) => "pg_basebackup",
        _ => "",
    };
    // The version of a datastore is a name that its operator chose; only what looks like a version is one.
    let version = get("datastore_version");
    let is_version =
        version.starts_with(|c: char| c.is_ascii_digit()) && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    EngineFacts {
        strategy: strategy.to_owned(),
        version: if is_version { version } else { String::new() },
        to_lsn: Some(get("lsn")).filter(|lsn| !lsn.is_empty()),
        engine,
        ..EngineFacts::default()
    }
}
