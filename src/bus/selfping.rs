//! A message of our own through the control exchange and our own queue: the only proof that we consume.
//!
//! Any delivery is proof as well, so a busy guest sends none. Three are sent before the connection is given up, because
//! the control plane now and then consumes from a guest's queue for a moment. To another agent the message is a cast of
//! the harmless `rpc_ping`; ours is known by its header.

use super::RpcVersion;
use super::Settings;
use super::declare::short;
use super::outgoing::{self, Outgoing, Seal};
use super::publish::{Publisher, Sent, Target, refusal};
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use serde_json::Map;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

const HEADER: &str = "x-guestagent-self-ping";
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many are sent before the verdict.
const TRIES: u32 = 3;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send one.
    Send,
    /// Nothing.
    Wait,
    /// We do not consume.
    Dead,
    /// It cannot be told.
    Unprovable,
}

/// What the task that sends tells.
#[derive(Default)]
pub struct Outcome {
    unroutable: AtomicBool,
    forbidden: AtomicBool,
}

impl Outcome {
    /// Takes the result of [`send`].
    pub fn sent(&self, sent: Result<Sent, Forbidden>) {
        match sent {
            Ok(Sent::Unroutable) => self.unroutable.store(true, Ordering::Relaxed),
            Ok(_) => {}
            Err(Forbidden) => self.forbidden.store(true, Ordering::Relaxed),
        }
    }
}

/// The broker does not let us publish to our own topic.
#[derive(Debug)]
pub struct Forbidden;

/// When to send and how long to wait.
pub struct SelfPing {
    interval: Duration,
    tried: u32,
    next: Instant,
    outcome: Arc<Outcome>,
}

impl SelfPing {
    /// The first is due at once. An interval of zero: never.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            tried: 0,
            next: Instant::now(),
            outcome: Arc::default(),
        }
    }

    /// For the task that sends.
    pub fn shared(&self) -> Arc<Outcome> {
        self.outcome.clone()
    }

    /// Waits until [`Self::step`] should be called.
    pub async fn due(&self) {
        if self.interval.is_zero() {
            std::future::pending::<()>().await;
        }
        sleep_until(self.next).await;
    }

    /// A message came through our queue.
    pub fn proven(&mut self) {
        self.tried = 0;
        self.next = Instant::now() + self.interval;
    }

    /// What to do now. `excused`: there is a reason why nothing comes.
    pub fn step(&mut self, excused: bool) -> Verdict {
        if self.outcome.forbidden.load(Ordering::Relaxed) {
            self.tried = 0;
            self.next = Instant::now() + Duration::from_secs(3600);
            return Verdict::Unprovable;
        }
        self.next = Instant::now() + PATIENCE;
        if excused && self.tried > 0 {
            return Verdict::Wait;
        }
        if self.tried >= TRIES || self.outcome.unroutable.load(Ordering::Relaxed) {
            return Verdict::Dead;
        }
        self.tried += 1;
        Verdict::Send
    }

    /// Whether a message is one of these, ours or of an earlier run.
    pub fn is_ping(&self, properties: &BasicProperties) -> bool {
        properties
            .headers()
            .as_ref()
            .is_some_and(|headers| headers.inner().contains_key(HEADER))
    }
}

/// Sends one.
pub async fn send(publisher: &Publisher, settings: &Settings) -> Result<Sent, Forbidden> {
    let out = Outgoing {
        method: "rpc_ping",
        version: RpcVersion { major: 1, minor: 0 },
        args: &Map::new(),
        context: &Map::new(),
        reply: None,
    };
    let body = outgoing::request(&out, &Seal::Clear).expect("an empty request encodes");
    let (Ok(exchange), Ok(key)) = (short(&settings.control_exchange), short(&settings.topic)) else {
        return Ok(Sent::Refused);
    };
    let target = Target {
        exchange: &exchange,
        key: &key,
        mandatory: true,
    };
    let mut properties = outgoing::call_properties(PATIENCE * TRIES);
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(HEADER.into(), AMQPValue::Boolean(true));
    properties = properties.with_headers(headers);
    match publisher.publish_with(&target, &body, properties).await {
        Ok(sent) => Ok(sent),
        Err(error) if refusal(&error) == Some(403) => {
            warn!(%error, "the broker refuses our own test message, consuming is not verified");
            Err(Forbidden)
        }
        // The exchange is gone, and with it the binding.
        Err(error) if refusal(&error) == Some(404) => Ok(Sent::Unroutable),
        // The connection's end is seen elsewhere; a message that was not sent does not come back.
        Err(_) => Ok(Sent::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_unanswered_mean_dead_and_any_message_is_proof() {
        let mut ping = SelfPing::new(Duration::from_secs(30));
        for _ in 0..3 {
            assert_eq!(ping.step(false), Verdict::Send);
        }
        assert_eq!(ping.step(true), Verdict::Wait);
        ping.proven();
        for _ in 0..3 {
            assert_eq!(ping.step(false), Verdict::Send);
        }
        assert_eq!(ping.step(false), Verdict::Dead);
    }

    #[test]
    fn an_unroutable_one_is_dead_at_once_and_a_forbidden_one_never() {
        let mut ping = SelfPing::new(Duration::from_secs(30));
        assert_eq!(ping.step(false), Verdict::Send);
        ping.shared().sent(Ok(Sent::Unroutable));
        assert_eq!(ping.step(false), Verdict::Dead);
        let mut ping = SelfPing::new(Duration::from_secs(30));
        ping.shared().sent(Err(Forbidden));
        for _ in 0..10 {
            assert_eq!(ping.step(false), Verdict::Unprovable);
        }
    }
}
