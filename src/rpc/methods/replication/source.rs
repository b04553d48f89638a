//! What the control plane asks of a source.

use super::shapes;
use crate::host;
use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, optional, required};
use crate::rpc::method::{Method, Mode, NoArgs};
use crate::rpc::methods::backup::{names_store, stored_snapshot};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError, role};
use datastore_api::{Position, ReplicaLogin, Replication, SourceEndpoint};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Logins that we create for replicas begin so; no other is ever removed at a caller's word.
const LOGIN_PREFIX: &str = "slave_";

/// `backup_required_for_replication`: always true.
///
/// No copy in a store is needed, but a caller that hears "no" makes no row for one, ends with the identity `null`, and at its end
/// deletes the backups whose parent is `null`: all full backups of the tenant.
pub struct BackupRequiredForReplication;

impl Method for BackupRequiredForReplication {
    const NAME: &'static str = "backup_required_for_replication";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = bool;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<bool, RpcError> {
        ctx.replication(Self::NAME).map(|_| true)
    }
}

/// `get_replication_snapshot`: what a new replica needs to get this guest's data and to follow it.
///
/// Where the caller names an object store that takes it, a full backup is made there, as upstream does; it takes the turn of a backup,
/// so that a failover does not wait for it. Otherwise the replica copies straight from here. The caller has made a row for a backup and
/// shows that row to people; it is reported as FAILED then, which is true, stops nothing, and lets the caller delete it at its end as it
/// always does. Left alone it could not be deleted for a day, because it would count as running; COMPLETED would be a backup that does
/// not exist.
pub struct GetReplicationSnapshot;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct SnapshotArgs {
    #[serde(default)]
    snapshot_info: Option<Map<String, Value>>,
    #[serde(default)]
    replica_source_config: Option<String>,
}

impl Method for GetReplicationSnapshot {
    const NAME: &'static str = "get_replication_snapshot";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[required("snapshot_info"), optional("replica_source_config")];
    type Args = SnapshotArgs;
    type Reply = Value;

    fn kind(ctx: &Ctx, args: &Map<String, Value>) -> Option<OpKind> {
        let info = args.get("snapshot_info")?;
        (ctx.backups.seeds_replicas() && names_store(info)).then_some(OpKind::Backup)
    }

    async fn run(ctx: &Ctx, op: &Op, args: SnapshotArgs) -> Result<Value, RpcError> {
        let replication = ctx.replication(Self::NAME)?;
        let info = args.snapshot_info.unwrap_or_default();
        let id = info.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| RpcError::new(ErrorClass::BadRequest, "snapshot_info.id is missing"))?;
        let endpoint = role::endpoint(ctx, Self::NAME)?;
        role::enabled(ctx, args.replica_source_config.as_deref()).await?;
        let stats = host::filesystem_stats(&ctx.settings.mount_point)
            .await
            .map_err(|error| RpcError::caused(ErrorClass::Guest, "could not tell the size of the data", error))?;
        let mut extra = role::extra(ctx);
        if ctx.backups.seeds_replicas()
            && names_store(&Value::Object(info.clone()))
            && let Some(position) = stored_snapshot(ctx, op, &info).await?
        {
            let login = replication.create_login().await?;
            return Ok(snapshot(ctx, replication, &endpoint, &login, &position, extra, id, &stats));
        }
        // Before the login, which is a write.
        let position = replication.position().await?;
        if position.is_zero() && replication.user_databases().await?.is_empty() {
            // Nothing to copy: the log has all there is.
            extra.insert("from".to_owned(), json!(position));
        } else {
            extra.insert("clone".to_owned(), ctx.copies.offer(&endpoint.host).await?);
        }
        let login = replication.create_login().await?;
        ctx.conductor.backup_failed(&op.context, id).await;
        Ok(snapshot(ctx, replication, &endpoint, &login, &position, extra, id, &stats))
    }
}

#[expect(clippy::too_many_arguments, reason = "they are the fields of one answer")]
fn snapshot(
    ctx: &Ctx,
    replication: &dyn Replication,
    endpoint: &SourceEndpoint,
    login: &ReplicaLogin,
    position: &Position,
    extra: Map<String, Value>,
    id: &str,
    stats: &host::FilesystemStats,
) -> Value {
    let mut answer = shapes::source(endpoint, login, position, extra);
    answer.insert("replication_strategy".to_owned(), json!(replication.strategy()));
    answer.insert("dataset".to_owned(), shapes::dataset(&ctx.settings.manager, id, stats));
    Value::Object(answer)
}

/// `get_replica_context`: what another guest needs to follow this one, with a login of its own.
pub struct GetReplicaContext;

impl Method for GetReplicaContext {
    const NAME: &'static str = "get_replica_context";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        let replication = ctx.replication(Self::NAME)?;
        let endpoint = role::endpoint(ctx, Self::NAME)?;
        let login = replication.create_login().await?;
        let position = replication.position().await?;
        Ok(Value::Object(shapes::source(&endpoint, &login, &position, role::extra(ctx))))
    }
}

/// `enable_as_master`: live, without a restart. Opens nothing: `make_read_only(false)` does.
pub struct EnableAsMaster;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct EnableArgs {
    #[serde(default)]
    replica_source_config: Option<String>,
}

impl Method for EnableAsMaster {
    const NAME: &'static str = "enable_as_master";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[required("replica_source_config")];
    type Args = EnableArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: EnableArgs) -> Result<(), RpcError> {
        role::enabled(ctx, args.replica_source_config.as_deref()).await
    }
}

/// `make_read_only`: closes writes, or opens them.
pub struct MakeReadOnly;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct ReadOnlyArgs {
    read_only: bool,
}

impl Method for MakeReadOnly {
    const NAME: &'static str = "make_read_only";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[required("read_only")];
    type Args = ReadOnlyArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: ReadOnlyArgs) -> Result<(), RpcError> {
        match args.read_only {
            true => role::close(ctx, Self::NAME).await,
            false => role::open(ctx, Self::NAME).await,
        }
    }
}

/// `demote_replication_master`, the end of a promotion for the old source. It follows the new one by now; nothing is left to do, and a
/// server that can still be written to is closed.
pub struct DemoteReplicationMaster;

impl Method for DemoteReplicationMaster {
    const NAME: &'static str = "demote_replication_master";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<(), RpcError> {
        if ctx.replication(Self::NAME)?.status().await?.read_only {
            return Ok(());
        }
        role::close(ctx, Self::NAME).await
    }
}

/// `cleanup_source_on_replica_detach`: removes the login of a replica that has left.
pub struct CleanupSourceOnReplicaDetach;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct CleanupArgs {
    replica_info: Option<Map<String, Value>>,
}

impl Method for CleanupSourceOnReplicaDetach {
    const NAME: &'static str = "cleanup_source_on_replica_detach";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[required("replica_info")];
    type Args = CleanupArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: CleanupArgs) -> Result<(), RpcError> {
        let info = args.replica_info.unwrap_or_default();
        let user = match info.get("replication_user") {
            // A replica that had none.
            None | Some(Value::Null) => return Ok(()),
            Some(Value::String(name)) => Some(name.as_str()),
            Some(user) => user.get("name").and_then(Value::as_str),
        };
        let Some(name) = user.filter(|name| is_replicas(name)) else {
            let text = "replica_info.replication_user is no login of a replica";
            return Err(RpcError::new(ErrorClass::BadRequest, text));
        };
        ctx.replication(Self::NAME)?.drop_login(name).await?;
        Ok(())
    }
}

/// Whether a login is one that we create for replicas.
pub fn is_replicas(name: &str) -> bool {
    name.strip_prefix(LOGIN_PREFIX)
        .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}
