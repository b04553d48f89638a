//! A whole backup: blob, then manifest.

use super::open::prove;
use super::source::Source;
use super::{PipelineSettings, Plan, Progress, extension, send};
use crate::backup::keys::Keys;
use crate::backup::{BackupError, BackupId, Format, Kind, MANIFEST_VERSION, Manifest, Parent};
use crate::storage::{Meta, ObjectName, StorageError, Store, Upload};
use bytes::Bytes;
use chrono::Utc;
use datastore_api::EngineFacts;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long the removal of what a failed backup left may take.
const TAKE_BACK: Duration = Duration::from_secs(60);

/// What is known of a backup before it is taken.
pub struct Draft<'a> {
    /// Its id.
    pub id: BackupId,
    /// Its name, for people.
    pub name: Option<String>,
    /// The instance it is taken on.
    pub guest: String,
    /// Full or incremental.
    pub kind: Kind,
    /// What it builds on.
    pub parent: Option<Parent>,
    /// Whose format.
    pub format: Format,
    /// The driver's word for its stream ([`datastore_api::Backups::extension`]).
    pub extension: &'a str,
    /// Bytes of the plain stream, about; 0: unknown.
    pub estimate: u64,
    /// Facts to store beside the blob.
    pub meta: &'a (dyn Fn(&EngineFacts) -> Meta + Send + Sync),
    /// Whether it is sealed, with the newest key.
    pub sealed: bool,
}

/// Takes a backup: sends the source's stream, then writes the manifest. When it answers `Ok` the backup exists; otherwise it does not, and
/// nothing that looks whole is left.
pub async fn take<S: Source<Facts = EngineFacts>>(
    source: S,
    store: &dyn Store,
    draft: Draft<'_>,
    keys: &Keys,
    settings: &PipelineSettings,
    progress: &watch::Sender<Progress>,
    cancel: &CancellationToken,
) -> Result<Manifest, BackupError> {
    let created = Utc::now();
    let key = match (draft.sealed, draft.format) {
        (false, _) => None,
        (true, Format::Native) => Some(keys.newest().ok_or_else(|| no_key(&draft.id))?),
        (true, Format::Upstream) => {
            return Err(BackupError::Invalid(
                "a backup in upstream's format cannot be encrypted".into(),
            ));
        }
    };
    let manifest_name = ObjectName::new(draft.id.manifest_name())?;
    if store.stat(&manifest_name).await?.is_some() {
        return Err(BackupError::Invalid(format!(
            "there is already a backup {} in {}",
            draft.id,
            store.place()
        )));
    }
    let blob = ObjectName::new(draft.id.blob_name(&extension(draft.extension, draft.format, key.is_some())))?;
    // What does not shrink grows a little by packing and sealing.
    let at_most = (draft.estimate > 0).then(|| draft.estimate + draft.estimate / 16 + (1 << 20));
    let upload: Arc<dyn Upload> = store.begin(&blob, at_most).await?.into();
    let plan = Plan {
        id: &draft.id,
        settings,
        format: draft.format,
        key,
        estimate: draft.estimate,
    };
    let sent = match send(source, &upload, &plan, draft.meta, progress, cancel).await {
        Ok(sent) => sent,
        Err(error) => {
            // The abort has seen to an upload. What was finished and is wrong, or was cancelled just then, has its name already.
            take_back(store, &[&blob]).await;
            return Err(error);
        }
    };
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        id: draft.id,
        name: draft.name,
        guest: draft.guest,
        created,
        finished: Utc::now(),
        kind: draft.kind,
        parent: draft.parent,
        engine: sent.facts,
        format: draft.format,
        compression: sent.compression,
        encryption: sent.encryption,
        plain_bytes: sent.plain_bytes,
        stored_bytes: sent.stored_bytes,
        plain_digest: sent.plain_digest,
        stored_digest: sent.stored_digest,
        parts: sent.parts,
        blob: blob.to_string(),
        location: sent.receipt.location,
        checksum: sent.receipt.checksum,
        verified: None,
        agent: env!("CARGO_PKG_VERSION").into(),
    };
    let last_steps = async {
        if settings.read_back {
            prove(store, &manifest, keys).await?;
        }
        let bytes = manifest.encode(keys)?;
        store.put(&manifest_name, Bytes::from(bytes), &Meta::new()).await?;
        Ok(())
    };
    let done = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(BackupError::Cancelled),
        done = last_steps => done,
    };
    match done {
        Ok(()) => Ok(manifest),
        Err(error) => {
            take_back(store, &[&manifest_name, &blob]).await;
            Err(error)
        }
    }
}

/// Removes what a failed backup left. What cannot be removed is no backup without its manifest, and is found by who cleans up.
async fn take_back(store: &dyn Store, names: &[&ObjectName]) {
    let deleted = timeout(TAKE_BACK, async {
        for name in names {
            store.delete(name).await?;
        }
        Ok::<_, StorageError>(())
    });
    match deleted.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = %datastore_api::chain(&error), "could not remove what a failed backup left"),
        Err(_) => warn!("could not remove in time what a failed backup left"),
    }
}

fn no_key(id: &BackupId) -> BackupError {
    BackupError::Invalid(format!(
        "the backup {id} is to be encrypted, and there is no key: see backup_key_file"
    ))
}
