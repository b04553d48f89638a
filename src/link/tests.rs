//! Real sockets on loopback; a proxy between the two where bytes are to be damaged.

use super::*;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

mod attack;
mod streams;

const SOON: Duration = Duration::from_secs(10);

fn limits() -> Limits {
    Limits::default()
}

/// Answers by verb; counts what it was asked.
#[derive(Default)]
struct Echo {
    asked: AtomicUsize,
    bytes: AtomicU64,
}

#[async_trait]
impl Handler for Echo {
    async fn request(&self, _: Peer, body: Value) -> Result<Value, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match body["verb"].as_str() {
            Some("slow") => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                Ok(json!("slow"))
            }
            Some("refuse") => Err("no such thing".to_owned()),
            Some("panic") => panic!("as asked"),
            Some("big") => Ok(Value::String("x".repeat(MAX_BODY))),
            _ => Ok(body),
        }
    }

    async fn stream(&self, _: Peer, open: Value, mut io: Stream) {
        match open["verb"].as_str() {
            Some("send") => {
                let mut left = open["bytes"].as_u64().unwrap();
                let block = vec![7; 64 * 1024];
                while left > 0 {
                    let size = left.min(block.len() as u64);
                    io.write_all(&block[..usize::try_from(size).unwrap()]).await.unwrap();
                    left -= size;
                }
                io.shutdown().await.unwrap();
            }
            Some("fail") => {
                io.write_all(b"half").await.unwrap();
                io.fail("the disk is full").await;
            }
            Some("cut") => {
                io.write_all(b"half").await.unwrap();
                io.flush().await.unwrap();
            }
            Some("take") => {
                let count = tokio::io::copy(&mut io, &mut tokio::io::sink()).await.unwrap();
                self.bytes.store(count, Ordering::Relaxed);
                io.write_all(count.to_string().as_bytes()).await.unwrap();
                io.shutdown().await.unwrap();
            }
            Some("sleep") => tokio::time::sleep(Duration::from_secs(60)).await,
            _ => io.fail("no such stream").await,
        }
    }
}

struct Server {
    address: SocketAddr,
    echo: Arc<Echo>,
    cancel: CancellationToken,
}

/// A server on a free port of loopback with these keys.
async fn server(keys: Vec<PairKey>) -> Server {
    let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listener.addresses()[0];
    let (echo, cancel) = (Arc::new(Echo::default()), CancellationToken::new());
    let lookup: KeyLookup = Arc::new(move || keys.clone());
    tokio::spawn(listener.serve(lookup, echo.clone(), limits(), cancel.clone()));
    Server { address, echo, cancel }
}

async fn connected() -> (Server, Link) {
    let key = PairKey::generate();
    let server = server(vec![key.clone()]).await;
    let link = Link::connect(server.address, key, limits()).await.unwrap();
    (server, link)
}

#[tokio::test]
async fn a_thousand_questions_at_once_each_get_their_own_answer() {
    let (_server, link) = connected().await;
    let asks = (0..1000).map(|n| {
        let link = link.clone();
        async move {
            let body = json!({"n": n, "text": "x".repeat(n % 700)});
            assert_eq!(link.ask(&body, SOON).await.unwrap(), body);
        }
    });
    futures_util::future::join_all(asks).await;
}

#[tokio::test]
async fn a_slow_question_holds_up_no_other_and_ends_at_its_limit() {
    let (_server, link) = connected().await;
    let slow = link.clone();
    let slow = tokio::spawn(async move { slow.ask(&json!({"verb": "slow"}), Duration::from_millis(300)).await });
    let began = Instant::now();
    link.ask(&json!({"verb": "quick"}), SOON).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    let error = slow.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), LinkErrorKind::Silent, "{error}");
    // The channel is as good as before.
    link.ask(&json!({"verb": "quick"}), SOON).await.unwrap();
    assert!(!link.is_closed());
}

#[tokio::test]
async fn errors_of_the_other_side_are_told_and_break_nothing() {
    let (server, link) = connected().await;
    for (verb, text) in [
        ("refuse", "no such thing"),
        ("panic", "the agent failed"),
        ("big", "more than a frame"),
    ] {
        let error = link.ask(&json!({"verb": verb}), SOON).await.unwrap_err();
        assert_eq!(error.kind(), LinkErrorKind::Told, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = link.ask(&json!("x".repeat(MAX_BODY)), SOON).await.unwrap_err();
    assert_eq!(error.kind(), LinkErrorKind::TooLarge);
    assert_eq!(link.ask(&json!(1), SOON).await.unwrap(), json!(1));
    assert_eq!(server.echo.asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_wrong_key_is_told_apart_and_breaks_nobody_else() {
    let key = PairKey::generate();
    let server = server(vec![PairKey::generate(), key.clone()]).await;
    let error = Link::connect(server.address, PairKey::generate(), limits())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), LinkErrorKind::WrongKey, "{error}");
    // Any of several keys will do.
    let link = Link::connect(server.address, key, limits()).await.unwrap();
    link.ask(&json!(1), SOON).await.unwrap();
}

#[tokio::test]
async fn an_agent_without_a_pair_says_so() {
    let server = server(Vec::new()).await;
    let error = Link::connect(server.address, PairKey::generate(), limits())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), LinkErrorKind::NoPair, "{error}");
    assert!(error.to_string().contains("belongs to no pair"), "{error}");
}

#[tokio::test]
async fn a_dead_agent_is_refused_and_a_hung_or_absent_one_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let short = Limits {
        connect: Duration::from_millis(300),
        ..limits()
    };
    // Hung: its kernel takes the connection, nobody answers.
    let error = Link::connect(address, PairKey::generate(), short.clone())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), LinkErrorKind::Silent, "{error}");
    drop(listener);
    let error = Link::connect(address, PairKey::generate(), short).await.err().unwrap();
    assert_eq!(error.kind(), LinkErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn both_sides_learn_that_the_other_is_gone() {
    let (server, link) = connected().await;
    let waiting = link.clone();
    let asked = tokio::spawn(async move { waiting.ask(&json!({"verb": "slow"}), SOON).await });
    while server.echo.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    server.cancel.cancel();
    let error = tokio::time::timeout(SOON, link.closed()).await.unwrap();
    assert_eq!(error.kind(), LinkErrorKind::Broken, "{error}");
    assert_eq!(asked.await.unwrap().unwrap_err().kind(), LinkErrorKind::Broken);
    let after = link.ask(&json!(1), SOON).await.unwrap_err();
    assert_eq!(after.kind(), LinkErrorKind::Broken);
    // The port is free as soon as nobody serves it.
    let error = Link::connect(server.address, PairKey::generate(), limits())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), LinkErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn a_key_that_is_taken_back_ends_its_links() {
    let key = PairKey::generate();
    let keys = Arc::new(std::sync::Mutex::new(vec![key.clone()]));
    let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listener.addresses()[0];
    let look = keys.clone();
    let lookup: KeyLookup = Arc::new(move || look.lock().unwrap().clone());
    tokio::spawn(listener.serve(lookup, Arc::new(Echo::default()), limits(), CancellationToken::new()));
    let link = Link::connect(address, key, limits()).await.unwrap();
    link.ask(&json!(1), SOON).await.unwrap();
    *keys.lock().unwrap() = vec![PairKey::generate()];
    assert_eq!(link.ask(&json!(1), SOON).await.unwrap_err().kind(), LinkErrorKind::Broken);
}

#[tokio::test]
async fn several_addresses_of_both_families_are_served_and_a_taken_one_is_named() {
    let key = PairKey::generate();
    let v4 = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = v4.local_addr().unwrap().port();
    let error = Listener::bind(&[SocketAddr::new("127.0.0.1".parse().unwrap(), port)])
        .err()
        .unwrap();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    drop(v4);
    let addresses: Vec<SocketAddr> = ["0.0.0.0", "::"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).into();
    let listener = Listener::bind(&addresses).unwrap();
    let keys = vec![key.clone()];
    tokio::spawn(listener.serve(
        Arc::new(move || keys.clone()),
        Arc::new(Echo::default()),
        limits(),
        CancellationToken::new(),
    ));
    for ip in ["127.0.0.1", "::1"] {
        let from = Limits {
            bind_from: Some(ip.parse().unwrap()),
            ..limits()
        };
        let peer = SocketAddr::new(ip.parse().unwrap(), port);
        let link = Link::connect(peer, key.clone(), from).await.unwrap();
        link.ask(&json!(1), SOON).await.unwrap();
    }
}

#[test]
fn a_key_goes_through_text_and_shows_nowhere() {
    let key = PairKey::generate();
    let text = key.to_base64();
    let again = PairKey::from_base64(&text).unwrap();
    assert!(again == key && again.id() == key.id() && key != PairKey::generate());
    let shown = format!("{key:?} {text:?}");
    assert!(!shown.contains(datastore_api::ExposeSecret::expose_secret(&text)), "{shown}");
    for bad in ["", "AAAA", "not base64 at all!", &"A".repeat(44)] {
        assert!(PairKey::from_base64(&bad.to_owned().into()).is_err(), "{bad}");
    }
}

/// Prints the time of a question and its answer; `cargo nextest run figures --no-capture`.
#[tokio::test]
async fn figures_of_a_question() {
    let (_server, link) = connected().await;
    let body = json!({"verb": "ping", "pair": "p", "generation": 4, "seq": 7});
    let mut times = Vec::new();
    for _ in 0..2000 {
        let began = Instant::now();
        link.ask(&body, SOON).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!("ask: p50 {:?}, p99 {:?}", times[1000], times[1980]);
}
