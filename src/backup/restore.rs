//! From a stored backup to a running server: resolve, check, unpack each link of the chain, finish. Whatever fails before the end leaves
//! everything as it was.

use super::jobs::{Doing, End, Stop, Wanted};
use super::log;
use super::pipeline::{self, Opened, Progress, ReadSettings};
use super::point::{REPLAY, Way};
use super::service::summary;
use super::{BackupError, Chain, Link, Manifest, Service, upstream};
use datastore_api::{DriverError, Restore, RestorePlace, Restored, RestoredAs, chain};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

/// A restore that ended well.
pub struct Done {
    /// The backup.
    pub manifest: Manifest,
    /// The server.
    pub restored: Restored,
}

impl Service {
    /// Restores a backup. The caller holds the place, and has looked whether this guest may be restored at all.
    ///
    /// # Errors
    /// What is wrong, by name. The data are as they were, unless the error says otherwise.
    pub async fn restore(
        &self,
        wanted: &Wanted,
        way: Option<Way>,
        place: &RestorePlace,
        as_what: RestoredAs,
    ) -> Result<Done, BackupError> {
        let doing = match place {
            RestorePlace::Scratch(_) => Doing::Verify,
            RestorePlace::Empty | RestorePlace::Replace => Doing::Restore,
        };
        let id = wanted
            .id
            .as_ref()
            .map_or_else(|| wanted.location.clone().unwrap_or_default(), ToString::to_string);
        let entered = self.enter(&id);
        let stop = entered.stop().clone();
        let job = self.board.begin(
            &id,
            doing,
            None,
            &wanted.place.as_ref().unwrap_or_else(|| self.place()).to_string(),
        );
        let done = self.bring_back(wanted, way, place, as_what, &stop, job.progress()).await;
        let done = done.map_err(|error| match (error, stop.why()) {
            (BackupError::Cancelled, Some(why)) => BackupError::Stopped(why),
            (error, _) => error,
        });
        // A verification goes on, and tells itself how it ended.
        match &done {
            Ok(_) if doing == Doing::Verify => {}
            Ok(done) => {
                let result = json!({"backup": summary(&done.manifest), "position": done.restored.position});
                job.ended(End::Completed, None, result).await;
            }
            Err(error) => {
                let end = if stop.why().is_some() { End::Cancelled } else { End::Failed };
                job.ended(end, Some(&chain(error)), Value::Null).await;
            }
        }
        done
    }

    /// Whether a backup could be restored there: all of its chain is there and readable, of this engine, and has room. Touches nothing.
    ///
    /// # Errors
    /// What stands in the way, by name.
    pub async fn check(&self, wanted: &Wanted, place: &RestorePlace) -> Result<Manifest, BackupError> {
        let backups = Chain::resolve(self, wanted).await?;
        let newest = backups.newest();
        let fits = self.driver()?.check_restore(&newest.engine, backups.plain_bytes(), place);
        fits.await.map_err(BackupError::Engine)?;
        Ok(newest.clone())
    }

    async fn bring_back(
        &self,
        wanted: &Wanted,
        way: Option<Way>,
        place: &RestorePlace,
        as_what: RestoredAs,
        stop: &Stop,
        progress: &watch::Sender<Progress>,
    ) -> Result<Done, BackupError> {
        let driver = self.driver()?;
        let cancelled = stop.token();
        let backups = Chain::resolve(self, wanted).await?;
        let newest = backups.newest();
        let id = newest.id.to_string();
        let fits = driver.check_restore(&newest.engine, backups.plain_bytes(), place);
        fits.await.map_err(BackupError::Engine)?;
        info!(id, links = backups.links.len(), "a restore begins");
        let mut restore = driver.begin_restore(&id, place).await.map_err(BackupError::Engine)?;
        let filled = tokio::select! {
            () = cancelled.cancelled() => Err(BackupError::Cancelled),
            filled = async {
                for link in &backups.links {
                    self.unpack(link, wanted, restore.as_mut(), progress).await?;
                }
                replay(way, restore.as_mut()).await
            } => filled,
        };
        if let Err(error) = filled {
            if let Err(left) = restore.abandon().await {
                warn!(id, error = chain(&left), "what is left of a restore could not be removed");
            }
            return Err(error);
        }
        let restored = restore.finish(as_what).await.map_err(BackupError::Engine)?;
        info!(id, position = %restored.position, "a restore is done");
        Ok(Done {
            manifest: newest.clone(),
            restored,
        })
    }

    async fn unpack(
        &self,
        link: &Link,
        wanted: &Wanted,
        restore: &mut dyn Restore,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), BackupError> {
        if let Some(found) = &link.foreign {
            let key = self.settings.storage.swift.upstream_key.as_ref();
            let mut stream = upstream::open(&link.store, found, key, progress).await?;
            if let Err(error) = restore.unpack(&mut stream).await {
                return Err(stream.error().map_or(BackupError::Engine(error), BackupError::Shared));
            }
            return stream.finish().await.map_err(BackupError::Shared);
        }
        let keys = self.keys(wanted.key.as_ref())?;
        let mut opened = pipeline::open(&link.store, &link.manifest, &keys, ReadSettings::default(), progress.clone()).await?;
        if let Err(error) = restore.unpack(&mut opened).await {
            return Err(cause(&opened, error));
        }
        opened.finish().await.map_err(BackupError::Shared)
    }
}

/// Goes on from the backup to the wanted moment.
async fn replay(way: Option<Way>, restore: &mut dyn Restore) -> Result<(), BackupError> {
    let Some(Way { shelf, plan }) = way else { return Ok(()) };
    let mut log = log::Replay::new(shelf, &plan);
    let replayed = restore.replay(&plan.replay_plan(REPLAY), &mut log).await;
    let replayed = replayed.map_err(BackupError::Engine)?;
    info!(transactions = replayed.transactions, position = %replayed.position, "the log was replayed");
    Ok(())
}

/// What is wrong with the blob explains what its reader says; otherwise the reader is right.
fn cause(opened: &Opened, error: DriverError) -> BackupError {
    match opened.error() {
        Some(cause) => BackupError::Shared(cause),
        None => BackupError::Engine(error),
    }
}
