//! Casts wait here, in order, until the broker has confirmed them.

use super::BusError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

struct Entry {
    method: &'static str,
    collapse: Option<&'static str>,
    body: Arc<Vec<u8>>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Entry>,
    /// The first entry is being sent and must not be replaced.
    sending: bool,
}

/// The queue of casts.
pub struct Outbox {
    inner: Mutex<Inner>,
    limit: usize,
    depth: watch::Sender<usize>,
}

impl Outbox {
    /// An empty one for at most `limit` casts.
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Mutex::default(),
            limit,
            depth: watch::Sender::new(0),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds one at the end. An older one with the same collapse key that is not being sent goes.
    pub fn push(&self, method: &'static str, collapse: Option<&'static str>, body: Vec<u8>) -> Result<(), BusError> {
        let mut inner = self.inner();
        if collapse.is_some() {
            let mut at = 0;
            let sending = inner.sending;
            inner.waiting.retain(|entry| {
                at += 1;
                entry.collapse != collapse || (at == 1 && sending)
            });
        }
        if inner.waiting.len() >= self.limit {
            let depth = inner.waiting.len();
            self.depth.send_replace(depth);
            return Err(BusError::OutboxFull { limit: self.limit });
        }
        let body = Arc::new(body);
        inner.waiting.push_back(Entry { method, collapse, body });
        let depth = inner.waiting.len();
        self.depth.send_replace(depth);
        Ok(())
    }

    /// Waits for a first entry and marks it as being sent. Only the one sender calls this.
    pub async fn first(&self) -> (&'static str, Arc<Vec<u8>>) {
        let mut depth = self.depth.subscribe();
        loop {
            {
                let mut inner = self.inner();
                if let Some(entry) = inner.waiting.front() {
                    let first = (entry.method, entry.body.clone());
                    inner.sending = true;
                    return first;
                }
            }
            depth.changed().await.expect("the sender lives in self");
        }
    }

    /// The first entry was sent, or was not and waits again.
    pub fn settle(&self, sent: bool) {
        let mut inner = self.inner();
        inner.sending = false;
        if sent {
            inner.waiting.pop_front();
        }
        let depth = inner.waiting.len();
        self.depth.send_replace(depth);
    }

    /// How many wait.
    pub fn depth(&self) -> usize {
        *self.depth.borrow()
    }

    /// Waits until none does; false if the limit passes first.
    pub async fn flush(&self, limit: Duration) -> bool {
        let mut depth = self.depth.subscribe();
        matches!(timeout(limit, depth.wait_for(|depth| *depth == 0)).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drain(outbox: &Outbox) -> Vec<String> {
        let mut all = Vec::new();
        while outbox.depth() > 0 {
            all.push(String::from_utf8(outbox.first().await.1.to_vec()).unwrap());
            outbox.settle(true);
        }
        all
    }

    #[tokio::test]
    async fn casts_keep_their_order_and_collapse_to_the_newest() {
        let outbox = Outbox::new(10);
        for (key, body) in [
            (Some("h"), "h1"),
            (None, "a"),
            (Some("h"), "h2"),
            (None, "b"),
            (Some("h"), "h3"),
        ] {
            outbox.push("m", key, body.into()).unwrap();
        }
        assert_eq!(drain(&outbox).await, ["a", "b", "h3"]);
        assert!(outbox.flush(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn what_is_being_sent_is_not_replaced_and_may_be_sent_again() {
        let outbox = Outbox::new(10);
        outbox.push("m", Some("h"), "h1".into()).unwrap();
        outbox.first().await;
        outbox.push("m", Some("h"), "h2".into()).unwrap();
        assert_eq!(outbox.depth(), 2);
        outbox.settle(false);
        assert_eq!(drain(&outbox).await, ["h1", "h2"]);
    }

    #[tokio::test]
    async fn a_full_outbox_refuses_but_still_collapses() {
        let outbox = Outbox::new(2);
        outbox.push("m", None, "a".into()).unwrap();
        outbox.push("m", Some("h"), "h1".into()).unwrap();
        assert!(matches!(
            outbox.push("m", None, "b".into()),
            Err(BusError::OutboxFull { limit: 2 })
        ));
        outbox.push("m", Some("h"), "h2".into()).unwrap();
        assert_eq!(drain(&outbox).await, ["a", "h2"]);
        assert!(Outbox::new(1).push("m", None, vec![]).is_ok());
    }
}
