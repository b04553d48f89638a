//! A copy of a running server becomes another server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use common::copies::{Breaks, Slow, SmallVolume, guest, one, password, root, run, transfer};
use datastore_api::{Datastore, ErrorKind, FollowPlan, Health, Replication, SourceEndpoint, Start, StopMode};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::duplex;

fn of(datastore: &Arc<dyn Datastore>) -> &dyn Replication {
    datastore.replication().unwrap()
}

/// Everything in the command lines of this machine's processes.
fn command_lines() -> String {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned() + "\n").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_load_is_copied_whole_and_the_old_data_are_gone() {
    let ((from, source), (to, replica)) = tokio::join!(guest(), guest());
    let mut admin = root(&from).await;
    for statement in [
        "CREATE DATABASE shop",
        "USE shop",
        "CREATE USER 'tenant'@'%' IDENTIFIED BY 'tenants-own'",
        "GRANT ALL ON shop.* TO 'tenant'@'%'",
        "CREATE TABLE shop.ballast (id INT PRIMARY KEY, v VARCHAR(1000)) ENGINE=InnoDB",
        "INSERT INTO shop.ballast SELECT seq, REPEAT(MD5(seq), 20) FROM seq_1_to_60000",
        "CREATE TABLE shop.aria (n INT) ENGINE=Aria",
        "CREATE TABLE shop.myisam (n INT) ENGINE=MyISAM",
        "INSERT INTO shop.aria VALUES (1)",
        "INSERT INTO shop.myisam VALUES (1), (2)",
        "CREATE TABLE shop.log (n INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200)) ENGINE=InnoDB",
    ] {
        admin.query_drop(statement).await.unwrap();
    }
    let before: String = one(&mut admin, "SELECT @@gtid_binlog_pos").await;
    let before: u64 = before.rsplit('-').next().unwrap().parse().unwrap();
    let mut old = root(&to).await;
    old.query_drop("CREATE DATABASE old").await.unwrap();
    let own_id: u32 = one(&mut old, "SELECT @@server_id").await;

    let (stop, mut writers) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for _ in 0..4 {
        let (stop, mut conn) = (Arc::clone(&stop), root(&from).await);
        writers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let insert = "INSERT INTO shop.log (v) VALUES (REPEAT(UUID(), 5))";
                conn.query_drop(insert).await.unwrap();
            }
        }));
    }
    let seen = tokio::spawn(async {
        let mut seen = String::new();
        for _ in 0..60 {
            seen.push_str(&command_lines());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        seen
    });
    let (sent, received) = transfer(of(&source), of(&replica)).await;
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!(sent, received);

    let seen = seen.await.unwrap();
    assert!(
        seen.contains("clone.cnf") && seen.contains("--extract"),
        "the tools were seen"
    );
    for secret in [
        password(&from, "root"),
        password(&from, "os_admin"),
        password(&to, "os_admin"),
    ] {
        assert!(!seen.contains(&secret), "a password is in a command line");
    }
    assert!(!from.folder.path().join("root/var/run/mysqld/clone.cnf").exists());

    let redo_log: u64 = one(&mut admin, "SELECT @@innodb_log_file_size").await;
    assert_eq!(redo_log, 50 << 20, "as it was");

    // The copy has exactly what its position says.
    let mut copy = root(&to).await;
    let transactions: u64 = received.0.rsplit('-').next().unwrap().parse::<u64>().unwrap() - before;
    let (rows, highest): (u64, u64) = one(&mut copy, "SELECT COUNT(*), MAX(n) FROM shop.log").await;
    println!("{transactions} transactions while the copy was begun, at {received}");
    assert!(transactions > 0, "nobody wrote meanwhile");
    assert_eq!(rows, transactions, "rows of the copy, highest is {highest}");
    for table in ["ballast", "aria", "myisam"] {
        let checksum = format!("CHECKSUM TABLE shop.{table}");
        let (_, theirs): (String, u64) = one(&mut admin, &checksum).await;
        let (_, ours): (String, u64) = one(&mut copy, &checksum).await;
        assert_eq!(theirs, ours, "{table}");
    }
    let old: Vec<String> = copy.query("SHOW DATABASES LIKE 'old'").await.unwrap();
    assert!(old.is_empty(), "the old data are gone");

    // It is its own server: accounts, identity, closed, follows nobody, no log of another.
    assert_eq!(replica.health().await, Health::Healthy);
    let (id, closed, position): (u32, bool, String) = one(&mut copy, "SELECT @@server_id, @@read_only, @@gtid_current_pos").await;
    assert_eq!((id, closed, &position), (own_id, true, &received.0));
    assert!(
        copy.query::<mysql_async::Row, _>("SHOW ALL SLAVES STATUS")
            .await
            .unwrap()
            .is_empty()
    );
    let logged: String = one(&mut copy, "SELECT @@gtid_binlog_state").await;
    assert_eq!(logged, "");
    for conn in [&mut admin, &mut copy] {
        let accounts: Vec<String> = conn
            .query("SELECT User FROM mysql.global_priv WHERE User IN ('os_clone', 'tenant') ORDER BY 1")
            .await
            .unwrap();
        assert_eq!(accounts, ["tenant"]);
    }
    let left: Vec<String> = std::fs::read_dir(to.folder.path().join("volume/data"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| {
            name.starts_with("xtrabackup")
                || name.starts_with("backup-my")
                || ["master.info", "relay-log.info"].contains(&name.as_str())
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");

    // It follows from there on, while the others still write, and ends with the same.
    let plan = FollowPlan {
        source: SourceEndpoint {
            host: "127.0.0.1".into(),
            port: from.port,
        },
        login: of(&source).create_login().await.unwrap(),
        start: Start::At(received),
        tls: None,
    };
    of(&replica).follow(&plan, Duration::from_secs(30)).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let end = of(&source).position().await.unwrap();
    of(&replica).wait_for(&end, Duration::from_secs(60)).await.unwrap();
    for table in ["ballast", "log", "aria", "myisam"] {
        let checksum = format!("CHECKSUM TABLE shop.{table}");
        let (_, theirs): (String, u64) = one(&mut admin, &checksum).await;
        let (_, ours): (String, u64) = one(&mut copy, &checksum).await;
        assert_eq!(theirs, ours, "{table} at {end}");
    }
    replica.restart().await.unwrap();
    assert_eq!(replica.health().await, Health::Healthy);
}

#[tokio::test]
async fn a_copy_that_does_not_fit_changes_nothing() {
    let ((from, source), (to, replica)) = tokio::join!(guest(), guest());
    root(&to).await.query_drop("CREATE DATABASE mine").await.unwrap();
    let mut copy = Vec::new();
    of(&source).send_clone(&mut copy).await.unwrap();
    to.host.set_free_space(1 << 20);
    let error = of(&replica).receive_clone(&mut copy.as_slice()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    to.host.set_free_space(u64::MAX);
    let text = String::from_utf8_lossy(&copy[..200]).into_owned();
    let end = text.find('\n').unwrap();
    let other = format!("{}\n", text[..end].replace("10.11.", "11.4."));
    let other = [other.as_bytes(), &copy[end + 1..]].concat();
    for (bad, kind) in [
        (&b""[..], ErrorKind::Unavailable),
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], ErrorKind::Invalid),
        (&[0; 100_000][..], ErrorKind::Invalid),
        (&copy[..10], ErrorKind::Invalid),
        (&copy[..end + 1], ErrorKind::Unavailable),
        (&[&copy[..end + 1], &b"ERROR: it broke"[..]].concat()[..], ErrorKind::Invalid),
        (&other[..], ErrorKind::WrongData),
    ] {
        let error = of(&replica).receive_clone(&mut &*bad).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(replica.health().await, Health::Healthy);
    let databases: Vec<String> = root(&to).await.query("SHOW DATABASES LIKE 'mine'").await.unwrap();
    assert_eq!(databases, ["mine"]);
    drop(from);
}

/// The beginning of a copy, up to and without its last `files` files; each file is a run of chunks with its name.
fn without_last(copy: &[u8], files: usize) -> &[u8] {
    let mut starts: Vec<(usize, &[u8])> = Vec::new();
    let mut at = copy.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    while at < copy.len() {
        assert_eq!(&copy[at..at + 8], b"XBSTCK01");
        let number = |from: usize, length: usize| {
            let bytes = copy[from..from + length].iter().rev();
            usize::try_from(bytes.fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))).unwrap()
        };
        let (kind, length) = (copy[at + 9], number(at + 10, 4));
        let name = &copy[at + 14..at + 14 + length];
        if starts.last().is_none_or(|(_, last)| *last != name) {
            starts.push((at, name));
        }
        at += 14 + length;
        if kind == b'P' {
            at += 8 + 8 + 4 + number(at, 8);
        }
    }
    &copy[..starts[starts.len() - files].0]
}

#[tokio::test]
async fn a_copy_that_was_cut_off_is_never_started_and_the_next_one_is_good() {
    let ((from, source), (to, replica)) = tokio::join!(guest(), guest());
    let mut admin = root(&from).await;
    for statement in [
        "CREATE DATABASE shop",
        "USE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(500)) ENGINE=InnoDB",
        "INSERT INTO shop.t SELECT seq, REPEAT(MD5(seq), 10) FROM seq_1_to_5000",
    ] {
        admin.query_drop(statement).await.unwrap();
    }
    let mut copy = Vec::new();
    let sent = of(&source).send_clone(&mut copy).await.unwrap();
    for (what, cut) in [
        ("its first bytes only", &copy[..200]),
        ("a third", &copy[..copy.len() / 3]),
        ("all but the last byte", &copy[..copy.len() - 1]),
        ("all but the last file", without_last(&copy, 1)),
        ("all but the last two files", without_last(&copy, 2)),
        ("all but the last four files", without_last(&copy, 4)),
    ] {
        let error = of(&replica).receive_clone(&mut &*cut).await.unwrap_err();
        println!("{what}: {}", datastore_api::chain(&error));
        assert_eq!(error.kind(), ErrorKind::Failed, "{what}");
        refused(&replica).await;
    }
    // The connection breaks; the receiver goes away, at several moments.
    let error = of(&replica)
        .receive_clone(&mut Breaks(&copy[..copy.len() / 2]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    refused(&replica).await;
    for moment in [5, 100, 400, 1000, 1800] {
        let mut whole = copy.as_slice();
        let receiving = of(&replica).receive_clone(&mut whole);
        if tokio::time::timeout(Duration::from_millis(moment), receiving).await.is_err() {
            println!("given up after {moment} ms");
            refused(&replica).await;
        }
    }
    let received = of(&replica).receive_clone(&mut copy.as_slice()).await.unwrap();
    assert_eq!(received, sent);
    replica.restart().await.unwrap();
    let rows: u64 = one(&mut root(&to).await, "SELECT COUNT(*) FROM shop.t").await;
    assert_eq!(rows, 5000);
}

/// The server does not run and cannot be started.
async fn refused(replica: &Arc<dyn Datastore>) {
    let error = replica.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongData, "{error}");
    assert!(error.to_string().contains("unfinished copy"), "{error}");
}

/// Processes with all of these words in their command line.
fn processes(words: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: &std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let found = entries.filter(|entry| {
        let line = String::from_utf8_lossy(&line(entry)).into_owned();
        words.iter().all(|word| line.contains(word))
    });
    found.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn tools_that_are_killed_are_errors_on_both_sides() {
    let ((from, source), (to, replica)) = tokio::join!(guest(), guest());
    let mut admin = root(&from).await;
    for statement in [
        "CREATE DATABASE shop",
        "USE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(1000)) ENGINE=InnoDB",
        "INSERT INTO shop.t SELECT seq, REPEAT(MD5(seq), 30) FROM seq_1_to_20000",
    ] {
        admin.query_drop(statement).await.unwrap();
    }
    for (program, guest) in [("mariadb-backup", &from), ("mbstream", &to)] {
        let folder = guest.folder.path().display().to_string();
        let unpacked = to.folder.path().display().to_string();
        // Small enough that both tools wait for each other, until the killer has come.
        let (mut near, far) = duplex(64 << 10);
        let mut far = Slow(far);
        let sending = async {
            let sent = of(&source).send_clone(&mut near).await;
            drop(near);
            sent
        };
        let killer = async {
            let mut found = Vec::new();
            while found.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if !processes(&["mbstream", &unpacked]).is_empty() {
                    found = processes(&[program, &folder]);
                }
            }
            run("/bin/kill", &["-KILL", &found[0]]);
        };
        let receiving = async {
            let received = of(&replica).receive_clone(&mut far).await;
            drop(far);
            received
        };
        let (sent, received, ()) = tokio::join!(sending, receiving, killer);
        let (sent, received) = (sent.unwrap_err(), received.unwrap_err());
        println!(
            "{program} killed: {} / {}",
            datastore_api::chain(&sent),
            datastore_api::chain(&received)
        );
        refused(&replica).await;
        let accounts: Vec<String> = admin
            .query("SELECT User FROM mysql.user WHERE User = 'os_clone'")
            .await
            .unwrap();
        assert!(accounts.is_empty(), "{accounts:?}");
        assert!(!from.folder.path().join("root/var/run/mysqld/clone.cnf").exists());
    }
    // Two at once are not taken; one that is given up leaves nothing behind.
    let (mut near, _far) = duplex(1 << 10);
    let mut first = Box::pin(of(&source).send_clone(&mut near));
    assert!(tokio::time::timeout(Duration::from_millis(1500), &mut first).await.is_err());
    let mut second = Vec::new();
    let error = of(&source).send_clone(&mut second).await.unwrap_err();
    assert!(error.to_string().contains("being taken") && second.is_empty(), "{error}");
    drop(first);
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let accounts: Vec<String> = admin
            .query("SELECT User FROM mysql.user WHERE User = 'os_clone'")
            .await
            .unwrap();
        let folder = from.folder.path().display().to_string();
        if accounts.is_empty() && processes(&["mariadb-backup", &folder]).is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < end, "something stays behind: {accounts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (sent, received) = transfer(of(&source), of(&replica)).await;
    assert_eq!(sent.unwrap(), received.unwrap());
}

#[tokio::test]
async fn a_disk_that_becomes_full_is_named() {
    let (from, source) = guest().await;
    let machine = Machine::new();
    let volume = machine.folder.path().join("volume").display().to_string();
    let _volume = SmallVolume::over(&volume, 260);
    {
        let replica = machine.prepared().await;
        let mut admin = root(&from).await;
        for statement in [
            "CREATE DATABASE shop",
            "USE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(1000)) ENGINE=InnoDB",
            "INSERT INTO shop.t SELECT seq, REPEAT(MD5(seq), 31) FROM seq_1_to_250000",
        ] {
            admin.query_drop(statement).await.unwrap();
        }
        let (sent, received) = transfer(of(&source), of(&replica)).await;
        println!("{:?}", sent.map_err(|error| datastore_api::chain(&error)));
        let error = received.unwrap_err();
        println!("{}", datastore_api::chain(&error));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        refused(&replica).await;
        admin.query_drop("TRUNCATE shop.t").await.unwrap();
        let (sent, received) = transfer(of(&source), of(&replica)).await;
        assert_eq!(sent.unwrap(), received.unwrap());
        replica
            .stop(StopMode::Fast {
                limit: Duration::from_secs(20),
            })
            .await
            .unwrap();
    }
}
