//! The bus and brokers of its own: restarts, kills, TLS, logins.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bus_support;

use bus_support::*;
use datastore_api::Secret;
use serde_json::{Map, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use trove_guestagent::bus::{BusState, Client, Settings, TlsSettings};

async fn round_trip(settings: &Settings) -> Duration {
    let client = loop {
        match Client::connect(settings).await {
            Ok(client) => break client,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    call_until_it_works(&client, &settings.server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_restart_and_a_kill_are_survived_and_nothing_durable_is_lost() {
    let broker = OwnBroker::start();
    let mut settings = settings(broker.port);
    settings.durable = true;
    let mut guest = Guest::up(settings.clone()).await;
    let raw = Raw::connect(broker.port).await;
    let body = wrap(&json!({"method": "kept", "_unique_id": "1"}));
    raw.publish(&settings.control_exchange, &settings.topic, &body, json_properties())
        .await;
    let in_hand = guest.next().await;
    broker.run("restart");
    guest.wait_up().await;
    guest.quiet().await;
    assert!(in_hand.ack.ack().await, "the repeat's connection takes the acknowledgement");
    broker.ctl(&["close_all_connections", "test"]);
    guest.wait_down().await;
    guest.wait_up().await;
    guest.quiet().await;
    guest.echo();
    broker.run("kill");
    guest.wait_down().await;
    broker.run("run");
    let took = round_trip(&settings).await;
    println!("first answer {took:?} after the client could connect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_client_certificate() {
    let broker = OwnBroker::start_with_tls();
    let mut good = settings(broker.tls_port);
    good.brokers[0].host = "localhost".into();
    good.tls = Some(tls(&broker));
    let mut guest = Guest::up(good.clone()).await;
    guest.echo();
    round_trip(&good).await;
    // EXTERNAL: the certificate is the login.
    let mut external = good.clone();
    external.login_method = "EXTERNAL".into();
    external.brokers[0].user = String::new();
    external.brokers[0].password = Secret::from(String::new());
    round_trip(&external).await;
    let with = |change: &dyn Fn(&mut TlsSettings)| {
        let mut settings = good.clone();
        change(settings.tls.as_mut().unwrap());
        settings
    };
    // Unchecked without an authority; the wrong name passes where names are not checked.
    round_trip(&with(&|tls| tls.ca_file = None)).await;
    let mut by_address = with(&|tls| tls.verify_hostname = false);
    by_address.brokers[0].host = "127.0.0.1".into();
    round_trip(&by_address).await;
    let mut wrong_name = good.clone();
    wrong_name.brokers[0].host = "127.0.0.1".into();
    for (what, bad) in [
        ("a wrong name", wrong_name),
        (
            "another authority",
            with(&|tls| tls.ca_file = Some(broker.cert("other-ca.pem"))),
        ),
        (
            "no client certificate",
            with(&|tls| (tls.cert_file, tls.key_file) = (None, None)),
        ),
        ("a missing file", with(&|tls| tls.ca_file = Some("/nonexistent.pem".into()))),
        ("no PEM", with(&|tls| tls.ca_file = Some(broker.cert("client.key")))),
        (
            "a key of another",
            with(&|tls| tls.key_file = Some(broker.cert("server.key"))),
        ),
        ("a key alone", with(&|tls| tls.cert_file = None)),
    ] {
        let tried = timeout(SOON, Client::connect(&bad)).await.unwrap();
        assert!(tried.is_err(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins() {
    let broker = OwnBroker::start();
    broker.ctl(&["add_user", "t@rove", "p:a/ss"]);
    broker.ctl(&["add_vhost", "/inner"]);
    broker.ctl(&["set_permissions", "-p", "/inner", "t@rove", ".*", ".*", ".*"]);
    let url = format!("rabbit://t%40rove:p%3Aa%2Fss@127.0.0.1:{}/%2Finner", broker.port);
    let url = trove_guestagent::bus::url::parse(&url).unwrap();
    for method in ["PLAIN", "AMQPLAIN"] {
        let mut settings = settings(broker.port);
        settings.brokers = url.brokers.clone();
        settings.vhost = url.vhost.clone();
        settings.login_method = method.into();
        let mut guest = Guest::up(settings.clone()).await;
        guest.echo();
        round_trip(&settings).await;
    }
    // A wrong password: the text says so, without it.
    let mut wrong = settings(broker.port);
    wrong.brokers[0].password = Secret::from("hush".to_owned());
    let mut guest = Guest::start(wrong);
    let reason = async {
        loop {
            guest.state.changed().await.unwrap();
            if let BusState::Down(reason) = guest.state.borrow().clone() {
                return reason;
            }
        }
    };
    let reason = timeout(SOON, reason).await.unwrap();
    assert!(reason.contains("ACCESS_REFUSED") && !reason.contains("hush"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_brokers_the_one_that_lives_is_found_and_a_blocked_one_is_waited_for() {
    let broker = OwnBroker::start();
    let mut settings = settings(broker.port);
    settings.self_ping = Duration::from_secs(1);
    let mut dead = settings.brokers[0].clone();
    dead.port = 1;
    settings.brokers.extend([dead.clone(), dead]);
    let mut guest = Guest::up(settings.clone()).await;
    guest.echo();
    // A memory alarm blocks those who publish. Nothing is lost, and the connection is kept.
    broker.ctl(&["set_vm_memory_high_watermark", "0.00000001"]);
    let down = guest.state.wait_for(|state| matches!(state, BusState::Down(_)));
    assert!(
        timeout(Duration::from_secs(14), down).await.is_err(),
        "a blocked connection was given up"
    );
    broker.ctl(&["set_vm_memory_high_watermark", "0.5"]);
    let client = Client::connect(&settings).await.unwrap();
    let call = client.call(&settings.server, None, "m", v1(), Map::new(), Map::new(), SOON);
    call.await.unwrap();
}
