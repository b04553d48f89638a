//! A replica's beginning: the source's data, then following it. Shared by `prepare` and `attach_replica`.

use super::shapes::WireSource;
use crate::rpc::copies::Offer;
use crate::rpc::{Ctx, ErrorClass, Op, RpcError, role};
use crate::{backup, host};
use datastore_api::{FollowPlan, Position, RestorePlace, RestoredAs, ServerStart, Start, chain};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;
use tracing::{info, warn};

/// The step that brings the source's data here, and the one that follows the source.
pub const SEED: &str = "seed";
/// See [`SEED`].
pub const FOLLOW: &str = "follow";

/// Facts in the journal: where the copy ends, and the name of the login in use.
const SEEDED: &str = "replica/seeded";
const LOGIN: &str = "replica/login";

/// Where a copy ended, and of which operation it is.
#[derive(Debug, Serialize, Deserialize)]
struct Seeded {
    operation: String,
    position: Position,
}

/// Where the data come from.
#[derive(Debug)]
enum Data {
    /// They are here, up to this place.
    Here(Start),
    /// The source streams them.
    Copied(Offer),
    /// A backup in a store, which is restored before.
    Stored,
}

/// Whether the data come from a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// What is asked of a replica, checked.
#[derive(Debug)]
pub struct Wanted {
    plan: FollowPlan,
    data: Data,
    extra: Map<String, Value>,
    /// Gigabytes of the source's data, if it told.
    size: Option<f64>,
}

/// Whether a caller's `backup_info` names a backup that exists in a store.
pub fn has_location(backup_info: Option<&Value>) -> bool {
    backup_info.is_some_and(|info| info["location"].as_str().is_some_and(|text| !text.is_empty()))
}

impl Wanted {
    /// Checks what a source told of itself. `what` names the argument in errors.
    pub fn read(ctx: &Ctx, info: &WireSource, what: &str, stored: Stored) -> Result<Self, RpcError> {
        let replication = ctx.replication("attach_replica")?;
        let (source, login, tls) = (info.endpoint(what)?, info.login(what)?, info.tls(what)?);
        if let Some(theirs) = info
            .replication_strategy
            .as_deref()
            .filter(|theirs| *theirs != replication.strategy())
        {
            let text = format!(
                "Instance with replication strategy {} cannot replicate from instance with replication strategy {}.",
                replication.strategy(),
                theirs.chars().take(64).collect::<String>()
            );
            return Err(RpcError::new(ErrorClass::OtherStrategy, text));
        }
        if role::endpoint(ctx, "attach_replica").is_ok_and(|own| own == source) {
            let text = format!("{what}.master is this guest itself");
            return Err(RpcError::new(ErrorClass::BadRequest, text));
        }
        let extra = info.extra();
        let data = match &info.dataset {
            _ if stored == Stored::Yes => Data::Stored,
            None => Data::Here(Start::Current),
            Some(dataset) => match (extra.get("clone"), extra.get("from"), &dataset.0.log_executed_gtid_set) {
                (Some(offer), _, _) => Data::Copied(Offer::read(offer, what)?),
                (None, Some(from), _) => Data::Here(Start::At(position(from.as_str().unwrap_or("?"), replication)?)),
                (None, None, Some(end)) => Data::Here(Start::At(position(end, replication)?)),
                // The data were restored from a store, which is another operation.
                (None, None, None) => return Err(ctx.not_supported("restore")),
            },
        };
        let start = Start::Current;
        Ok(Self {
            plan: FollowPlan {
                source,
                login,
                start,
                tls,
            },
            data,
            extra,
            size: info.dataset.as_ref().and_then(|dataset| dataset.0.dataset_size),
        })
    }
}

/// A replica must be able to hold what its source holds; its volume is there by now.
pub async fn fits(ctx: &Ctx, wanted: &Wanted) -> Result<(), RpcError> {
    let Some(size) = wanted.size else { return Ok(()) };
    let path = &ctx.settings.mount_point;
    let stats = host::filesystem_stats(path).await.map_err(|error| {
        let text = format!("could not look at the file system of {}", path.display());
        RpcError::caused(ErrorClass::Guest, text, error)
    })?;
    if stats.total() >= size {
        return Ok(());
    }
    let text = format!(
        "The target instance has only {}G free, but the replication snapshot contains {size}G of data.",
        stats.total()
    );
    Err(RpcError::new(ErrorClass::NoSpaceForReplica, text))
}

fn position(text: &str, replication: &dyn datastore_api::Replication) -> Result<Position, RpcError> {
    let position = Position(text.trim().to_owned());
    match replication.covers(&position, &position) {
        Ok(_) => Ok(position),
        Err(error) => Err(RpcError::caused(
            ErrorClass::UnknownPosition,
            "Unable to determine last GTID executed on master",
            error,
        )),
    }
}

/// A prepared server begins as a replica closed; one with data of its own is not overwritten.
pub async fn begin(ctx: &Ctx, op: &Op, wanted: &Wanted) -> Result<(), RpcError> {
    let replication = ctx.replication(op.method)?;
    if !matches!(wanted.data, Data::Here(Start::Current)) {
        let found = replication.user_databases().await?;
        if !found.is_empty() {
            let text = format!("a copy would overwrite databases of this guest: {}", found.join(", "));
            return Err(RpcError::new(ErrorClass::BadRequest, text));
        }
    }
    if !replication.status().await?.read_only {
        role::close(ctx, op.method).await?;
    }
    Ok(())
}

/// Brings the source's data here, if they are not here.
pub async fn seed(ctx: &Ctx, op: &Op, wanted: &Wanted) -> Result<(), RpcError> {
    op.step(SEED, async {
        let Data::Copied(offer) = &wanted.data else { return Ok(()) };
        let replication = ctx.replication(op.method)?;
        let began = std::time::Instant::now();
        ctx.publisher.update(|view| view.planned = true);
        let copied = offer.fetch(replication).await;
        ctx.publisher.update(|view| view.planned = false);
        let position = copied?;
        info!(%position, seconds = began.elapsed().as_secs(), "the source's data were copied");
        ends_at(ctx, op, position).await
    })
    .await
}

/// Records where a copy ends. Without that it could not be used: the step is done again then.
async fn ends_at(ctx: &Ctx, op: &Op, position: Position) -> Result<(), RpcError> {
    let seeded = Seeded {
        operation: op.id.0.clone(),
        position,
    };
    let fact = serde_json::to_vec(&seeded).expect("texts always encode");
    ctx.journal.put(SEEDED, fact).await.map_err(|error| {
        RpcError::caused(
            ErrorClass::Trove,
            "could not record where the copy of the source's data ends",
            error,
        )
    })
}

/// Brings a stored backup into an empty guest: one of its own, or the beginning of a replica.
pub async fn restore(ctx: &Ctx, op: &Op, stored: &backup::Wanted, is_replica: bool) -> Result<(), RpcError> {
    let as_what = if is_replica { RestoredAs::Closed } else { RestoredAs::Open };
    let done = ctx.backups.restore(stored, None, &RestorePlace::Empty, as_what).await?;
    ends_at(ctx, op, done.restored.position).await
}

/// Follows the source.
pub async fn follow(ctx: &Ctx, op: &Op, wanted: &Wanted, limit: Duration) -> Result<(), RpcError> {
    op.step(FOLLOW, async {
        let replication = ctx.replication(op.method)?;
        let start = match &wanted.data {
            Data::Here(start) => start.clone(),
            Data::Copied(_) | Data::Stored => Start::At(seeded(ctx, op).await?),
        };
        let plan = FollowPlan {
            start,
            ..wanted.plan.clone()
        };
        // A server that restarts must not come back open.
        replication.set_start(ServerStart::closed(false)).await?;
        if let Err(error) = ctx.journal.put(LOGIN, plan.login.user.clone().into_bytes()).await {
            warn!(error = chain(&error), "could not record the name of the replica's login");
        }
        replication.follow(&plan, limit).await?;
        role::adopt(ctx, &wanted.extra).await
    })
    .await
}

async fn seeded(ctx: &Ctx, op: &Op) -> Result<Position, RpcError> {
    let lost = |source| {
        RpcError::caused(
            ErrorClass::Trove,
            "could not read where the copy of the source's data ends",
            source,
        )
    };
    let fact = ctx.journal.get(SEEDED).await.map_err(lost)?;
    let seeded: Option<Seeded> = fact.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match seeded.filter(|seeded| seeded.operation == op.id.0) {
        Some(seeded) => Ok(seeded.position),
        None => Err(RpcError::new(
            ErrorClass::UnknownPosition,
            "Unable to determine last GTID executed on master: it was not recorded",
        )),
    }
}

/// The name of the login this replica uses, or used last.
pub async fn stored_login(ctx: &Ctx) -> Option<String> {
    let bytes = ctx.journal.get(LOGIN).await.ok().flatten()?;
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}
