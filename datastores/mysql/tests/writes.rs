//! Blocking writes whatever users do, and commits that wait for a replica.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
#[path = "common/pair.rs"]
mod pair;

use datastore_api::{BlockLimits, Change, Durability, ErrorKind, StopMode};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use pair::{LONG, Node, limits, told};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Runs a statement and answers what its client is told.
fn running(mut conn: Conn, statement: &'static str) -> JoinHandle<Result<(), Error>> {
    tokio::spawn(async move { conn.query_drop(statement).await })
}

/// Waits until a session is in this state of its statement.
async fn until(node: &Node, condition: &str) {
    until_all(node, 1, condition).await;
}

/// Waits until so many sessions are.
async fn until_all(node: &Node, wanted: u32, condition: &str) {
    let mut admin = node.admin().await;
    let query = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND {condition}");
    let begin = Instant::now();
    while admin.query_first::<u32, _>(&query).await.unwrap() < Some(wanted) {
        assert!(begin.elapsed() < LONG, "never: {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    admin.disconnect().await.unwrap();
}

async fn count(node: &Node, table: &str) -> u32 {
    node.value(&format!("SELECT COUNT(*) FROM shop.{table}")).await
}

#[tokio::test]
async fn idle_transactions_end_at_once_and_can_never_be_committed() {
    let a = Node::new().await;
    a.make_shop().await;
    let before = a.role().position().await.unwrap();
    let mut idle = a.client().await;
    idle.query_drop("BEGIN; INSERT INTO shop.t (x) VALUES (1)").await.unwrap();
    let mut reader = a.client().await;
    reader.query_drop("SELECT * FROM shop.t").await.unwrap();
    // A writer that waits for the lock of an idle one gets its chance.
    idle.query_drop("UPDATE shop.u SET x = 7 WHERE n = 1").await.unwrap();
    let writer = running(a.client().await, "UPDATE shop.u SET x = 8 WHERE n = 1");
    until(&a, "INFO LIKE 'UPDATE%'").await;
    let begin = Instant::now();
    let blocked = a
        .role()
        .block_writes(&BlockLimits {
            grace: LONG,
            limit: LONG * 2,
        })
        .await
        .unwrap();
    assert!(begin.elapsed() < LONG, "nothing waits for the grace");
    assert_eq!((blocked.idle_ended, blocked.writers_killed), (1, 0));
    writer.await.unwrap().unwrap();
    assert!(idle.query_drop("COMMIT").await.is_err());
    assert!(!a.role().covers(&before, &blocked.position).unwrap());
    assert_eq!(a.value::<u32>("SELECT x FROM shop.u WHERE n = 1").await, 8);
    assert_eq!(count(&a, "t").await, 0);
    // Whoever only reads is left alone, and nobody writes.
    reader.query_drop("SELECT * FROM shop.t").await.unwrap();
    assert!(reader.query_drop("INSERT INTO shop.t (x) VALUES (2)").await.is_err());
    let again = a.role().block_writes(&limits()).await.unwrap();
    assert_eq!(
        (again.idle_ended, again.writers_killed, again.position),
        (0, 0, blocked.position.clone())
    );
    assert_eq!(a.role().open_writes().await.unwrap(), Change::Done);
    assert_eq!(a.role().open_writes().await.unwrap(), Change::Unchanged);
    reader.query_drop("INSERT INTO shop.t (x) VALUES (2)").await.unwrap();
}

#[tokio::test]
async fn writers_that_do_not_end_are_killed_after_their_grace() {
    let a = Node::new().await;
    a.make_shop().await;
    for (statement, shown) in [
        ("INSERT INTO shop.t (x) SELECT SLEEP(600) FROM shop.u", "INSERT%"),
        ("UPDATE shop.u SET x = SLEEP(600)", "UPDATE%"),
        ("CREATE TABLE shop.v SELECT SLEEP(600) FROM shop.u", "CREATE%"),
    ] {
        let writer = running(a.client().await, statement);
        until(&a, &format!("INFO LIKE '{shown}' AND STATE = 'User sleep'")).await;
        let at = a.role().position().await.unwrap();
        let begin = Instant::now();
        let blocked = a.role().block_writes(&limits()).await.unwrap();
        let took = begin.elapsed();
        assert!(took >= limits().grace, "{statement}: {took:?}");
        assert_eq!((blocked.writers_killed, &blocked.position), (1, &at), "{statement}");
        assert!(writer.await.unwrap().is_err(), "{statement}");
        a.role().open_writes().await.unwrap();
    }
}

#[tokio::test]
async fn locks_that_users_hold_do_not_hold_it_up() {
    let a = Node::new().await;
    a.make_shop().await;
    a.admin().await.query_drop("GRANT RELOAD ON *.* TO app").await.unwrap();
    for statement in [
        "LOCK TABLES shop.t WRITE",
        "LOCK TABLES shop.t WRITE, shop.u READ",
        "FLUSH TABLES WITH READ LOCK",
        "FLUSH TABLES shop.t WITH READ LOCK",
        "SELECT GET_LOCK('mine', 1)",
        "BACKUP STAGE START; BACKUP STAGE BLOCK_COMMIT",
    ] {
        let mut holder = a.client().await;
        holder.query_drop(statement).await.unwrap();
        let begin = Instant::now();
        a.role().block_writes(&limits()).await.unwrap();
        println!("{statement}: {:?}", begin.elapsed());
        a.role().end_sessions().await.unwrap();
        assert!(holder.query_drop("SELECT 1").await.is_err());
        a.role().open_writes().await.unwrap();
        a.client()
            .await
            .query_drop("INSERT INTO shop.t (x) VALUES (1)")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn past_its_limit_writes_are_open_as_before() {
    let a = Node::new().await;
    a.make_shop().await;
    let writer = running(a.client().await, "INSERT INTO shop.t (x) SELECT SLEEP(6) FROM shop.u LIMIT 1");
    until(&a, "STATE = 'User sleep'").await;
    let short = BlockLimits {
        grace: LONG,
        limit: Duration::from_millis(500),
    };
    let (kind, text) = told(a.role().block_writes(&short).await);
    assert!(kind == ErrorKind::Timeout && !writer.is_finished(), "{text}");
    assert!(!a.role().status().await.unwrap().read_only);
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (5)")
        .await
        .unwrap();
    writer.await.unwrap().unwrap();
    // A caller that goes away leaves nothing half done either.
    let writer = running(a.client().await, "INSERT INTO shop.t (x) SELECT SLEEP(4) FROM shop.u LIMIT 1");
    until(&a, "STATE = 'User sleep'").await;
    let gone = tokio::time::timeout(Duration::from_millis(100), a.role().block_writes(&short)).await;
    assert!(gone.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (6)")
        .await
        .unwrap();
    writer.await.unwrap().unwrap();
    assert_eq!(count(&a, "t").await, 4);
}

#[tokio::test]
async fn root_of_before_does_not_write_after_the_block() {
    let a = Node::new().await;
    a.make_shop().await;
    let mut root = a.admin().await;
    root.query_drop("INSERT INTO shop.t (x) VALUES (1)").await.unwrap();
    let blocked = a.role().block_writes(&limits()).await.unwrap();
    assert!(
        root.query_drop("INSERT INTO shop.t (x) VALUES (2)").await.is_err(),
        "its session is ended"
    );
    assert_eq!(a.role().position().await.unwrap(), blocked.position);
}

/// A pair in which the replica follows and commits wait for it.
async fn durable_pair() -> (Node, Node) {
    let (a, b) = (Node::new().await, Node::new().await);
    a.make_shop().await;
    b.role().set_durability(Durability::Durable, false).await.unwrap();
    b.follow(&a).await;
    let at = a.role().position().await.unwrap();
    b.role().wait_for(&at, LONG).await.unwrap();
    assert_eq!(
        a.role().set_durability(Durability::Durable, true).await.unwrap(),
        Change::Done
    );
    assert_eq!(
        a.role().set_durability(Durability::Durable, true).await.unwrap(),
        Change::Unchanged
    );
    let begin = Instant::now();
    loop {
        let semi = a.role().status().await.unwrap().semi_sync;
        if semi.replicas == 1 {
            assert!(semi.source_on && !semi.degraded, "{semi:?}");
            break;
        }
        assert!(begin.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (a, b)
}

#[tokio::test]
async fn a_durable_commit_waits_for_its_replica_for_ever_and_survives_the_source() {
    let (a, b) = durable_pair().await;
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (1)")
        .await
        .unwrap();
    // Without a replica nothing is acknowledged.
    let replica = StopMode::Fast { limit: LONG };
    b.datastore.stop(replica).await.unwrap();
    let waiting = running(a.client().await, "INSERT INTO shop.t (x) VALUES (2)");
    let queued = running(a.client().await, "INSERT INTO shop.t (x) VALUES (3)");
    until_all(&a, 2, "USER = 'app' AND COMMAND = 'Query'").await;
    until(&a, "STATE LIKE 'Waiting for semi-sync%'").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!waiting.is_finished() && !queued.is_finished());
    let semi = a.role().status().await.unwrap().semi_sync;
    assert!(semi.waiting >= 1 && semi.replicas == 0 && !semi.degraded, "{semi:?}");
    b.datastore.start().await.unwrap();
    b.role().set_durability(Durability::Durable, false).await.unwrap();
    // It may have received both before it acknowledged anything: then nothing would ever be said about them, and nothing be written.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let unblocked = a.role().unblock_commits().await.unwrap();
    for told in [waiting, queued] {
        let told = tokio::time::timeout(LONG, told).await.unwrap().unwrap();
        assert!(told.is_ok() || unblocked == Change::Done);
    }
    // What was acknowledged is on the replica when the source dies.
    let mut client = a.client().await;
    for x in 10..40 {
        client.exec_drop("INSERT INTO shop.t (x) VALUES (?)", (x,)).await.unwrap();
    }
    a.kill();
    b.role().detach(LONG).await.unwrap();
    b.role().open_writes().await.unwrap();
    assert_eq!(count(&b, "t").await, 33);
}

#[tokio::test]
async fn the_client_of_an_ended_commit_is_never_told_that_it_succeeded() {
    let (a, b) = durable_pair().await;
    b.datastore.stop(StopMode::Fast { limit: LONG }).await.unwrap();
    let waiting: Vec<_> = [
        running(a.client().await, "INSERT INTO shop.t (x) VALUES (2)"),
        running(a.client().await, "INSERT INTO shop.t (x) VALUES (3)"),
        running(a.client().await, "CREATE TABLE shop.w (n INT)"),
    ]
    .into();
    until_all(&a, 3, "USER = 'app' AND COMMAND = 'Query'").await;
    until(&a, "STATE LIKE 'Waiting for semi-sync%'").await;
    let blocked = a.role().block_writes(&limits()).await.unwrap();
    assert_eq!(blocked.writers_killed, 3);
    a.role().set_durability(Durability::Durable, false).await.unwrap();
    for waiting in waiting {
        assert!(waiting.await.unwrap().is_err());
    }
    assert!(!a.role().status().await.unwrap().semi_sync.source_on);
    // The same without the block: a demotion that finds them still waiting.
    a.role().open_writes().await.unwrap();
    a.role().set_durability(Durability::Durable, true).await.unwrap();
    let waiting = running(a.client().await, "INSERT INTO shop.t (x) VALUES (4)");
    let queued = running(a.client().await, "INSERT INTO shop.t (x) VALUES (5)");
    until_all(&a, 2, "STATE LIKE 'Waiting for semi-sync%' OR STATE = 'Commit'").await;
    a.role().set_durability(Durability::Durable, false).await.unwrap();
    assert!(waiting.await.unwrap().is_err() && queued.await.unwrap().is_err());
}

#[tokio::test]
async fn a_semi_synchronous_source_goes_on_alone_and_shows_it() {
    let (a, b) = durable_pair().await;
    a.role().set_durability(Durability::SemiSync, true).await.unwrap();
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (1)")
        .await
        .unwrap();
    b.datastore.stop(StopMode::Fast { limit: LONG }).await.unwrap();
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (2)")
        .await
        .unwrap();
    assert!(a.role().status().await.unwrap().semi_sync.degraded);
    assert_eq!(a.role().set_durability(Durability::Async, true).await.unwrap(), Change::Done);
    assert!(!a.role().status().await.unwrap().semi_sync.source_on);
}

#[tokio::test]
async fn a_replica_of_a_frozen_source_is_detached_in_a_moment() {
    let (a, b) = durable_pair().await;
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (1)")
        .await
        .unwrap();
    a.signal("STOP");
    let begin = Instant::now();
    b.role().detach(LONG).await.unwrap();
    let took = begin.elapsed();
    a.signal("CONT");
    println!("detached from a frozen source in {took:?}");
    assert!(took < LONG / 2, "{took:?}");
    assert!(b.role().status().await.unwrap().following.is_none());
    assert_eq!(count(&b, "t").await, 1);
}

#[tokio::test]
async fn under_load_nothing_is_acknowledged_after_the_position_and_nothing_lost() {
    let (a, b) = (Node::new().await, Node::new().await);
    a.make_shop().await;
    b.follow(&a).await;
    let acknowledged = Arc::new(AtomicU32::new(0));
    let mut took = Vec::new();
    for _ in 0..10 {
        let mut writers = Vec::new();
        for _ in 0..6 {
            let (mut conn, acknowledged) = (a.client().await, Arc::clone(&acknowledged));
            writers.push(tokio::spawn(async move {
                while conn.query_drop("INSERT INTO shop.t (x) VALUES (1)").await.is_ok() {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        let begin = Instant::now();
        let patient = BlockLimits {
            grace: LONG,
            limit: LONG * 2,
        };
        let blocked = a.role().block_writes(&patient).await.unwrap();
        took.push(begin.elapsed());
        b.role().wait_for(&blocked.position, LONG).await.unwrap();
        let there = count(&b, "t").await;
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(blocked.writers_killed, 0);
        assert_eq!(a.role().position().await.unwrap(), blocked.position);
        assert!(there >= acknowledged.load(Ordering::Relaxed) && there == count(&a, "t").await);
        a.role().open_writes().await.unwrap();
    }
    took.sort_unstable();
    println!("block_writes with six writers: median {:?}, most {:?}", took[5], took[9]);
}
