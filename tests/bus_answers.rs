//! Answers against a real broker: callers that are gone or late, many at once, signs of life.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bus_support;

use bus_support::*;
use futures_util::StreamExt;
use lapin::options::QueueDeclareOptions;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use trove_guestagent::bus::{Answer, BusError, ReplyTo};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_gone_is_given_up_and_remembered() {
    let broker = broker();
    let guest = Guest::up(settings(broker.port)).await;
    let to = ReplyTo {
        msg_id: "1".into(),
        queue: fresh("nobody"),
    };
    let started = std::time::Instant::now();
    let gone = guest.bus.answer(&to, Answer::Result(Value::Null)).await;
    assert!(matches!(gone, Err(BusError::CallerGone { .. })), "{gone:?}");
    assert!(started.elapsed() >= guest.settings.missing_reply_queue);
    let started = std::time::Instant::now();
    assert!(matches!(
        guest.bus.answer(&to, Answer::Result(Value::Null)).await,
        Err(BusError::CallerGone { .. })
    ));
    assert!(started.elapsed() < guest.settings.missing_reply_queue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_queue_that_comes_late_still_gets_its_answer() {
    let broker = broker();
    let mut settings = settings(broker.port);
    settings.missing_reply_queue = SOON;
    let guest = Guest::up(settings).await;
    let to = ReplyTo {
        msg_id: "1".into(),
        queue: fresh("late"),
    };
    let bus = guest.bus.clone();
    let queue = to.queue.clone();
    let answering = tokio::spawn(async move { bus.answer(&to, Answer::Result(json!(7))).await });
    sleep(Duration::from_secs(1)).await;
    let raw = Raw::connect(broker.port).await;
    raw.queue(&queue, QueueDeclareOptions::default()).await;
    let reply = timeout(SOON, raw.consume(&queue).await.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(unwrap(&reply.data)["result"], 7);
    answering.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_answers_at_once_each_find_their_own_fate() {
    let broker = broker();
    let mut settings = settings(broker.port);
    settings.missing_reply_queue = Duration::from_secs(1);
    let guest = Guest::up(settings).await;
    let raw = Raw::connect(broker.port).await;
    let real = fresh("real");
    raw.queue(&real, QueueDeclareOptions::default()).await;
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let queue = if i % 2 == 0 {
                real.clone()
            } else {
                format!("{real}-missing-{i}")
            };
            let (bus, to) = (
                guest.bus.clone(),
                ReplyTo {
                    msg_id: i.to_string(),
                    queue,
                },
            );
            tokio::spawn(async move { (i, bus.answer(&to, Answer::Result(json!(i))).await) })
        })
        .collect();
    for task in tasks {
        let (i, answered) = task.await.unwrap();
        if i % 2 == 0 {
            answered.unwrap();
        } else {
            assert!(matches!(answered, Err(BusError::CallerGone { .. })), "{i}: {answered:?}");
        }
    }
    let mut replies = raw.consume(&real).await;
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 100 {
        let reply = timeout(SOON, replies.next()).await.unwrap().unwrap().unwrap();
        assert!(seen.insert(unwrap(&reply.data)["result"].as_u64().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alives_come_until_the_answer() {
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    let raw = Raw::connect(broker.port).await;
    let reply_queue = fresh("reply");
    raw.queue(&reply_queue, QueueDeclareOptions::default()).await;
    let mut replies = raw.consume(&reply_queue).await;
    let inner = json!({"method": "slow", "_msg_id": "id1", "_reply_q": reply_queue, "_timeout": 2});
    raw.publish(&exchange, &topic, &wrap(&inner), json_properties()).await;
    let delivery = guest.next().await;
    for _ in 0..2 {
        let alive = unwrap(&timeout(SOON, replies.next()).await.unwrap().unwrap().unwrap().data);
        assert_eq!((&alive["ending"], &alive["_msg_id"]), (&json!(false), &json!("id1")));
    }
    guest
        .bus
        .answer(&delivery.request.reply.unwrap(), Answer::Result(json!(1)))
        .await
        .unwrap();
    loop {
        let reply = unwrap(&timeout(SOON, replies.next()).await.unwrap().unwrap().unwrap().data);
        if reply["ending"] == json!(true) {
            break;
        }
    }
    assert!(timeout(Duration::from_millis(2500), replies.next()).await.is_err());
}
