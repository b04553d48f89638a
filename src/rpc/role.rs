//! Where the control plane's own replication calls meet the role of this guest: what happens beside the driver's work when writes are
//! closed or opened, when it starts to follow or stops.

use super::ctx::Ctx;
use super::failure::{ErrorClass, RpcError};
use datastore_api::{BlockLimits, SourceEndpoint};
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

/// The key of ours in snapshots and contexts, which the control plane hands on unread.
pub const EXTRA: &str = "trove_guestagent";

/// What closing the writes may take before it is taken back.
const BLOCK: BlockLimits = BlockLimits {
    grace: Duration::from_millis(500),
    limit: Duration::from_secs(5),
};

/// Where replicas reach this guest: its address in the data network and the server's port.
pub fn endpoint(ctx: &Ctx, operation: &str) -> Result<SourceEndpoint, RpcError> {
    Ok(SourceEndpoint {
        host: data_address(ctx)?.to_string(),
        port: ctx.replication(operation)?.port(),
    })
}

/// Our address in the data network: the one the control plane described, else the one the default route starts from, as upstream's
/// agent has it.
pub fn data_address(ctx: &Ctx) -> Result<IpAddr, RpcError> {
    if let Some(address) = ctx.settings.data_address {
        return Ok(address);
    }
    // Nothing is sent: the kernel chooses the source address that it would send from.
    let chosen = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket
            .connect((Ipv4Addr::new(192, 0, 2, 1), 9))
            .and_then(|()| socket.local_addr())
    });
    match chosen {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip()),
        Ok(_) => Err(RpcError::new(
            ErrorClass::Trove,
            "this guest has no address in the data network",
        )),
        Err(error) => Err(RpcError::caused(
            ErrorClass::Trove,
            "could not find an address of this guest that replicas reach",
            error,
        )),
    }
}

/// Closes writes, for now and for the next start of the server. When that takes too long, all is as it was before.
pub async fn close(ctx: &Ctx, operation: &str) -> Result<(), RpcError> {
    let replication = ctx.replication(operation)?;
    let was_closed = replication.status().await?.read_only;
    // First: a server that crashes between here and the next step must not come back open.
    replication.set_start(true, false).await?;
    let closed = replication.block_writes(&BLOCK).await;
    if closed.is_err() && !was_closed {
        replication.set_start(false, false).await?;
    }
    let blocked = closed?;
    tracing::info!(
        idle_ended = blocked.idle_ended,
        writers_killed = blocked.writers_killed,
        position = %blocked.position,
        "writes are closed"
    );
    Ok(())
}

/// Opens writes, for now and for the next start of the server.
pub async fn open(ctx: &Ctx, operation: &str) -> Result<(), RpcError> {
    let replication = ctx.replication(operation)?;
    if let Some(source) = replication.status().await?.following {
        let text = format!("this guest follows {}:{}; a replica is not opened", source.host, source.port);
        return Err(RpcError::new(ErrorClass::Trove, text));
    }
    replication.open_writes().await?;
    replication.set_start(false, false).await?;
    Ok(())
}

/// This guest follows a source now.
pub async fn followed(_ctx: &Ctx) -> Result<(), RpcError> {
    Ok(())
}

/// This guest follows nobody any more.
pub async fn left(_ctx: &Ctx) -> Result<(), RpcError> {
    Ok(())
}

/// What a source tells its replicas of the pair.
pub fn extra(_ctx: &Ctx) -> Map<String, Value> {
    Map::new()
}

/// What a replica takes over of what its source told.
pub async fn adopt(_ctx: &Ctx, _extra: &Map<String, Value>) -> Result<(), RpcError> {
    Ok(())
}

/// A pair that this guest is to be a member of from the beginning.
pub fn check_pair(ctx: &Ctx, _pair: &Map<String, Value>) -> Result<(), RpcError> {
    Err(ctx.not_supported("pair"))
}
