//! What an acknowledged write is worth: the guard switches it on when the replica can do its part, and knows when it is in force.

use super::Pair;
use super::guard::{ASK, Guard};
use crate::instance::role::Role;
use datastore_api::{Durability, chain};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{info, warn};

/// How often, and how long apart, a replica looks whether it has all that its source had a moment ago.
const LOOKS: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(50);

/// Counts how often the database was away.
pub(super) async fn count_starts(pair: Pair) {
    let mut view = pair.0.view.clone();
    while view.changed().await.is_ok() {
        if !pair.healthy() {
            pair.0.starts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Pair {
    /// Whether this replica still has everything that it told its source to have received.
    pub(super) fn keeps(&self) -> bool {
        self.0.starts.load(Ordering::Relaxed) == self.0.caught_up.load(Ordering::Relaxed)
    }

    /// After a start of the database, or of this agent: a replica that has all that its source has now lacks nothing it had before.
    pub(super) async fn catch_up(&self) {
        let start = self.0.starts.load(Ordering::Relaxed);
        let (Ok(peer), Ok(repl), false) = (self.peer(), self.replication(), self.keeps()) else {
            return;
        };
        if let Ok(spec) = self.spec()
            && let Err(failure) = repl.set_durability(spec.durability, false).await
        {
            warn!(error = chain(&failure), "this replica may not acknowledge what it receives");
        }
        let generation = self.role().generation;
        let Ok(source) = peer.hello(generation, ASK).await else {
            return;
        };
        let (Role::Source, Some(at)) = (source.role, source.position) else {
            return;
        };
        for _ in 0..LOOKS {
            let Ok(status) = repl.status().await else { return };
            let has_all = repl.covers(&status.received, &at).unwrap_or(false);
            if has_all && status.receiving && source.generation == generation {
                info!("this replica has all that its source has");
                self.0.caught_up.store(start, Ordering::Relaxed);
                return;
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }
}

impl Guard {
    /// A commit whose acknowledgement was lost with the replica's connection is never asked for again, and nothing is written behind it.
    /// The replica has it: whoever waits is ended, and finds out when it asks again.
    pub(super) async fn unblock(&mut self, status: &datastore_api::ReplicationStatus) {
        let pair = self.pair.clone();
        if status.semi_sync.waiting == 0 || status.semi_sync.replicas == 0 {
            self.stuck = 0;
            return;
        }
        self.stuck += 1;
        let (Ok(peer), Ok(repl)) = (pair.peer(), pair.replication()) else {
            return;
        };
        let received = peer.heard().and_then(|(_, other)| other.received);
        let has_all = received.is_some_and(|theirs| repl.covers(&theirs, &status.position).unwrap_or(false));
        if self.stuck < 3 || !has_all {
            return;
        }
        warn!(
            waiting = status.semi_sync.waiting,
            "commits wait for an acknowledgement that was lost; who waits is ended"
        );
        if let Err(failure) = repl.unblock_commits().await {
            warn!(error = chain(&failure), "they could not be ended");
        }
        self.stuck = 0;
    }

    /// What an acknowledged write is worth, once the replica can do its part.
    pub(super) async fn durability(&mut self, on: bool) {
        let pair = self.pair.clone();
        let (Ok(spec), Ok(peer), Ok(repl)) = (pair.spec(), pair.peer(), pair.replication()) else {
            return;
        };
        let Ok(other) = peer.hello(pair.role().generation, ASK).await else {
            return;
        };
        if on || spec.durability == Durability::Async || other.role != Role::Replica || !other.healthy {
            return;
        }
        let (Some(theirs), Ok(ours)) = (other.position, repl.position().await) else {
            return;
        };
        let caught_up = repl.missing(&theirs, &ours).is_ok_and(|behind| behind <= 100);
        if !caught_up || other.generation != pair.role().generation {
            return;
        }
        match repl.set_durability(spec.durability, true).await {
            Ok(_) => {
                info!(durability = ?spec.durability, "the replica has caught up; commits wait for it from now on");
                self.proof = Some(repl.position().await.unwrap_or(ours));
            }
            Err(failure) => warn!(error = chain(&failure), "the durability could not be set"),
        }
    }

    /// Whether the replica has received what was written while nobody waited for it.
    pub(super) fn proven(&mut self) -> bool {
        let Some(proof) = &self.proof else { return true };
        let (Ok(peer), Ok(repl)) = (self.pair.peer(), self.pair.replication()) else {
            return false;
        };
        let received = peer.heard().and_then(|(_, other)| other.received);
        let proven = received.is_some_and(|theirs| repl.covers(&theirs, proof).unwrap_or(false));
        if proven {
            self.proof = None;
        }
        proven
    }
}
