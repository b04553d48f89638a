//! The Rust half of `tests/bench/rpc.sh`: a bare echo consumer to compare with, and a raw caller.
//!
//! ```text
//!   rpc-load echo    URL TOPIC                              answers every call with `true`, acknowledges it, and does no more
//!   rpc-load load    URL TOPIC TEMPLATE COUNT IN_FLIGHT     calls, prints one line of JSON
//!   rpc-load once    URL TOPIC TEMPLATE                     per line read: one call, prints a line when it is answered
//!   rpc-load recover URL TOPIC TEMPLATE                     waits for the port, then calls until answered; prints JSON
//!   rpc-load cast    URL TOPIC TEMPLATE COUNT EVERY_MS      confirmed casts at a steady pace; prints how many were confirmed
//! ```
//! TEMPLATE is a file with the text of a request in which `@MSG@`, `@REPLY@`, `@UNIQUE@` and `@N@` are filled in.
#![allow(missing_docs, clippy::unwrap_used, reason = "a measuring tool: what fails ends it")]
#![allow(clippy::print_stdout, reason = "its output is its result")]

mod caller;
mod echo;

use caller::Caller;
use std::io::BufRead;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker that has just opened its port may leave a connection hanging.
const STUCK: Duration = Duration::from_millis(500);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match words[..] {
            ["echo", url, topic] => echo::run(url, topic).await,
            ["load", url, topic, template, count, in_flight] => {
                load(url, topic, template, count.parse().unwrap(), in_flight.parse().unwrap()).await;
            }
            ["once", url, topic, template] => once(url, topic, template).await,
            ["recover", url, topic, template] => recover(url, topic, template).await,
            ["cast", url, topic, template, count, every] => {
                cast(url, topic, template, count.parse().unwrap(), every.parse().unwrap()).await;
            }
            _ => println!("rpc-load echo|load|once|recover|cast …, see tests/bench/README.md"),
        }
    });
    // The client crate's own thread does not matter any more.
    std::process::exit(0);
}

async fn load(url: &str, topic: &str, template: &str, count: usize, in_flight: usize) {
    let mut caller = Caller::connect(url, topic, template).await.unwrap();
    let mut taken = Vec::with_capacity(count);
    let (mut sent, mut failed) = (0, 0);
    let began = Instant::now();
    while sent < in_flight.min(count) {
        caller.call().await.unwrap();
        sent += 1;
    }
    while taken.len() + failed < sent {
        match timeout(PATIENCE, caller.answer()).await {
            Ok(Some((took, true))) => taken.push(took),
            Ok(Some((_, false))) => failed += 1,
            Ok(None) | Err(_) => {
                failed += sent - taken.len() - failed;
                break;
            }
        }
        if sent < count {
            caller.call().await.unwrap();
            sent += 1;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    taken.sort();
    let at = |part: f64| {
        let last = taken.len().saturating_sub(1);
        let place = (last as f64 * part).round() as usize;
        taken
            .get(place)
            .map_or(f64::NAN, |took: &Duration| took.as_secs_f64() * 1000.0)
    };
    println!(
        "{{\"good\": {}, \"failed\": {failed}, \"seconds\": {seconds:.4}, \"per_second\": {:.1}, \"p50_ms\": {:.4}, \"p99_ms\": {:.4}, \"max_ms\": {:.4}}}",
        taken.len(),
        taken.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

async fn once(url: &str, topic: &str, template: &str) {
    let mut caller = Caller::connect(url, topic, template).await.unwrap();
    println!("ready");
    let (tx, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        std::io::stdin()
            .lock()
            .lines()
            .map_while(Result::ok)
            .all(|line| tx.blocking_send(line).is_ok())
    });
    while lines.recv().await.is_some() {
        caller.call().await.unwrap();
        println!("sent");
        match timeout(PATIENCE, caller.answer()).await {
            Ok(Some((_, true))) => println!("answered"),
            _ => println!("failed"),
        }
    }
}

/// From the first connection that the port takes to the first good answer. A new connection for each try: the broker may
/// refuse what comes too early.
async fn recover(url: &str, topic: &str, template: &str) {
    let address = url.rsplit('@').next().unwrap().split('/').next().unwrap();
    println!("waiting");
    while tokio::net::TcpStream::connect(address).await.is_err() {
        sleep(Duration::from_millis(2)).await;
    }
    let began = Instant::now();
    let mut tries = 0;
    while began.elapsed() < PATIENCE * 4 {
        let Ok(Ok(mut caller)) = timeout(STUCK, Caller::connect(url, topic, template)).await else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        // A call sent before the queue is there is lost, so another follows.
        while let Ok(Ok(())) = timeout(STUCK, caller.call()).await {
            tries += 1;
            match timeout(Duration::from_millis(20), caller.answer()).await {
                Ok(Some((_, true))) => {
                    let ms = began.elapsed().as_secs_f64() * 1000.0;
                    println!("{{\"ms\": {ms:.1}, \"tries\": {tries}}}");
                    return;
                }
                Ok(None) => break,
                _ => {}
            }
        }
    }
    println!("{{\"ms\": null, \"tries\": {tries}}}");
}

async fn cast(url: &str, topic: &str, template: &str, count: usize, every: u64) {
    let mut caller = Caller::connect(url, topic, template).await.unwrap();
    caller.confirmed().await.unwrap();
    let mut confirmed = 0;
    for _ in 0..count {
        let next = tokio::time::Instant::now() + Duration::from_millis(every);
        confirmed += usize::from(caller.cast().await.unwrap());
        tokio::time::sleep_until(next).await;
    }
    println!("{{\"confirmed\": {confirmed}}}");
}
