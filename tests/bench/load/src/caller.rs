//! A caller that does as little as possible: fills in a recorded request, publishes it, matches answers by their id.

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Digits of an id.
const ID: usize = 32;

/// One connection with its reply queue.
pub struct Caller {
    /// Ends when it is dropped.
    _connection: Connection,
    channel: Channel,
    answers: Consumer,
    exchange: ShortString,
    topic: ShortString,
    template: String,
    run: u128,
    number: u128,
    waiting: HashMap<String, Instant>,
}

impl Caller {
    /// `template` is the name of a file. The exchange is `trove`, or what stands before a slash in `topic`.
    pub async fn connect(url: &str, topic: &str, template: &str) -> lapin::Result<Self> {
        let (exchange, topic) = topic.split_once('/').unwrap_or(("trove", topic));
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let reply = format!("reply_{run:032x}");
        let options = QueueDeclareOptions {
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(reply.as_str().into(), options, FieldTable::default())
            .await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let answers = channel
            .basic_consume(reply.as_str().into(), "load".into(), options, FieldTable::default())
            .await?;
        let template = std::fs::read_to_string(template).unwrap().replace("@REPLY@", &reply);
        Ok(Self {
            _connection: connection,
            channel,
            answers,
            exchange: exchange.into(),
            topic: topic.into(),
            template,
            run,
            number: 0,
            waiting: HashMap::new(),
        })
    }

    /// Asks the broker to confirm what is published from here on.
    pub async fn confirmed(&mut self) -> lapin::Result<()> {
        self.channel.confirm_select(ConfirmSelectOptions::default()).await
    }

    /// The next request and its id.
    fn request(&mut self) -> (String, Vec<u8>) {
        self.number += 1;
        let id = format!("{:032x}", (self.run << 40) + self.number);
        let body = self
            .template
            .replace("@MSG@", &id)
            .replace("@UNIQUE@", &id)
            .replace("@N@", &self.number.to_string());
        (id, body.into_bytes())
    }

    async fn publish(&self, body: &[u8], properties: BasicProperties) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions::default();
        let confirm = self
            .channel
            .basic_publish(self.exchange.clone(), self.topic.clone(), options, body, properties)
            .await?;
        confirm.await
    }

    /// Sends a call.
    pub async fn call(&mut self) -> lapin::Result<()> {
        let (id, body) = self.request();
        self.waiting.insert(id, Instant::now());
        self.publish(&body, properties().with_expiration("60000".into()))
            .await
            .map(drop)
    }

    /// Sends a cast; whether the broker confirmed it.
    pub async fn cast(&mut self) -> lapin::Result<bool> {
        let (_, body) = self.request();
        Ok(matches!(self.publish(&body, properties()).await?, Confirmation::Ack(None)))
    }

    /// Waits for an answer: how long it took, and whether it is a good one. `None`: the connection is gone.
    pub async fn answer(&mut self) -> Option<(Duration, bool)> {
        loop {
            let delivery = self.answers.next().await?.ok()?;
            let text = String::from_utf8_lossy(&delivery.data);
            let found = value(&text, "_msg_id").and_then(|id| self.waiting.remove(id));
            if let Some(since) = found {
                return Some((since.elapsed(), text.contains("failure\\\": null")));
            }
        }
    }
}

/// The properties of upstream's messages.
pub fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(0)
        .with_headers(FieldTable::default())
}

/// An id or a queue's name out of the text of a message in its envelope, without reading the rest.
pub fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let after = &text[text.find(name)? + name.len()..];
    let start = after.find(|c: char| c.is_ascii_alphanumeric())?;
    let value = &after[start..];
    let end = value
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(value.len());
    (end >= ID).then(|| &value[..end])
}
