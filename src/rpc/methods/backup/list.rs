//! What is in a storage.

use super::restore::guests;
use super::shapes::{access, place};
use crate::backup::{BackupId, summary};
use crate::rpc::args::{Arg, optional};
use crate::rpc::method::{Method, Mode};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use serde::Deserialize;
use serde_json::{Value, json};

/// `list_backups`: those of this guest, or of all, or only one.
pub struct ListBackups;

/// `get_recovery_window`: to which moments recovery is possible, and how far the log is shipped.
pub struct GetRecoveryWindow;

impl Method for GetRecoveryWindow {
    const NAME: &'static str = "get_recovery_window";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[optional("storage"), optional("swift_url")];
    type Args = ListArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, op: &Op, args: ListArgs) -> Result<Value, RpcError> {
        let access = access(ctx, op, args.swift_url.as_deref(), None);
        let place = place(ctx, None, args.storage.as_deref(), &access)?;
        Ok(ctx.backups.window(&place, &access, &guests(ctx).await).await?)
    }
}

/// Which.
#[derive(Debug, Deserialize)]
pub struct ListArgs {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    storage: Option<String>,
    #[serde(default)]
    swift_url: Option<String>,
    #[serde(default)]
    all: Option<bool>,
}

impl Method for ListBackups {
    const NAME: &'static str = "list_backups";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[
        optional("id"),
        optional("location"),
        optional("storage"),
        optional("swift_url"),
        optional("all"),
    ];
    type Args = ListArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, op: &Op, args: ListArgs) -> Result<Value, RpcError> {
        let id: Option<BackupId> = args.id.as_deref().map(str::parse).transpose()?;
        let access = access(ctx, op, args.swift_url.as_deref(), None);
        let place = place(ctx, None, args.storage.as_deref(), &access)?;
        let is_one = id.is_some() || args.location.is_some();
        let guest = (!is_one && !args.all.unwrap_or(false)).then_some(ctx.settings.guest_id.as_str());
        let mut listing = ctx.backups.list(&place, &access, guest).await?;
        if is_one {
            listing
                .backups
                .retain(|backup| id.as_ref() == Some(&backup.id) || args.location.as_ref() == Some(&backup.location));
            if listing.backups.is_empty() {
                let which = id.map(|id| id.to_string()).or(args.location).unwrap_or_default();
                return Err(RpcError::new(
                    ErrorClass::NotFound,
                    format!("there is no backup {which} in {place}"),
                ));
            }
        }
        let backups: Vec<_> = listing.backups.iter().map(summary).collect();
        Ok(json!({"storage": place.to_string(), "backups": backups, "unreadable": listing.unreadable}))
    }
}
