//! Taking a backup, looking at it, ending it.

use super::shapes::{WireBackup, raw_id};
use crate::backup::{BackupId, summary};
use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, Object, optional, required};
use crate::rpc::method::{Method, Mode};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use serde::Deserialize;
use serde_json::{Value, json};

/// Name on the wire.
pub const CREATE_BACKUP: &str = "create_backup";
/// The one step: it has begun, and is not begun again after a crash.
const BEGIN: &str = "begin";

/// `create_backup`. Whatever becomes of it, its row does not wait for ever.
pub struct CreateBackup;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct CreateArgs {
    backup_info: Object<WireBackup>,
}

impl Method for CreateBackup {
    const NAME: &'static str = CREATE_BACKUP;
    const MODE: Mode = Mode::Change(OpKind::Backup);
    const ARGS: &'static [Arg] = &[required("backup_info")];
    const NOTIFIES: bool = true;
    type Args = CreateArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, op: &Op, args: CreateArgs) -> Result<Value, RpcError> {
        let Object(info) = args.backup_info;
        let failed = |error: RpcError| {
            let text = format!("Failed to create backup {}, error: {}", raw_id(&info), error.chain());
            RpcError::new(error.class(), text)
        };
        let order = match info.order(ctx, op) {
            Ok(order) => order,
            Err(error) => {
                ctx.backups.refused(raw_id(&info), &op.context, &error.chain()).await;
                return Err(failed(error));
            }
        };
        let cut_off = op.is_done(BEGIN);
        op.record(BEGIN).await;
        let made = ctx.backups.create(&order, cut_off).await;
        let manifest = made.map_err(|error| failed(error.into()))?;
        Ok(summary(&ctx.backups.verify_new(manifest, &order).await))
    }
}

/// `get_backup_status`: the job that runs, and how the last ones ended.
pub struct GetBackupStatus;

/// Which.
#[derive(Debug, Deserialize)]
pub struct WhichArgs {
    #[serde(default)]
    id: Option<String>,
}

impl WhichArgs {
    fn id(&self) -> Result<Option<BackupId>, RpcError> {
        Ok(self.id.as_deref().map(str::parse).transpose()?)
    }
}

impl Method for GetBackupStatus {
    const NAME: &'static str = "get_backup_status";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[optional("id")];
    type Args = WhichArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, args: WhichArgs) -> Result<Value, RpcError> {
        Ok(ctx.backups.status(args.id()?.as_ref()))
    }
}

/// `cancel_backup`: ends the backup that runs, or only the one of this id.
pub struct CancelBackup;

impl Method for CancelBackup {
    const NAME: &'static str = "cancel_backup";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[optional("id")];
    type Args = WhichArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, args: WhichArgs) -> Result<Value, RpcError> {
        match ctx.backups.cancel(args.id()?.as_ref(), "it was cancelled") {
            Some(id) => Ok(json!({"id": id, "state": "cancelling"})),
            None => Err(RpcError::new(ErrorClass::NotFound, "no such backup is running")),
        }
    }
}
