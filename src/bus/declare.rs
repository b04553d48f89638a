//! Exchange and queue: what exists is used as it is, what does not is made as configured.
//!
//! The broker closes the channel at each refusal, so every question has a channel of its own. Whether what exists differs
//! from the configuration is asked once per process, for the warning only.

use super::publish::refusal;
use super::{BusError, QueueType, Settings};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tracing::{info, warn};

/// For one question to the broker.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

static EXCHANGE_PROBED: AtomicBool = AtomicBool::new(false);
static QUEUE_PROBED: AtomicBool = AtomicBool::new(false);

/// Waits for the broker with a limit, and says what was being done.
pub async fn ask<T>(doing: &str, question: impl Future<Output = lapin::Result<T>>) -> Result<T, BusError> {
    let doing = || doing.to_owned();
    match timeout(ANSWER_LIMIT, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(BusError::Amqp {
            doing: doing(),
            source: error.into(),
        }),
        Err(_) => Err(BusError::Amqp {
            doing: doing(),
            source: format!("the broker did not answer within {ANSWER_LIMIT:?}").into(),
        }),
    }
}

/// A name as AMQP carries it.
pub fn short(name: &str) -> Result<ShortString, BusError> {
    ShortString::try_new(name).map_err(|_| BusError::Message(format!("the name {name} is longer than 255 bytes")))
}

fn code(error: &BusError) -> Option<u16> {
    match error {
        BusError::Amqp { source, .. } => refusal(source.downcast_ref::<lapin::Error>()?),
        _ => None,
    }
}

async fn channel(connection: &Connection) -> Result<Channel, BusError> {
    ask("open a channel", connection.create_channel()).await
}

/// Makes sure that the control exchange exists.
pub async fn exchange(connection: &Connection, settings: &Settings) -> Result<(), BusError> {
    let name = short(&settings.control_exchange)?;
    let doing = format!("declare exchange {name}");
    let declare = async |passive: bool| {
        let options = ExchangeDeclareOptions {
            passive,
            durable: is_durable(settings),
            auto_delete: settings.auto_delete,
            ..ExchangeDeclareOptions::default()
        };
        let channel = channel(connection).await?;
        let table = FieldTable::default();
        ask(
            &doing,
            channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, table),
        )
        .await
    };
    match declare(true).await {
        Ok(()) => {
            if !EXCHANGE_PROBED.swap(true, Ordering::Relaxed) {
                report_difference("exchange", &settings.control_exchange, declare(false).await);
            }
            Ok(())
        }
        Err(error) if code(&error) == Some(NOT_FOUND) => match declare(false).await {
            // Somebody else made it in between.
            Err(error) if code(&error) == Some(PRECONDITION_FAILED) => declare(true).await,
            other => other,
        },
        Err(error) => Err(error),
    }
}

/// Makes sure that a topic queue exists and is bound to the control exchange with its own name as key.
pub async fn queue(connection: &Connection, settings: &Settings, queue: &str) -> Result<(), BusError> {
    let name = short(queue)?;
    let doing = format!("declare queue {queue}");
    let declare = async |passive: bool| {
        let options = QueueDeclareOptions {
            passive,
            durable: is_durable(settings),
            auto_delete: settings.auto_delete,
            ..QueueDeclareOptions::default()
        };
        let channel = channel(connection).await?;
        let table = if passive {
            FieldTable::default()
        } else {
            arguments(&settings.queue)
        };
        ask(&doing, channel.queue_declare(name.clone(), options, table))
            .await
            .map(drop)
    };
    match declare(true).await {
        Ok(()) => {
            if !QUEUE_PROBED.swap(true, Ordering::Relaxed) {
                report_difference("queue", queue, declare(false).await);
            }
        }
        Err(error) if code(&error) == Some(NOT_FOUND) => match declare(false).await {
            Ok(()) => info!(queue, "queue created"),
            Err(error) if code(&error) == Some(PRECONDITION_FAILED) => declare(true).await?,
            Err(error) => return Err(error),
        },
        Err(error) => return Err(error),
    }
    let channel = channel(connection).await?;
    let (exchange, options) = (short(&settings.control_exchange)?, QueueBindOptions::default());
    let bind = channel.queue_bind(name.clone(), exchange, name, options, FieldTable::default());
    ask(&format!("bind queue {queue}"), bind).await
}

fn report_difference(kind: &str, name: &str, probe: Result<(), BusError>) {
    let Err(BusError::Amqp { source, .. }) = probe else { return };
    warn!(kind, name, difference = %source, "exists with other properties than configured, it is used as it is");
}

fn is_durable(settings: &Settings) -> bool {
    settings.durable || settings.queue.quorum
}

/// Arguments of a topic queue.
fn arguments(kind: &QueueType) -> FieldTable {
    let mut table = FieldTable::default();
    let mut text = |key: &str, value: &str| {
        table.insert(key.into(), AMQPValue::LongString(value.into()));
    };
    if kind.ha {
        text("x-ha-policy", "all");
    }
    if kind.quorum {
        text("x-queue-type", "quorum");
        for (key, value) in [
            ("x-delivery-limit", kind.delivery_limit),
            ("x-max-in-memory-length", kind.max_memory_length),
            ("x-max-in-memory-bytes", kind.max_memory_bytes),
        ] {
            if value > 0 {
                table.insert(key.into(), AMQPValue::LongLongInt(value.into()));
            }
        }
    }
    table
}
