//! A still moment for who copies the whole volume from outside (contract sections 5.8 and 8.6).

use crate::instance::gate::OpKind;
use crate::rpc::args::Arg;
use crate::rpc::method::{Method, Mode};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use datastore_api::{DriverError, ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The caller gives its snapshot 60 s, and may die in the meantime.
const LIMIT: Duration = Duration::from_secs(120);

/// Nothing is sent; what comes all the same is not looked at, as upstream does it.
#[derive(Debug, Deserialize)]
pub struct AnyArgs {}

/// `pre_create_backup`: holds writes and freezes the volume. It thaws by itself after [`LIMIT`], or when the agent dies.
pub struct PreCreateBackup;

impl Method for PreCreateBackup {
    const NAME: &'static str = "pre_create_backup";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[];
    type Args = AnyArgs;
    type Reply = Map<String, Value>;

    async fn run(ctx: &Ctx, _op: &Op, _args: AnyArgs) -> Result<Map<String, Value>, RpcError> {
        let backups = ctx.datastore.backups().ok_or_else(|| ctx.not_supported(Self::NAME))?;
        let frozen = backups.freeze(LIMIT).await.map_err(failed)?;
        let mut answer = Map::new();
        if let Some(file) = frozen.log_file {
            answer.insert("log_file".to_owned(), json!(file));
            answer.insert("log_position".to_owned(), json!(frozen.log_offset));
            answer.insert("log_executed_gtid_set".to_owned(), json!(frozen.position));
        }
        Ok(answer)
    }
}

/// `post_create_backup`: thaws. Fails if the volume was thawed before its time, so that the snapshot is not called good.
pub struct PostCreateBackup;

impl Method for PostCreateBackup {
    const NAME: &'static str = "post_create_backup";
    const MODE: Mode = Mode::Change(OpKind::Database);
    const ARGS: &'static [Arg] = &[];
    type Args = AnyArgs;
    type Reply = Map<String, Value>;

    async fn run(ctx: &Ctx, _op: &Op, _args: AnyArgs) -> Result<Map<String, Value>, RpcError> {
        let backups = ctx.datastore.backups().ok_or_else(|| ctx.not_supported(Self::NAME))?;
        backups.thaw().await.map_err(failed)?;
        Ok(Map::new())
    }
}

fn failed(error: DriverError) -> RpcError {
    match error.kind() {
        ErrorKind::NotSupported => error.into(),
        _ => RpcError::caused_by(ErrorClass::BackupCreation, error.to_string(), &error),
    }
}
