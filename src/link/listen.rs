//! The listening side: sockets, and how little a stranger may cost.

use super::{Limits, LinkError, PairKey, Stream, serve, socket};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::KeyId;

/// Handshakes at a time: of all, and of one address (of one /64 for IPv6), so that one host cannot keep the peer out.
const SHAKING: usize = 32;
const SHAKING_OF_ONE: usize = 8;

/// The keys that are good now; none means that there is no pair. Asked at each handshake and each question, so it must be quick.
pub type KeyLookup = Arc<dyn Fn() -> Vec<PairKey> + Send + Sync>;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// With which key.
    pub key: KeyId,
}

/// What answers.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers a question, or says why not. Each question runs on its own: a slow one holds up no other, and none is ended by
    /// the loss of its connection.
    async fn request(&self, peer: Peer, body: Value) -> Result<Value, String>;

    /// Serves a byte stream that was opened with `open`. Whoever returns without `shutdown` or [`Stream::fail`] has cut it.
    async fn stream(&self, peer: Peer, open: Value, io: Stream) {
        let _ = (peer, open);
        io.fail("this agent serves no streams here").await;
    }
}

/// Sockets that are listened on.
pub struct Listener {
    sockets: Vec<TcpListener>,
}

impl Listener {
    /// Listens on all of `addresses`, v4 and v6, or on none.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, LinkError> {
        let mut sockets = Vec::new();
        for address in addresses {
            sockets.push(socket::listen(*address).map_err(|source| LinkError::Bind {
                address: *address,
                source: Arc::new(source),
            })?);
        }
        Ok(Self { sockets })
    }

    /// Where it listens: the ports the kernel chose, if it was to choose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until cancelled; then all connections are closed, while questions that are being worked on go on.
    pub async fn serve(self, keys: KeyLookup, handler: Arc<dyn Handler>, limits: Limits, cancel: CancellationToken) {
        let server = Arc::new(serve::Server {
            keys,
            handler,
            limits,
            cancel,
        });
        let door = Arc::new(Door::default());
        let accepting = self
            .sockets
            .into_iter()
            .map(|socket| accept(socket, server.clone(), door.clone()));
        futures_util::future::join_all(accepting).await;
    }
}

async fn accept(socket: TcpListener, server: Arc<serve::Server>, door: Arc<Door>) {
    loop {
        let accepted = tokio::select! {
            () = server.cancel.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => begin(stream, address, &server, &door),
            Err(error) => {
                // Out of descriptors, mostly: the next try must not spin.
                warn!(%error, "could not accept a connection of a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn begin(stream: TcpStream, address: SocketAddr, server: &Arc<serve::Server>, door: &Arc<Door>) {
    let Some(place) = door.enter(address.ip()) else {
        debug!(%address, "too many handshakes at once, a connection was dropped");
        return;
    };
    let server = server.clone();
    tokio::spawn(async move {
        let cancel = server.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = serve::connection(&server, stream, address, place) => {}
        }
    });
}

/// Counts those who have not proved the key yet.
#[derive(Default)]
struct Door(Mutex<HashMap<IpAddr, usize>>);

/// A place among them; given back when dropped.
pub(super) struct Place(Arc<Door>, IpAddr);

impl Door {
    fn inside(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let from = net(from);
        let mut inside = self.inside();
        if inside.values().sum::<usize>() >= SHAKING || inside.get(&from).is_some_and(|count| *count >= SHAKING_OF_ONE) {
            return None;
        }
        *inside.entry(from).or_default() += 1;
        Some(Place(self.clone(), from))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.0.inside();
        if let Some(count) = inside.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.1);
            }
        }
    }
}

/// One host may have a whole /64.
fn net(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => (v6.to_bits() >> 64 << 64).to_be_bytes().into(),
    }
}
