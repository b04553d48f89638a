//! Which deliveries are being handled and which were acknowledged lately, so that a repeat is never handled twice.

use super::Delivery;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// How many acknowledged ids are remembered.
const REMEMBERED: usize = 1024;

/// The consuming channel of one connection, and how many of its deliveries wait for an acknowledgement.
pub struct Intake {
    /// The channel.
    pub channel: Channel,
    unacked: AtomicUsize,
}

impl Intake {
    /// For a channel that consumes.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            unacked: AtomicUsize::new(0),
        }
    }

    /// Deliveries that wait for an acknowledgement.
    pub fn unacked(&self) -> usize {
        self.unacked.load(Ordering::Relaxed)
    }
}

/// One delivery as the broker counts it.
#[derive(Clone)]
pub struct Tag {
    intake: Arc<Intake>,
    number: u64,
}

impl Tag {
    /// Counts a delivery in.
    pub fn new(intake: &Arc<Intake>, number: u64) -> Self {
        intake.unacked.fetch_add(1, Ordering::Relaxed);
        Self {
            intake: intake.clone(),
            number,
        }
    }

    /// Acknowledges it; false if its connection is gone.
    pub async fn ack(&self) -> bool {
        let sent = self.intake.channel.basic_ack(self.number, BasicAckOptions::default()).await;
        self.intake.unacked.fetch_sub(1, Ordering::Relaxed);
        sent.is_ok()
    }

    /// Rejects it for good.
    pub async fn reject(&self) {
        // When the connection is gone it comes again, and is rejected again.
        let _ = self
            .intake
            .channel
            .basic_reject(self.number, BasicRejectOptions { requeue: false })
            .await;
        self.intake.unacked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of a message when it comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: handle it.
    New,
    /// It is being handled; its acknowledgement will cover this delivery too.
    Handled,
    /// It was acknowledged: acknowledge this one as well.
    Acknowledged,
}

#[derive(Default)]
struct Inner {
    handled: HashMap<String, Vec<Tag>>,
    order: VecDeque<String>,
    acknowledged: HashSet<String>,
}

/// The record of deliveries.
#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Records a delivery. Of a message that is being handled the tags of dead connections are forgotten.
    pub fn admit(&self, id: &str, tag: &Tag) -> Known {
        let mut inner = self.inner();
        if inner.acknowledged.contains(id) {
            return Known::Acknowledged;
        }
        match inner.handled.get_mut(id) {
            Some(tags) => {
                tags.retain(|old| Arc::ptr_eq(&old.intake, &tag.intake));
                tags.push(tag.clone());
                Known::Handled
            }
            None => {
                inner.handled.insert(id.to_owned(), vec![tag.clone()]);
                Known::New
            }
        }
    }

    /// Ends the handling of a message: its id is remembered, its tags are to be acknowledged.
    fn settle(&self, id: String) -> Vec<Tag> {
        let mut inner = self.inner();
        let tags = inner.handled.remove(&id).unwrap_or_default();
        if inner.acknowledged.insert(id.clone()) {
            inner.order.push_back(id);
            if inner.order.len() > REMEMBERED
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.acknowledged.remove(&oldest);
            }
        }
        tags
    }

    fn forget(&self, id: &str) {
        self.inner().handled.remove(id);
    }
}

/// The duty to acknowledge one delivery, after the request is safe.
///
/// Dropped without [`Ack::ack`] the delivery stays with the broker and comes again after the next connection loss or
/// restart; until then it takes up one place of the prefetch limit.
pub struct Ack {
    id: String,
    ledger: Arc<Ledger>,
    done: bool,
}

impl Ack {
    pub(super) fn new(id: String, ledger: Arc<Ledger>) -> Self {
        Self { id, ledger, done: false }
    }

    /// Acknowledges. False: the connection it came on is gone and it will come again (and be dropped); harmless.
    pub async fn ack(mut self) -> bool {
        self.done = true;
        let mut all = true;
        for tag in self.ledger.settle(std::mem::take(&mut self.id)) {
            all &= tag.ack().await;
        }
        all
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.done {
            self.ledger.forget(&self.id);
        }
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ack").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments may hold passwords.
        f.debug_struct("Delivery")
            .field("method", &self.request.method)
            .field("unique_id", &self.request.unique_id)
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}
