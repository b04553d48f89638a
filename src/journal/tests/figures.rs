//! What the journal costs. Printed, not asserted: `cargo nextest run --run-ignored only journal::tests::figures --no-capture`.

use super::crash::{DIR, this_test_binary};
use super::*;
use std::time::Instant;

/// Memory of our own, without the pages of the program.
fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "prints figures"]
async fn figures() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let size = || {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(dir.path().join("journal.redb")).unwrap();
        (meta.len() >> 10, meta.blocks() / 2)
    };
    let before = rss_kib();
    let start = Instant::now();
    let journal = Journal::open(dir.path(), None).unwrap();
    eprintln!(
        "make: {:?}, RSS +{} KiB, file {:?} KiB (length, on disk)",
        start.elapsed(),
        rss_kib() - before,
        size()
    );

    let mut times = Vec::new();
    for n in 0..200 {
        let start = Instant::now();
        journal.accept(call(&format!("s{n}"), "m")).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    eprintln!("accept alone: p50 {:?}, p99 {:?}", times[100], times[198]);

    let start = Instant::now();
    let burst: Vec<_> = (0..1000).map(|n| record(&format!("b{n}"), "m")).collect();
    futures_util::future::try_join_all(burst.into_iter().map(|r| journal.accept(r)))
        .await
        .unwrap();
    eprintln!("1,000 accepts at once: {:?}", start.elapsed());

    let start = Instant::now();
    for _ in 0..100 {
        journal.next_sent(0.0).await.unwrap();
    }
    eprintln!("next_sent: {:?} each", start.elapsed() / 100);

    let ids: Vec<OpId> = (0..1000).map(|n| id(&format!("b{n}"))).collect();
    let done = Outcome::Done(Value::Null);
    futures_util::future::try_join_all(ids.iter().map(|i| journal.finish(i, &done)))
        .await
        .unwrap();
    eprintln!("with 1,000 finished: RSS +{} KiB, file {:?} KiB", rss_kib() - before, size());
    let mut big = record("big", "prepare");
    big.args = json!({"config_contents": "x".repeat(4 << 20)});
    let start = Instant::now();
    journal.accept(big).await.unwrap();
    eprintln!(
        "accept of 4 MiB: {:?}, RSS +{} KiB, file {:?} KiB",
        start.elapsed(),
        rss_kib() - before,
        size()
    );
    journal.finish(&id("big"), &done).await.unwrap();
    eprintln!("when it is finished: RSS +{} KiB", rss_kib() - before);
    drop(journal);
    let child = "journal::tests::figures::child_that_idles";
    let status = this_test_binary(child, dir.path()).status().unwrap();
    assert!(status.success());
    eprintln!("file {:?} KiB", size());
}

/// The child: an agent that has 1,000 finished operations and does nothing.
#[tokio::test]
#[ignore = "the child of the figures"]
async fn child_that_idles() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let before = rss_kib();
    let start = Instant::now();
    let journal = Journal::open(std::path::Path::new(&dir), None).unwrap();
    eprintln!(
        "open with 1,000 finished: {:?}, RSS +{} KiB",
        start.elapsed(),
        rss_kib() - before
    );
    for _ in 0..200 {
        journal.next_sent(0.0).await.unwrap();
    }
    eprintln!("after 200 heartbeats: RSS +{} KiB", rss_kib() - before);
    journal.recent(100).await.unwrap();
    eprintln!("after a look at 100 of them: RSS +{} KiB", rss_kib() - before);
}
