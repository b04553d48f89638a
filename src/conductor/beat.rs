//! The heartbeat's rhythm: at once when what is reportable changes, at least every interval, never faster than the limit.

use super::{Conductor, Status, reportable};
use crate::instance::View;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Shortest time between two heartbeats: a flapping server must not flood the conductor.
pub(super) const SHORTEST: Duration = Duration::from_millis(200);

/// Sends heartbeats until it is cancelled or the instance is gone.
pub(super) async fn run(conductor: Conductor, view: watch::Receiver<View>, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = rhythm(&conductor, view) => {}
    }
}

async fn rhythm(conductor: &Conductor, mut view: watch::Receiver<View>) {
    let interval = conductor.inner.settings.report_interval.max(SHORTEST);
    loop {
        let reported: Option<Status> = reportable(&view.borrow_and_update());
        let due = Instant::now() + interval;
        conductor.report_view().await;
        sleep(SHORTEST).await;
        loop {
            tokio::select! {
                () = sleep_until(due) => break,
                changed = view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if reportable(&view.borrow_and_update()) != reported {
                        break;
                    }
                }
            }
        }
    }
}
