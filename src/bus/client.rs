//! The other side: calls and casts to a guest, as the control plane makes them. For the command line.

use super::connect::{self, Link};
use super::crypto::Cipher;
use super::declare::{self, ask, short};
use super::envelope::{self, Properties};
use super::outgoing::{self, Outgoing, Seal, fresh_id};
use super::publish::{Publisher, Sent, Target};
use super::{BusError, Failure, ReplyTo, RpcVersion, Settings};
use datastore_api::Secret;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Consumer};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the broker keeps a reply queue that nobody uses, milliseconds; upstream's figure.
const REPLY_QUEUE_EXPIRES: i32 = 1_800_000;

/// The part of a reply that matters to the caller.
#[derive(Deserialize)]
struct Reply {
    #[serde(rename = "_msg_id")]
    msg_id: String,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    failure: Option<String>,
    #[serde(default)]
    ending: bool,
}

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Reply>>>>;

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Reply>>> {
    waiting.lock().unwrap_or_else(|e| e.into_inner())
}

/// A connection that makes calls. It does not reconnect: when it is lost, calls fail.
pub struct Client {
    settings: Settings,
    publisher: Publisher,
    reply_queue: String,
    waiting: Waiting,
    reader: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Client {
    /// Connects and makes a reply queue.
    pub async fn connect(settings: &Settings) -> Result<Client, BusError> {
        let link = Arc::new(connect::connect(settings).await?);
        declare::exchange(&link.connection, settings).await?;
        let reply_queue = format!("reply_{}", fresh_id());
        let consumer = reply_consumer(&link, &reply_queue).await?;
        let waiting = Waiting::default();
        let reader = tokio::spawn(read(consumer, waiting.clone(), settings.max_body));
        Ok(Client {
            settings: settings.clone(),
            publisher: Publisher::new(link),
            reply_queue,
            waiting,
            reader,
        })
    }

    /// Makes sure that the guest's queue exists, as the control plane does before `prepare`: what is cast then waits.
    pub async fn ensure_guest_queue(&self, guest_id: &str) -> Result<(), BusError> {
        let connection = &self.publisher.link().connection;
        declare::queue(connection, &self.settings, &topic(guest_id)).await
    }

    /// Calls a method and waits for its answer.
    ///
    /// Errors: [`BusError::NoGuest`] when the guest has no queue, [`BusError::Remote`] when it answers with a failure,
    /// [`BusError::Timeout`] after `limit`, [`BusError::Message`] when its answer is not encrypted with `key`.
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a request")]
    pub async fn call(
        &self,
        guest_id: &str,
        key: Option<&Secret>,
        method: &str,
        version: RpcVersion,
        args: Map<String, Value>,
        context: Map<String, Value>,
        limit: Duration,
    ) -> Result<Value, BusError> {
        let to = ReplyTo {
            msg_id: fresh_id(),
            queue: self.reply_queue.clone(),
        };
        let out = Outgoing {
            method,
            version,
            args: &args,
            context: &context,
            reply: Some(&to),
        };
        let cipher = key.map(Cipher::new);
        let (tx, rx) = oneshot::channel();
        lock(&self.waiting).insert(to.msg_id.clone(), tx);
        let asked = timeout(limit, async {
            self.send(guest_id, cipher.as_ref(), &out, outgoing::call_properties(limit))
                .await?;
            rx.await
                .map_err(|_| BusError::Message("the connection was lost before the answer came".into()))
        });
        let reply = asked.await;
        lock(&self.waiting).remove(&to.msg_id);
        let reply = reply.map_err(|_| BusError::Timeout(limit))??;
        if let Some(text) = reply.failure {
            let broken = |e| BusError::Message(format!("the failure in the answer is not readable: {e}"));
            return Err(BusError::Remote(serde_json::from_str::<Failure>(&text).map_err(broken)?));
        }
        match cipher {
            None => Ok(reply.result),
            Some(cipher) => {
                let sealed = reply.result.as_str().and_then(|text| cipher.open(text).ok());
                sealed.ok_or_else(|| BusError::Message("the answer is not encrypted with this guest's key".into()))
            }
        }
    }

    /// Casts a method: nobody answers. Confirmed by the broker.
    ///
    /// Errors: [`BusError::NoGuest`] when the guest has no queue (see [`Client::ensure_guest_queue`]).
    pub async fn cast(
        &self,
        guest_id: &str,
        key: Option<&Secret>,
        method: &str,
        version: RpcVersion,
        args: Map<String, Value>,
        context: Map<String, Value>,
    ) -> Result<(), BusError> {
        let out = Outgoing {
            method,
            version,
            args: &args,
            context: &context,
            reply: None,
        };
        let cipher = key.map(Cipher::new);
        self.send(guest_id, cipher.as_ref(), &out, outgoing::properties()).await
    }

    async fn send(
        &self,
        guest_id: &str,
        cipher: Option<&Cipher>,
        out: &Outgoing<'_>,
        properties: BasicProperties,
    ) -> Result<(), BusError> {
        let seal = cipher.map_or(Seal::Clear, Seal::ToGuest);
        let body =
            outgoing::request(out, &seal).map_err(|e| BusError::Message(format!("{} cannot be encoded: {e}", out.method)))?;
        let target = Target {
            exchange: &short(&self.settings.control_exchange)?,
            key: &short(&topic(guest_id))?,
            mandatory: true,
        };
        let doing = format!("send {} to {}", out.method, topic(guest_id));
        match ask(&doing, self.publisher.publish_with(&target, &body, properties)).await? {
            Sent::Taken => Ok(()),
            Sent::Unroutable => Err(BusError::NoGuest { queue: topic(guest_id) }),
            Sent::Refused => Err(BusError::Message("the broker could not store the message".into())),
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.publisher.link().close().await;
    }
}

fn topic(guest_id: &str) -> String {
    format!("guestagent.{guest_id}")
}

async fn reply_consumer(link: &Link, queue: &str) -> Result<Consumer, BusError> {
    let channel = ask("open a channel", link.connection.create_channel()).await?;
    let mut table = FieldTable::default();
    table.insert("x-expires".into(), AMQPValue::LongInt(REPLY_QUEUE_EXPIRES));
    let name = short(queue)?;
    let declare = channel.queue_declare(name.clone(), QueueDeclareOptions::default(), table);
    ask("declare a reply queue", declare).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let consume = channel.basic_consume(name, "client".into(), options, FieldTable::default());
    ask("consume from the reply queue", consume).await
}

/// Hands each reply to its caller; when it ends every caller that still waits is told so.
async fn read(mut consumer: Consumer, waiting: Waiting, limit: usize) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let opened = envelope::open(delivery.data, &Properties::default(), limit);
        let Some(reply) = opened.ok().and_then(|inner| serde_json::from_str::<Reply>(&inner).ok()) else {
            tracing::warn!("an answer cannot be read and is dropped");
            continue;
        };
        if !reply.ending {
            continue;
        }
        if let Some(caller) = lock(&waiting).remove(&reply.msg_id) {
            // A caller that stopped waiting needs no answer.
            let _ = caller.send(reply);
        }
    }
    lock(&waiting).clear();
}
