//! Backups and restores that something happens to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use common::backups::{of, stored, told};
use common::copies::{guest, one, root, run};
use datastore_api::{BackupKind, Change, Datastore, ErrorKind, Health, RestorePlace, RestoredAs, StopMode};
use mysql_async::prelude::Queryable;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, duplex};
use tokio::time::{sleep, timeout};

async fn filled(machine: &Machine) {
    let mut admin = root(machine).await;
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(1000)) ENGINE=InnoDB",
        "INSERT INTO shop.t SELECT seq, REPEAT(MD5(seq), 30) FROM shop.seq_1_to_20000",
    ] {
        admin.query_drop(statement).await.unwrap();
    }
}

/// Processes of this program that work in this guest's folders.
fn processes(machine: &Machine, program: &str) -> Vec<String> {
    let folder = machine.folder.path().display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let is_one = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(program) && line.contains(&folder)
    };
    entries
        .filter(is_one)
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Nothing of a backup is left: process, account, option file; within 15 seconds.
async fn nothing_is_left(machine: &Machine) {
    let end = Instant::now() + Duration::from_secs(15);
    let mut admin = root(machine).await;
    loop {
        let accounts: Vec<String> = admin
            .query("SELECT User FROM mysql.user WHERE User = 'os_backup'")
            .await
            .unwrap();
        let file = machine.folder.path().join("root/var/run/mysqld/backup.cnf");
        let redo_log: u64 = one(&mut admin, "SELECT @@innodb_log_file_size").await;
        if accounts.is_empty() && !file.exists() && redo_log == 50 << 20 && processes(machine, "mariadb-backup").is_empty() {
            return;
        }
        assert!(Instant::now() < end, "something stays behind: {accounts:?} {redo_log}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_killed_cancelled_or_not_read_leaves_nothing() {
    let (machine, server) = guest().await;
    filled(&machine).await;
    // The tool is killed.
    let (mut near, mut far) = duplex(64 << 10);
    let sending = of(&server).send_backup(&BackupKind::Full, &mut near);
    let killing = async {
        far.read_u8().await.unwrap();
        run("/bin/kill", &["-KILL", &processes(&machine, "mariadb-backup")[0]]);
        far.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let sent = tokio::select! {
        sent = sending => sent,
        () = async { killing.await; std::future::pending().await } => unreachable!(),
    };
    let error = told(sent);
    assert_eq!(error.0, ErrorKind::Failed, "{}", error.1);
    assert!(error.1.contains("SIGKILL") || error.1.contains("signal: 9"), "{}", error.1);
    nothing_is_left(&machine).await;
    // The reader goes away.
    let (mut near, mut far) = duplex(64 << 10);
    let sending = of(&server).send_backup(&BackupKind::Full, &mut near);
    let leaving = async {
        far.read_u8().await.unwrap();
        drop(far);
    };
    let (sent, ()) = tokio::join!(sending, leaving);
    assert_eq!(told(sent).0, ErrorKind::Unavailable);
    nothing_is_left(&machine).await;
    // Nobody wants it any more; a second one waits until the first is cleared away.
    let (mut near, mut far) = duplex(64 << 10);
    let mut sending = Box::pin(of(&server).send_backup(&BackupKind::Full, &mut near));
    tokio::select! {
        _ = &mut sending => panic!("it cannot be through"),
        read = far.read_u8() => drop(read),
    }
    drop(sending);
    stored(&server, &BackupKind::Full).await.unwrap();
    nothing_is_left(&machine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_gives_way_to_who_holds_a_lock() {
    let machine = Machine::new();
    machine.prepared().await;
    filled(&machine).await;
    let mut context = machine.context();
    context.options.insert("backup_lock_limit".into(), "1".into());
    let server = (datastore_mysql::ENTRY.open)(context, "mariadb").unwrap();
    let mut holder = root(&machine).await;
    let (mut near, mut far) = duplex(64 << 10);
    let sending = of(&server).send_backup(&BackupKind::Full, &mut near);
    let holding = async {
        far.read_u8().await.unwrap();
        holder.query_drop("FLUSH TABLES WITH READ LOCK").await.unwrap();
        far.read_to_end(&mut Vec::new()).await.unwrap();
        std::future::pending::<()>().await;
    };
    // The account of the tool can only be removed when the lock is gone.
    let sent = tokio::select! {
        sent = async { timeout(Duration::from_secs(60), sending).await.unwrap() } => sent,
        () = holding => unreachable!(),
    };
    let error = told(sent);
    println!("{}", error.1);
    assert_eq!(error.0, ErrorKind::Timeout, "{}", error.1);
    holder.query_drop("UNLOCK TABLES").await.unwrap();
    nothing_is_left(&machine).await;
    stored(&server, &BackupKind::Full).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_data_come_back_when_the_new_ones_do_not_start() {
    let (machine, server) = guest().await;
    filled(&machine).await;
    let (_, blob) = stored(&server, &BackupKind::Full).await.unwrap();
    root(&machine).await.query_drop("CREATE DATABASE later").await.unwrap();
    let mut restore = of(&server).begin_restore("x", &RestorePlace::Replace).await.unwrap();
    restore.unpack(&mut blob.as_slice()).await.unwrap();
    // The server cannot begin its log over this.
    fs::write(
        machine.folder.path().join("volume/restore/data/binlog.index"),
        "./binlog.999999\n",
    )
    .unwrap();
    let error = told(restore.finish(RestoredAs::Open).await);
    println!("{}", error.1);
    assert!(error.1.contains("the old data are back"), "{}", error.1);
    assert_eq!(server.health().await, Health::Healthy);
    let later: Vec<String> = root(&machine).await.query("SHOW DATABASES LIKE 'later'").await.unwrap();
    assert_eq!(later, ["later"]);
    assert!(!machine.folder.path().join("volume/restore").exists());

    // Given up on the way, at several moments: the server goes on as it is.
    for moment in [1, 150, 400, 900] {
        let mut restore = of(&server).begin_restore("x", &RestorePlace::Replace).await.unwrap();
        let _ = timeout(Duration::from_millis(moment), restore.unpack(&mut blob.as_slice())).await;
        drop(restore);
        assert_eq!(server.health().await, Health::Healthy);
    }
    // Killed while it unpacks.
    let mut restore = of(&server).begin_restore("x", &RestorePlace::Replace).await.unwrap();
    let (mut near, mut far) = duplex(64 << 10);
    let feeding = async {
        use tokio::io::AsyncWriteExt;
        near.write_all(&blob[..1 << 20]).await.unwrap();
        run("/bin/kill", &["-KILL", &processes(&machine, "mbstream")[0]]);
        let _ = near.write_all(&blob[1 << 20..]).await;
        drop(near);
    };
    let (unpacked, ()) = tokio::join!(
        async {
            let unpacked = restore.unpack(&mut far).await;
            drop(far);
            unpacked
        },
        feeding
    );
    assert_eq!(told(unpacked).0, ErrorKind::Failed);
    restore.abandon().await.unwrap();
    assert_eq!(server.health().await, Health::Healthy);
    assert!(!machine.folder.path().join("volume/restore").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_was_cut_off_is_taken_back_at_the_next_start() {
    let (machine, server) = guest().await;
    filled(&machine).await;
    let volume = machine.folder.path().join("volume");
    let (data, restore) = (volume.join("data"), volume.join("restore"));
    let instance = machine.context().instance_id;
    let limit = Duration::from_secs(30);
    for (stage, settles) in [
        ("marked", true),
        ("moved", true),
        ("moved", false),
        ("exchanged", true),
        ("exchanged", false),
    ] {
        server.stop(StopMode::Fast { limit }).await.unwrap();
        fs::create_dir_all(restore.join("data/shop")).unwrap();
        fs::write(volume.join("conf.d/preparing"), format!("exchanging {instance}\n")).unwrap();
        if stage != "marked" {
            fs::rename(&data, restore.join("old")).unwrap();
        }
        if stage == "exchanged" {
            fs::rename(restore.join("data"), &data).unwrap();
        }
        // A new agent.
        let next = machine.open();
        if settles {
            println!("{stage}: {}", of(&next).settle().await.unwrap().unwrap());
            assert!(!restore.exists());
        } else {
            next.start().await.unwrap();
        }
        assert_eq!(next.health().await, Health::Healthy, "{stage}");
        let rows: u64 = one(&mut root(&machine).await, "SELECT COUNT(*) FROM shop.t").await;
        assert_eq!(rows, 20_000);
        of(&next).settle().await.unwrap();
        assert!(!restore.exists() && !volume.join("conf.d/preparing").exists());
        assert_eq!(of(&next).settle().await.unwrap(), None);
    }
}

/// A file system of its own for a guest's volume, in a file. `None` where the machine has no loop devices.
struct Volume(PathBuf);

impl Volume {
    #[expect(clippy::disallowed_methods, reason = "a test makes its own file system")]
    fn over(folder: &Path, image: &Path) -> Option<Self> {
        fs::File::create(image).unwrap().set_len(768 << 20).unwrap();
        run("/usr/sbin/mkfs.ext4", &["-q", "-F", &image.display().to_string()]);
        let mut mount = std::process::Command::new("/bin/mount");
        let mounted = mount.arg("-o").arg("loop").arg(image).arg(folder).status().unwrap();
        mounted.success().then(|| Self(folder.to_owned()))
    }
}

impl Drop for Volume {
    #[expect(clippy::disallowed_methods, reason = "a test clears away its own file system")]
    fn drop(&mut self) {
        for (program, option) in [("/usr/sbin/fsfreeze", "--unfreeze"), ("/bin/umount", "--lazy")] {
            let mut command = std::process::Command::new(program);
            let _ = command.arg(option).arg(&self.0).stderr(std::process::Stdio::null()).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_volume_thaws_when_it_is_told_to_and_when_nobody_does() {
    let machine = Machine::new();
    let folder = machine.folder.path().join("volume");
    let not_its_own = machine.open();
    let error = told(of(&not_its_own).freeze(Duration::from_secs(1)).await);
    assert_eq!(error.0, ErrorKind::Invalid, "{}", error.1);
    let Some(_volume) = Volume::over(&folder, &machine.folder.path().join("image")) else {
        println!("no loop devices here: not tried");
        return;
    };
    let server = machine.prepared().await;
    root(&machine)
        .await
        .query_drop("CREATE DATABASE shop; CREATE TABLE shop.t (n INT)")
        .await
        .unwrap();
    assert_eq!(of(&server).thaw().await.unwrap(), Change::Unchanged);

    let frozen = of(&server).freeze(Duration::from_secs(30)).await.unwrap();
    let noted = fs::read_to_string(folder.join("data/xtrabackup_binlog_info")).unwrap();
    let (file, offset) = (frozen.log_file.clone().unwrap(), frozen.log_offset.unwrap());
    assert_eq!(noted, format!("{file}\t{offset}\t{}\n", frozen.position));
    assert_eq!(of(&server).freeze(Duration::from_secs(30)).await.unwrap(), frozen);
    let mut writer = write(&machine).await;
    assert!(
        timeout(Duration::from_millis(500), &mut writer).await.is_err(),
        "it was written"
    );
    assert_eq!(of(&server).thaw().await.unwrap(), Change::Done);
    timeout(Duration::from_secs(10), writer).await.unwrap().unwrap();
    assert_eq!(of(&server).thaw().await.unwrap(), Change::Unchanged);

    // Nobody thaws it.
    of(&server).freeze(Duration::from_secs(2)).await.unwrap();
    let writer = write(&machine).await;
    timeout(Duration::from_secs(15), writer).await.unwrap().unwrap();
    let error = told(of(&server).thaw().await);
    assert_eq!(error.0, ErrorKind::Timeout, "{}", error.1);
    assert_eq!(of(&server).thaw().await.unwrap(), Change::Unchanged);
    of(&server).freeze(Duration::from_secs(30)).await.unwrap();
    of(&server).thaw().await.unwrap();
    stop(&server).await;
}

async fn stop(server: &Arc<dyn Datastore>) {
    let limit = Duration::from_secs(20);
    server.stop(StopMode::Fast { limit }).await.unwrap();
}

async fn write(machine: &Machine) -> tokio::task::JoinHandle<()> {
    let mut conn = root(machine).await;
    tokio::spawn(async move { conn.query_drop("INSERT INTO shop.t VALUES (1)").await.unwrap() })
}
