//! The one place in which a backup runs: at most one at a time, and never beside what stops or replaces the server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// The place. Who waits for it gets it in the order of asking.
#[derive(Default)]
pub struct Room {
    place: Arc<tokio::sync::Mutex<()>>,
    running: Mutex<Option<Running>>,
}

/// The place is held as long as this is.
#[derive(Debug)]
pub struct Held {
    _place: OwnedMutexGuard<()>,
}

#[derive(Debug, Clone)]
struct Running {
    id: String,
    stop: Stop,
}

/// How a backup hears that it shall end, and why.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    why: Arc<Mutex<Option<String>>>,
}

impl Stop {
    /// Says it. The first reason stays.
    pub fn now(&self, why: &str) {
        let mut told = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert_with(|| why.to_owned());
        drop(told);
        self.token.cancel();
    }

    /// For what runs inside the backup.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The reason, once there is one.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A backup in its place. Over when dropped.
pub struct Entered<'a> {
    room: &'a Room,
    stop: Stop,
}

impl Entered<'_> {
    /// How it hears that it shall end.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.room.lock() = None;
    }
}

impl Room {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the place.
    pub async fn hold(&self) -> Held {
        Held {
            _place: self.place.clone().lock_owned().await,
        }
    }

    /// Ends the backup that runs, if one does, and waits at most `limit` for the place. `None`: it does not end.
    pub async fn clear(&self, why: &str, limit: Duration) -> Option<Held> {
        self.stop(None, why);
        tokio::time::timeout(limit, self.hold()).await.ok()
    }

    /// A backup begins; its caller holds the place.
    pub fn enter(&self, id: &str) -> Entered<'_> {
        let stop = Stop::default();
        *self.lock() = Some(Running {
            id: id.to_owned(),
            stop: stop.clone(),
        });
        Entered { room: self, stop }
    }

    /// Tells the backup that runs, or only the one of this id, to end. Answers the id of the one that was told.
    pub fn stop(&self, id: Option<&str>, why: &str) -> Option<String> {
        let running = self.lock().clone()?;
        if id.is_some_and(|id| id != running.id) {
            return None;
        }
        running.stop.now(why);
        Some(running.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_backup_is_told_to_end_and_why_and_the_next_gets_its_place() {
        let room = Arc::new(Room::default());
        let held = room.hold().await;
        let entered = room.enter("a");
        let stop = entered.stop().clone();
        assert_eq!(room.stop(Some("b"), "x"), None);
        assert!(room.clear("stop_db was asked for", Duration::from_millis(20)).await.is_none());
        assert!(stop.token().is_cancelled());
        room.stop(None, "later");
        assert_eq!(stop.why().as_deref(), Some("stop_db was asked for"));
        let waits = tokio::spawn({
            let room = room.clone();
            async move { room.clear("restart was asked for", Duration::from_secs(5)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(entered);
        drop(held);
        assert!(waits.await.unwrap());
        assert_eq!(room.stop(None, "x"), None, "nothing runs");
    }
}
