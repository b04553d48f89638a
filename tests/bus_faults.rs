//! The bus when something breaks: connections, queues, bindings, existing declarations, a silent peer.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bus_support;

use bus_support::proxy::{Link, Proxy};
use bus_support::*;
use lapin::options::{BasicQosOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use serde_json::{Map, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use trove_guestagent::bus::{BusState, Cast, Client, Settings, watch};

async fn round_trip(settings: &Settings) {
    let client = Client::connect(settings).await.unwrap();
    call_until_it_works(&client, &settings.server).await;
}

/// The same settings, through another port.
fn through(settings: &Settings, port: u16) -> Settings {
    let mut other = settings.clone();
    other.brokers[0].port = port;
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_hand_when_the_connection_breaks_is_not_handled_twice() {
    let broker = broker();
    let proxy = Proxy::start(broker.port).await;
    let direct = settings(broker.port);
    let mut guest = Guest::up(through(&direct, proxy.port)).await;
    let raw = Raw::connect(broker.port).await;
    for id in ["1", "2"] {
        let body = wrap(&json!({"method": "m", "_unique_id": id}));
        raw.publish(&direct.control_exchange, &direct.topic, &body, json_properties())
            .await;
    }
    let (first, second) = (guest.next().await, guest.next().await);
    proxy.set(Link::Cut);
    guest.wait_down().await;
    // Acknowledged on a dead connection: not done, and the repeat is dropped.
    assert!(!first.ack.ack().await);
    proxy.set(Link::Open);
    guest.wait_up().await;
    guest.quiet().await;
    // Its repeat came on the new connection, which takes the acknowledgement.
    assert!(second.ack.ack().await);
    let drained = async {
        loop {
            let queue = raw
                .channel
                .queue_declare(direct.topic.as_str().into(), passive(), FieldTable::default());
            if queue.await.unwrap().message_count() == 0 {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, drained).await.unwrap();
    drop(guest);
    let mut next = Guest::up(direct).await;
    next.quiet().await;
}

fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_dropped_without_acknowledgement_comes_again() {
    let broker = broker();
    let proxy = Proxy::start(broker.port).await;
    let direct = settings(broker.port);
    let mut guest = Guest::up(through(&direct, proxy.port)).await;
    let raw = Raw::connect(broker.port).await;
    let body = wrap(&json!({"method": "m", "_unique_id": "1"}));
    raw.publish(&direct.control_exchange, &direct.topic, &body, json_properties())
        .await;
    assert!(!guest.next().await.redelivered);
    proxy.set(Link::Cut);
    guest.wait_down().await;
    proxy.set(Link::Open);
    let again = guest.next().await;
    assert!(again.redelivered);
    assert!(again.ack.ack().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_or_exchange_or_binding_that_vanishes_is_made_again() {
    let broker = broker();
    let mut settings = settings(broker.port);
    settings.self_ping = Duration::from_secs(1);
    let mut guest = Guest::up(settings.clone()).await;
    guest.echo();
    let raw = Raw::connect(broker.port).await;
    let delete = raw
        .channel
        .queue_delete(settings.topic.as_str().into(), QueueDeleteOptions::default());
    delete.await.unwrap();
    guest.wait_down().await;
    guest.wait_up().await;
    round_trip(&settings).await;
    let (queue, exchange) = (settings.topic.as_str(), settings.control_exchange.as_str());
    let unbind = raw
        .channel
        .queue_unbind(queue.into(), exchange.into(), queue.into(), FieldTable::default());
    unbind.await.unwrap();
    round_trip(&settings).await;
    raw.channel
        .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
        .await
        .unwrap();
    guest.wait_down().await;
    guest.wait_up().await;
    round_trip(&settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exists_with_other_arguments_is_used_as_it_is() {
    let broker = broker();
    let raw = Raw::connect(broker.port).await;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let table = |key: &str, value: AMQPValue| {
        let mut table = FieldTable::default();
        table.insert(key.into(), value);
        table
    };
    let quorum = table("x-queue-type", AMQPValue::LongString("quorum".into()));
    let expires = table("x-expires", AMQPValue::LongInt(600_000));
    let transient = QueueDeclareOptions::default();
    for (options, arguments, want_durable, want_quorum) in [
        (durable, FieldTable::default(), false, false),
        (durable, quorum, false, false),
        (transient, FieldTable::default(), true, false),
        (transient, FieldTable::default(), true, true),
        (transient, expires, false, false),
    ] {
        let mut settings = settings(broker.port);
        settings.durable = want_durable;
        settings.queue.quorum = want_quorum;
        let exchange = ExchangeDeclareOptions {
            durable: !want_durable,
            ..ExchangeDeclareOptions::default()
        };
        let name = || settings.control_exchange.as_str().into();
        let declare = raw
            .channel
            .exchange_declare(name(), ExchangeKind::Topic, exchange, FieldTable::default());
        declare.await.unwrap();
        let queue = settings.topic.as_str();
        raw.channel.queue_declare(queue.into(), options, arguments).await.unwrap();
        let bind = QueueBindOptions::default();
        raw.channel
            .queue_bind(queue.into(), name(), queue.into(), bind, FieldTable::default())
            .await
            .unwrap();
        // What the control plane sent before the guest came is still there.
        let body = wrap(&json!({"method": "prepare"}));
        raw.publish(&settings.control_exchange, queue, &body, json_properties()).await;
        let mut guest = Guest::up(settings.clone()).await;
        assert_eq!(guest.next().await.request.method, "prepare");
        guest.echo();
        round_trip(&settings).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_made_as_configured() {
    let broker = broker();
    let raw = Raw::connect(broker.port).await;
    for (is_durable, is_quorum) in [(false, false), (true, false), (false, true)] {
        let mut settings = settings(broker.port);
        settings.durable = is_durable;
        settings.queue.quorum = is_quorum;
        settings.queue.delivery_limit = if is_quorum { 20 } else { 0 };
        let mut guest = Guest::up(settings.clone()).await;
        guest.echo();
        round_trip(&settings).await;
        let mut arguments = FieldTable::default();
        if is_quorum {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(20));
        }
        let options = QueueDeclareOptions {
            durable: is_durable || is_quorum,
            ..QueueDeclareOptions::default()
        };
        // Declaring the same is no conflict; anything else would be.
        raw.channel
            .queue_declare(settings.topic.as_str().into(), options, arguments)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_noticed_and_left() {
    let broker = broker();
    let proxy = Proxy::start(broker.port).await;
    let direct = settings(broker.port);
    let mut through = through(&direct, proxy.port);
    through.self_ping = Duration::from_secs(1);
    through.heartbeat = Duration::from_secs(600);
    let mut guest = Guest::up(through).await;
    guest.echo();
    proxy.set(Link::Mute);
    guest.wait_down().await;
    let BusState::Down(reason) = guest.state.borrow().clone() else {
        panic!("up");
    };
    assert!(reason.contains("not consuming"), "{reason}");
    proxy.set(Link::Cut);
    sleep(Duration::from_millis(500)).await;
    proxy.set(Link::Open);
    guest.wait_up().await;
    round_trip(&direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_work_that_fills_the_prefetch_is_no_alarm() {
    let broker = broker();
    let mut settings = settings(broker.port);
    settings.self_ping = Duration::from_secs(1);
    settings.prefetch = 2;
    let mut guest = Guest::up(settings.clone()).await;
    let raw = Raw::connect(broker.port).await;
    raw.channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    for id in ["1", "2", "3"] {
        let body = wrap(&json!({"method": "m", "_unique_id": id}));
        raw.publish(&settings.control_exchange, &settings.topic, &body, json_properties())
            .await;
    }
    let (first, second) = (guest.next().await, guest.next().await);
    let down = guest.state.wait_for(|state| matches!(state, BusState::Down(_)));
    assert!(timeout(Duration::from_secs(14), down).await.is_err(), "a false alarm");
    assert!(first.ack.ack().await && second.ack.ack().await);
    assert_eq!(guest.next().await.request.unique_id, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn casts_keep_their_order_over_an_outage_and_none_is_lost() {
    let broker = broker();
    let proxy = Proxy::start(broker.port).await;
    let direct = settings(broker.port);
    let mut guest = Guest::up(through(&direct, proxy.port)).await;
    let mut seen = watch(&direct, |_| None).await.unwrap();
    let bus = guest.bus.clone();
    let casting = tokio::spawn(async move {
        for i in 0..600 {
            let args = json!({"n": i}).as_object().unwrap().clone();
            let cast = Cast {
                method: "m",
                args,
                context: Map::new(),
                collapse: None,
            };
            bus.cast(cast).unwrap();
            sleep(Duration::from_millis(2)).await;
        }
    });
    sleep(Duration::from_millis(300)).await;
    proxy.set(Link::Cut);
    guest.wait_down().await;
    sleep(Duration::from_millis(300)).await;
    assert!(guest.bus.outbox_depth() > 0);
    proxy.set(Link::Open);
    casting.await.unwrap();
    assert!(guest.bus.flush(SOON).await);
    // One whose confirm was lost comes twice, nothing is missing or overtakes.
    let mut wanted = 0;
    while wanted < 600 {
        let cast = timeout(SOON, seen.recv()).await.unwrap().unwrap();
        let number = cast.args["n"].as_u64().unwrap();
        assert!(number <= wanted, "{number} came before {wanted}");
        wanted = wanted.max(number + 1);
    }
}

/// Threads of the client crate, and sockets, of this process.
fn held() -> (usize, usize) {
    let entries = |dir: &str| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_io =
        |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("lapin"));
    let is_socket =
        |file: &std::path::PathBuf| std::fs::read_link(file).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
    (
        entries("/proc/self/task").filter(is_io).count(),
        entries("/proc/self/fd").filter(is_socket).count(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fail_leave_nothing_behind() {
    let broker = broker();
    let proxy = Proxy::start(broker.port).await;
    let mut guest = Guest::up(through(&settings(broker.port), proxy.port)).await;
    // The first loss makes what is made once per process.
    proxy.set(Link::Cut);
    guest.wait_down().await;
    proxy.set(Link::Open);
    guest.wait_up().await;
    sleep(Duration::from_millis(500)).await;
    let (threads, sockets) = held();
    assert_eq!(threads, 1);
    let before = proxy.accepted.load(std::sync::atomic::Ordering::Relaxed);
    // Each try gets a connection that ends at once.
    proxy.set(Link::Cut);
    sleep(Duration::from_secs(6)).await;
    let tries = proxy.accepted.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(tries >= 5, "{tries} tries in 6 s");
    // And some that get no answer.
    proxy.set(Link::Mute);
    sleep(Duration::from_secs(22)).await;
    proxy.set(Link::Cut);
    sleep(Duration::from_millis(500)).await;
    proxy.set(Link::Open);
    guest.wait_up().await;
    let settled = async {
        while held().0 > threads || held().1 > sockets {
            sleep(Duration::from_millis(200)).await;
        }
    };
    let settled = timeout(SOON, settled).await;
    assert!(
        settled.is_ok(),
        "before {threads} threads, {sockets} sockets; now {:?}",
        held()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_self_ping_is_consumed_silently() {
    let broker = broker();
    let mut guest = Guest::up(settings(broker.port)).await;
    let raw = Raw::connect(broker.port).await;
    let mut headers = FieldTable::default();
    headers.insert("x-guestagent-self-ping".into(), AMQPValue::Boolean(true));
    let (exchange, topic) = (guest.settings.control_exchange.clone(), guest.settings.topic.clone());
    raw.publish(&exchange, &topic, b"", BasicProperties::default().with_headers(headers))
        .await;
    guest.quiet().await;
}
