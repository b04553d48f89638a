//! What a method is, and how a typed one becomes an entry of the table.

use super::args::{self, Arg};
use super::ctx::Ctx;
use super::failure::RpcError;
use super::op::Op;
use crate::bus::RpcVersion;
use crate::instance::gate::OpKind;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::future::Future;

/// How upstream's client sends a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// With reply.
    Call,
    /// Without.
    Cast,
}

/// Whether it waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Runs at once, beside anything else.
    Query,
    /// Waits for its turn, is journaled, and is admitted by the gate as this kind of operation.
    Change(OpKind),
}

/// Where a method comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In upstream's guest API client.
    Upstream,
    /// Sent by upstream's cluster strategies only.
    Cluster,
    /// Ours.
    Agent,
}

/// A use-case.
pub trait Method: 'static {
    /// Name on the wire.
    const NAME: &'static str;
    /// Query or change.
    const MODE: Mode;
    /// Arguments of every era.
    const ARGS: &'static [Arg];
    /// Whether its end is notified to the conductor (contract section 5.1, last paragraph).
    const NOTIFIES: bool = false;
    /// Arguments, decoded.
    type Args: DeserializeOwned + Send;
    /// Result, as the wire wants it.
    type Reply: Serialize;
    /// The kind of this very request, where its arguments tell that it is another than [`Method::MODE`] says.
    fn kind(_ctx: &Ctx, _args: &Map<String, Value>) -> Option<OpKind> {
        None
    }
    /// Does it.
    fn run(ctx: &Ctx, op: &Op, args: Self::Args) -> impl Future<Output = Result<Self::Reply, RpcError>> + Send;
}

/// A method that takes no arguments.
#[derive(Debug, serde::Deserialize)]
pub struct NoArgs {}

type Run = for<'a> fn(&'a Ctx, &'a Op, Map<String, Value>) -> BoxFuture<'a, Result<Value, RpcError>>;
type KindOf = fn(&Ctx, &Map<String, Value>) -> Option<OpKind>;
type Check = fn(&Map<String, Value>) -> Result<(), RpcError>;

/// A line of the table.
pub struct Entry {
    /// Name on the wire.
    pub name: &'static str,
    /// How upstream sends it.
    pub kind: Kind,
    /// Version upstream sends it with.
    pub version: RpcVersion,
    /// Where it comes from.
    pub origin: Origin,
    /// Its implementation; without one it answers "not supported".
    pub built: Option<Built>,
}

/// The implementation of a method, erased.
pub struct Built {
    /// Query or change.
    pub mode: Mode,
    /// Names of its arguments.
    pub args: &'static [Arg],
    /// Whether its end is notified.
    pub notifies: bool,
    pub(super) kind: KindOf,
    pub(super) run: Run,
    pub(super) check: Check,
}

impl Entry {
    /// A method upstream's client sends and we do not have yet.
    #[must_use]
    pub const fn absent(name: &'static str, kind: Kind, minor: u16) -> Self {
        Self {
            name,
            kind,
            version: RpcVersion { major: 1, minor },
            origin: Origin::Upstream,
            built: None,
        }
    }

    /// A method we have.
    #[must_use]
    pub const fn of<M: Method>(kind: Kind, minor: u16) -> Self {
        let built = Built {
            mode: M::MODE,
            args: M::ARGS,
            notifies: M::NOTIFIES,
            kind: M::kind,
            run: |ctx, op, args| Box::pin(run::<M>(ctx, op, args)),
            check: |args| {
                args::check_names(M::NAME, M::ARGS, args)?;
                args::decode::<M::Args>(M::NAME, args.clone()).map(drop)
            },
        };
        let version = RpcVersion { major: 1, minor };
        Self {
            name: M::NAME,
            kind,
            version,
            origin: Origin::Upstream,
            built: Some(built),
        }
    }

    /// The same, from elsewhere.
    #[must_use]
    pub const fn from(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }
}

async fn run<M: Method>(ctx: &Ctx, op: &Op, args: Map<String, Value>) -> Result<Value, RpcError> {
    args::check_names(M::NAME, M::ARGS, &args)?;
    let reply = M::run(ctx, op, args::decode(M::NAME, args)?).await?;
    serde_json::to_value(reply).map_err(|error| {
        RpcError::caused(
            super::ErrorClass::Trove,
            format!("could not encode the answer of {}", M::NAME),
            error,
        )
    })
}
