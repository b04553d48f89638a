//! Where the control plane's own replication calls meet the role of this guest: what happens beside the driver's work when writes are
//! closed or opened, when it starts to follow or stops.

use super::ctx::Ctx;
use super::failure::{ErrorClass, RpcError};
use super::op::Op;
use crate::pair::{Extra, PairSpec, SpecRole};
use datastore_api::{ServerStart, SourceEndpoint};
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// How long a replica waits for the other guest of its pair to be prepared, and for the copy of its data.
const PAIR_LIMIT: Duration = Duration::from_secs(3600);

/// The key of ours in snapshots and contexts, which the control plane hands on unread.
pub const EXTRA: &str = "trove_guestagent";

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
    if let Some(address) = ctx.pair.data_address().or(ctx.settings.data_address) {
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

/// Closes writes, for now and for the next start of the server, and releases the service address. When that takes too long, all is as
/// it was before.
pub async fn close(ctx: &Ctx, operation: &str) -> Result<(), RpcError> {
    let replication = ctx.replication(operation)?;
    let was_closed = replication.status().await?.read_only;
    // First: a server that crashes between here and the next step must not come back open.
    replication.set_start(ServerStart::closed(false)).await?;
    let closed = ctx.pair.make_read_only().await;
    if closed.is_err() && !was_closed {
        replication.set_start(ServerStart::default()).await?;
    }
    Ok(closed?)
}

/// Opens writes and takes the service address.
pub async fn open(ctx: &Ctx, operation: &str) -> Result<(), RpcError> {
    let replication = ctx.replication(operation)?;
    if let Some(source) = replication.status().await?.following {
        let text = format!("this guest follows {}:{}; a replica is not opened", source.host, source.port);
        return Err(RpcError::new(ErrorClass::Trove, text));
    }
    Ok(ctx.pair.make_writable().await?)
}

/// This guest is fit to be a source; one that followed another is the source of a new generation.
pub async fn enabled(ctx: &Ctx, options: Option<&str>) -> Result<(), RpcError> {
    Ok(ctx.pair.enable_as_source(options).await?)
}

/// This guest follows nobody any more. Unless that is part of a failover, it stands alone and is opened.
pub async fn left(ctx: &Ctx, for_failover: bool) -> Result<(), RpcError> {
    Ok(ctx.pair.detached(for_failover).await?)
}

/// What a source tells its replicas of the pair.
pub fn extra(ctx: &Ctx) -> Map<String, Value> {
    match serde_json::to_value(ctx.pair.extra()) {
        Ok(Value::Object(extra)) => extra,
        _ => Map::new(),
    }
}

/// What a replica takes over of what its source told: it follows that one from here.
pub async fn adopt(ctx: &Ctx, extra: &Map<String, Value>) -> Result<(), RpcError> {
    // What cannot be read was not written by us.
    let extra: Extra = serde_json::from_value(Value::Object(extra.clone())).unwrap_or_default();
    Ok(ctx.pair.becomes_replica(&extra).await?)
}

/// Reads the pair that this guest is to be a member of from the beginning.
pub fn read_pair(pair: &Map<String, Value>) -> Result<PairSpec, RpcError> {
    serde_json::from_value(Value::Object(pair.clone())).map_err(|error| {
        let category = if error.is_data() {
            "a field is missing, unknown or of a wrong type"
        } else {
            "it is not an object"
        };
        RpcError::new(ErrorClass::BadRequest, format!("argument 'pair' cannot be read: {category}"))
    })
}

/// Both guests may be prepared at the same time: a replica waits for its source, and is ready when it replicates.
pub async fn join_pair(ctx: &Ctx, op: &Op, spec: PairSpec) -> Result<(), RpcError> {
    ctx.look().await;
    let is_replica = spec.role == SpecRole::Replica;
    ctx.pair.configure(&op.id.0, spec).await?;
    if !is_replica {
        return Ok(());
    }
    let until = Instant::now() + PAIR_LIMIT;
    while !ctx.pair.follows().await {
        if Instant::now() > until {
            return Err(RpcError::new(
                ErrorClass::Trove,
                "the replica does not follow the source of its pair",
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
