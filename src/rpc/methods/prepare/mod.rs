//! `prepare`: from an empty volume to a running, secured database (contract section 5.2).
//!
//! Steps, each journaled and safe to repeat: the volume, the driver's own steps, then the marker. At that point the instance
//! is ready; databases, users and root follow, and a failure there is reported without failing the instance, as upstream does.
//!
//! With a `snapshot` it becomes a replica: before the marker it copies its source's data and follows the source. All it holds comes from
//! there, so nothing is made in it: what a replica writes by itself its source never has.

mod contents;

use super::backup::WireRestore;
use super::replication::{self, FOLLOW, SEED, Stored, Wanted, WireSource, fits, follow, has_location, seed};
use crate::conductor::Status;
use crate::instance::Phase;
use crate::instance::gate::OpKind;
use crate::journal::Record;
use crate::pair::PairSpec;
use crate::rpc::args::{Arg, Object, optional, required};
use crate::rpc::method::{Method, Mode};
use crate::rpc::shapes::{WireDatabase, WireUser};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError, role};
use datastore_api::{Change, Datastore, FileMode, Health, PreparePlan, RestorePlace, Secret};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::time::Duration;
use tracing::error;

/// Name on the wire.
pub const NAME: &str = "prepare";

const BEGIN: &str = "begin";
const VOLUME: &str = "volume";
const CHECK: &str = "check";
const PAIR: &str = "pair";
const READY: &str = "ready";
/// The driver's step that installs empty data: a restore takes its place.
const DATA: &str = "data";

/// How long a new replica waits for its source to answer.
const FOLLOW_LIMIT: Duration = Duration::from_secs(120);

/// All steps of a preparation with this driver, in order, for the crash tests.
#[must_use]
pub fn steps(datastore: &dyn Datastore) -> Vec<&'static str> {
    let driver = datastore.prepare_steps().iter().map(|step| step.0);
    [BEGIN, VOLUME, CHECK]
        .into_iter()
        .chain(driver)
        .chain([READY, contents::DATABASES, contents::USERS, contents::ROOT])
        .collect()
}

/// The same for a replica.
#[must_use]
pub fn replica_steps(datastore: &dyn Datastore) -> Vec<&'static str> {
    let mut steps = steps(datastore);
    let ready = steps.iter().position(|step| *step == READY).unwrap_or(steps.len());
    steps.splice(ready..ready, [SEED, FOLLOW]);
    steps
}

/// Whether a preparation had made its database ready before it was cut off.
#[must_use]
pub fn was_ready(record: &Record) -> bool {
    record.steps.iter().any(|step| step == READY)
}

/// `prepare`.
pub struct Prepare;

/// Its arguments, of every era.
#[derive(Debug, Deserialize)]
pub struct PrepareArgs {
    #[serde(default, rename = "packages")]
    _packages: Option<IgnoredAny>,
    #[serde(default)]
    databases: Option<Vec<Object<WireDatabase>>>,
    #[serde(default)]
    memory_mb: Option<u64>,
    #[serde(default)]
    users: Option<Vec<Object<WireUser>>>,
    #[serde(default)]
    device_path: Option<String>,
    #[serde(default)]
    mount_point: Option<String>,
    #[serde(default)]
    backup_info: Option<Value>,
    #[serde(default)]
    config_contents: Option<String>,
    #[serde(default)]
    root_password: Option<Secret>,
    #[serde(default)]
    overrides: Option<Map<String, Value>>,
    #[serde(default)]
    cluster_config: Option<Value>,
    #[serde(default)]
    snapshot: Option<Object<WireSource>>,
    /// Ours: the pair it is to be a member of.
    #[serde(default)]
    pair: Option<Map<String, Value>>,
    #[serde(default)]
    modules: Option<Value>,
    #[serde(default)]
    ds_version: Option<String>,
}

impl Method for Prepare {
    const NAME: &'static str = NAME;
    const MODE: Mode = Mode::Change(OpKind::Prepare);
    const ARGS: &'static [Arg] = &[
        required("packages"),
        required("databases"),
        required("memory_mb"),
        required("users"),
        optional("device_path"),
        optional("mount_point"),
        optional("backup_info"),
        optional("config_contents"),
        optional("root_password"),
        optional("overrides"),
        optional("cluster_config"),
        optional("snapshot"),
        optional("modules"),
        optional("ds_version"),
        optional("pair"),
    ];
    const NOTIFIES: bool = true;
    type Args = PrepareArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, op: &Op, args: PrepareArgs) -> Result<(), RpcError> {
        if let Err(failure) = database(ctx, op, &args).await {
            error!(error = failure.chain(), "preparing the instance failed");
            ctx.set_phase(Phase::Failed).await;
            ctx.conductor.report_now(Status::FailedToSpawn).await;
            return Err(failure);
        }
        contents::make(ctx, op, args).await;
        Ok(())
    }
}

/// A `prepare` that was refused before it had its turn: an instance that has no database yet is failed, loudly.
pub async fn prepare_refused(ctx: &Ctx) {
    // Ready with a gate that says otherwise: the rest of a preparation that was cut off waits for its turn.
    let fails = ctx.publisher.now().phase != Phase::Ready && ctx.gate().refused();
    if fails {
        ctx.set_phase(Phase::Failed).await;
        ctx.conductor.report_now(Status::FailedToSpawn).await;
    }
}

/// Everything up to a running, secured database.
async fn database(ctx: &Ctx, op: &Op, args: &PrepareArgs) -> Result<(), RpcError> {
    let plan = plan(args);
    op.step(BEGIN, async {
        ctx.set_phase(Phase::Preparing).await;
        marker(ctx, "start").await?;
        ctx.conductor.report_now(Status::Building).await;
        Ok(())
    })
    .await?;
    refuse_unsupported(ctx, args)?;
    let stored = stored(args)?.map(|stored| stored.wanted(ctx, op)).transpose()?;
    let snapshot = args.snapshot.as_ref();
    let from = if stored.is_some() { Stored::Yes } else { Stored::No };
    let wanted = snapshot.map(|Object(snapshot)| Wanted::read(ctx, snapshot, "snapshot", from));
    let wanted = wanted.transpose()?;
    op.step(VOLUME, volume(ctx, args)).await?;
    op.step(CHECK, async {
        if let Some(wanted) = &wanted {
            fits(ctx, wanted).await?;
        }
        ctx.datastore.check_plan(&plan).await?;
        if let Some(stored) = &stored {
            ctx.backups.check(stored, &RestorePlace::Empty).await?;
        }
        Ok(())
    })
    .await?;
    for step in ctx.datastore.prepare_steps() {
        op.step(step.0, async {
            match &stored {
                Some(stored) if step.0 == DATA => replication::restore(ctx, op, stored, wanted.is_some()).await,
                _ => Ok(ctx.datastore.prepare_step(*step, &plan).await.map(drop)?),
            }
        })
        .await?;
    }
    if let Some(wanted) = &wanted {
        // Before the start: what was copied in part is not started.
        seed(ctx, op, wanted).await?;
    }
    // A reboot may lie between the last step and here.
    ctx.datastore.start().await?;
    if let Some(wanted) = &wanted {
        follow(ctx, op, wanted, FOLLOW_LIMIT).await?;
    }
    if let Some(spec) = pair_of(args)? {
        op.step(PAIR, role::join_pair(ctx, op, spec)).await?;
    }
    op.step(READY, async {
        let health = ctx.look().await;
        if health != Health::Healthy {
            let text = format!("the database does not answer after it was prepared: {health:?}");
            return Err(RpcError::new(ErrorClass::Trove, text));
        }
        if wanted.is_some() {
            replicates(ctx).await?;
        }
        marker(ctx, "end").await?;
        Ok(())
    })
    .await?;
    let phase = ctx.gate().prepared();
    ctx.set_phase(phase).await;
    ctx.look().await;
    ctx.conductor.report_now(Status::Healthy).await;
    Ok(())
}

/// The backup that is to be restored, if there is one: the row of a replica's snapshot comes along without a place when there is none,
/// because none was needed.
fn stored(args: &PrepareArgs) -> Result<Option<WireRestore>, RpcError> {
    let given = args.backup_info.as_ref().filter(|info| !is_empty(info));
    match given {
        None => Ok(None),
        Some(_) if args.snapshot.is_some() && !has_location(args.backup_info.as_ref()) => Ok(None),
        Some(info) => WireRestore::read(info).map(Some),
    }
}

/// The pair that this guest is to be a member of from the beginning.
fn pair_of(args: &PrepareArgs) -> Result<Option<PairSpec>, RpcError> {
    let given = args.pair.as_ref().filter(|pair| !pair.is_empty());
    given.map(role::read_pair).transpose()
}

/// A replica is good when it replicates, not when its server answers.
async fn replicates(ctx: &Ctx) -> Result<(), RpcError> {
    let status = ctx.replication(NAME)?.status().await?;
    if status.receiving && status.applying {
        return Ok(());
    }
    let why = status.error.unwrap_or_else(|| "it does not say why".to_owned());
    let text = format!("the database does not replicate after it was prepared: {why}");
    Err(RpcError::new(ErrorClass::Trove, text))
}

async fn volume(ctx: &Ctx, args: &PrepareArgs) -> Result<(), RpcError> {
    let wanted = &ctx.settings.mount_point;
    ctx.settings.check_mount_point(args.mount_point.as_deref())?;
    if ctx.settings.volume_support {
        let device = args.device_path.as_deref().filter(|device| !device.is_empty());
        super::volume::ensure(ctx, device).await?;
    } else {
        // Without a volume of its own the datastore lives in a folder, which nobody else makes.
        let mode = FileMode {
            mode: 0o755,
            owner: None,
        };
        let fail = |error| RpcError::caused(ErrorClass::Trove, format!("could not make {}", wanted.display()), error);
        ctx.host.make_dir(wanted, &mode).await.map_err(fail)?;
    }
    Ok(())
}

fn refuse_unsupported(ctx: &Ctx, args: &PrepareArgs) -> Result<(), RpcError> {
    let given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !is_empty(value));
    let pair = pair_of(args)?;
    if pair.is_some() && args.snapshot.is_some() {
        return Err(RpcError::new(
            ErrorClass::BadRequest,
            "a guest has a pair or a snapshot, not both",
        ));
    }
    if given(&args.cluster_config) {
        return Err(ctx.not_supported("cluster"));
    }
    match stored(args)? {
        Some(stored) if stored.is_snapshot() => Err(ctx.not_supported("restore of a volume snapshot")),
        _ => Ok(()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn plan(args: &PrepareArgs) -> PreparePlan {
    PreparePlan {
        config_contents: args.config_contents.clone().filter(|text| !text.trim().is_empty()),
        overrides: args.overrides.clone().unwrap_or_default(),
        memory_mb: args.memory_mb.unwrap_or(0),
        version: args.ds_version.clone().filter(|version| !version.is_empty()),
    }
}

/// Upstream's marker files: they tell a later agent, ours or upstream's, how far this one got.
async fn marker(ctx: &Ctx, which: &str) -> Result<Change, RpcError> {
    let folder = &ctx.settings.marker_dir;
    let path = folder.join(format!(".guestagent.prepare.{which}"));
    let fail = |error| RpcError::caused(ErrorClass::Trove, format!("could not write {}", path.display()), error);
    ctx.host
        .make_dir(
            folder,
            &FileMode {
                mode: 0o755,
                owner: None,
            },
        )
        .await
        .map_err(fail)?;
    ctx.host
        .write_atomic(
            &path,
            b"",
            &FileMode {
                mode: 0o644,
                owner: None,
            },
        )
        .await
        .map_err(fail)
}
