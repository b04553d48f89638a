//! Source and replica, changes of role, and what keeps a server from following.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
#[path = "common/pair.rs"]
mod pair;

use datastore_api::Change;
use mysql_async::prelude::Queryable;
use pair::{LONG, Node};
use std::time::{Duration, Instant};

async fn rows(node: &Node) -> Vec<(u32, i32)> {
    node.admin().await.query("SELECT n, x FROM shop.t ORDER BY n").await.unwrap()
}

#[tokio::test]
async fn roles_are_swapped_twenty_times_and_nobody_loses_or_invents_anything() {
    let (a, b) = (Node::new().await, Node::new().await);
    assert_eq!(a.role().make_source(None).await.unwrap(), Change::Unchanged);
    a.make_shop().await;
    b.follow(&a).await;
    let pids = (a.pid(), b.pid());
    let (mut source, mut replica) = (&a, &b);
    let mut took: Vec<[Duration; 4]> = Vec::new();
    for turn in 0..20 {
        let mut client = source.client().await;
        for x in 0..5 {
            client
                .exec_drop("INSERT INTO shop.t (x) VALUES (?)", (turn * 10 + x,))
                .await
                .unwrap();
        }
        let mut times = [Duration::ZERO; 4];
        let begin = Instant::now();
        let at = source.close().await;
        times[0] = begin.elapsed();
        replica.role().wait_for(&at, LONG).await.unwrap();
        let begin = Instant::now();
        let end = replica.role().detach(LONG).await.unwrap();
        times[1] = begin.elapsed();
        assert_eq!(end, at, "turn {turn}");
        let begin = Instant::now();
        assert_eq!(replica.role().open_writes().await.unwrap(), Change::Done);
        times[2] = begin.elapsed();
        // The new source writes before the old one follows.
        replica
            .client()
            .await
            .query_drop("INSERT INTO shop.t (x) VALUES (-1)")
            .await
            .unwrap();
        let mine = source.role().log_state().await.unwrap();
        let theirs = replica.role().log_state().await.unwrap();
        assert_eq!(
            source.role().errant(&theirs).await.unwrap(),
            Vec::<String>::new(),
            "{mine} {theirs}"
        );
        let begin = Instant::now();
        source.follow(replica).await;
        times[3] = begin.elapsed();
        took.push(times);
        (source, replica) = (replica, source);
        let errant = replica
            .role()
            .errant(&source.role().log_state().await.unwrap())
            .await
            .unwrap();
        assert_eq!(errant, Vec::<String>::new());
    }
    let at = source.role().position().await.unwrap();
    replica.role().wait_for(&at, LONG).await.unwrap();
    assert_eq!(rows(source).await, rows(replica).await);
    assert_eq!(rows(source).await.len(), 20 * 6);
    assert_eq!((a.pid(), b.pid()), pids, "no server was restarted");
    for (step, name) in ["block_writes", "detach", "open_writes", "follow"].iter().enumerate() {
        let mut times: Vec<Duration> = took.iter().map(|times| times[step]).collect();
        times.sort_unstable();
        println!("{name}: median {:?}, most {:?}", times[10], times[19]);
    }
}
