//! What goes into a prepared database: databases, users, root.

use super::{NAME, PrepareArgs};
use crate::pair::SpecRole;
use crate::rpc::args::Object;
use crate::rpc::{Ctx, Op};
use datastore_api::{Database, User};
use tracing::warn;

pub(super) const DATABASES: &str = "databases";
pub(super) const USERS: &str = "users";
pub(super) const ROOT: &str = "root";

/// What goes into the database: errors are reported and do not fail the instance.
pub(super) async fn make(ctx: &Ctx, op: &Op, mut args: PrepareArgs) {
    let is_replica = args.snapshot.is_some()
        || super::pair_of(&args).is_ok_and(|pair| pair.is_some_and(|pair| pair.role == SpecRole::Replica));
    if is_replica
        && (args.databases.take().is_some_and(|list| !list.is_empty()) | args.users.take().is_some_and(|list| !list.is_empty()))
    {
        warn!("databases and users were asked for in a replica and were not made: it has its source's");
    }
    // A restored database has the accounts it had; the password of a root that it had not is not asked for.
    let is_restored = super::stored(&args).is_ok_and(|stored| stored.is_some());
    let accounts = ctx.accounts(NAME);
    let databases = args.databases.unwrap_or_default();
    let databases: Vec<Database> = databases.into_iter().map(|Object(database)| database.into()).collect();
    let users: Vec<User> = args
        .users
        .unwrap_or_default()
        .into_iter()
        .map(|Object(user)| user.into())
        .collect();
    let results = [
        op.step(DATABASES, async {
            if !databases.is_empty() {
                accounts
                    .as_ref()
                    .map_err(|_| ctx.not_supported("create_database"))?
                    .create_databases(&databases)
                    .await?;
            }
            Ok(())
        })
        .await,
        op.step(USERS, async {
            if !users.is_empty() {
                accounts
                    .as_ref()
                    .map_err(|_| ctx.not_supported("create_user"))?
                    .create_users(&users)
                    .await?;
            }
            Ok(())
        })
        .await,
        op.step(ROOT, async {
            if is_replica || is_restored {
                if accounts
                    .as_ref()
                    .map_err(|_| ctx.not_supported("is_root_enabled"))?
                    .is_root_enabled()
                    .await?
                {
                    ctx.conductor.report_root(&op.context).await;
                }
            } else if let Some(password) = args.root_password {
                accounts
                    .as_ref()
                    .map_err(|_| ctx.not_supported("enable_root"))?
                    .enable_root(Some(password))
                    .await?;
                ctx.conductor.report_root(&op.context).await;
            }
            Ok(())
        })
        .await,
    ];
    if args.modules.is_some_and(|modules| !super::is_empty(&modules)) {
        warn!("modules are not supported yet and were not applied");
    }
    for failure in results.into_iter().filter_map(Result::err) {
        let text = failure.chain();
        warn!(
            error = text,
            "the instance is ready, but not all of its contents could be made"
        );
        ctx.conductor
            .notify_exc_info(&op.context, &text, vec![format!("{text}\n")])
            .await;
    }
}
