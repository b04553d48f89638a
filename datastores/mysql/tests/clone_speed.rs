//! Figures of the streaming copy. Run by hand: `cargo nextest run --release -p datastore-mysql --test clone_speed --run-ignored all --no-capture`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::copies::{guest, root, transfer};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Resident memory of this process, now and at most, in kB.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (value("VmRSS:"), value("VmHWM:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures: a gigabyte of data"]
async fn a_gigabyte_with_a_writer_beside_it() {
    let ((from, source), (_to, replica)) = tokio::join!(guest(), guest());
    let mut admin = root(&from).await;
    admin.query_drop("CREATE DATABASE shop").await.unwrap();
    admin.query_drop("USE shop").await.unwrap();
    admin
        .query_drop("CREATE TABLE log (n INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200))")
        .await
        .unwrap();
    for table in 0..8 {
        admin
            .query_drop(format!("CREATE TABLE t{table} (id INT PRIMARY KEY, v VARCHAR(2000))"))
            .await
            .unwrap();
        admin
            .query_drop(format!(
                "INSERT INTO t{table} SELECT seq, REPEAT(MD5(seq), 50) FROM seq_1_to_70000"
            ))
            .await
            .unwrap();
    }
    for is_busy in [false, true] {
        let (stop, written, worst) = (
            Arc::new(AtomicBool::new(!is_busy)),
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicU64::new(0)),
        );
        let writer = {
            let (stop, written, worst, mut conn) =
                (Arc::clone(&stop), Arc::clone(&written), Arc::clone(&worst), root(&from).await);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    conn.query_drop("INSERT INTO shop.log (v) VALUES (REPEAT(UUID(), 5))")
                        .await
                        .unwrap();
                    worst.fetch_max(u64::try_from(start.elapsed().as_millis()).unwrap(), Ordering::Relaxed);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let (before, _) = memory();
        let start = Instant::now();
        let (sent, received) = transfer(source.replication().unwrap(), replica.replication().unwrap()).await;
        let time = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        writer.await.unwrap();
        assert_eq!(sent.unwrap(), received.unwrap());
        let bytes: u64 = admin
            .query_first("SELECT CAST(SUM(FILE_SIZE) AS UNSIGNED) FROM information_schema.INNODB_SYS_TABLESPACES")
            .await
            .unwrap()
            .unwrap();
        let megabytes = Duration::from_secs(bytes >> 20).as_secs_f64();
        println!(
            "writer {is_busy}: {megabytes} MiB sent, unpacked, prepared and started in {time:.1?}: {:.0} MiB/s; {} writes, the longest {} ms; memory {} kB more at most",
            megabytes / time.as_secs_f64(),
            written.load(Ordering::Relaxed),
            worst.load(Ordering::Relaxed),
            memory().1 - before,
        );
    }
}
