//! The backup that replicas are made from, where the caller names a store that takes it.

use super::shapes::WireBackup;
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use datastore_api::Position;
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::info;

/// The one step: the backup has begun, and is not begun again after a crash.
const STORED: &str = "stored";

/// Whether the caller names an object store for the copy.
pub fn names_store(info: &Value) -> bool {
    info["storage_driver"] == "swift" && info["swift_url"].as_str().is_some_and(|url| !url.is_empty())
}

/// Makes it, a full one, and answers its position. `None`: that store takes nothing from here.
pub async fn stored_snapshot(ctx: &Ctx, op: &Op, info: &Map<String, Value>) -> Result<Option<Position>, RpcError> {
    let wrong = |_| RpcError::new(ErrorClass::BadRequest, "snapshot_info has a field of a wrong type");
    let wire = WireBackup::deserialize(Value::Object(info.clone())).map_err(wrong)?;
    let mut order = match wire.order(ctx, op) {
        Ok(order) => order,
        Err(error) => {
            info!(
                error = error.chain(),
                "no stored copy for a replica can be made; it copies from here"
            );
            return Ok(None);
        }
    };
    // The caller deletes it after its replicas are made: there is nothing to be saved by an increment that needs its parent.
    order.parent = None;
    let cut_off = op.is_done(STORED);
    if !cut_off && let Err(error) = ctx.backups.reaches(&order).await {
        info!(error, "the store takes no copy for a replica; it copies from here");
        return Ok(None);
    }
    op.record(STORED).await;
    let manifest = ctx.backups.create(&order, cut_off).await?;
    Ok(Some(manifest.engine.position))
}
