//! A backup taken on a replica that applies in parallel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
#[path = "common/pair.rs"]
mod pair;

use common::backups::{of, stored};
use datastore_api::{BackupKind, FollowPlan, RestorePlace, RestoredAs, Start};
use mysql_async::prelude::Queryable;
use pair::{LONG, Node, plan};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_replica_can_follow_the_source_from_its_position() {
    let (source, replica, third) = tokio::join!(
        Node::new(),
        Node::with(|more| {
            more.insert("slave_parallel_threads".into(), 4.into());
            more.insert("slave_parallel_mode".into(), "optimistic".into());
        }),
        Node::new()
    );
    source.make_shop().await;
    replica.follow(&source).await;
    let (stop, mut writers) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for client in 0..4 {
        let (stop, mut conn) = (Arc::clone(&stop), source.client().await);
        writers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let insert =
                    format!("INSERT INTO shop.t (x) VALUES ({client}); UPDATE shop.u SET x = x + 1 WHERE n = 1 + {client} % 2");
                conn.query_drop(insert).await.unwrap();
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (facts, blob) = stored(&replica.datastore, &BackupKind::Full).await.unwrap();
    let backups = of(&third.datastore);
    backups
        .check_restore(&facts, facts.data_bytes, &RestorePlace::Replace)
        .await
        .unwrap();
    let mut restore = backups.begin_restore("b", &RestorePlace::Replace).await.unwrap();
    restore.unpack(&mut blob.as_slice()).await.unwrap();
    let restored = restore.finish(RestoredAs::Closed).await.unwrap();
    assert_eq!(restored.position, facts.position);
    assert!(!restored.position.is_zero());
    let wanted = FollowPlan {
        start: Start::At(restored.position),
        ..plan(&source)
    };
    third.role().follow(&wanted, LONG).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let end = source.role().position().await.unwrap();
    third.role().wait_for(&end, Duration::from_secs(60)).await.unwrap();
    for table in ["t", "u"] {
        let checksum = format!("CHECKSUM TABLE shop.{table}");
        let (_, theirs): (String, u64) = source.value(&checksum).await;
        let (_, ours): (String, u64) = third.value(&checksum).await;
        assert_eq!(theirs, ours, "{table} at {end}");
    }
}
