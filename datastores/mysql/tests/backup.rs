//! Backups of a running server become servers again, or change nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use common::backups::{Chain, load, of, stored, tenant_rows, told};
use common::copies::{guest, one, password, root};
use datastore_api::{BackupKind, Datastore, ErrorKind, Health, RestorePlace, RestoredAs};
use mysql_async::prelude::Queryable;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const SHOP: [&str; 8] = [
    "CREATE DATABASE shop",
    "CREATE USER 'tenant'@'%' IDENTIFIED BY 'tenants-own'",
    "GRANT ALL ON *.* TO 'root'@'%' IDENTIFIED BY 'enabled'",
    "CREATE TABLE shop.quiet (id INT PRIMARY KEY, v VARCHAR(200)) ENGINE=InnoDB",
    "INSERT INTO shop.quiet SELECT seq, REPEAT(MD5(seq), 5) FROM shop.seq_1_to_5000",
    "CREATE TABLE shop.myisam (n INT) ENGINE=MyISAM",
    "INSERT INTO shop.myisam VALUES (1), (2)",
    "CREATE TABLE shop.log (n INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200)) ENGINE=InnoDB",
];

async fn shop(machine: &Machine) {
    let mut admin = root(machine).await;
    for statement in SHOP {
        admin.query_drop(statement).await.unwrap();
    }
}

/// Restores a chain there.
async fn restore(datastore: &Arc<dyn Datastore>, blobs: &[&[u8]], place: &RestorePlace) -> datastore_api::Restored {
    let mut restore = of(datastore).begin_restore("b1", place).await.unwrap();
    for blob in blobs {
        restore.unpack(&mut &**blob).await.unwrap();
    }
    restore.finish(RestoredAs::Open).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_comes_back_in_place_on_a_new_guest_and_as_a_scratch_server() {
    let (machine, server) = guest().await;
    shop(&machine).await;
    let before: String = one(&mut root(&machine).await, "SELECT @@gtid_binlog_pos").await;
    let writers = load(&machine, 4).await;
    let described = of(&server).describe().await.unwrap();
    let (facts, blob) = stored(&server, &BackupKind::Full).await.unwrap();
    writers.stop().await;
    println!("{facts:?}");
    assert_eq!((facts.engine.as_str(), facts.strategy.as_str()), ("mariadb", "mariabackup"));
    assert_eq!((facts.server_id, &facts.version), (described.server_id, &described.version));
    assert_eq!(
        (facts.from_lsn.as_deref(), facts.stream_bytes),
        (Some("0"), blob.len() as u64)
    );
    assert!(facts.log_file.as_deref().is_some_and(|name| name.starts_with("binlog.")) && facts.log_offset > Some(0));
    let quiet = facts.sample.iter().find(|table| table.table == "quiet").unwrap();
    assert_eq!(quiet.rows, 5000);
    assert!(!facts.sample.iter().any(|table| table.table == "log"), "it changed meanwhile");
    // What the facts say is what is in it: as many rows as transactions.
    let number = |position: &str| position.rsplit('-').next().unwrap().parse::<u64>().unwrap();
    let written = number(&facts.position.0) - number(&before);
    assert!(written > 0, "nobody wrote meanwhile");
    root(&machine).await.query_drop("CREATE DATABASE late").await.unwrap();

    // A scratch server, beside the running one.
    let folder = machine.folder.path().join("scratch");
    let place = RestorePlace::Scratch(folder.clone());
    of(&server).check_restore(&facts, facts.data_bytes, &place).await.unwrap();
    let scratch = restore(&server, &[&blob], &place).await.scratch.unwrap();
    let report = scratch.check(&facts.sample, Duration::from_secs(60)).await.unwrap();
    println!("{report:?}");
    assert!(report.complete && report.problems.is_empty() && report.compared == facts.sample.len() as u64);
    assert!(report.checked > 20 && report.checked == report.tables);
    let mut lie = facts.sample.clone();
    lie[0].rows += 1;
    let report = scratch.check(&lie, Duration::ZERO).await.unwrap();
    assert!(
        !report.complete && report.problems.len() == 1 && report.checked == 0,
        "{report:?}"
    );
    scratch.close().await.unwrap();
    assert!(!folder.exists());
    assert_eq!(server.health().await, Health::Healthy);

    // In place.
    let own: String = password(&machine, "os_admin");
    let restored = restore(&server, &[&blob], &RestorePlace::Replace).await;
    assert_eq!((&restored.position, restored.log_offset), (&facts.position, facts.log_offset));
    assert_eq!(password(&machine, "os_admin"), own);
    let mut admin = root(&machine).await;
    assert_eq!(tenant_rows(&mut admin).await, (written, 5000, 2));
    let late: Vec<String> = admin.query("SHOW DATABASES LIKE 'late'").await.unwrap();
    assert!(late.is_empty());
    let (closed, position): (bool, String) = one(&mut admin, "SELECT @@read_only, @@gtid_current_pos").await;
    assert_eq!((closed, &position), (false, &facts.position.0));
    admin.query_drop("INSERT INTO shop.log (v) VALUES ('after')").await.unwrap();
    let position: String = one(&mut admin, "SELECT @@gtid_current_pos").await;
    assert_eq!(number(&position), number(&facts.position.0) + 1, "its history goes on");
    let tools: Vec<String> = admin
        .query("SELECT User FROM mysql.user WHERE User LIKE 'os\\_%' ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(tools, ["os_admin"]);
    assert!(!machine.folder.path().join("volume/restore").exists());
    drop(admin);
    server.restart().await.unwrap();
    assert_eq!(of(&server).settle().await.unwrap(), None);

    // On a new guest, closed.
    let fresh = Machine::new();
    let target = fresh.open();
    let step = of(&target).restore_step();
    of(&target)
        .check_restore(&facts, facts.data_bytes, &RestorePlace::Empty)
        .await
        .unwrap();
    for step in target.prepare_steps().iter().take_while(|other| **other != step) {
        target.prepare_step(*step, &fresh.plan()).await.unwrap();
    }
    // The first try is cut off; nothing empty is installed instead.
    let mut first = of(&target).begin_restore("b1", &RestorePlace::Empty).await.unwrap();
    let error = first.unpack(&mut &blob[..blob.len() / 2]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    first.abandon().await.unwrap();
    let error = target.prepare_step(step, &fresh.plan()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongData, "{error}");
    let mut second = of(&target).begin_restore("b1", &RestorePlace::Empty).await.unwrap();
    second.unpack(&mut blob.as_slice()).await.unwrap();
    second.finish(RestoredAs::Closed).await.unwrap();
    for step in target.prepare_steps().iter().skip_while(|other| **other != step) {
        target.prepare_step(*step, &fresh.plan()).await.unwrap();
    }
    assert_eq!(target.health().await, Health::Healthy);
    let mut admin = root(&fresh).await;
    assert_eq!(tenant_rows(&mut admin).await, (written, 5000, 2));
    assert!(one::<bool>(&mut admin, "SELECT @@read_only").await);
    let error = of(&target).check_restore(&facts, 1, &RestorePlace::Empty).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_three_is_joined_in_order_and_in_no_other() {
    let (machine, server) = guest().await;
    shop(&machine).await;
    let mut chain = Chain::default();
    for turn in 0..3 {
        let mut admin = root(&machine).await;
        let statement = format!("CREATE TABLE shop.t{turn} AS SELECT seq FROM shop.seq_1_to_1000");
        admin.query_drop(statement).await.unwrap();
        admin
            .query_drop("INSERT INTO shop.log (v) SELECT UUID() FROM shop.seq_1_to_2000")
            .await
            .unwrap();
        admin
            .query_drop("UPDATE shop.quiet SET v = UUID() WHERE id % 10 = 0")
            .await
            .unwrap();
        // So that each ends elsewhere in the redo log.
        admin
            .query_drop("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0.001, innodb_max_dirty_pages_pct = 0")
            .await
            .unwrap();
        let flushed =
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_BUFFER_POOL_PAGES_DIRTY'";
        for _ in 0..50 {
            if one::<String>(&mut admin, flushed).await == "0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        admin
            .query_drop("INSERT INTO shop.log (v) VALUES ('one more')")
            .await
            .unwrap();
        chain.add(&server).await;
    }
    println!(
        "{:?}",
        chain
            .facts
            .iter()
            .map(|facts| (&facts.from_lsn, &facts.to_lsn))
            .collect::<Vec<_>>()
    );
    let mut admin = root(&machine).await;
    let sums = "SELECT GROUP_CONCAT(c) FROM (SELECT COUNT(*) c FROM shop.log UNION ALL SELECT SUM(CRC32(v)) FROM shop.quiet \
                UNION ALL SELECT COUNT(*) FROM shop.t2) x";
    let wanted: String = one(&mut admin, sums).await;
    drop(admin);

    // In another order.
    for (order, kind) in [
        (&[1, 2][..], ErrorKind::WrongData),
        (&[0, 2][..], ErrorKind::WrongData),
        (&[0, 0][..], ErrorKind::WrongData),
    ] {
        let mut wrong = of(&server).begin_restore("x", &RestorePlace::Replace).await.unwrap();
        let mut last = Ok(());
        for index in order {
            if last.is_ok() {
                last = wrong.unpack(&mut chain.blobs[*index].as_slice()).await;
            }
        }
        assert_eq!(told(last).0, kind, "{order:?}");
        wrong.abandon().await.unwrap();
    }
    root(&machine).await.query_drop("DROP DATABASE shop").await.unwrap();
    let blobs: Vec<&[u8]> = chain.blobs.iter().map(Vec::as_slice).collect();
    let restored = restore(&server, &blobs, &RestorePlace::Replace).await;
    assert_eq!(restored.position, chain.facts[2].position);
    assert_eq!(one::<String>(&mut root(&machine).await, sums).await, wanted);

    // Nothing is built upon a backup of other data: these were restored since.
    let parent = Box::new(chain.facts[2].clone());
    let error = told(stored(&server, &BackupKind::Incremental { parent }).await);
    assert_eq!(error.0, ErrorKind::WrongData, "{}", error.1);
    assert!(error.1.contains("other data"), "{}", error.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_and_the_running_server_stays_as_it_is() {
    let (machine, server) = guest().await;
    shop(&machine).await;
    let (facts, blob) = stored(&server, &BackupKind::Full).await.unwrap();
    let replace = RestorePlace::Replace;
    for (change, kind) in [
        (("mysql", "", ""), ErrorKind::WrongData),
        (("mariadb", "12.3.1-MariaDB", ""), ErrorKind::WrongData),
        (("mariadb", "10.6.1-MariaDB", ""), ErrorKind::WrongData),
        (("mariadb", "", "pg_basebackup"), ErrorKind::WrongData),
    ] {
        let mut other = facts.clone();
        (other.engine, other.version, other.strategy) = (change.0.into(), change.1.into(), change.2.into());
        let error = told(of(&server).check_restore(&other, 1, &replace).await);
        assert_eq!(error.0, kind, "{}", error.1);
    }
    machine.host.set_free_space(1 << 20);
    assert_eq!(
        told(of(&server).check_restore(&facts, 1 << 20, &replace).await).0,
        ErrorKind::NoSpace
    );
    machine.host.set_free_space(u64::MAX);
    let data = machine.folder.path().join("volume/data");
    for folder in [
        data.clone(),
        data.join("x"),
        PathBuf::from("relative"),
        machine.folder.path().join("volume"),
    ] {
        let refused = told(
            of(&server)
                .check_restore(&facts, 1, &RestorePlace::Scratch(folder.clone()))
                .await,
        );
        assert!(
            matches!(refused.0, ErrorKind::Invalid | ErrorKind::Exists),
            "{folder:?}: {}",
            refused.1
        );
    }
    let mut flipped = blob.clone();
    flipped[blob.len() / 2] ^= 1;
    let escape = [
        b"XBSTCK01\0P\x09\0\0\0../../own\x01\0\0\0\0\0\0\0".as_slice(),
        &[0; 12],
        b"x",
        &blob,
    ]
    .concat();
    for (what, bad, kind) in [
        ("nothing", &b""[..], ErrorKind::Failed),
        ("something else", &b"HTTP/1.1 404 Not Found\r\n\r\n"[..], ErrorKind::Failed),
        ("its first half", &blob[..blob.len() / 2], ErrorKind::Failed),
        ("all but the last byte", &blob[..blob.len() - 1], ErrorKind::Failed),
        ("a flipped bit", &flipped, ErrorKind::Failed),
        ("a file that leads elsewhere", &escape, ErrorKind::Invalid),
    ] {
        let mut restore = of(&server).begin_restore("bad", &replace).await.unwrap();
        let error = told(restore.unpack(&mut &*bad).await);
        println!("{what}: {}", error.1);
        assert_eq!(error.0, kind, "{what}: {}", error.1);
        restore.abandon().await.unwrap();
    }
    assert!(!machine.folder.path().join("volume/own").exists());
    assert_eq!(server.health().await, Health::Healthy);
    let mut admin = root(&machine).await;
    assert_eq!(tenant_rows(&mut admin).await, (0, 5000, 2));
    assert!(!machine.folder.path().join("volume/restore").exists());
}
