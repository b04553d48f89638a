//! What is in a storage, told by the storage alone.

use super::manifest::MAX_MANIFEST;
use super::{BackupError, BackupId, Manifest, Service};
use crate::storage::{Access, Place, Stat, Store};
use datastore_api::chain;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::io::AsyncReadExt;

/// Manifests read at once.
const AT_ONCE: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The backups, newest first.
    pub backups: Vec<Manifest>,
    /// Manifests that cannot be read.
    pub unreadable: Vec<Unreadable>,
}

/// A manifest that cannot be read.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    /// Its object.
    pub name: String,
    /// Why.
    pub error: String,
}

impl Service {
    /// The backups in a store: of one guest, or of all.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, place: &Place, access: &Access, guest: Option<&str>) -> Result<Listing, BackupError> {
        let store = self.store(place, access)?;
        list(store.as_ref(), guest).await
    }
}

/// The same of an open store.
pub(super) async fn list(store: &dyn Store, guest: Option<&str>) -> Result<Listing, BackupError> {
    let stats = store.list("").await?;
    let manifests = stats.into_iter().filter_map(|stat| {
        let id = stat.name.as_str().strip_suffix(".json")?.parse::<BackupId>().ok()?;
        Some((id, stat))
    });
    let mut read = stream::iter(manifests)
        .map(|(id, stat)| async move {
            let manifest = one(store, &id, &stat).await;
            (stat, manifest)
        })
        .buffer_unordered(AT_ONCE);
    let mut listing = Listing::default();
    while let Some((stat, manifest)) = read.next().await {
        match manifest {
            Ok(manifest) if guest.is_none_or(|guest| guest == manifest.guest) => listing.backups.push(manifest),
            Ok(_) => {}
            Err(error) => listing.unreadable.push(Unreadable {
                name: stat.name.to_string(),
                error: chain(&error),
            }),
        }
    }
    listing
        .backups
        .sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    Ok(listing)
}

async fn one(store: &dyn Store, id: &BackupId, stat: &Stat) -> Result<Manifest, BackupError> {
    let (_, body) = store.get(&stat.name).await?;
    let mut bytes = Vec::new();
    body.take(MAX_MANIFEST as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|source| BackupError::Pack {
            doing: "read a manifest",
            source,
        })?;
    Ok(Manifest::decode(&bytes, id)?)
}
