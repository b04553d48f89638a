//! The verbs of the pair: ours, beside upstream's replication calls. The same over the bus and the local socket.

use crate::instance::gate::OpKind;
use crate::pair::{PairError, PairErrorKind, PairSpec, Report};
use crate::rpc::args::{Arg, Object, optional, required};
use crate::rpc::method::{Method, Mode, NoArgs};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use serde::Deserialize;
use serde_json::Value;

impl From<PairError> for RpcError {
    fn from(error: PairError) -> Self {
        let class = match error.kind() {
            PairErrorKind::Invalid => ErrorClass::BadRequest,
            PairErrorKind::NotSupported => ErrorClass::NotSupported,
            PairErrorKind::Refused | PairErrorKind::Failed => ErrorClass::Trove,
        };
        RpcError::caused_by(class, error.to_string(), &error)
    }
}

/// An operation that takes `force`.
#[derive(Debug, Deserialize)]
pub struct Forced {
    #[serde(default)]
    force: Option<bool>,
}

/// `configure_pair`.
pub struct ConfigurePair;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct ConfigureArgs {
    pair: Object<PairSpec>,
}

impl Method for ConfigurePair {
    const NAME: &'static str = "configure_pair";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[required("pair")];
    type Args = ConfigureArgs;
    type Reply = Report;

    async fn run(ctx: &Ctx, op: &Op, args: ConfigureArgs) -> Result<Report, RpcError> {
        Ok(ctx.pair.configure(&op.id.0, args.pair.0).await?)
    }
}

/// `dissolve_pair`.
pub struct DissolvePair;

impl Method for DissolvePair {
    const NAME: &'static str = "dissolve_pair";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Report;

    async fn run(ctx: &Ctx, op: &Op, _args: NoArgs) -> Result<Report, RpcError> {
        Ok(ctx.pair.dissolve(&op.id.0).await?)
    }
}

/// `get_pair_status`.
pub struct GetPairStatus;

impl Method for GetPairStatus {
    const NAME: &'static str = "get_pair_status";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        Ok(ctx.pair.status().await)
    }
}

/// `get_replication_status`.
pub struct GetReplicationStatus;

impl Method for GetReplicationStatus {
    const NAME: &'static str = "get_replication_status";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        Ok(ctx.pair.replication_status().await?)
    }
}

/// `get_vip_status`.
pub struct GetVipStatus;

impl Method for GetVipStatus {
    const NAME: &'static str = "get_vip_status";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        Ok(ctx.pair.vip_status().await)
    }
}

/// `hold_vip`.
pub struct HoldVip;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct HoldArgs {
    #[serde(default)]
    vip: Option<Vec<String>>,
}

impl Method for HoldVip {
    const NAME: &'static str = "hold_vip";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[optional("vip")];
    type Args = HoldArgs;
    type Reply = Report;

    async fn run(ctx: &Ctx, op: &Op, args: HoldArgs) -> Result<Report, RpcError> {
        Ok(ctx.pair.hold_vip(&op.id.0, args.vip).await?)
    }
}

/// `release_vip`.
pub struct ReleaseVip;

impl Method for ReleaseVip {
    const NAME: &'static str = "release_vip";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Report;

    async fn run(ctx: &Ctx, op: &Op, _args: NoArgs) -> Result<Report, RpcError> {
        Ok(ctx.pair.release_vip(&op.id.0).await?)
    }
}

/// `switchover`.
pub struct Switchover;

impl Method for Switchover {
    const NAME: &'static str = "switchover";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[optional("force")];
    type Args = Forced;
    type Reply = Report;

    async fn run(ctx: &Ctx, op: &Op, args: Forced) -> Result<Report, RpcError> {
        Ok(ctx.pair.switchover(&op.id.0, args.force.unwrap_or(false)).await?)
    }
}

/// `failover`.
pub struct Failover;

impl Method for Failover {
    const NAME: &'static str = "failover";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[optional("force")];
    type Args = Forced;
    type Reply = Report;

    async fn run(ctx: &Ctx, op: &Op, args: Forced) -> Result<Report, RpcError> {
        Ok(ctx.pair.failover(&op.id.0, args.force.unwrap_or(false)).await?)
    }
}

/// `rejoin`.
pub struct Rejoin;

impl Method for Rejoin {
    const NAME: &'static str = "rejoin";
    const MODE: Mode = Mode::Change(OpKind::Role);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Report;

    async fn run(ctx: &Ctx, op: &Op, _args: NoArgs) -> Result<Report, RpcError> {
        Ok(ctx.pair.rejoin(&op.id.0).await?)
    }
}
