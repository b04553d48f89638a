//! Tests of the conductor's client. The bus is a closure that collects, or refuses.

mod rhythm;
mod shapes;
mod states;

use super::*;
use crate::instance::Phase;
use crate::instance::view::Publisher;
use datastore_api::Health;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(super) const GUEST: &str = "5a3ae000-0000-4000-8000-000000000002";

pub(super) struct Rig {
    pub conductor: Conductor,
    pub publisher: Publisher,
    pub journal: Journal,
    pub casts: UnboundedReceiver<Cast>,
    pub cancel: CancellationToken,
    pub dir: tempfile::TempDir,
}

pub(super) fn settings(era: Era) -> Settings {
    Settings {
        guest_id: GUEST.to_owned(),
        report_interval: Duration::from_secs(30),
        era,
    }
}

/// A client whose messages can be received.
pub(super) fn rig(settings: Settings, phase: Phase) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    let (publisher, view) = Publisher::new(phase);
    let (tx, casts) = unbounded_channel();
    let cancel = CancellationToken::new();
    let send = move |cast| tx.send(cast).map_err(|_| BusError::Closed);
    let conductor = Conductor::start(settings, journal.clone(), view, send, cancel.clone());
    Rig {
        conductor,
        publisher,
        journal,
        casts,
        cancel,
        dir,
    }
}

impl Rig {
    pub(super) fn health(&self, health: Health) {
        self.publisher.update(|view| view.health = Some(health));
    }

    /// The next message, within ten seconds.
    pub(super) async fn next(&mut self) -> Cast {
        let next = tokio::time::timeout(Duration::from_secs(10), self.casts.recv()).await;
        next.expect("a message within ten seconds").expect("the client lives")
    }

    /// The next heartbeat's status and time stamp.
    pub(super) async fn beat(&mut self) -> (String, f64) {
        let cast = self.next().await;
        assert_eq!(cast.method, "heartbeat");
        let status = cast.args["payload"]["service_status"].as_str().unwrap().to_owned();
        (status, cast.args["sent"].as_f64().unwrap())
    }

    /// Nothing is sent for a while.
    pub(super) async fn silence(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(400), self.casts.recv()).await;
        assert!(next.is_err(), "{next:?}");
    }
}
