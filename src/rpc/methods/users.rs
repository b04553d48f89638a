//! Users and their access (contract section 5.6).

use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, Object, optional, required};
use crate::rpc::method::{Method, Mode};
use crate::rpc::shapes::{self, ListArgs, ListReply, WireUser};
use crate::rpc::{Ctx, Op, RpcError};
use datastore_api::{PageRequest, PasswordChange, Secret, User, UserAttributes};
use serde::Deserialize;
use serde_json::Value;

/// `create_user`, with grants.
pub struct CreateUser;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct CreateArgs {
    users: Vec<Object<WireUser>>,
}

impl Method for CreateUser {
    const NAME: &'static str = "create_user";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("users")];
    const NOTIFIES: bool = true;
    type Args = CreateArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: CreateArgs) -> Result<(), RpcError> {
        let users: Vec<User> = args.users.into_iter().map(|Object(user)| user.into()).collect();
        ctx.accounts(Self::NAME)?.create_users(&users).await?;
        Ok(())
    }
}

/// `delete_user`
pub struct DeleteUser;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct DeleteArgs {
    user: Object<WireUser>,
}

impl Method for DeleteUser {
    const NAME: &'static str = "delete_user";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("user")];
    const NOTIFIES: bool = true;
    type Args = DeleteArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: DeleteArgs) -> Result<(), RpcError> {
        ctx.accounts(Self::NAME)?
            .delete_user(&User::from(args.user.0).account)
            .await?;
        Ok(())
    }
}

/// `get_user`: the user or null.
pub struct GetUser;

/// A user by name and host.
#[derive(Debug, Deserialize)]
pub struct WhoArgs {
    username: String,
    #[serde(default)]
    hostname: Option<String>,
}

impl Method for GetUser {
    const NAME: &'static str = "get_user";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[required("username"), required("hostname")];
    type Args = WhoArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, args: WhoArgs) -> Result<Value, RpcError> {
        let account = shapes::account(args.username, args.hostname);
        let found = ctx.accounts(Self::NAME)?.find_user(&account).await?;
        Ok(found.as_ref().map_or(Value::Null, shapes::user))
    }
}

/// `list_users`, a page by `user@host`.
pub struct ListUsers;

impl Method for ListUsers {
    const NAME: &'static str = "list_users";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[optional("limit"), optional("marker"), optional("include_marker")];
    type Args = ListArgs;
    type Reply = ListReply;

    async fn run(ctx: &Ctx, _op: &Op, args: ListArgs) -> Result<ListReply, RpcError> {
        let page = ctx.accounts(Self::NAME)?.list_users(&PageRequest::from(args)).await?;
        Ok(ListReply::new(&page, shapes::user))
    }
}

/// `change_passwords`.
pub struct ChangePasswords;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct PasswordArgs {
    users: Vec<Object<NewPassword>>,
}

/// An entry: here the wire has no underscores (contract section 6.2).
#[derive(Debug, Deserialize)]
struct NewPassword {
    name: String,
    #[serde(default)]
    host: Option<String>,
    password: Secret,
}

impl Method for ChangePasswords {
    const NAME: &'static str = "change_passwords";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("users")];
    const NOTIFIES: bool = true;
    type Args = PasswordArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: PasswordArgs) -> Result<(), RpcError> {
        let change = |Object(user): Object<NewPassword>| PasswordChange {
            account: shapes::account(user.name, user.host),
            password: user.password,
        };
        let changes: Vec<_> = args.users.into_iter().map(change).collect();
        ctx.accounts(Self::NAME)?.change_passwords(&changes).await?;
        Ok(())
    }
}

/// `update_attributes`.
pub struct UpdateAttributes;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct AttributeArgs {
    username: String,
    #[serde(default)]
    hostname: Option<String>,
    user_attrs: Object<Attributes>,
}

/// What changes; absent or null stays.
#[derive(Debug, Deserialize)]
struct Attributes {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
}

impl Method for UpdateAttributes {
    const NAME: &'static str = "update_attributes";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("username"), required("hostname"), required("user_attrs")];
    const NOTIFIES: bool = true;
    type Args = AttributeArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: AttributeArgs) -> Result<(), RpcError> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let Attributes { name, host, password } = args.user_attrs.0;
        let wanted = UserAttributes {
            name: some(name),
            host: some(host),
            password,
        };
        let account = shapes::account(args.username, args.hostname);
        ctx.accounts(Self::NAME)?.update_user(&account, &wanted).await?;
        Ok(())
    }
}

/// `grant_access`: all privileges on the databases.
pub struct GrantAccess;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct GrantArgs {
    username: String,
    #[serde(default)]
    hostname: Option<String>,
    databases: Vec<String>,
}

impl Method for GrantAccess {
    const NAME: &'static str = "grant_access";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("username"), required("hostname"), required("databases")];
    type Args = GrantArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: GrantArgs) -> Result<(), RpcError> {
        let account = shapes::account(args.username, args.hostname);
        ctx.accounts(Self::NAME)?.grant(&account, &args.databases).await?;
        Ok(())
    }
}

/// `revoke_access`.
pub struct RevokeAccess;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct RevokeArgs {
    username: String,
    #[serde(default)]
    hostname: Option<String>,
    database: String,
}

impl Method for RevokeAccess {
    const NAME: &'static str = "revoke_access";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[required("username"), required("hostname"), required("database")];
    type Args = RevokeArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: RevokeArgs) -> Result<(), RpcError> {
        let account = shapes::account(args.username, args.hostname);
        ctx.accounts(Self::NAME)?.revoke(&account, &args.database).await?;
        Ok(())
    }
}

/// `list_access`: databases with any privilege.
pub struct ListAccess;

impl Method for ListAccess {
    const NAME: &'static str = "list_access";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[required("username"), required("hostname")];
    type Args = WhoArgs;
    type Reply = Vec<Value>;

    async fn run(ctx: &Ctx, _op: &Op, args: WhoArgs) -> Result<Vec<Value>, RpcError> {
        let account = shapes::account(args.username, args.hostname);
        let databases = ctx.accounts(Self::NAME)?.list_access(&account).await?;
        Ok(databases.iter().map(shapes::database).collect())
    }
}
