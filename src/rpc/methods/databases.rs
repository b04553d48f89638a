//! Databases (contract section 5.6).

use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, Object, optional, required};
use crate::rpc::method::{Method, Mode};
use crate::rpc::shapes::{self, ListArgs, ListReply, WireDatabase};
use crate::rpc::{Ctx, Op, RpcError};
use datastore_api::{Database, PageRequest};
use serde::Deserialize;

/// `create_database`
pub struct CreateDatabase;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct CreateArgs {
    databases: Vec<Object<WireDatabase>>,
}

impl Method for CreateDatabase {
    const NAME: &'static str = "create_database";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("databases")];
    const NOTIFIES: bool = true;
    type Args = CreateArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: CreateArgs) -> Result<(), RpcError> {
        let databases: Vec<Database> = args.databases.into_iter().map(|Object(database)| database.into()).collect();
        ctx.accounts(Self::NAME)?.create_databases(&databases).await?;
        Ok(())
    }
}

/// `delete_database`
pub struct DeleteDatabase;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct DeleteArgs {
    database: Object<WireDatabase>,
}

impl Method for DeleteDatabase {
    const NAME: &'static str = "delete_database";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("database")];
    const NOTIFIES: bool = true;
    type Args = DeleteArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: DeleteArgs) -> Result<(), RpcError> {
        ctx.accounts(Self::NAME)?.delete_database(&args.database.0.name).await?;
        Ok(())
    }
}

/// `list_databases`, a page by name.
pub struct ListDatabases;

impl Method for ListDatabases {
    const NAME: &'static str = "list_databases";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[optional("limit"), optional("marker"), optional("include_marker")];
    type Args = ListArgs;
    type Reply = ListReply;

    async fn run(ctx: &Ctx, _op: &Op, args: ListArgs) -> Result<ListReply, RpcError> {
        let page = ctx.accounts(Self::NAME)?.list_databases(&PageRequest::from(args)).await?;
        Ok(ListReply::new(&page, shapes::database))
    }
}
