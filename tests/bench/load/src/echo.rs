//! The lower bound: what a consumer of this client crate costs that reads no more than where the answer goes.

use crate::caller::{properties, value};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};

/// Answers until the connection ends.
pub async fn run(url: &str, topic: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let table = FieldTable::default;
    channel
        .exchange_declare(
            "trove".into(),
            ExchangeKind::Topic,
            ExchangeDeclareOptions::default(),
            table(),
        )
        .await
        .unwrap();
    channel
        .queue_declare(topic.into(), QueueDeclareOptions::default(), table())
        .await
        .unwrap();
    channel
        .queue_bind(
            topic.into(),
            "trove".into(),
            topic.into(),
            QueueBindOptions::default(),
            table(),
        )
        .await
        .unwrap();
    let mut calls = channel
        .basic_consume(topic.into(), "echo".into(), BasicConsumeOptions::default(), table())
        .await
        .unwrap();
    println!("ready");
    while let Some(Ok(call)) = calls.next().await {
        let text = std::str::from_utf8(&call.data).unwrap();
        let (id, queue) = (value(text, "_msg_id").unwrap(), value(text, "_reply_q").unwrap());
        let body = format!(
            r#"{{"oslo.version": "2.0", "oslo.message": "{{\"result\": true, \"failure\": null, \"ending\": true, \"_msg_id\": \"{id}\", \"_unique_id\": \"{id}\"}}"}}"#
        );
        // Without confirms there is nothing to wait for.
        let publish = channel.basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            properties(),
        );
        drop(publish.await.unwrap());
        call.ack(BasicAckOptions::default()).await.unwrap();
    }
}
