//! The life of the bus: connect, declare, consume, and after any error all of it again on a fresh connection.
//!
//! ```text
//!   Down ──connect──► connected ──declare──► consuming ──first message comes──► Up
//!    ▲                    │                      │                              │
//!    └── any error: drop everything, wait 0.5 s ±20 % ◄─────────────────────────┘
//! ```

use super::connect::{self, Link, random};
use super::consume::Consuming;
use super::declare;
use super::hub::{Hub, Life};
use super::publish::Publisher;
use super::{BusState, Delivery};
use datastore_api::chain;
use futures_util::StreamExt;
use lapin::Event;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Before the next connection: half a second, more or less a fifth, so that a thousand guests do not come at once.
fn pause() -> Duration {
    Duration::from_millis(400 + random() % 200)
}

/// Runs until the bus is cancelled.
pub async fn run(hub: Arc<Hub>, deliveries: mpsc::Sender<Delivery>) {
    let outbox = tokio::spawn({
        let hub = hub.clone();
        async move {
            if let Err(error) = hub.send_outbox().await {
                debug!(%error, "the outbox is closed");
            }
        }
    });
    let mut told = String::new();
    while !hub.cancel.is_cancelled() {
        let reason = tokio::select! {
            reason = live(&hub, &deliveries) => reason,
            () = hub.cancel.cancelled() => break,
        };
        let was_up = matches!(*hub.state.borrow(), BusState::Up { .. });
        if was_up || reason != told {
            warn!(reason, "the bus is down, connecting again");
        } else {
            debug!(reason, "the bus is still down");
        }
        hub.state.send_replace(BusState::Down(reason.clone()));
        told = reason;
        tokio::select! {
            () = sleep(pause()) => {}
            () = hub.cancel.cancelled() => break,
        }
    }
    let last = hub.life.send_replace(None);
    if let Some(life) = last {
        life.publisher.link().close().await;
        life.over.cancel();
    }
    hub.state.send_replace(BusState::Down("shut down".into()));
    // It ends by itself: it watches the same token.
    if let Err(error) = outbox.await {
        error!(%error, "the outbox task failed");
    }
    hub.ended.cancel();
}

/// One connection from its beginning to its end; answers why it ended.
async fn live(hub: &Arc<Hub>, deliveries: &mpsc::Sender<Delivery>) -> String {
    let link = match connect::connect(&hub.settings).await {
        Ok(link) => Arc::new(link),
        Err(error) => return chain(&error),
    };
    let life = Arc::new(Life {
        publisher: Publisher::new(link.clone()),
        over: CancellationToken::new(),
    });
    // Also when this future is dropped.
    let _over = life.over.clone().drop_guard();
    if let Err(error) = declare::exchange(&link.connection, &hub.settings).await {
        return chain(&error);
    }
    hub.life.send_replace(Some(life.clone()));
    let reason = tokio::select! {
        reason = consume(hub, &life, &link, deliveries) => reason,
        reason = broken(hub, &link) => reason,
        () = life.over.cancelled() => "the connection was lost".to_owned(),
    };
    if !hub.cancel.is_cancelled() {
        hub.life.send_replace(None);
        life.over.cancel();
        link.close().await;
    }
    reason
}

async fn consume(hub: &Arc<Hub>, life: &Arc<Life>, link: &Arc<Link>, deliveries: &mpsc::Sender<Delivery>) -> String {
    match Consuming::start(hub, life, link).await {
        Ok(consuming) => consuming.run(deliveries).await,
        Err(error) => chain(&error),
    }
}

/// Ends when the connection does.
async fn broken(hub: &Hub, link: &Link) -> String {
    let mut events = std::pin::pin!(link.connection.events_listener());
    while let Some(event) = events.next().await {
        match event {
            Event::Error(error) if !link.connection.status().connected() => return chain(&error),
            Event::ConnectionBlocked(reason) => warn!(reason, broker = link.broker, "the broker is blocked"),
            Event::ConnectionUnblocked => info!(broker = link.broker, "the broker is not blocked any more"),
            _ => {}
        }
    }
    hub.cancel.cancelled().await;
    String::new()
}
