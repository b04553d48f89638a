//! The remote root user (contract section 5.6).

use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, optional};
use crate::rpc::method::{Method, Mode, NoArgs};
use crate::rpc::{Ctx, Op, RpcError, shapes};
use datastore_api::Secret;
use serde::Deserialize;
use serde_json::Value;

/// `enable_root`: answers the user with its password.
pub struct EnableRoot;

impl Method for EnableRoot {
    const NAME: &'static str = "enable_root";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        let root = ctx.accounts(Self::NAME)?.enable_root(None).await?;
        Ok(shapes::root_user(&root))
    }
}

/// `enable_root_with_password`: the same with a given password.
pub struct EnableRootWithPassword;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct RootArgs {
    #[serde(default)]
    root_password: Option<Secret>,
}

impl Method for EnableRootWithPassword {
    const NAME: &'static str = "enable_root_with_password";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[optional("root_password")];
    type Args = RootArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, args: RootArgs) -> Result<Value, RpcError> {
        let root = ctx.accounts(Self::NAME)?.enable_root(args.root_password).await?;
        Ok(shapes::root_user(&root))
    }
}

/// `disable_root`: only makes it unusable.
pub struct DisableRoot;

impl Method for DisableRoot {
    const NAME: &'static str = "disable_root";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<(), RpcError> {
        ctx.accounts(Self::NAME)?.disable_root().await?;
        Ok(())
    }
}

/// `is_root_enabled`, read from the server.
pub struct IsRootEnabled;

impl Method for IsRootEnabled {
    const NAME: &'static str = "is_root_enabled";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = bool;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<bool, RpcError> {
        Ok(ctx.accounts(Self::NAME)?.is_root_enabled().await?)
    }
}
