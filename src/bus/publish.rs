//! Publishing with confirms, many at a time.
//!
//! The client crate hands a returned (unroutable) message to whichever confirm completes next, and a broker confirms many
//! at once. So each channel here has at most one message under way: what comes back belongs to it. Channels are made when
//! they are needed and kept.

use super::connect::Link;
use super::outgoing;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Semaphore;

/// Messages under way at a time.
const CHANNELS: usize = 16;

/// What the broker did with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in a queue (or, if not mandatory, was dropped by the rules).
    Taken,
    /// No queue takes it (only if mandatory).
    Unroutable,
    /// The broker could not store it.
    Refused,
}

/// Where and how to publish.
pub struct Target<'a> {
    /// Exchange, empty for the default one.
    pub exchange: &'a ShortString,
    /// Routing key.
    pub key: &'a ShortString,
    /// Whether to be told when no queue takes it.
    pub mandatory: bool,
}

/// A set of channels of one connection.
pub struct Publisher {
    link: Arc<Link>,
    idle: Mutex<Vec<Channel>>,
    permits: Semaphore,
}

impl Publisher {
    /// For a connection.
    pub fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(CHANNELS),
        }
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Publishes and waits for the confirm. An error is the connection's end, or a refusal of this message by the broker
    /// ([`refusal`]); its channel is not used again.
    pub async fn publish(&self, to: &Target<'_>, body: &[u8]) -> lapin::Result<Sent> {
        self.publish_with(to, body, outgoing::properties()).await
    }

    /// [`Self::publish`] with other properties.
    pub async fn publish_with(&self, to: &Target<'_>, body: &[u8], properties: BasicProperties) -> lapin::Result<Sent> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let idle = self.idle().pop();
        let channel = match idle {
            Some(channel) => channel,
            None => {
                let channel = self.link.connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                channel
            }
        };
        let options = BasicPublishOptions {
            mandatory: to.mandatory,
            ..BasicPublishOptions::default()
        };
        let confirm = channel
            .basic_publish(to.exchange.clone(), to.key.clone(), options, body, properties)
            .await?;
        let sent = match confirm.await? {
            Confirmation::Ack(None) | Confirmation::NotRequested => Sent::Taken,
            Confirmation::Ack(Some(_)) => Sent::Unroutable,
            Confirmation::Nack(_) => Sent::Refused,
        };
        self.idle().push(channel);
        Ok(sent)
    }
}

/// The reply code, if the broker refused what was asked and the connection lives on.
pub fn refusal(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(cause) if error.is_amqp_soft_error() => Some(cause.get_id()),
        _ => None,
    }
}
