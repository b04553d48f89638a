//! Recovery to a moment, with a real MariaDB on the agent's own host room and a folder as the store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

#[path = "pitr/guest.rs"]
mod guest;

use datastore_api::{BackupKind, Datastore, DriverContext, EngineFacts, PreparePlan, RestorePlace, RestoredAs, StopMode};
use guest::{Guest, now, told};
use serde_json::Map;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trove_guestagent::backup::log::{Base, LogState, LogStatus, Replay, Settings, Shelf, Shipper, Target, Window, plan, window};
use trove_guestagent::backup::{BackupError, keys::Keys};
use trove_guestagent::host::{Machine, Settings as HostSettings, SupervisorKind};
use trove_guestagent::storage::{self, Access, Place, Store};

const CONFIG: &str = include_str!("../datastores/mysql/tests/common/config.cnf");
const GUEST: &str = "0c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d22";
const LONG: Duration = Duration::from_secs(60);

/// What a tenant may do, in each form the log has.
const WRITES: &str = "USE shop; INSERT INTO t (x) VALUES ('row');
    SET SESSION binlog_format = STATEMENT; CREATE TEMPORARY TABLE tt (n INT); INSERT INTO tt VALUES (5), (6);
    INSERT INTO m SELECT * FROM tt; SET @v = 'variable'; INSERT INTO t (x) VALUES (@v);
    BEGIN; INSERT INTO t (x) VALUES ('gone'); INSERT INTO m VALUES (99); ROLLBACK;
    SET SESSION binlog_format = ROW; CREATE TABLE c AS SELECT * FROM t; FLUSH BINARY LOGS;
    SET NAMES latin1; INSERT INTO t (x) VALUES (0x636166E9); CREATE USER bob@'%' IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO bob@'%';
    XA START 'q'; INSERT INTO t (x) VALUES ('xa'); XA END 'q'; XA PREPARE 'q'; XA COMMIT 'q';
    CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO INSERT INTO t (x) VALUES ('event');
    BEGIN; INSERT INTO t (x) VALUES ('kept'); SAVEPOINT s; INSERT INTO t (x) VALUES ('undone'); ROLLBACK TO SAVEPOINT s; COMMIT;
    INSERT INTO t (x) SELECT REPEAT('large', 20000) FROM seq_1_to_80; ALTER TABLE t ADD y INT DEFAULT 7;
    SET sql_log_bin = 0; SET sql_log_bin = 1";

const SUM: &str = "SELECT COUNT(*), SUM(CRC32(CONCAT_WS(',', n, x, y))) FROM shop.t; SELECT GROUP_CONCAT(n ORDER BY n) FROM shop.m; \
    SELECT COUNT(*) FROM mysql.global_priv WHERE User = 'bob'; SELECT status FROM mysql.event WHERE name = 'e'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_and_wiped_comes_back_to_any_moment() {
    let mut guest = Guest::new().await;
    guest.ship();
    guest
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (n INT PRIMARY KEY AUTO_INCREMENT, x LONGTEXT); CREATE TABLE shop.m (n INT) ENGINE=MyISAM; \
              INSERT INTO shop.t (x) VALUES ('base')")
        .await;
    let (_, blob, base) = guest.backup().await;
    let bases = [base];
    guest.sql(WRITES).await;
    let (written, after_writes) = (guest.sql(SUM).await, guest.position().await);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let moment = now();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    guest.sql("FLUSH BINARY LOGS; INSERT INTO shop.t (x) VALUES ('late')").await;
    let late = guest.sql(SUM).await;
    guest.sql("DROP TABLE shop.t").await;
    let dropped = guest.position().await;
    guest.sql("CREATE TABLE shop.last (n INT)").await;
    guest.shipped().await;
    let newest = guest.position().await;
    let shown = guest.window(&bases).await;
    assert!(shown.gaps.is_empty() && shown.spans.len() == 1, "{shown:?}");
    assert!(
        shown.spans[0].is_present && shown.spans[0].to_position.0 == newest,
        "{shown:?}"
    );

    guest.kill().await;
    guest.stop_server().await;
    guest.stop().await;
    fs::remove_dir_all(guest.data()).unwrap();

    for target in [
        Target::Time(bases[0].finished - 10),
        Target::Time(now() + 1000),
        Target::Including("0-1-4711".into()),
    ] {
        let text = told(&guest.recover(&blob, &bases, &target).await.unwrap_err());
        assert!(text.contains("cannot be recovered: the window is 20"), "{text}");
    }
    let begun = Instant::now();
    let replayed = guest.recover(&blob, &bases, &Target::Latest).await.unwrap();
    println!("recovered {} transactions in {:?}", replayed.transactions, begun.elapsed());
    assert_eq!(replayed.position.0, newest);
    let tables = guest.sql("SHOW TABLES IN shop").await;
    assert_eq!(tables.split_whitespace().collect::<Vec<_>>(), ["c", "last", "m"]);
    for (target, wanted) in [
        (Target::Before(dropped.clone()), &late),
        (Target::Time(moment), &written),
        (Target::Including(after_writes.clone()), &written),
    ] {
        guest.recover(&blob, &bases, &target).await.unwrap();
        assert_eq!(&guest.sql(SUM).await, wanted, "{target:?}");
    }
    assert!(written.ends_with("ENABLED"), "{written}");
    // History goes on from there, in another timeline that is joined at the fork.
    let current = guest.sql("SELECT @@gtid_current_pos, @@read_only").await;
    assert_eq!(current.split_whitespace().collect::<Vec<_>>(), [after_writes.as_str(), "0"]);
    guest.ship();
    guest.sql("INSERT INTO shop.t (x) VALUES ('new life')").await;
    guest.shipped().await;
    let alive = guest.sql(SUM).await;
    guest.stop().await;
    let shown = guest.window(&bases).await;
    assert!(shown.gaps.is_empty(), "{shown:?}");
    guest.recover(&blob, &bases, &Target::Latest).await.unwrap();
    assert_eq!(guest.sql(SUM).await, alive);
    // What only the first life had is still there, by its name.
    guest.recover(&blob, &bases, &Target::Including(newest)).await.unwrap();
    assert_eq!(guest.sql("SHOW TABLES IN shop LIKE 'last'").await, "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_a_crash_and_a_restart_leave_no_hole_and_a_purge_does() {
    let mut guest = Guest::new().await;
    guest.ship();
    guest
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (n INT PRIMARY KEY AUTO_INCREMENT, x LONGTEXT)")
        .await;
    let (_, blob, base) = guest.backup().await;
    let bases = [base];
    let write = "INSERT INTO shop.t (x) VALUES ('x')";
    guest.sql(write).await;
    guest.shipped().await;

    // The store is away, and the agent is killed in the meantime.
    let (store, away) = (guest.folder.path().join("store"), guest.folder.path().join("away"));
    fs::rename(&store, &away).unwrap();
    guest.sql(&format!("{write}; FLUSH BINARY LOGS; {write}")).await;
    guest
        .until(|status| status.state == LogState::Failing && status.error.is_some())
        .await;
    assert!(guest.status.borrow().behind() > Duration::ZERO);
    guest.cut_off();
    guest.ship();
    guest.sql(write).await;
    fs::rename(&away, &store).unwrap();
    guest.shipped().await;
    assert_eq!(guest.status.borrow().behind(), Duration::ZERO);

    // The server is killed; its supervisor starts it again.
    guest.kill().await;
    let end = Instant::now() + LONG;
    while guest.datastore.server_version().await.is_none() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    guest.sql(write).await;
    guest.shipped().await;
    for _ in 0..70 {
        guest.sql(write).await;
    }
    guest.sql(&format!("FLUSH BINARY LOGS; {write}")).await;
    guest.shipped().await;
    assert_eq!(guest.status.borrow().timeline, 1);
    let shown = guest.window(&bases).await;
    assert!(shown.gaps.is_empty() && shown.spans.len() == 1, "{shown:?}");

    // A transaction larger than a piece, and small objects that were joined.
    guest
        .sql("INSERT INTO shop.t (x) SELECT REPEAT('0123456789', 10000) FROM shop.seq_1_to_120")
        .await;
    guest.shipped().await;
    let wanted = guest.sql("CHECKSUM TABLE shop.t").await;
    let position = guest.position().await;
    guest.recover(&blob, &bases, &Target::Including(position)).await.unwrap();
    assert_eq!(guest.sql("CHECKSUM TABLE shop.t").await, wanted);
    guest.until(|status| status.timeline == 2).await;

    // What was purged before it was shipped is a gap, and nothing is joined over it.
    guest.sql(write).await;
    guest.shipped().await;
    guest.stop().await;
    guest
        .sql(&format!("{write}; FLUSH BINARY LOGS; {write}; FLUSH BINARY LOGS"))
        .await;
    let newest = guest
        .sql("SHOW MASTER STATUS")
        .await
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    guest.sql(&format!("PURGE BINARY LOGS TO '{newest}'; {write}")).await;
    guest.ship();
    guest.shipped().await;
    guest.stop().await;
    let shown = guest.window(&bases).await;
    assert_eq!(shown.gaps.len(), 1, "{shown:?}");
    assert!(shown.gaps[0].text.contains("purged"), "{shown:?}");
    let text = told(&guest.recover(&blob, &bases, &Target::Latest).await.unwrap_err());
    assert!(text.contains("cannot be recovered: the window is"), "{text}");
}

/// Kills server and agent at random moments under load, wipes the data, and prints how old the newest recovered transaction was at that
/// moment; then recovers to a transaction chosen at random. `PITR_RUNS` says how often, 50 by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it alone"]
async fn how_much_is_lost_when_a_server_is_killed_and_wiped_under_load() {
    let runs: usize = std::env::var("PITR_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(50);
    let mut guest = Guest::new().await;
    guest
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (n INT PRIMARY KEY AUTO_INCREMENT, at DOUBLE, x CHAR(100))")
        .await;
    guest
        .sql(
            "//CREATE PROCEDURE shop.load_it() BEGIN WHILE 1 DO \
             INSERT INTO shop.t (at, x) VALUES (UNIX_TIMESTAMP(SYSDATE(6)), MD5(RAND())); END WHILE; END",
        )
        .await;
    let (mut ages, mut exact, mut times) = (Vec::new(), 0, Vec::new());
    let mut random = u64::from(std::process::id());
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for run in 0..runs {
        guest.ship();
        guest.sql("TRUNCATE shop.t").await;
        let (_, blob, base) = guest.backup().await;
        let first: u64 = base.position.0.rsplit('-').next().unwrap().parse().unwrap();
        let bases = [base];
        let load = async {
            let _ = guest.try_sql("CALL shop.load_it()").await;
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(500 + next(3000))).await;
            guest.shipping.as_ref().unwrap().task.abort();
            guest.kill().await;
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs_f64()
        };
        let ((), killed) = tokio::join!(load, kill);
        guest.shipping = None;
        guest.stop_server().await;
        fs::remove_dir_all(guest.data()).unwrap();
        let begun = Instant::now();
        let replayed = guest.recover(&blob, &bases, &Target::Latest).await.unwrap();
        times.push((begun.elapsed(), replayed.transactions));
        let newest: f64 = guest.sql("SELECT MAX(at) FROM shop.t").await.parse().unwrap();
        ages.push(killed - newest);
        let chosen = 1 + next(replayed.transactions - 1);
        let parts: Vec<&str> = replayed.position.0.split('-').collect();
        let id = format!("{}-{}-{}", parts[0], parts[1], first + chosen);
        guest.recover(&blob, &bases, &Target::Including(id)).await.unwrap();
        let rows: u64 = guest.sql("SELECT COUNT(*) FROM shop.t").await.parse().unwrap();
        exact += u64::from(rows == chosen);
        println!(
            "run {run}: newest {:.3} s old, {} transactions in {:?}, exact {}",
            ages[run],
            replayed.transactions,
            times[run].0,
            rows == chosen
        );
    }
    ages.sort_by(f64::total_cmp);
    let at = |percent: usize| ages[(ages.len() * percent).div_ceil(100).max(1) - 1];
    println!(
        "age of the newest at the kill: median {:.3} s, p99 {:.3} s, exact {exact}/{runs}",
        at(50),
        at(99)
    );
    assert_eq!(exact, runs as u64);
}
