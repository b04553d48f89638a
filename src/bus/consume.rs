//! Consuming: each delivery is read, checked, told apart from repeats, and handed on.

use super::connect::Link;
use super::declare::{self, ask, short};
use super::envelope::{self, Properties, Unreadable};
use super::hub::{Hub, Life};
use super::ledger::{Ack, Intake, Known, Tag};
use super::outgoing::fresh_id;
use super::request::{self, Decoded, Refused};
use super::selfping::{SelfPing, Verdict};
use super::{Answer, BusError, BusState, Delivery};
use datastore_api::chain;
use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Consumer, message};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

const CONSUMER_TAG: &str = "guestagent";

/// A consumer of our queue on one connection.
pub struct Consuming {
    hub: Arc<Hub>,
    life: Arc<Life>,
    link: Arc<Link>,
    intake: Arc<Intake>,
    consumer: Consumer,
    ping: SelfPing,
}

impl Consuming {
    /// Declares, binds and starts to consume.
    pub async fn start(hub: &Arc<Hub>, life: &Arc<Life>, link: &Arc<Link>) -> Result<Self, BusError> {
        let topic = &hub.settings.topic;
        declare::queue(&link.connection, &hub.settings, topic).await?;
        let channel = ask("open a channel", link.connection.create_channel()).await?;
        if hub.settings.prefetch > 0 {
            let limit = channel.basic_qos(hub.settings.prefetch, BasicQosOptions::default());
            ask("set the prefetch limit", limit).await?;
        }
        let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
        let consume = channel.basic_consume(short(topic)?, CONSUMER_TAG.into(), options, table);
        let consumer = ask(&format!("consume from {topic}"), consume).await?;
        Ok(Self {
            hub: hub.clone(),
            life: life.clone(),
            link: link.clone(),
            intake: Arc::new(Intake::new(channel)),
            consumer,
            ping: SelfPing::new(hub.settings.self_ping),
        })
    }

    /// Consumes until something fails; answers what. When nobody takes deliveries any more it stops consuming and keeps
    /// the connection for what is still to be sent.
    pub async fn run(mut self, deliveries: &mpsc::Sender<Delivery>) -> String {
        if self.hub.settings.self_ping.is_zero() {
            self.proven();
        }
        loop {
            tokio::select! {
                biased;
                next = self.consumer.next() => match next {
                    Some(Ok(delivery)) => {
                        self.proven();
                        if !self.take(delivery, deliveries).await {
                            break;
                        }
                        self.ping.proven();
                    }
                    Some(Err(error)) => return chain(&error),
                    None => return "the broker cancelled our consumer (was the queue deleted?)".into(),
                },
                () = self.ping.due() => {
                    // Nothing can come while all we may hold is being handled, or while the broker takes nothing.
                    let full = self.hub.settings.prefetch > 0
                        && self.intake.unacked() >= usize::from(self.hub.settings.prefetch);
                    let excused = full || self.link.connection.status().blocked();
                    match self.ping.step(excused) {
                        Verdict::Send => self.send_ping(),
                        Verdict::Wait => {}
                        Verdict::Unprovable => self.proven(),
                        Verdict::Dead => return "our own message did not come back: connected, but not consuming".into(),
                    }
                }
                () = deliveries.closed() => break,
            }
        }
        info!("nobody takes requests any more, consuming ends");
        let channel = &self.intake.channel;
        let cancel = channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        if let Err(error) = ask("stop consuming", cancel).await {
            return chain(&error);
        }
        self.life.over.cancelled().await;
        "the connection was lost".into()
    }

    fn proven(&self) {
        if matches!(*self.hub.state.borrow(), BusState::Up { .. }) {
            return;
        }
        let up = BusState::Up {
            broker: self.link.broker.clone(),
        };
        self.hub.state.send_if_modified(|state| {
            if matches!(state, BusState::Up { .. }) {
                return false;
            }
            info!(broker = self.link.broker, queue = self.hub.settings.topic, "the bus is up");
            *state = up;
            true
        });
    }

    fn send_ping(&self) {
        let (hub, life) = (self.hub.clone(), self.life.clone());
        let state = self.ping.shared();
        tokio::spawn(async move {
            let sent = tokio::select! {
                sent = super::selfping::send(&life.publisher, &hub.settings) => sent,
                () = life.over.cancelled() => return,
            };
            state.sent(sent);
        });
    }

    /// Handles one delivery. False: nobody takes deliveries any more.
    async fn take(&mut self, delivery: message::Delivery, deliveries: &mpsc::Sender<Delivery>) -> bool {
        let tag = Tag::new(&self.intake, delivery.delivery_tag);
        if self.ping.is_ping(&delivery.properties) {
            tag.ack().await;
            return true;
        }
        let redelivered = delivery.redelivered;
        match self.read(delivery) {
            Err(error) => {
                warn!(error = chain(&error), "a message cannot be read and is rejected");
                tag.reject().await;
                true
            }
            Ok(Decoded::Refused(refused)) => {
                self.refuse(refused, tag).await;
                true
            }
            Ok(Decoded::Request(mut request)) => {
                if request.unique_id.is_empty() {
                    request.unique_id = fresh_id();
                }
                match self.hub.ledger.admit(&request.unique_id, &tag) {
                    Known::New => {}
                    Known::Handled => {
                        debug!(
                            method = request.method,
                            unique_id = request.unique_id,
                            "a repeat of a request in hand"
                        );
                        return true;
                    }
                    Known::Acknowledged => {
                        debug!(method = request.method, unique_id = request.unique_id, "a repeat is dropped");
                        tag.ack().await;
                        return true;
                    }
                }
                if let (Some(to), Some(interval)) = (&request.reply, request.keep_alive) {
                    self.hub.keep_alive(to.clone(), interval, request.deadline);
                }
                let ack = Ack::new(request.unique_id.clone(), self.hub.ledger.clone());
                let handed = Delivery {
                    request,
                    redelivered,
                    ack,
                };
                deliveries.send(handed).await.is_ok()
            }
        }
    }

    fn read(&self, delivery: message::Delivery) -> Result<Decoded, Unreadable> {
        let properties = &delivery.properties;
        let deadline = properties.expiration().as_ref().and_then(|text| deadline(text.as_str()));
        let compression = match properties.headers().as_ref().and_then(|h| h.inner().get("compression")) {
            None | Some(AMQPValue::Void) => None,
            Some(AMQPValue::LongString(name)) => Some(std::str::from_utf8(name.as_bytes()).unwrap_or("?")),
            Some(_) => Some("?"),
        };
        let inner = envelope::open(
            delivery.data,
            &Properties {
                content_type: properties.content_type().as_ref().map(|t| t.as_str()),
                content_encoding: properties.content_encoding().as_ref().map(|e| e.as_str()),
                compression,
            },
            self.hub.settings.max_body,
        )?;
        request::decode(&inner, self.hub.cipher.as_ref(), deadline)
    }

    /// Answers a request that nobody will see, then acknowledges it.
    async fn refuse(&self, refused: Refused, tag: Tag) {
        let Refused {
            unique_id,
            method,
            reply,
            failure,
        } = refused;
        warn!(
            method,
            class = failure.class,
            reason = failure.message,
            "a request is refused"
        );
        let unique_id = unique_id.unwrap_or_else(fresh_id);
        match self.hub.ledger.admit(&unique_id, &tag) {
            Known::New => {}
            Known::Handled => return,
            Known::Acknowledged => {
                tag.ack().await;
                return;
            }
        }
        let ack = Ack::new(unique_id, self.hub.ledger.clone());
        let Some(to) = reply else {
            ack.ack().await;
            return;
        };
        let hub = self.hub.clone();
        // The caller may be gone, and finding that out takes a minute.
        tokio::spawn(async move {
            match hub.answer(&to, &Answer::Failure(failure)).await {
                Err(BusError::Closed) => return,
                Err(error) => warn!(method, error = chain(&error), "a refusal could not be delivered"),
                Ok(()) => {}
            }
            ack.ack().await;
        });
    }
}

/// When a message with this `expiration` (milliseconds) has nobody waiting any more.
fn deadline(expiration: &str) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_millis(expiration.parse().ok()?))
}
