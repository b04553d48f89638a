//! The handle that the other rooms hold.

use super::hub::Hub;
use super::supervise;
use super::{Ack, Answer, BusError, BusState, Cast, ReplyTo, Request, Settings};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Room for deliveries on their way when the prefetch limit sets none.
const UNLIMITED_ROOM: usize = 256;

/// A request and the duty to acknowledge it.
pub struct Delivery {
    /// What is asked.
    pub request: Request,
    /// Whether the broker has delivered it before, to us or somebody else.
    pub redelivered: bool,
    /// To be called when the request is safe.
    pub ack: Ack,
}

/// The bus. Clones are handles of the same one.
#[derive(Clone)]
pub struct Bus {
    hub: Arc<Hub>,
}

impl Bus {
    /// Starts to connect, in the background and for ever, until `cancel`. Requests come through the receiver; dropping it
    /// stops consuming while answers and casts still go out.
    #[must_use]
    pub fn start(settings: Settings, cancel: CancellationToken) -> (Bus, mpsc::Receiver<Delivery>) {
        let room = match settings.prefetch {
            0 => UNLIMITED_ROOM,
            limit => usize::from(limit),
        };
        let (tx, rx) = mpsc::channel(room);
        let hub = Arc::new(Hub::new(settings, cancel));
        tokio::spawn(supervise::run(hub.clone(), tx));
        (Bus { hub }, rx)
    }

    /// Sends the answer of a call and waits until the broker has it in the caller's reply queue. Survives lost connections.
    ///
    /// Errors: [`BusError::CallerGone`] when the reply queue did not exist for as long as the settings say (it is then taken
    /// for dead for a minute), [`BusError::Closed`] when the bus shuts down first, [`BusError::Amqp`] when the broker
    /// refuses it, [`BusError::Message`] when it cannot be encoded.
    pub async fn answer(&self, to: &ReplyTo, answer: Answer) -> Result<(), BusError> {
        self.hub.answer(to, &answer).await
    }

    /// Puts a cast to the conductor into the outbox. Casts go out in order, each until the broker has confirmed it.
    ///
    /// Errors: [`BusError::OutboxFull`], [`BusError::Closed`], [`BusError::Message`] when it cannot be encoded.
    pub fn cast(&self, cast: Cast) -> Result<(), BusError> {
        self.hub.cast(cast)
    }

    /// Waits until every cast is confirmed; false if `limit` passes first.
    pub async fn flush(&self, limit: Duration) -> bool {
        self.hub.outbox.flush(limit).await
    }

    /// What the connection is doing, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<BusState> {
        self.hub.state.subscribe()
    }

    /// How many casts wait for the broker.
    #[must_use]
    pub fn outbox_depth(&self) -> usize {
        self.hub.outbox.depth()
    }

    /// Waits until the bus has ended after its token was cancelled: the connection is closed.
    pub async fn ended(&self) {
        self.hub.ended.cancelled().await;
    }
}
