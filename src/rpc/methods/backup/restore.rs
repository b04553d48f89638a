//! Bringing a backup back in the place of the data there are, and finding out whether it could be.

use super::shapes::{access, place};
use crate::backup::log::Target;
use crate::backup::{BackupId, Wanted, moment, summary};
use crate::conductor::Status;
use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, optional};
use crate::rpc::method::{Method, Mode};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use datastore_api::{RestorePlace, RestoredAs, Secret, chain};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;

/// The one step: data may have been touched.
const BEGIN: &str = "begin";

/// Which backup, and where it is.
#[derive(Debug, Deserialize)]
pub struct WhichArgs {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    swift_url: Option<String>,
    #[serde(default)]
    force: Option<bool>,
    #[serde(default)]
    to_time: Option<String>,
    #[serde(default)]
    to_gtid: Option<String>,
    #[serde(default)]
    before_gtid: Option<String>,
    #[serde(default)]
    latest: Option<bool>,
    #[serde(default)]
    storage: Option<String>,
    #[serde(default)]
    key_id: Option<String>,
    #[serde(default)]
    key: Option<Secret>,
}

/// Their names.
const WHICH: &[Arg] = &[
    optional("id"),
    optional("location"),
    optional("swift_url"),
    optional("storage"),
    optional("key_id"),
    optional("key"),
    optional("force"),
    optional("to_time"),
    optional("to_gtid"),
    optional("before_gtid"),
    optional("latest"),
];

impl WhichArgs {
    fn wanted(&self, ctx: &Ctx, op: &Op) -> Result<Wanted, RpcError> {
        let id: Option<BackupId> = self.id.as_deref().map(str::parse).transpose()?;
        let location = self.location.clone().filter(|location| !location.is_empty());
        if id.is_none() && location.is_none() && self.target()?.is_none() {
            return Err(RpcError::new(
                ErrorClass::BadRequest,
                "neither id nor location of a backup is given",
            ));
        }
        let access = access(ctx, op, self.swift_url.as_deref(), None);
        let key = match (&self.key_id, &self.key) {
            (Some(id), Some(key)) => Some((id.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(RpcError::new(ErrorClass::BadRequest, "key and key_id go together")),
        };
        Ok(Wanted {
            id,
            location,
            checksum: None,
            place: Some(place(ctx, None, self.storage.as_deref(), &access)?),
            access,
            key,
        })
    }
}

impl WhichArgs {
    /// The moment that is wanted; `None`: that of the backup.
    fn target(&self) -> Result<Option<Target>, RpcError> {
        let mut targets = Vec::new();
        if let Some(text) = &self.to_time {
            targets.push(moment(text)?);
        }
        targets.extend(self.to_gtid.clone().map(Target::Including));
        targets.extend(self.before_gtid.clone().map(Target::Before));
        targets.extend(self.latest.unwrap_or(false).then_some(Target::Latest));
        if targets.len() > 1 {
            let text = "to_time, to_gtid, before_gtid and latest exclude each other";
            return Err(RpcError::new(ErrorClass::BadRequest, text));
        }
        Ok(targets.pop())
    }
}

/// Whose log belongs to this guest's history: its own, and that of the other one of its pair.
pub(super) async fn guests(ctx: &Ctx) -> Vec<String> {
    let mut guests = vec![ctx.settings.guest_id.clone()];
    let status = ctx.pair.status().await;
    guests.extend(status["pair"]["peer"]["guest_id"].as_str().map(ToOwned::to_owned));
    guests
}

/// `restore_backup`: replaces the data of this guest. They are kept until the restored server answers.
pub struct RestoreBackup;

impl Method for RestoreBackup {
    const NAME: &'static str = "restore_backup";
    const MODE: Mode = Mode::Change(OpKind::Restore);
    const ARGS: &'static [Arg] = WHICH;
    type Args = WhichArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, op: &Op, args: WhichArgs) -> Result<Value, RpcError> {
        if op.is_done(BEGIN) {
            return Err(cut_off(ctx).await);
        }
        let (mut wanted, target) = (args.wanted(ctx, op)?, args.target()?);
        let way = match &target {
            Some(target) => Some(ctx.backups.way_to(&mut wanted, target, &guests(ctx).await).await?),
            None => None,
        };
        may_be_restored(ctx, op, args.force.unwrap_or(false)).await?;
        ctx.backups.check(&wanted, &RestorePlace::Replace).await?;
        op.record(BEGIN).await;
        ctx.publisher.update(|view| view.planned = true);
        let done = ctx
            .backups
            .restore(&wanted, way, &RestorePlace::Replace, RestoredAs::Open)
            .await;
        ctx.publisher.update(|view| view.planned = false);
        ctx.look().await;
        let done = done?;
        ctx.conductor.report_now(Status::Healthy).await;
        Ok(json!({"backup": summary(&done.manifest), "position": done.restored.position}))
    }
}

/// A server with another history must not meet who follows it: who has seen later transactions would take new ones for known.
async fn may_be_restored(ctx: &Ctx, op: &Op, force: bool) -> Result<(), RpcError> {
    let refuse = |text: String| Err(RpcError::new(ErrorClass::Trove, text));
    if let Ok(replication) = ctx.replication(op.method)
        && let Some(source) = replication.status().await.ok().and_then(|status| status.following)
    {
        return refuse(format!(
            "this guest follows {}:{}; a replica has its source's data, restore there",
            source.host, source.port
        ));
    }
    let pair = ctx.pair.status().await;
    if pair["pair"].is_null() {
        return Ok(());
    }
    if !force {
        return refuse(
            "this guest is the source of a pair, and its replica would have transactions that the restored data have not; dissolve the \
             pair, restore, and make the pair again, which copies the restored data (force dissolves it on this side)"
                .to_owned(),
        );
    }
    ctx.pair.dissolve(&op.id.0).await?;
    warn!("the pair was dissolved on this side for a restore: its replica must be made again");
    Ok(())
}

/// The agent ended in the middle. The driver finishes or takes back what it finds, and the server runs; which of both it was, is told.
async fn cut_off(ctx: &Ctx) -> RpcError {
    let settled = match ctx.datastore.backups() {
        Some(backups) => backups.settle().await.unwrap_or_else(|error| Some(chain(&error))),
        None => None,
    };
    if let Err(error) = ctx.datastore.start().await {
        warn!(
            error = chain(&error),
            "the server does not start after a restore that was cut off"
        );
    }
    ctx.look().await;
    let found = settled.unwrap_or_else(|| "see backup list and the data for what was done".to_owned());
    RpcError::new(ErrorClass::Trove, format!("the agent ended while it restored: {found}"))
}

/// `verify_backup`: restores it into a scratch server and checks it. Takes the place of a backup.
pub struct VerifyBackup;

impl Method for VerifyBackup {
    const NAME: &'static str = "verify_backup";
    const MODE: Mode = Mode::Change(OpKind::Backup);
    const ARGS: &'static [Arg] = WHICH;
    type Args = WhichArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, op: &Op, args: WhichArgs) -> Result<Value, RpcError> {
        let wanted = args.wanted(ctx, op)?;
        let manifest = ctx.backups.verify(&wanted).await?;
        Ok(summary(&manifest))
    }
}
