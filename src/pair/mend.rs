//! What the guard does about pairs that a fault left without a decision, or without a source.

use super::PairError;
use super::guard::{ASK, Guard, ORPHAN};
use super::talk::{Ask, Decision};
use crate::instance::role::Role;
use datastore_api::chain;
use std::time::{Duration, Instant};
use tracing::{info, warn};

impl Guard {
    /// Asks for the decision of a switchover that a restart, or a lost answer, left open.
    pub(super) async fn decide(&mut self, op: &str) {
        if !self.due() {
            return;
        }
        let pair = self.pair.clone();
        let Ok(peer) = pair.peer() else { return };
        let decision: Result<Decision, _> = peer.ask(&Ask::Decision { op: op.to_owned() }, ASK).await;
        let done = match decision {
            Ok(Decision::Released) => {
                info!(op, "the source has released; going forward");
                let detached = match pair.replication() {
                    Ok(repl) => repl.detach(Duration::from_secs(30)).await.map(drop).map_err(PairError::from),
                    Err(failure) => Err(failure),
                };
                match detached {
                    Ok(()) => pair.become_source(|role| role.promoted(op), "switchover", op, None).await,
                    Err(failure) => Err(failure),
                }
            }
            Ok(Decision::Stayed) => {
                info!(op, "the source has not released; this guest stays a replica");
                let back = pair.0.store.change(|memory| {
                    memory.role = memory.role.gave_up(op, true)?;
                    Ok(())
                });
                back.await.map_err(PairError::from)
            }
            Ok(Decision::Open) => {
                let told: Result<Decision, _> = peer.ask(&Ask::Abort { op: op.to_owned() }, ASK).await;
                told.map(drop).map_err(PairError::from)
            }
            Err(failure) => Err(failure.into()),
        };
        if let Err(failure) = &done {
            warn!(op, error = chain(failure), "the switchover is not decided yet");
        }
        self.tried(done.is_ok());
    }

    /// Whether the pair has no source, and none is on its way: then this guest, if it has all that the other one has, asks the other to
    /// give way and is the source. It was the last one.
    pub(super) async fn orphaned(&mut self) -> bool {
        let pair = self.pair.clone();
        let (Ok(peer), Ok(repl)) = (pair.peer(), pair.replication()) else {
            return false;
        };
        let Ok(other) = peer.hello(pair.role().generation, ASK).await else {
            return false;
        };
        let Ok(ours) = repl.position().await else { return false };
        let behind = other
            .position
            .as_ref()
            .is_none_or(|theirs| !repl.covers(&ours, theirs).unwrap_or(false));
        if other.role == Role::Source || other.switch.is_some() || behind || pair.memory().reseed {
            self.orphan_since = None;
            return false;
        }
        let since = *self.orphan_since.get_or_insert_with(Instant::now);
        if since.elapsed() < ORPHAN {
            return false;
        }
        warn!("the pair has no source; this guest, which was the last one, is it again");
        let op = format!("return-{}", pair.role().highest() + 1);
        let done = pair.failover_in_lane(&op, None).await;
        if let Err(failure) = &done {
            warn!(error = chain(failure), "it could not become the source again");
        }
        self.orphan_since = None;
        self.tried(done.is_ok());
        true
    }
}
