//! Transactions that only one server has are put aside, and can be taken up again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use common::copies::{guest, one, password, root};
use datastore_api::{Datastore, Position, Replication, Saved, StopMode};
use mysql_async::prelude::Queryable;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

fn of(datastore: &Arc<dyn Datastore>) -> &dyn Replication {
    datastore.replication().unwrap()
}

/// Makes the table and says where the history forks.
async fn begin(machine: &Machine, datastore: &Arc<dyn Datastore>) -> Position {
    let mut conn = root(machine).await;
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (n INT PRIMARY KEY, v VARCHAR(200)) ENGINE=InnoDB",
        "INSERT INTO shop.t VALUES (0, 'common')",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    of(datastore).log_state().await.unwrap()
}

/// Applies a saved file as a person would.
#[expect(clippy::disallowed_methods, reason = "what a person would run")]
fn apply(saved: &Saved, to: &Machine) {
    let socket = to.folder.path().join("root/var/run/mysqld/mysqld.sock");
    let options = to.folder.path().join("person.cnf");
    let text = format!(
        "[client]\nuser=root\npassword={}\nsocket={}\n",
        password(to, "root"),
        socket.display()
    );
    fs::write(&options, text).unwrap();
    let applied = std::process::Command::new("/usr/bin/mariadb")
        .arg(format!("--defaults-file={}", options.display()))
        .arg("--binary-mode")
        .stdin(Stdio::from(fs::File::open(&saved.path).unwrap()))
        .output()
        .unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
}

#[tokio::test]
async fn what_only_this_server_has_is_saved_whole_and_nothing_else() {
    let ((old, old_server), (new, new_server)) = tokio::join!(guest(), guest());
    let fork = begin(&old, &old_server).await;
    begin(&new, &new_server).await;
    let folder = tempfile::tempdir().unwrap();
    let save = async |known: &Position| of(&old_server).save_errant(known, folder.path()).await.unwrap();
    let names = |folder: &Path| fs::read_dir(folder).unwrap().count();

    // None.
    assert_eq!(save(&fork).await, None);
    assert_eq!(names(folder.path()), 0);

    // One, of a server that is closed for writes.
    let mut conn = root(&old).await;
    conn.query_drop("INSERT INTO shop.t VALUES (1, 'it''s \\\\ ä')")
        .await
        .unwrap();
    conn.query_drop("SET GLOBAL read_only = 1").await.unwrap();
    let saved = save(&fork).await.unwrap();
    assert_eq!(saved.transactions, 1);
    let meta = fs::metadata(&saved.path).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.len()), (0o600, saved.bytes));
    let text = fs::read_to_string(&saved.path).unwrap();
    let errant = of(&old_server).errant(&fork).await.unwrap();
    assert!(
        text.contains(&errant[0]) && text.ends_with("-- end of 1 transactions\n"),
        "{text}"
    );
    assert!(
        !text.contains("shop`.`t`\nVALUES (0") && !text.contains("CREATE TABLE"),
        "older ones are not in it"
    );

    // A hundred and more, over several logs, with large ones, of a server that is stopped.
    conn.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    for n in 2..=100 {
        conn.query_drop(format!("INSERT INTO shop.t VALUES ({n}, REPEAT(MD5({n}), 6))"))
            .await
            .unwrap();
        if n % 33 == 0 {
            conn.query_drop("FLUSH BINARY LOGS").await.unwrap();
        }
    }
    conn.query_drop("CREATE TABLE shop.big (n INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO shop.big SELECT seq, REPEAT('x', 30000) FROM seq_1_to_10")
        .await
        .unwrap_err();
    conn.query_drop("USE shop").await.unwrap();
    conn.query_drop("INSERT INTO shop.big SELECT seq, REPEAT('x', 30000) FROM seq_1_to_10")
        .await
        .unwrap();
    let errant = of(&old_server).errant(&fork).await.unwrap();
    let checksum = "CHECKSUM TABLE shop.t, shop.big";
    let theirs: Vec<(String, u64)> = conn.query(checksum).await.unwrap();
    drop(conn);
    let limit = Duration::from_secs(30);
    let running = save(&fork).await.unwrap();
    old_server.stop(StopMode::Fast { limit }).await.unwrap();
    let stopped = save(&fork).await.unwrap();
    for saved in [&running, &stopped] {
        assert_eq!(saved.transactions, 102);
        let text = fs::read_to_string(&saved.path).unwrap();
        println!(
            "{} bytes: {}",
            saved.bytes,
            text.lines().take(8).collect::<Vec<_>>().join(" | ")
        );
        let (first, last) = errant[0].split_once(" to ").unwrap();
        assert!(
            text.contains(&format!("--   {first}")) && text.contains(&format!(" to {last} (")),
            "{errant:?}"
        );
    }
    assert_eq!(names(folder.path()), 3);

    // A server that has moved on takes them up as its own.
    root(&new)
        .await
        .query_drop("INSERT INTO shop.t VALUES (1000, 'newer')")
        .await
        .unwrap();
    apply(&stopped, &new);
    let mut conn = root(&new).await;
    conn.query_drop("DELETE FROM shop.t WHERE n = 1000").await.unwrap();
    let ours: Vec<(String, u64)> = conn.query(checksum).await.unwrap();
    assert_eq!(theirs, ours);
    let position: String = one(&mut conn, "SELECT @@gtid_binlog_pos").await;
    let id: u32 = one(&mut conn, "SELECT @@server_id").await;
    assert_eq!(position, format!("0-{id}-{}", 3 + 1 + 102 + 1));
}

#[tokio::test]
async fn logs_that_cannot_be_read_are_errors_that_name_them() {
    let (machine, server) = guest().await;
    let fork = begin(&machine, &server).await;
    let mut conn = root(&machine).await;
    conn.query_drop("INSERT INTO shop.t VALUES (1, 'a')").await.unwrap();
    conn.query_drop("FLUSH BINARY LOGS").await.unwrap();
    conn.query_drop("INSERT INTO shop.t VALUES (2, 'b')").await.unwrap();
    conn.query_drop("PURGE BINARY LOGS TO 'binlog.000002'").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let saved = of(&server).save_errant(&fork, folder.path()).await.unwrap().unwrap();
    assert_eq!(saved.transactions, 1);
    let text = fs::read_to_string(&saved.path).unwrap();
    assert!(text.contains("the logs before are gone"), "{text}");

    let limit = Duration::from_secs(30);
    server.stop(StopMode::Fast { limit }).await.unwrap();
    let data = machine.folder.path().join("volume/data");
    let log = data.join("binlog.000002");
    // The server died while it wrote: the log is marked as in use, what is whole in it is saved.
    let mut whole = fs::read(&log).unwrap();
    whole[21] |= 1;
    fs::write(&log, &whole[..whole.len() - 7]).unwrap();
    let saved = of(&server).save_errant(&fork, folder.path()).await.unwrap().unwrap();
    assert_eq!(saved.transactions, 1);
    fs::write(&log, "not a log").unwrap();
    let error = of(&server).save_errant(&fork, folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("binlog.000002"), "{error}");
    fs::remove_file(data.join("binlog.index")).unwrap();
    let error = of(&server).save_errant(&fork, folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("binlog.index"), "{error}");
    let error = of(&server)
        .save_errant(&Position("nonsense".into()), folder.path())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no half file stays");
}
