//! What a restore needs, oldest first: a full backup and the increments that build on it. Resolved and checked before a byte is copied.

use super::jobs::{Order, ParentOf, Wanted};
use super::keys::Keys;
use super::manifest::MAX_MANIFEST;
use super::{BackupError, BackupId, Format, Kind, Manifest, Parent, Service, upstream};
use crate::storage::{self, Access, ObjectName, StorageErrorKind, Store};
use datastore_api::EngineFacts;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Longest chain that is followed.
const LONGEST: usize = 200;

/// One backup of a chain, and where it is.
#[derive(Clone)]
pub struct Link {
    /// The store it is in.
    pub store: Arc<dyn Store>,
    /// What is known of it.
    pub manifest: Manifest,
    /// How it is read, if upstream's agent took it: then there is no manifest, and what is known was put together from its object.
    pub foreign: Option<upstream::Found>,
}

/// A whole chain.
pub struct Chain {
    /// The full one first; never empty.
    pub links: Vec<Link>,
}

impl Chain {
    /// The backup that was asked for.
    #[must_use]
    pub fn newest(&self) -> &Manifest {
        &self.links.last().expect("a chain is never empty").manifest
    }

    /// Bytes that all of it takes when it is unpacked, about.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.links.iter().map(|link| link.manifest.plain_bytes).sum()
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// `Invalid` if there is no such backup; what is wrong with the manifest; the store's.
    pub async fn read(store: &dyn Store, id: &BackupId, keys: &Keys) -> Result<Manifest, BackupError> {
        let name = ObjectName::new(id.manifest_name())?;
        let (stat, body) = match store.get(&name).await {
            Err(error) if error.kind == StorageErrorKind::NotFound => {
                return Err(BackupError::Missing {
                    id: id.to_string(),
                    place: store.place(),
                });
            }
            other => other?,
        };
        let mut bytes = Vec::new();
        let limit = MAX_MANIFEST as u64 + 1;
        let read = body.take(limit).read_to_end(&mut bytes).await;
        read.map_err(|source| BackupError::Pack {
            doing: "read a manifest",
            source,
        })?;
        if stat.bytes != bytes.len() as u64 {
            return Err(BackupError::Damaged {
                blob: name.to_string(),
                how: format!("it has {} bytes and should have {}", bytes.len(), stat.bytes),
            });
        }
        Manifest::decode_signed(&bytes, id, keys)
    }

    /// What an increment is built on, and how its manifest names that.
    pub(super) async fn parent(
        service: &Service,
        store: &Arc<dyn Store>,
        order: &Order,
        parent: &ParentOf,
        format: Format,
        keys: &Keys,
    ) -> Result<(EngineFacts, Parent), BackupError> {
        let link = match parent {
            ParentOf::Location { location, checksum } => {
                let link = find(service, location, &order.access, keys).await?;
                fits(&link.manifest, checksum.as_deref())?;
                link
            }
            ParentOf::Id(id) => Link {
                store: store.clone(),
                manifest: Self::read(store.as_ref(), id, keys).await?,
                foreign: None,
            },
            ParentOf::Last => {
                let newest = super::list::list(store.as_ref(), Some(&service.settings.guest_id))
                    .await?
                    .backups
                    .into_iter()
                    .next();
                let missing =
                    || BackupError::Invalid(format!("there is no backup of this guest in {} to build on", store.place()));
                let newest = newest.ok_or_else(missing)?;
                Link {
                    manifest: Self::read(store.as_ref(), &newest.id, keys).await?,
                    store: store.clone(),
                    foreign: None,
                }
            }
        };
        let manifest = link.manifest;
        if link.foreign.is_none() && manifest.guest != service.settings.guest_id {
            let text = format!(
                "backup {} is of instance {}, and an increment builds on its own instance's",
                manifest.id, manifest.guest
            );
            return Err(BackupError::Invalid(text));
        }
        if format == Format::Upstream && manifest.format != Format::Upstream {
            let text = format!(
                "backup {} is not in upstream's format, and upstream could not restore an increment to it",
                manifest.id
            );
            return Err(BackupError::Invalid(text));
        }
        // Of what is not there a chain would be, which nobody could restore.
        blob_is_there(&link.store, &manifest).await?;
        let named = Parent {
            id: Some(manifest.id),
            location: manifest.location,
            checksum: manifest.checksum,
        };
        Ok((manifest.engine, named))
    }

    /// Finds all that a restore needs.
    ///
    /// # Errors
    /// What is missing or damaged, by name.
    pub async fn resolve(service: &Service, wanted: &Wanted) -> Result<Self, BackupError> {
        let keys = service.keys(wanted.key.as_ref())?;
        let mut link = match (&wanted.location, &wanted.id) {
            (Some(location), _) => find(service, location, &wanted.access, &keys).await?,
            (None, Some(id)) => {
                let place = wanted.place.as_ref().unwrap_or_else(|| service.place());
                let store = service.store(place, &wanted.access)?;
                let manifest = Self::read(store.as_ref(), id, &keys).await?;
                Link {
                    store,
                    manifest,
                    foreign: None,
                }
            }
            (None, None) => {
                return Err(BackupError::Invalid(
                    "neither the id nor the location of a backup is given".to_owned(),
                ));
            }
        };
        fits(&link.manifest, wanted.checksum.as_deref())?;
        let mut links = Vec::new();
        loop {
            blob_is_there(&link.store, &link.manifest).await?;
            let parent = link.manifest.parent.clone();
            let (id, kind) = (link.manifest.id.clone(), link.manifest.kind);
            let store = link.store.clone();
            if links.iter().any(|other: &Link| other.manifest.id == id) || links.len() >= LONGEST {
                return Err(BackupError::Invalid(format!(
                    "the parents of backup {id} go in a circle, or are more than {LONGEST}"
                )));
            }
            links.push(link);
            let Some(parent) = parent.filter(|_| kind == Kind::Incremental) else {
                break;
            };
            link = match &parent.id {
                // Beside its child, wherever that was moved to.
                Some(parent_id) => match Self::read(store.as_ref(), parent_id, &keys).await {
                    Ok(manifest) => Link {
                        store,
                        manifest,
                        foreign: None,
                    },
                    Err(BackupError::Missing { .. }) => find(service, &parent.location, &wanted.access, &keys)
                        .await
                        .map_err(|error| without_parent(&id, error))?,
                    Err(error) => return Err(without_parent(&id, error)),
                },
                None => find(service, &parent.location, &wanted.access, &keys)
                    .await
                    .map_err(|error| without_parent(&id, error))?,
            };
            fits(&link.manifest, Some(&parent.checksum)).map_err(|error| without_parent(&id, error))?;
        }
        links.reverse();
        Ok(Self { links })
    }
}

fn without_parent(id: &BackupId, error: BackupError) -> BackupError {
    BackupError::Parent {
        id: id.to_string(),
        source: Box::new(error),
    }
}

/// The backup whose blob is at this URL.
async fn find(service: &Service, location: &str, access: &Access, keys: &Keys) -> Result<Link, BackupError> {
    let (store, name) = storage::open_at(&service.settings.storage, location, access)?;
    let last = name.as_str().rsplit('/').next().unwrap_or_default();
    let id: BackupId = last.split('.').next().unwrap_or_default().parse()?;
    match Chain::read(store.as_ref(), &id, keys).await {
        Ok(manifest) => Ok(Link {
            store,
            manifest,
            foreign: None,
        }),
        // Upstream's agent writes no manifest.
        Err(missing @ BackupError::Missing { .. }) => match upstream::find(&store, &name, location, &id).await? {
            Some((manifest, found)) => Ok(Link {
                store,
                manifest,
                foreign: Some(found),
            }),
            None => Err(missing),
        },
        Err(error) => Err(error),
    }
}

/// The checksum that a caller was told must be the one of the backup that is there.
fn fits(manifest: &Manifest, checksum: Option<&str>) -> Result<(), BackupError> {
    match checksum {
        Some(checksum) if checksum != manifest.checksum => Err(BackupError::Damaged {
            blob: manifest.location.clone(),
            how: format!(
                "its checksum is {}, and {} was asked for",
                manifest.checksum,
                checksum.chars().take(64).collect::<String>()
            ),
        }),
        _ => Ok(()),
    }
}

async fn blob_is_there(store: &Arc<dyn Store>, manifest: &Manifest) -> Result<(), BackupError> {
    let name = ObjectName::new(manifest.blob.clone())?;
    let damaged = |how: String| BackupError::Damaged {
        blob: store.location(&name),
        how,
    };
    match store.stat(&name).await? {
        None => Err(damaged("it is not there".to_owned())),
        Some(stat) if stat.bytes != manifest.stored_bytes => Err(damaged(format!(
            "it has {} bytes and should have {}",
            stat.bytes, manifest.stored_bytes
        ))),
        Some(_) => Ok(()),
    }
}
