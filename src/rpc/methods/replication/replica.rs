//! What the control plane asks of a replica.

use super::seed::{self, Stored, Wanted};
use super::shapes::WireSource;
use super::source::is_replicas;
use crate::conductor::Status;
use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, Object, optional, required};
use crate::rpc::method::{Method, Mode};
use crate::rpc::{Ctx, Op, RpcError, role};
use datastore_api::chain;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::time::Duration;
use tracing::warn;

/// Longest wait for a source that does not answer, and for what was received to be applied.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
const APPLY_LIMIT: Duration = Duration::from_secs(160);
const RESERVE: Duration = Duration::from_secs(10);

const BEGIN: &str = "begin";

/// `attach_replica`: follows a source, live. A snapshot (it has a `dataset`) is copied first, into a server without data of users.
pub struct AttachReplica;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct AttachArgs {
    replica_info: Object<WireSource>,
    /// The server's options as a replica; it has all of them from the beginning.
    #[serde(default, rename = "slave_config")]
    _slave_config: Option<String>,
    #[serde(default, rename = "restart")]
    _restart: Option<IgnoredAny>,
}

impl Method for AttachReplica {
    const NAME: &'static str = "attach_replica";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[required("replica_info"), required("slave_config"), optional("restart")];
    type Args = AttachArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, op: &Op, args: AttachArgs) -> Result<(), RpcError> {
        attach(ctx, op, &args.replica_info.0, "replica_info").await
    }
}

/// `attach_replication_slave`, the same of old callers.
pub struct AttachReplicationSlave;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct AttachSlaveArgs {
    snapshot: Object<WireSource>,
    #[serde(default, rename = "slave_config")]
    _slave_config: Option<String>,
}

impl Method for AttachReplicationSlave {
    const NAME: &'static str = "attach_replication_slave";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[required("snapshot"), optional("slave_config")];
    type Args = AttachSlaveArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, op: &Op, args: AttachSlaveArgs) -> Result<(), RpcError> {
        attach(ctx, op, &args.snapshot.0, "snapshot").await
    }
}

async fn attach(ctx: &Ctx, op: &Op, info: &WireSource, what: &str) -> Result<(), RpcError> {
    let wanted = Wanted::read(ctx, info, what, Stored::No)?;
    seed::fits(ctx, &wanted).await?;
    op.step(BEGIN, seed::begin(ctx, op, &wanted)).await?;
    let limit = op.time_left(FOLLOW_LIMIT, RESERVE);
    let followed = async {
        seed::seed(ctx, op, &wanted).await?;
        seed::follow(ctx, op, &wanted, limit).await
    };
    let result = followed.await;
    ctx.look().await;
    // Upstream's agent tells that the instance failed, once; the next heartbeat tells how its database is.
    let status = if result.is_ok() {
        Status::Healthy
    } else {
        Status::FailedToSpawn
    };
    ctx.conductor.report_now(status).await;
    result
}

/// `detach_replica`. Everything received is applied first. For a failover it stays read-only until it is told otherwise; else it is
/// opened, and the login that came with its source's data is removed.
pub struct DetachReplica;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct DetachArgs {
    #[serde(default)]
    for_failover: Option<bool>,
}

impl Method for DetachReplica {
    const NAME: &'static str = "detach_replica";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[optional("for_failover")];
    type Args = DetachArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, op: &Op, args: DetachArgs) -> Result<Value, RpcError> {
        let replication = ctx.replication(Self::NAME)?;
        let for_failover = args.for_failover.unwrap_or(false);
        // No step is recorded: it lies inside the time without writes, and to leave a source twice changes nothing.
        replication.detach(op.time_left(APPLY_LIMIT, RESERVE)).await?;
        role::left(ctx, for_failover).await?;
        let login = seed::stored_login(ctx).await;
        if for_failover {
            return Ok(json!({"replication_user": login}));
        }
        if let Some(name) = login.as_deref().filter(|name| is_replicas(name))
            && let Err(error) = replication.drop_login(name).await
        {
            warn!(
                error = chain(&error),
                "could not remove the login of a replica that is none any more"
            );
        }
        ctx.look().await;
        ctx.conductor.report_now(Status::Healthy).await;
        Ok(json!({"replication_user": login}))
    }
}
