//! What the agent does with backups: makes one at a time, tells how far it is, ends it when it must give way.

use super::jobs::{Board, Doing, End, Ended, Entered, Held, Order, Room, Stop, told};
use super::keys::Keys;
use super::log::LogStatus;
use super::pipeline::{self, Draft, DriverSource, Progress};
use super::settings::{Second, Settings};
use super::{BackupError, BackupId, Chain, Format, Kind, Manifest, Parent};
use crate::conductor::{BackupRow, BackupState, Conductor};
use crate::host;
use crate::journal::Journal;
use crate::storage::{self, Meta, ObjectName, Place, Store};
use chrono::Utc;
use datastore_api::{BackupKind, Backups as Driver, Datastore, EngineFacts, chain};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// How long a backup may take to end when it must give way: its tool is killed, its parts are taken away.
const GIVE_WAY: Duration = Duration::from_secs(10);
/// How long a store may take to say that it takes a copy for a replica, which can be had in another way, too.
const ANSWERS: Duration = Duration::from_secs(5);
/// Leftovers of broken uploads are removed when they are older.
const LEFTOVER: Duration = Duration::from_secs(24 * 3600);

/// The service. One for a guest.
pub struct Service {
    pub(super) settings: Settings,
    pub(super) datastore: Arc<dyn Datastore>,
    conductor: Conductor,
    room: Room,
    pub(super) board: Board,
    pub(super) log: watch::Sender<LogStatus>,
}

impl Service {
    /// Makes it; reads how the last jobs ended.
    pub async fn load(settings: Settings, datastore: Arc<dyn Datastore>, conductor: Conductor, journal: Journal) -> Arc<Self> {
        Arc::new(Self {
            settings,
            datastore,
            conductor,
            room: Room::default(),
            board: Board::load(journal).await,
            log: watch::Sender::new(LogStatus::default()),
        })
    }

    /// The configured place.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.settings.storage.place
    }

    /// Whether replicas are made from a stored backup where the caller names a store (`replica_seed`).
    #[must_use]
    pub fn seeds_replicas(&self) -> bool {
        self.settings.seed_replicas && self.datastore.backups().is_some()
    }

    /// Whether the store of an order answers now and takes it.
    ///
    /// # Errors
    /// For people: why not.
    pub async fn reaches(&self, order: &Order) -> Result<(), String> {
        let checked = async { Ok::<_, BackupError>(self.store(&order.place, &order.access)?.check().await?) };
        match tokio::time::timeout(ANSWERS, checked).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("it does not answer within {} s", ANSWERS.as_secs())),
        }
    }

    /// Whether a second backup is refused.
    #[must_use]
    pub fn refuses_second(&self) -> bool {
        self.settings.second == Second::Refuse
    }

    /// Waits for the one place in which a backup runs.
    pub async fn hold(&self) -> Held {
        self.room.hold().await
    }

    /// The place for `method`, which stops or replaces the server: the backup that runs ends for it.
    ///
    /// # Errors
    /// For people: it does not end.
    pub async fn clear(&self, method: &str) -> Result<Held, String> {
        let why = format!("{method} was asked for, and a backup gives way to it");
        let held = self.room.clear(&why, GIVE_WAY).await;
        held.ok_or_else(|| format!("a backup is running and did not end within {} s", GIVE_WAY.as_secs()))
    }

    /// Ends the backup that runs, or only the one of this id. Answers the id of the one that is ending.
    pub fn cancel(&self, id: Option<&BackupId>, why: &str) -> Option<String> {
        self.room.stop(id.map(BackupId::as_str), why)
    }

    /// The job that runs and the last ones that ended.
    #[must_use]
    pub fn status(&self, id: Option<&BackupId>) -> Value {
        self.board.shown(id.map(BackupId::as_str))
    }

    pub(super) fn enter(&self, id: &str) -> Entered<'_> {
        self.room.enter(id)
    }

    pub(super) fn driver(&self) -> Result<&dyn Driver, BackupError> {
        let missing = || BackupError::Invalid(format!("the datastore {} cannot be backed up", self.datastore.info().name));
        self.datastore.backups().ok_or_else(missing)
    }

    /// The keys there are; a key that came with a request goes before them.
    pub(super) fn keys(&self, with: Option<&(String, datastore_api::Secret)>) -> Result<Keys, BackupError> {
        let keys = match &self.settings.key_file {
            Some(path) => Keys::load(path)?,
            None => Keys::default(),
        };
        match with {
            Some((id, text)) => keys.with_request(id, text),
            None => Ok(keys),
        }
    }

    pub(super) fn store(&self, place: &Place, access: &storage::Access) -> Result<Arc<dyn Store>, BackupError> {
        storage::open_place(&self.settings.storage, place, access).map_err(BackupError::from)
    }

    /// Makes a backup and reports it to the control plane from its beginning to its end. `cut_off`: the agent ended while it ran; it
    /// is not begun again, because its caller's token, and what it was to be a backup of, are of that time. The caller holds the place.
    ///
    /// # Errors
    /// Why there is none. Nothing that looks whole is left of it.
    pub async fn create(&self, order: &Order, cut_off: bool) -> Result<Manifest, BackupError> {
        let entered = self.room.enter(order.id.as_str());
        let job = self
            .board
            .begin(order.id.as_str(), Doing::Backup, Some(order.kind()), &order.place.to_string());
        let size = host::filesystem_stats(&self.settings.mount_point)
            .await
            .map(|stats| stats.used())
            .ok();
        let row = BackupRow {
            size,
            kind: Some(order.kind()),
            ..BackupRow::new(order.id.as_str(), BackupState::Building)
        };
        let made = if cut_off {
            self.recover(order).await
        } else {
            self.conductor.update_backup(&order.context, &row).await;
            info!(id = order.id.as_str(), kind = order.kind(), storage = %order.place, "a backup begins");
            let seen = job.progress().subscribe();
            tokio::select! {
                made = self.make(order, entered.stop(), job.progress()) => made,
                never = self.report(order, &row, seen) => match never {},
            }
        };
        let made = made.map_err(|error| match (error, entered.stop().why()) {
            (BackupError::Cancelled, Some(why)) => BackupError::Stopped(why),
            (error, _) => error,
        });
        match &made {
            Ok(manifest) => {
                let done = BackupRow {
                    state: BackupState::Completed,
                    checksum: Some(&manifest.checksum),
                    location: Some(&manifest.location),
                    details: Some(summary(manifest)),
                    ..row
                };
                self.conductor.update_backup(&order.context, &done).await;
                info!(
                    id = order.id.as_str(),
                    location = manifest.location,
                    plain_bytes = manifest.plain_bytes,
                    stored_bytes = manifest.stored_bytes,
                    "a backup is complete"
                );
                job.ended(End::Completed, None, summary(manifest)).await;
            }
            Err(error) => {
                let text = chain(error);
                let failed = BackupRow {
                    state: BackupState::Failed,
                    details: Some(json!({"error": text})),
                    ..row
                };
                self.conductor.update_backup(&order.context, &failed).await;
                warn!(id = order.id.as_str(), error = text, "a backup failed");
                let end = if entered.stop().why().is_some() {
                    End::Cancelled
                } else {
                    End::Failed
                };
                job.ended(end, Some(&text), Value::Null).await;
            }
        }
        made
    }

    /// A backup that was refused before it began: its row does not wait for ever, and people see why.
    pub async fn refused(&self, id: &str, context: &serde_json::Map<String, Value>, error: &str) {
        let row = BackupRow {
            details: Some(json!({"error": error})),
            ..BackupRow::new(id, BackupState::Failed)
        };
        self.conductor.update_backup(context, &row).await;
        let now = Utc::now();
        let ended = Ended {
            id: id.chars().take(64).collect(),
            doing: Doing::Backup,
            kind: None,
            state: End::Failed,
            began: now,
            ended: now,
            error: Some(error.chars().take(1000).collect()),
            result: Value::Null,
        };
        self.board.note(ended).await;
    }

    /// Tells the control plane how far it is, now and then.
    async fn report(&self, order: &Order, row: &BackupRow<'_>, seen: watch::Receiver<Progress>) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(self.settings.progress_interval).await;
            let progress = *seen.borrow();
            if order.context.is_empty() || progress.plain_bytes == 0 {
                continue;
            }
            let row = BackupRow {
                details: Some(told(order, &progress)),
                ..row.clone()
            };
            self.conductor.update_backup(&order.context, &row).await;
        }
    }

    async fn make(&self, order: &Order, stop: &Stop, progress: &watch::Sender<Progress>) -> Result<Manifest, BackupError> {
        let driver = self.driver()?;
        let keys = self.keys(order.key.as_ref())?;
        let store = self.store(&order.place, &order.access)?;
        store.check().await?;
        if let Err(error) = store.sweep(LEFTOVER).await {
            warn!(error = chain(&error), "leftovers of broken uploads could not be removed");
        }
        let format = order.format.unwrap_or(self.settings.format);
        let (kind, parent) = match &order.parent {
            None => (BackupKind::Full, None),
            Some(parent) => {
                let (facts, parent) = Chain::parent(self, &store, order, parent, format, &keys).await?;
                (BackupKind::Incremental { parent: Box::new(facts) }, Some(parent))
            }
        };
        // Nothing is known of how much an increment will be.
        let estimate = match kind {
            BackupKind::Full => driver.describe().await.map_err(BackupError::Engine)?.data_bytes,
            BackupKind::Incremental { .. } => 0,
        };
        let told = parent.clone();
        let meta = move |facts: &EngineFacts| meta(order, facts, told.as_ref());
        let draft = Draft {
            id: order.id.clone(),
            name: order.name.clone(),
            guest: self.settings.guest_id.clone(),
            kind: match kind {
                BackupKind::Full => Kind::Full,
                BackupKind::Incremental { .. } => Kind::Incremental,
            },
            parent,
            format,
            extension: driver.extension(),
            estimate,
            meta: &meta,
            sealed: format == Format::Native && keys.newest().is_some(),
        };
        let source = DriverSource {
            backups: driver,
            kind: &kind,
        };
        pipeline::take(
            source,
            store.as_ref(),
            draft,
            &keys,
            &self.settings.pipeline,
            progress,
            &stop.token(),
        )
        .await
    }

    /// What is left of a backup that was cut off: complete if its manifest was written, otherwise it failed and nothing of it stays.
    async fn recover(&self, order: &Order) -> Result<Manifest, BackupError> {
        let cleared = async {
            let store = self.store(&order.place, &order.access)?;
            let keys = self.keys(order.key.as_ref())?;
            if let Ok(manifest) = Chain::read(store.as_ref(), &order.id, &keys).await {
                return Ok(Some(manifest));
            }
            let driver = self.driver()?;
            for format in [Format::Native, Format::Upstream] {
                for sealed in [false, true] {
                    let name = order.id.blob_name(&pipeline::extension(driver.extension(), format, sealed));
                    let name = ObjectName::new(name)?;
                    store.delete(&name).await?;
                }
            }
            Ok::<_, BackupError>(None)
        };
        match tokio::time::timeout(Duration::from_secs(20), cleared).await {
            Ok(Ok(Some(manifest))) => return Ok(manifest),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => warn!(
                id = order.id.as_str(),
                error = chain(&error),
                "what is left of a backup is not removed"
            ),
            Err(_) => warn!(
                id = order.id.as_str(),
                "what is left of a backup is not removed: the storage does not answer"
            ),
        }
        Err(BackupError::Stopped("the agent ended while it ran".to_owned()))
    }
}

/// What upstream's agent looks for beside a blob (contract section 9.4).
fn meta(order: &Order, facts: &EngineFacts, parent: Option<&Parent>) -> Meta {
    let mut meta = Meta::new();
    let mut put = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            meta.insert(key.to_owned(), value.to_owned());
        }
    };
    put("datastore", order.datastore.as_deref().or(Some(&facts.engine)));
    put(
        "datastore_version",
        order.datastore_version.as_deref().or(Some(&facts.version)),
    );
    put("lsn", facts.to_lsn.as_deref());
    put("parent_location", parent.map(|parent| parent.location.as_str()));
    put("parent_checksum", parent.map(|parent| parent.checksum.as_str()));
    meta
}

/// What is told of a complete backup.
#[must_use]
pub fn summary(manifest: &Manifest) -> Value {
    json!({
        "id": manifest.id.as_str(),
        "name": manifest.name,
        "guest": manifest.guest,
        "kind": manifest.kind.word(),
        "parent": manifest.parent,
        "created": manifest.created,
        "finished": manifest.finished,
        "format": manifest.format,
        "engine": manifest.engine.engine,
        "version": manifest.engine.version,
        "position": manifest.engine.position,
        "key_id": manifest.encryption.as_ref().map(|sealed| &sealed.key_id),
        "plain_bytes": manifest.plain_bytes,
        "stored_bytes": manifest.stored_bytes,
        "location": manifest.location,
        "checksum": manifest.checksum,
        "verified": manifest.verified,
    })
}
