//! Recovery to a point in time: the log is shipped while the server runs, the window is read from the storage, and a restore goes on from
//! its backup to the wanted moment.

use super::jobs::Wanted;
use super::log::{Base, LogStatus, Plan, Shelf, Shipper, Target, plan, window};
use super::{BackupError, Service};
use crate::instance::{Phase, View};
use crate::storage::{Access, Place};
use chrono::{DateTime, Utc};
use datastore_api::{Logs, chain};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long the log may take to be replayed: a limit for what hangs.
pub(super) const REPLAY: Duration = Duration::from_secs(24 * 3600);
/// Before the log is looked for a place in the store again.
const AGAIN: Duration = Duration::from_secs(30);

/// A way to a moment: the log to replay over a backup.
pub struct Way {
    /// The log.
    pub(super) shelf: Arc<Shelf>,
    /// The way.
    pub(super) plan: Plan,
}

/// Reads a moment as people and programs write it. Transactions that were committed later are left out; the log counts whole seconds.
///
/// # Errors
/// What was expected.
pub fn moment(text: &str) -> Result<Target, BackupError> {
    let wrong = || {
        BackupError::Invalid(format!(
            "expected a time like 2026-11-22T14:05:00Z, found {:?}",
            text.chars().take(64).collect::<String>()
        ))
    };
    let at = DateTime::parse_from_rfc3339(text.trim()).map_err(|_| wrong())?;
    let seconds = u64::try_from(at.timestamp()).map_err(|_| wrong())?;
    Ok(Target::Time(seconds))
}

impl Service {
    fn logs(&self) -> Result<&dyn Logs, BackupError> {
        let missing = || BackupError::Invalid(format!("the log of {} cannot be followed", self.datastore.info().name));
        self.datastore.logs().ok_or_else(missing)
    }

    async fn bases(&self, place: &Place, access: &Access, guests: &[String]) -> Result<Vec<Base>, BackupError> {
        let listing = self.list(place, access, None).await?;
        let ours = listing.backups.into_iter().filter(|backup| guests.contains(&backup.guest));
        let base = |backup: super::Manifest| Base {
            id: backup.id.to_string(),
            finished: u64::try_from(backup.finished.timestamp()).unwrap_or(0),
            position: backup.engine.position,
        };
        Ok(ours.map(base).collect())
    }

    fn shelf(&self, place: &Place, access: &Access) -> Result<Arc<Shelf>, BackupError> {
        let keys = Arc::new(self.keys(None)?);
        Ok(Arc::new(Shelf::new(self.store(place, access)?, keys)))
    }

    /// The way to a moment: names the backup in `wanted` (one that is named there is taken, and no other) and answers the log to replay
    /// over it. `guests`: whose log may be used, this one's first.
    ///
    /// # Errors
    /// `Invalid` names the window if the moment lies outside.
    pub async fn way_to(&self, wanted: &mut Wanted, target: &Target, guests: &[String]) -> Result<Way, BackupError> {
        let logs = self.logs()?;
        let place = wanted.place.clone().unwrap_or_else(|| self.place().clone());
        let shelf = self.shelf(&place, &wanted.access)?;
        let mut bases = self.bases(&place, &wanted.access, guests).await?;
        if let Some(id) = &wanted.id {
            bases.retain(|base| base.id == id.as_str());
        }
        let plan = plan(logs, &shelf, guests, &bases, target).await?;
        wanted.id = Some(plan.base.parse()?);
        wanted.location = None;
        Ok(Way { shelf, plan })
    }

    /// To which moments recovery is possible, from the storage alone, and how far the log is shipped.
    ///
    /// # Errors
    /// The store's; `Invalid` for an engine without a log.
    pub async fn window(&self, place: &Place, access: &Access, guests: &[String]) -> Result<Value, BackupError> {
        let shelf = self.shelf(place, access)?;
        let bases = self.bases(place, access, guests).await?;
        let window = window(self.logs()?, &shelf, guests, &bases).await?;
        let log = self.log_status();
        Ok(
            json!({"window": window, "log": log, "behind_seconds": log.behind().as_secs_f64(), "shipped_here": self.settings.log.is_some()}),
        )
    }

    /// How far the log is shipped.
    #[must_use]
    pub fn log_status(&self) -> LogStatus {
        self.log.borrow().clone()
    }

    /// Ships the log for as long as this guest has a database, if that is configured. Not while the data are replaced: a log that is
    /// begun anew is noticed, one that is half there is not looked at.
    pub async fn ship_log(self: Arc<Self>, mut view: watch::Receiver<View>, cancel: CancellationToken) {
        let Some(settings) = self.settings.log.clone() else { return };
        let (on, wanted) = watch::channel(false);
        let access = Access {
            guest_id: self.settings.guest_id.clone(),
            ..Access::default()
        };
        let ships = async {
            loop {
                match self.shelf(self.place(), &access) {
                    Ok(shelf) => {
                        let shipper = Shipper {
                            datastore: self.datastore.clone(),
                            shelf,
                            guest: self.settings.guest_id.clone(),
                            settings: settings.clone(),
                        };
                        shipper.run(wanted.clone(), self.log.clone()).await;
                    }
                    Err(error) => warn!(error = chain(&error), "the log is not shipped"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let switches = async {
            loop {
                let is_on = {
                    let view = view.borrow_and_update();
                    let replaced = view
                        .operation
                        .as_ref()
                        .is_some_and(|operation| operation.method == "restore_backup");
                    view.phase == Phase::Ready && !replaced
                };
                on.send_if_modified(|now| std::mem::replace(now, is_on) != is_on);
                if view.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = ships => {}
            () = switches => {}
        }
    }
}

/// Seconds since 1970 for people.
#[must_use]
pub fn shown(seconds: u64) -> String {
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
    at.map_or_else(|| "-".to_owned(), |at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
