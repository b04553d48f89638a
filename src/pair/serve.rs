//! What the other guest may ask, and what it is answered.

use super::talk::{Ask, State};
use super::{Pair, PairError, lock};
use crate::link::{Handler, KeyLookup, Limits, Listener, Peer, Stream};
use async_trait::async_trait;
use datastore_api::chain;
use serde::Serialize;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tracing::{error, info, warn};

/// The pair, and what answers those who have a key of another kind.
struct Served(Pair, Arc<dyn Handler>);

impl Served {
    fn is_ours(&self, peer: Peer) -> bool {
        lock(&self.0.0.key).as_ref().is_some_and(|key| key.id() == peer.key)
    }
}

fn json<T: Serialize>(answer: Result<T, PairError>) -> Result<Value, String> {
    let answer = answer.map_err(|failure| chain(&failure))?;
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

#[async_trait]
impl Handler for Served {
    async fn request(&self, peer: Peer, body: Value) -> Result<Value, String> {
        let pair = &self.0;
        if !self.is_ours(peer) {
            return self.1.request(peer, body).await;
        }
        let ask: Ask = serde_json::from_value(body).map_err(|error| format!("not a question of this version: {error}"))?;
        match ask {
            Ask::Hello { generation } => {
                pair.saw(generation).await;
                json(Ok(pair.state().await))
            }
            Ask::Ping { generation, .. } => {
                pair.saw(generation).await;
                json(Ok(pair.on_ping(&ask)))
            }
            Ask::Away {
                generation,
                within_ms,
                number,
            } => json(Ok(pair.on_away(generation, Duration::from_millis(within_ms), number))),
            Ask::Begin { op, next } => json(pair.on_begin(&op, next).await),
            Ask::Fence { op } => json(pair.on_fence(&op).await),
            Ask::Release { op } => json(pair.on_release(&op).await),
            Ask::Abort { op } => json(Ok(pair.on_abort(&op).await)),
            Ask::Decision { op } => json(Ok(pair.on_decision(&op).await)),
            Ask::Yield { op, next } => json(pair.on_yield(&op, next).await),
            Ask::TakeOver { generation } => json(pair.on_take_over(generation).await),
            Ask::Switchover { op, force } => json(pair.switchover(&op, force).await),
        }
    }

    async fn stream(&self, peer: Peer, open: Value, mut io: Stream) {
        if !self.is_ours(peer) {
            return self.1.stream(peer, open, io).await;
        }
        if open.get("verb").and_then(Value::as_str) != Some("clone") {
            return io.fail("there is no such stream").await;
        }
        let repl = match self.0.replication() {
            Ok(repl) => repl,
            Err(failure) => return io.fail(&chain(&failure)).await,
        };
        info!(peer = %peer.address, "a copy of the data is sent");
        match repl.send_clone(&mut io).await {
            Ok(position) => {
                info!(%position, "a copy of the data was sent");
                if let Err(error) = io.shutdown().await {
                    warn!(%error, "the end of the copy could not be sent");
                }
            }
            Err(failure) => {
                warn!(error = chain(&failure), "the copy failed");
                io.fail(&chain(&failure)).await;
            }
        }
    }
}

impl Pair {
    /// Who and how we are.
    pub(super) async fn state(&self) -> State {
        let role = self.role();
        let mut state = State {
            guest_id: self.0.settings.guest_id.clone(),
            role: role.role,
            // Who is about to begin one says so: an older source that comes back must not open meanwhile.
            generation: role.generation.max(self.0.coming.load(std::sync::atomic::Ordering::Relaxed)),
            writable: role.writable,
            switch: role.switch,
            healthy: self.healthy(),
            keeps: self.keeps(),
            position: None,
            received: None,
            log_state: None,
            mac: self.wires().mac(),
            database_port: 0,
            server_id: 0,
        };
        let Ok(repl) = self.replication() else { return state };
        state.database_port = repl.port();
        if state.healthy {
            match repl.status().await {
                Ok(status) => {
                    state.position = Some(status.position);
                    state.received = Some(status.received);
                    state.server_id = status.server_id;
                    state.log_state = repl.log_state().await.ok();
                }
                Err(failure) => {
                    state.healthy = false;
                    warn!(error = chain(&failure), "the database does not tell its position");
                }
            }
        }
        state
    }

    /// Listens for the other guest, from the start: until there is a pair, everybody is told so.
    pub(super) fn listen(&self, strangers: (KeyLookup, Arc<dyn Handler>)) {
        let this = self.clone();
        let (others, handler) = strangers;
        tokio::spawn(async move {
            let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            let addresses = any.map(|ip| SocketAddr::new(ip, this.0.settings.link_port));
            let listener = loop {
                match Listener::bind(&addresses) {
                    Ok(listener) => break listener,
                    Err(failure) => error!(error = chain(&failure), "the other guest cannot reach us; trying again"),
                }
                tokio::select! {
                    () = this.0.cancel.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                }
            };
            let keys = {
                let this = this.clone();
                Arc::new(move || lock(&this.0.key).iter().cloned().chain(others()).collect())
            };
            let cancel = this.0.cancel.clone();
            listener
                .serve(keys, Arc::new(Served(this, handler)), Limits::default(), cancel)
                .await;
        });
    }
}
