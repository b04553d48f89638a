//! Listening in on what guests report, without taking it away from the conductor.

use super::connect;
use super::crypto::Cipher;
use super::declare::{self, ask, short};
use super::envelope::{self, Properties};
use super::request::{self, Decoded};
use super::{BusError, Observed, Settings};
use datastore_api::Secret;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

/// Messages that may wait for the one who looks.
const ROOM: usize = 256;

/// A value on its way to the conductor.
#[derive(Deserialize)]
struct Sealed {
    entity: String,
    #[serde(rename = "csz-instance-id")]
    instance: String,
}

/// Binds a queue of our own to the conductor's topic and answers what comes, until the receiver is dropped or the
/// connection is lost (the receiver then ends). `keys` knows the payload keys of guests.
pub async fn watch(
    settings: &Settings,
    keys: impl Fn(&str) -> Option<Secret> + Send + 'static,
) -> Result<mpsc::Receiver<Observed>, BusError> {
    let link = connect::connect(settings).await?;
    declare::exchange(&link.connection, settings).await?;
    let channel = ask("open a channel", link.connection.create_channel()).await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let declare = channel.queue_declare(ShortString::default(), options, FieldTable::default());
    let queue = ask("declare a queue to listen", declare).await?.name().clone();
    let (exchange, key) = (short(&settings.control_exchange)?, short(&settings.conductor_topic)?);
    let table = FieldTable::default;
    let bind = channel.queue_bind(queue.clone(), exchange, key, QueueBindOptions::default(), table());
    ask("bind the queue to the conductor's topic", bind).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let consume = channel.basic_consume(queue, "watch".into(), options, table());
    let mut consumer = ask("listen", consume).await?;
    let (tx, rx) = mpsc::channel(ROOM);
    let limit = settings.max_body;
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = consumer.next() => next,
                () = tx.closed() => break,
            };
            let Some(Ok(delivery)) = next else { break };
            if let Some(observed) = observe(delivery.data, limit, &keys)
                && tx.send(observed).await.is_err()
            {
                break;
            }
        }
        link.close().await;
    });
    Ok(rx)
}

fn observe(body: Vec<u8>, limit: usize, keys: &impl Fn(&str) -> Option<Secret>) -> Option<Observed> {
    let inner = envelope::open(body, &Properties::default(), limit).ok()?;
    let Ok(Decoded::Request(request)) = request::decode(&inner, None, None) else {
        return None;
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let named = text(request.context.get("csz-instance-id"));
    let mut sealed = false;
    let mut args = Map::new();
    for (name, value) in request.args {
        let opened = match value.as_str().and_then(|text| serde_json::from_str::<Sealed>(text).ok()) {
            None => Some(value.clone()),
            Some(inside) => keys(&inside.instance).and_then(|key| Cipher::new(&key).open(&inside.entity).ok()),
        };
        sealed |= opened.is_none();
        args.insert(name, opened.unwrap_or(value));
    }
    let guest = named.or_else(|| if sealed { None } else { text(args.get("instance_id")) });
    Some(Observed {
        method: request.method,
        guest,
        args,
        sealed,
    })
}
