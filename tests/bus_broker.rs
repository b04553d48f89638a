//! The bus against a real broker: calls, answers, encryption, what is malformed, what repeats.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bus_support;

use bus_support::*;
use datastore_api::Secret;
use futures_util::StreamExt;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use trove_guestagent::bus::{Answer, BusError, Cast, Client, Failure, watch};

const LIMIT: Duration = Duration::from_secs(10);

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_with_and_without_a_key() {
    let broker = broker();
    for key in [None, Some(Secret::from("a key".to_owned()))] {
        let mut settings = settings(broker.port);
        settings.key = key.clone();
        let mut guest = Guest::up(settings.clone()).await;
        guest.echo();
        let client = Client::connect(&settings).await.unwrap();
        let args = map(json!({"a": null, "b": ["ü", 1.5, {"c": true}]}));
        let call = client.call(&settings.server, key.as_ref(), "echo", v1(), args.clone(), Map::new(), LIMIT);
        assert_eq!(call.await.unwrap(), Value::Object(args));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reply_looks_as_upstreams() {
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let raw = Raw::connect(broker.port).await;
    let reply_queue = fresh("reply");
    raw.queue(&reply_queue, QueueDeclareOptions::default()).await;
    let mut replies = raw.consume(&reply_queue).await;
    let inner = json!({"method": "m", "args": {"x": 1}, "version": "1.2", "_msg_id": "id1", "_reply_q": reply_queue,
        "_timeout": null, "_unique_id": "u1", "_context_user": "me"});
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    raw.publish(
        &exchange,
        &topic,
        &wrap(&inner),
        json_properties().with_expiration("15000".into()),
    )
    .await;
    let delivery = guest.next().await;
    assert_eq!(Value::Object(delivery.request.context), json!({"user": "me"}));
    let left = delivery.request.deadline.unwrap().duration_since(std::time::Instant::now());
    assert!(left > Duration::from_secs(5) && left <= Duration::from_secs(15));
    guest
        .bus
        .answer(&delivery.request.reply.unwrap(), Answer::Result(json!("ü")))
        .await
        .unwrap();
    assert!(delivery.ack.ack().await);
    let reply = timeout(SOON, replies.next()).await.unwrap().unwrap().unwrap();
    let properties = &reply.properties;
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.content_encoding().as_ref().unwrap().as_str(), "utf-8");
    assert_eq!((properties.delivery_mode(), properties.priority()), (&Some(2), &Some(0)));
    assert_eq!(properties.headers(), &Some(FieldTable::default()));
    assert!(properties.expiration().is_none() && properties.correlation_id().is_none());
    let mut body = unwrap(&reply.data);
    assert_eq!(body["_unique_id"].as_str().unwrap().len(), 32);
    body["_unique_id"] = Value::Null;
    let wanted = json!({"result": "ü", "failure": null, "ending": true, "_msg_id": "id1", "_unique_id": null});
    assert_eq!(body, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_reach_the_caller_and_a_wrong_key_is_refused() {
    let broker = broker();
    let mut settings = settings(broker.port);
    settings.key = Some(Secret::from("right".to_owned()));
    let mut guest = Guest::up(settings.clone()).await;
    let client = Client::connect(&settings).await.unwrap();
    let call = |key: Option<&'static str>| {
        let (client, id) = (&client, settings.server.clone());
        async move {
            let key = key.map(|key| Secret::from(key.to_owned()));
            client
                .call(&id, key.as_ref(), "m", v1(), map(json!({"a": 1})), Map::new(), LIMIT)
                .await
        }
    };
    let Err(BusError::Remote(failure)) = call(Some("wrong")).await else {
        panic!("a wrong key was taken");
    };
    assert_eq!(failure.message, "The request is not encrypted with this instance's key");
    let Err(BusError::Remote(failure)) = call(None).await else {
        panic!("plain text was taken");
    };
    assert_eq!(failure.class, "BadRequest");
    guest.quiet().await;
    let told = Failure {
        class: "TroveError".into(),
        module: "trove.common.exception".into(),
        message: "it broke".into(),
    };
    let answered = told.clone();
    tokio::spawn(async move {
        let delivery = guest.next().await;
        let to = delivery.request.reply.clone().unwrap();
        guest.bus.answer(&to, Answer::Failure(answered)).await.unwrap();
        delivery.ack.ack().await;
        sleep(Duration::from_secs(1)).await;
    });
    let Err(BusError::Remote(failure)) = call(Some("right")).await else {
        panic!("no failure");
    };
    assert_eq!(failure, told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_of_every_kind_leave_the_guest_going() {
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    let raw = Raw::connect(broker.port).await;
    let good = wrap(&json!({"method": "m"}));
    let bodies: Vec<Vec<u8>> = vec![
        vec![],
        b"noise".to_vec(),
        vec![0xff; 100],
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        "[".repeat(100_000).into_bytes(),
        br#"{"oslo.version": "3.0", "oslo.message": "{}"}"#.to_vec(),
        br#"{"oslo.version": "2.0", "oslo.message": 5}"#.to_vec(),
        wrap(&json!([1])),
        wrap(&json!({"method": 5})),
        wrap(&json!({"method": "m", "args": 5, "_msg_id": "1", "_reply_q": fresh("nobody")})),
        wrap(&json!({"method": "m", "_msg_id": "1", "_reply_q": "q".repeat(300)})),
        wrap(&json!({"method": "m", "_msg_id": {}, "_reply_q": []})),
        vec![b' '; 2 << 20],
    ];
    for body in &bodies {
        raw.publish(&exchange, &topic, body, json_properties()).await;
    }
    let mut headers = FieldTable::default();
    headers.insert("compression".into(), AMQPValue::LongString("application/zstd".into()));
    let mut odd = FieldTable::default();
    odd.insert("compression".into(), AMQPValue::Boolean(true));
    for properties in [
        json_properties().with_headers(headers),
        json_properties().with_headers(odd),
        json_properties().with_content_type("text/plain".into()),
        json_properties().with_content_encoding("klingon".into()),
    ] {
        raw.publish(&exchange, &topic, &good, properties).await;
    }
    guest.quiet().await;
    raw.publish(&exchange, &topic, &good, lapin::BasicProperties::default()).await;
    let delivery = guest.next().await;
    assert_eq!(delivery.request.method, "m");
    assert!(delivery.request.reply.is_none());
    assert!(delivery.ack.ack().await);
    assert!(matches!(*guest.state.borrow(), trove_guestagent::bus::BusState::Up { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_requests_are_read() {
    use std::io::Write;
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    let raw = Raw::connect(broker.port).await;
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&wrap(&json!({"method": "packed"}))).unwrap();
    let mut headers = FieldTable::default();
    headers.insert("compression".into(), AMQPValue::LongString("application/x-gzip".into()));
    let body = packed.finish().unwrap();
    raw.publish(&exchange, &topic, &body, json_properties().with_headers(headers))
        .await;
    assert_eq!(guest.next().await.request.method, "packed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_are_handled_once() {
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    let raw = Raw::connect(broker.port).await;
    let send = async |id: &str| {
        let body = wrap(&json!({"method": "m", "_unique_id": id}));
        raw.publish(&exchange, &topic, &body, json_properties()).await;
    };
    send("same").await;
    send("same").await;
    let first = guest.next().await;
    guest.quiet().await;
    assert!(first.ack.ack().await);
    send("same").await;
    guest.quiet().await;
    send("other").await;
    assert_eq!(guest.next().await.request.unique_id, "other");
    // Two without an id are two requests.
    for _ in 0..2 {
        raw.publish(&exchange, &topic, &wrap(&json!({"method": "m"})), json_properties())
            .await;
        assert!(guest.next().await.ack.ack().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn casts_reach_conductor_and_watcher_in_order() {
    let broker = broker();
    for key in [None, Some(Secret::from("a key".to_owned()))] {
        let mut settings = settings(broker.port);
        settings.key = key.clone();
        let guest = Guest::up(settings.clone()).await;
        let known = key.clone();
        let mut open = watch(&settings, move |_| known.clone()).await.unwrap();
        let mut blind = watch(&settings, |_| None).await.unwrap();
        for i in 0..50 {
            let cast = Cast {
                method: "heartbeat",
                args: map(json!({"instance_id": settings.server, "n": i})),
                context: Map::new(),
                collapse: None,
            };
            guest.bus.cast(cast).unwrap();
        }
        assert!(guest.bus.flush(SOON).await);
        assert_eq!(guest.bus.outbox_depth(), 0);
        for i in 0..50 {
            let seen = timeout(SOON, open.recv()).await.unwrap().unwrap();
            assert_eq!(
                (seen.method.as_str(), &seen.args["n"], seen.sealed),
                ("heartbeat", &json!(i), false)
            );
            assert_eq!(seen.guest.as_ref(), Some(&settings.server));
            let seen = timeout(SOON, blind.recv()).await.unwrap().unwrap();
            assert_eq!(seen.sealed, key.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_without_a_queue_is_told_at_once_and_a_prepared_one_waits() {
    let broker = broker();
    let settings = settings(broker.port);
    let client = Client::connect(&settings).await.unwrap();
    let cast = || client.cast(&settings.server, None, "prepare", v1(), Map::new(), Map::new());
    assert!(matches!(cast().await, Err(BusError::NoGuest { .. })));
    client.ensure_guest_queue(&settings.server).await.unwrap();
    cast().await.unwrap();
    let mut guest = Guest::start(settings.clone());
    assert_eq!(guest.next().await.request.method, "prepare");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_receiver_stops_consuming_but_not_answering() {
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let raw = Raw::connect(broker.port).await;
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    let reply_queue = fresh("reply");
    raw.queue(&reply_queue, QueueDeclareOptions::default()).await;
    let inner = json!({"method": "m", "_msg_id": "id1", "_reply_q": reply_queue, "_unique_id": "1"});
    raw.publish(&exchange, &topic, &wrap(&inner), json_properties()).await;
    let delivery = guest.next().await;
    guest.deliveries.close();
    sleep(Duration::from_millis(500)).await;
    raw.publish(&exchange, &topic, &wrap(&json!({"method": "later"})), json_properties())
        .await;
    guest
        .bus
        .answer(&delivery.request.reply.unwrap(), Answer::Result(Value::Null))
        .await
        .unwrap();
    assert!(delivery.ack.ack().await);
    guest.cancel.cancel();
    timeout(SOON, guest.bus.ended()).await.unwrap();
    let mut next = Guest::start(guest.settings.clone());
    assert_eq!(next.next().await.request.method, "later");
}
