//! Messages that would end a connection, or the process, before anybody could reject them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bus_support;

use bus_support::*;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::json;
use trove_guestagent::bus::BusState;

/// A field table with one entry of this type and value.
fn table(kind: u8, value: &[u8]) -> Vec<u8> {
    let entry = [&[1, b'k', kind], value].concat();
    [&(entry.len() as u32).to_be_bytes()[..], &entry].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_that_cannot_be_parsed_neither_stop_nor_loop_the_guest() {
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    let mut nested = table(b'V', &[]);
    for _ in 0..3000 {
        nested = table(b'F', &nested);
    }
    let wide = [&40_000u32.to_be_bytes()[..], &[b'x'; 40_000]].concat();
    let headers = [table(b'S', &wide), nested, vec![0, 0, 0, 3, 1, 0xff, b'V']];
    let (port, to) = (broker.port, (exchange.clone(), topic.clone()));
    let publishing = tokio::task::spawn_blocking(move || {
        publish_bytes(port, &to.0, &to.1, 0x8000, &[2, 0xff, 0xfe]);
        for headers in headers {
            publish_bytes(port, &to.0, &to.1, 0x2000, &headers);
        }
    });
    publishing.await.unwrap();
    let raw = Raw::connect(broker.port).await;
    raw.publish(&exchange, &topic, &wrap(&json!({"method": "after"})), json_properties())
        .await;
    let delivery = guest.next().await;
    assert_eq!((delivery.request.method.as_str(), delivery.redelivered), ("after", false));
    assert!(delivery.ack.ack().await);
    assert!(matches!(*guest.state.borrow(), BusState::Up { .. }));
    assert!(!guest.state.has_changed().unwrap(), "the connection was kept");
    drop(guest);
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let left = raw
        .channel
        .queue_declare(topic.as_str().into(), passive, FieldTable::default())
        .await
        .unwrap();
    assert_eq!(left.message_count(), 0);
}
