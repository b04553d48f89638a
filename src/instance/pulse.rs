//! Looks at the database's health and publishes what it sees.

use super::view::Publisher;
use super::{Phase, View};
use datastore_api::Datastore;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often the health is looked at when nothing happens.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How soon again after it was not good.
const NERVOUS: Duration = Duration::from_secs(2);

/// Looks once, and publishes.
pub async fn look(datastore: &dyn Datastore, publisher: &Publisher) {
    let health = datastore.health().await;
    publisher.update(|view| view.health = Some(health));
}

/// Looks until cancelled: at [`INTERVAL`], sooner while the health is not good, and at once when the server's process
/// changes state. Idle before the instance is prepared.
pub async fn run(datastore: Arc<dyn Datastore>, publisher: Publisher, cancel: CancellationToken) {
    let mut view = publisher.subscribe();
    loop {
        let now: View = view.borrow_and_update().clone();
        if now.phase == Phase::Ready {
            look(datastore.as_ref(), &publisher).await;
        }
        let good = matches!(publisher.now().health, Some(datastore_api::Health::Healthy));
        let next = Instant::now() + if good { INTERVAL } else { NERVOUS };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = datastore.changed(), if now.phase == Phase::Ready => {}
            () = sleep_until(next), if now.phase == Phase::Ready => {}
            changed = view.wait_for(|v| v.phase != now.phase) => if changed.is_err() { return },
        }
    }
}
