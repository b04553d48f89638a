//! How far a server is, in the words of the control plane.

use crate::rpc::args::{Arg, required};
use crate::rpc::method::{Method, Mode, NoArgs};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use datastore_api::Position;
use serde::Deserialize;
use std::time::Duration;

/// Longest wait for a position, and what is left of the caller's time for the answer's way back.
const WAIT: Duration = Duration::from_secs(170);
const RESERVE: Duration = Duration::from_secs(3);

/// `get_latest_txn_id`: everything this server has; `""` if nothing was ever written.
pub struct GetLatestTxnId;

impl Method for GetLatestTxnId {
    const NAME: &'static str = "get_latest_txn_id";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Position;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Position, RpcError> {
        Ok(ctx.replication(Self::NAME)?.position().await?)
    }
}

/// `get_last_txn`: `[identity of the source, number]`, by which the replicas of a dead source are ordered.
pub struct GetLastTxn;

impl Method for GetLastTxn {
    const NAME: &'static str = "get_last_txn";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = (Option<String>, u64);

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Self::Reply, RpcError> {
        Ok(ctx.replication(Self::NAME)?.last_of_source().await?)
    }
}

/// `get_txn_count`, of old callers: how many transactions this server has.
pub struct GetTxnCount;

impl Method for GetTxnCount {
    const NAME: &'static str = "get_txn_count";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = u64;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<u64, RpcError> {
        let replication = ctx.replication(Self::NAME)?;
        let here = replication.position().await?;
        Ok(replication.missing(&Position::default(), &here)?)
    }
}

/// `wait_for_txn`.
pub struct WaitForTxn;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct WaitArgs {
    txn: Position,
}

impl Method for WaitForTxn {
    const NAME: &'static str = "wait_for_txn";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[required("txn")];
    type Args = WaitArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, op: &Op, args: WaitArgs) -> Result<(), RpcError> {
        let replication = ctx.replication(Self::NAME)?;
        if let Err(error) = replication.covers(&args.txn, &args.txn) {
            return Err(RpcError::caused(
                ErrorClass::BadRequest,
                "argument 'txn' is no position",
                error,
            ));
        }
        let limit = op.time_left(WAIT, RESERVE);
        replication.wait_for(&args.txn, limit).await?;
        Ok(())
    }
}
