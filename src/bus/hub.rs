//! What all tasks of the bus share, and the ways out: answers, keep-alives, casts.

use super::crypto::Cipher;
use super::declare::{self, short};
use super::ledger::Ledger;
use super::outbox::Outbox;
use super::outgoing::{self, Outgoing, Seal};
use super::publish::{Publisher, Sent, Target, refusal};
use super::{Answer, BusError, BusState, Cast, ReplyTo, RpcVersion, Settings};
use datastore_api::chain;
use lapin::types::ShortString;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Between tries for a reply queue that is not there.
const UNROUTABLE_PAUSE: Duration = Duration::from_millis(250);
/// Tries for a message that the broker refuses.
const REFUSED_TRIES: u32 = 3;
/// Before a cast that was refused is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// How long a reply queue that was not there is taken for dead, and how many are remembered.
const DEAD_FOR: Duration = Duration::from_secs(60);
const DEAD_MAX: usize = 200;

/// One connection's life.
pub struct Life {
    /// Publishing on it.
    pub publisher: Publisher,
    /// Cancelled when it ends; whoever finds it broken cancels it.
    pub over: CancellationToken,
}

/// Shared by all tasks and handles.
pub struct Hub {
    /// As configured.
    pub settings: Settings,
    /// The instance's key, if payloads are encrypted.
    pub cipher: Option<Cipher>,
    /// Ends everything.
    pub cancel: CancellationToken,
    /// Cancelled when everything has ended.
    pub ended: CancellationToken,
    /// The present life.
    pub life: watch::Sender<Option<Arc<Life>>>,
    /// The published state.
    pub state: watch::Sender<BusState>,
    /// Deliveries.
    pub ledger: Arc<Ledger>,
    /// Casts.
    pub outbox: Outbox,
    dead: Mutex<HashMap<String, Instant>>,
    signs: Mutex<HashMap<String, AbortHandle>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Hub {
    /// Not connected yet.
    pub fn new(settings: Settings, cancel: CancellationToken) -> Self {
        Self {
            cipher: settings.key.as_ref().map(Cipher::new),
            outbox: Outbox::new(settings.outbox_limit),
            settings,
            cancel,
            ended: CancellationToken::new(),
            life: watch::Sender::new(None),
            state: watch::Sender::new(BusState::Down("not connected yet".into())),
            ledger: Arc::default(),
            dead: Mutex::default(),
            signs: Mutex::default(),
        }
    }

    /// The present life, or the next one.
    async fn alive(&self) -> Result<Arc<Life>, BusError> {
        let usable = |life: &Option<Arc<Life>>| life.as_ref().is_some_and(|life| !life.over.is_cancelled());
        if let Some(life) = self.life.borrow().as_ref().filter(|life| !life.over.is_cancelled()) {
            return Ok(life.clone());
        }
        let mut lives = self.life.subscribe();
        tokio::select! {
            life = lives.wait_for(usable) => life.ok().and_then(|life| life.clone()).ok_or(BusError::Closed),
            () = self.cancel.cancelled() => Err(BusError::Closed),
        }
    }

    /// Publishes on the present life or the next ones until the broker has said what it did. The error is a refusal.
    async fn publish(&self, to: &Target<'_>, body: &[u8]) -> Result<Result<Sent, lapin::Error>, BusError> {
        loop {
            let life = self.alive().await?;
            match life.publisher.publish(to, body).await {
                Ok(sent) => return Ok(Ok(sent)),
                Err(error) if refusal(&error).is_some() => return Ok(Err(error)),
                Err(error) => {
                    debug!(%error, "publishing failed, the connection is given up");
                    life.over.cancel();
                }
            }
        }
    }

    /// See [`super::Bus::answer`].
    pub async fn answer(&self, to: &ReplyTo, answer: &Answer) -> Result<(), BusError> {
        if let Some(sign) = lock(&self.signs).remove(&to.msg_id) {
            sign.abort();
        }
        let key = short(&to.queue)?;
        if self.is_dead(&to.queue) {
            return Err(BusError::CallerGone { queue: to.queue.clone() });
        }
        let body = outgoing::answer(to, answer, self.cipher.as_ref())
            .map_err(|error| BusError::Message(format!("the answer cannot be encoded: {error}")))?;
        let target = Target {
            exchange: &ShortString::default(),
            key: &key,
            mandatory: true,
        };
        let (mut missing_since, mut refused) = (None, 0);
        loop {
            match self.publish(&target, &body).await? {
                Ok(Sent::Taken) => return Ok(()),
                Ok(Sent::Unroutable) => {
                    let since = *missing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.settings.missing_reply_queue {
                        self.mark_dead(&to.queue);
                        return Err(BusError::CallerGone { queue: to.queue.clone() });
                    }
                }
                Ok(Sent::Refused) => {}
                Err(source) => {
                    refused += 1;
                    if refused >= REFUSED_TRIES {
                        return Err(BusError::Amqp {
                            doing: format!("publish an answer to {}", to.queue),
                            source: source.into(),
                        });
                    }
                }
            }
            tokio::select! {
                () = sleep(UNROUTABLE_PAUSE) => {}
                () = self.cancel.cancelled() => return Err(BusError::Closed),
            }
        }
    }

    fn is_dead(&self, queue: &str) -> bool {
        lock(&self.dead).get(queue).is_some_and(|since| since.elapsed() < DEAD_FOR)
    }

    fn mark_dead(&self, queue: &str) {
        let mut dead = lock(&self.dead);
        dead.retain(|_, since| since.elapsed() < DEAD_FOR);
        if dead.len() >= DEAD_MAX
            && let Some(oldest) = dead.iter().min_by_key(|(_, since)| **since).map(|(queue, _)| queue.clone())
        {
            dead.remove(&oldest);
        }
        dead.insert(queue.to_owned(), Instant::now());
    }

    /// Starts to tell a caller every `interval` that its method still runs, until it is answered, gone, or its deadline.
    pub fn keep_alive(self: &Arc<Self>, to: ReplyTo, interval: Duration, deadline: Option<Instant>) {
        let (hub, msg_id) = (self.clone(), to.msg_id.clone());
        // Held until it is listed: it may end, and take itself off the list, at once.
        let mut signs = lock(&self.signs);
        let task = tokio::spawn(async move {
            while deadline.is_none_or(|deadline| Instant::now() < deadline) {
                tokio::select! {
                    () = sleep(interval) => {}
                    () = hub.cancel.cancelled() => return,
                }
                if hub.sign(&to).await.is_none() {
                    break;
                }
            }
            lock(&hub.signs).remove(&to.msg_id);
        });
        if let Some(older) = signs.insert(msg_id, task.abort_handle()) {
            older.abort();
        }
    }

    async fn sign(&self, to: &ReplyTo) -> Option<()> {
        let target = Target {
            exchange: &ShortString::default(),
            key: &short(&to.queue).ok()?,
            mandatory: true,
        };
        let sent = self.publish(&target, &outgoing::keep_alive(to).ok()?).await.ok()?.ok()?;
        (sent != Sent::Unroutable).then_some(())
    }

    /// See [`super::Bus::cast`].
    pub fn cast(&self, cast: Cast) -> Result<(), BusError> {
        if self.cancel.is_cancelled() {
            return Err(BusError::Closed);
        }
        let out = Outgoing {
            method: cast.method,
            version: RpcVersion { major: 1, minor: 0 },
            args: &cast.args,
            context: &cast.context,
            reply: None,
        };
        let seal = match &self.cipher {
            Some(cipher) => Seal::ToConductor(cipher, &self.settings.server),
            None => Seal::Clear,
        };
        let body = outgoing::request(&out, &seal)
            .map_err(|error| BusError::Message(format!("{} cannot be encoded: {error}", cast.method)))?;
        self.outbox.push(cast.method, cast.collapse, body)
    }

    /// Sends the outbox, one after the other, until the bus ends.
    pub async fn send_outbox(&self) -> Result<(), BusError> {
        let (exchange, key) = (
            short(&self.settings.control_exchange)?,
            short(&self.settings.conductor_topic)?,
        );
        let target = Target {
            exchange: &exchange,
            key: &key,
            mandatory: false,
        };
        let mut told = false;
        loop {
            let (method, body) = tokio::select! {
                first = self.outbox.first() => first,
                () = self.cancel.cancelled() => return Ok(()),
            };
            let sent = match self.publish(&target, &body).await? {
                Ok(sent) => sent == Sent::Taken,
                Err(error) => {
                    if told {
                        debug!(method, error = chain(&error), "the broker still refuses it");
                    } else {
                        warn!(
                            method,
                            error = chain(&error),
                            "the broker refuses a message to the conductor, it is tried again"
                        );
                    }
                    told = true;
                    self.restore_exchange().await;
                    false
                }
            };
            self.outbox.settle(sent);
            told &= !sent;
            if !sent {
                tokio::select! {
                    () = sleep(REFUSED_PAUSE) => {}
                    () = self.cancel.cancelled() => return Ok(()),
                }
            }
        }
    }

    async fn restore_exchange(&self) {
        let Ok(life) = self.alive().await else { return };
        if let Err(error) = declare::exchange(&life.publisher.link().connection, &self.settings).await {
            debug!(%error, "the control exchange could not be declared");
        }
    }
}
