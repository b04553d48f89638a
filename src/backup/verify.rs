//! A backup is proved by restoring it: into a scratch server that nobody else reaches, which answers, checks its tables and compares the
//! sample. What was found goes into the manifest.

use super::jobs::{Doing, End, Ended, Order, Wanted};
use super::{BackupError, Manifest, Service, Verified, upstream};
use crate::storage::{self, Meta, ObjectName};
use bytes::Bytes;
use chrono::Utc;
use datastore_api::{CheckReport, RestorePlace, RestoredAs, chain};
use serde_json::json;
use std::time::Duration;
use tracing::{info, warn};

/// How long the engine's checks may take, small tables first. A report says whether there was time for all.
const BUDGET: Duration = Duration::from_secs(3600);

impl Service {
    /// Verifies a backup. The caller holds the place. A backup that is bad is no error: the answer, and the manifest, say so.
    ///
    /// # Errors
    /// Why it could not be found out.
    pub async fn verify(&self, wanted: &Wanted) -> Result<Manifest, BackupError> {
        let began = Utc::now();
        let name = wanted.id.as_ref().map_or_else(|| "located".to_owned(), ToString::to_string);
        // Short: the path of a socket below it may have some hundred bytes.
        let short: String = name.chars().take(8).collect();
        let place = RestorePlace::Scratch(self.settings.scratch.join(short));
        let done = self.restore(wanted, None, &place, RestoredAs::Closed).await;
        let (manifest, report) = match done {
            Ok(done) => {
                let Some(scratch) = done.restored.scratch else {
                    return Err(BackupError::Invalid("the datastore has no scratch servers".to_owned()));
                };
                let checked = scratch.check(&done.manifest.engine.sample, BUDGET).await;
                if let Err(error) = scratch.close().await {
                    warn!(id = name, error = chain(&error), "a scratch server could not be removed");
                }
                (done.manifest, checked.map_err(BackupError::Engine)?)
            }
            // What cannot be restored because of itself is found to be bad; anything else is not its fault.
            Err(error) if is_its_own(&error) => {
                let manifest = self.check_manifest(wanted).await?;
                let report = CheckReport {
                    problems: vec![chain(&error)],
                    ..CheckReport::default()
                };
                (manifest, report)
            }
            Err(error) => return Err(error),
        };
        let good = report.problems.is_empty();
        let manifest = Manifest {
            verified: Some(Verified {
                at: Utc::now(),
                good,
                report: json!(report),
            }),
            ..manifest
        };
        self.rewrite(wanted, &manifest).await?;
        info!(
            id = name,
            good,
            tables = report.tables,
            compared = report.compared,
            "a backup was verified"
        );
        let ended = Ended {
            id: manifest.id.to_string(),
            doing: Doing::Verify,
            kind: Some(manifest.kind.word().to_owned()),
            state: if good { End::Completed } else { End::Failed },
            began,
            ended: Utc::now(),
            error: (!good).then(|| report.problems.join("; ")),
            result: json!(report),
        };
        self.board.note(ended).await;
        Ok(manifest)
    }

    /// Verifies a backup that was just made, if the policy says so. Its caller still holds the place. That it is complete stays true
    /// whatever is found; what is found is in its manifest.
    pub async fn verify_new(&self, manifest: Manifest, order: &Order) -> Manifest {
        if !self.settings.verify.takes(&manifest.id) {
            return manifest;
        }
        let wanted = Wanted {
            id: Some(manifest.id.clone()),
            location: Some(manifest.location.clone()),
            checksum: None,
            place: Some(order.place.clone()),
            access: order.access.clone(),
            key: order.key.clone(),
        };
        match self.verify(&wanted).await {
            Ok(verified) => verified,
            Err(error) => {
                warn!(
                    id = manifest.id.as_str(),
                    error = chain(&error),
                    "a backup could not be verified"
                );
                manifest
            }
        }
    }

    async fn check_manifest(&self, wanted: &Wanted) -> Result<Manifest, BackupError> {
        let (store, id) = self.locate(wanted)?;
        super::Chain::read(store.as_ref(), &id, &self.keys(wanted.key.as_ref())?).await
    }

    /// The store and the id of a backup of ours.
    pub(super) fn locate(&self, wanted: &Wanted) -> Result<(std::sync::Arc<dyn storage::Store>, super::BackupId), BackupError> {
        match (&wanted.location, &wanted.id) {
            (Some(location), _) => {
                let (store, name) = storage::open_at(&self.settings.storage, location, &wanted.access)?;
                let last = name.as_str().rsplit('/').next().unwrap_or_default();
                Ok((store, last.split('.').next().unwrap_or_default().parse()?))
            }
            (None, Some(id)) => {
                let place = wanted.place.as_ref().unwrap_or_else(|| self.place());
                Ok((self.store(place, &wanted.access)?, id.clone()))
            }
            (None, None) => Err(BackupError::Invalid(
                "neither the id nor the location of a backup is given".to_owned(),
            )),
        }
    }

    async fn rewrite(&self, wanted: &Wanted, manifest: &Manifest) -> Result<(), BackupError> {
        // Upstream's agent wrote none, and what we put together is no proof of anything.
        if upstream::is_foreign(manifest) {
            return Ok(());
        }
        let (store, _) = self.locate(wanted)?;
        let bytes = manifest.encode(&self.keys(wanted.key.as_ref())?)?;
        let name = ObjectName::new(manifest.id.manifest_name())?;
        store.put(&name, Bytes::from(bytes), &Meta::new()).await?;
        Ok(())
    }
}

/// Whether the backup itself is at fault: damaged, not whole, or not restorable by the engine.
fn is_its_own(error: &BackupError) -> bool {
    use datastore_api::ErrorKind;
    match error {
        BackupError::Damaged { .. } | BackupError::Length { .. } => true,
        BackupError::Engine(error) => matches!(error.kind(), ErrorKind::WrongData | ErrorKind::Failed),
        BackupError::Shared(error) => is_its_own(error),
        BackupError::Parent { source, .. } => is_its_own(source),
        _ => false,
    }
}
