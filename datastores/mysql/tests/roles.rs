//! Source and replica, changes of role, and what keeps a server from following.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
#[path = "common/pair.rs"]
mod pair;

use datastore_api::{
    Change, ErrorKind, ExposeSecret, FollowPlan, Position, ReplicaLogin, Secret, ServerStart, SourceEndpoint, Start,
};
use mysql_async::prelude::Queryable;
use pair::{LONG, Node, login, plan, told};
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

#[tokio::test]
async fn a_replica_tells_where_it_is_and_refuses_changes_of_its_own() {
    let (a, b) = (Node::new().await, Node::new().await);
    a.make_shop().await;
    let zero = b.role().status().await.unwrap();
    assert!(zero.position.is_zero() && zero.following.is_none() && !zero.read_only);
    assert_eq!(b.role().user_databases().await.unwrap(), Vec::<String>::new());
    assert_eq!(b.role().last_of_source().await.unwrap(), (None, 0));
    b.follow(&a).await;
    let at = a.role().position().await.unwrap();
    b.role().wait_for(&at, LONG).await.unwrap();
    let status = b.role().status().await.unwrap();
    assert!(status.read_only && status.receiving && status.applying, "{status:?}");
    assert_eq!(
        (status.position, status.received, status.error),
        (at.clone(), at.clone(), None)
    );
    assert_eq!(status.following.unwrap().port, a.machine.port);
    assert_eq!(b.role().user_databases().await.unwrap(), ["shop"]);
    let a_status = a.role().status().await.unwrap();
    assert_ne!(a_status.server_id, status.server_id);
    let (source, last) = b.role().last_of_source().await.unwrap();
    assert_eq!(source, Some(a_status.server_id.to_string()));
    assert!(at.0.ends_with(&format!("-{last}")), "{at} {last}");
    let refused = told(b.datastore.accounts().unwrap().delete_database("shop").await);
    assert!(refused.1.contains("read-only"), "{refused:?}");
    assert!(
        b.client()
            .await
            .query_drop("INSERT INTO shop.t (x) VALUES (1)")
            .await
            .is_err()
    );
    // Not even root of a tenant.
    let root = a.datastore.accounts().unwrap().enable_root(None).await.unwrap();
    let at = a.role().position().await.unwrap();
    b.role().wait_for(&at, LONG).await.unwrap();
    let mut root = b.login("root", root.password.unwrap().expose_secret()).await.unwrap();
    assert!(root.query_drop("INSERT INTO shop.t (x) VALUES (1)").await.is_err());
    assert!(root.query_drop("SET GLOBAL read_only = 0").await.is_err());
    let grants: Vec<String> = root.query("SHOW GRANTS").await.unwrap();
    assert!(
        grants[0].contains("SUPER") && grants[0].ends_with("WITH GRANT OPTION"),
        "{grants:?}"
    );
    let ahead = Position(format!("{},7-7-9", at.0));
    assert_eq!(
        told(b.role().wait_for(&ahead, Duration::from_millis(300)).await).0,
        ErrorKind::Timeout
    );
}

#[tokio::test]
async fn a_server_that_diverged_is_refused_and_says_by_what() {
    let (a, b) = (Node::new().await, Node::new().await);
    a.make_shop().await;
    b.follow(&a).await;
    let at = a.role().position().await.unwrap();
    b.role().wait_for(&at, LONG).await.unwrap();
    b.role().detach(LONG).await.unwrap();
    assert_eq!(b.role().detach(LONG).await.unwrap(), at, "it may be repeated");
    let mut wrong = b.admin().await;
    wrong
        .query_drop("INSERT INTO shop.u VALUES (9, 9); INSERT INTO shop.u VALUES (10, 9)")
        .await
        .unwrap();
    let theirs = a.role().log_state().await.unwrap();
    let id = b.role().status().await.unwrap().server_id;
    let errant = b.role().errant(&theirs).await.unwrap();
    assert!(errant.len() == 1 && errant[0].contains(&format!("0-{id}-")), "{errant:?}");
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (1), (2)")
        .await
        .unwrap();
    let (kind, text) = told(b.role().follow(&plan(&a), LONG).await);
    assert_eq!(kind, ErrorKind::WrongData, "{text}");
    assert!(text.contains("1236") && !text.contains("secret4711"), "{text}");
    let error = b.role().status().await.unwrap().error.unwrap();
    assert!(error.contains("1236"), "{error}");
    // The source's log was cleaned meanwhile: who has everything is no less welcome.
    let c = Node::new().await;
    c.follow(&a).await;
    let at = a.role().position().await.unwrap();
    c.role().wait_for(&at, LONG).await.unwrap();
    a.admin()
        .await
        .query_drop("FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
        .await
        .unwrap();
    assert_eq!(
        c.role().errant(&a.role().log_state().await.unwrap()).await.unwrap(),
        Vec::<String>::new()
    );
    c.follow(&a).await;
    // Nor is the new source's knowledge lost that the old one wrote the beginning.
    c.role().detach(LONG).await.unwrap();
    c.role().open_writes().await.unwrap();
    c.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (3)")
        .await
        .unwrap();
    a.close().await;
    assert_eq!(
        a.role().errant(&c.role().log_state().await.unwrap()).await.unwrap(),
        Vec::<String>::new()
    );
    a.follow(&c).await;
}

#[tokio::test]
async fn a_source_that_refuses_or_is_not_there_is_named_in_time() {
    let (a, b) = (Node::new().await, Node::new().await);
    a.make_shop().await;
    let wrong = FollowPlan {
        login: ReplicaLogin {
            password: Secret::from("wrong9876"),
            ..login()
        },
        ..plan(&a)
    };
    let begin = Instant::now();
    let (kind, text) = told(b.role().follow(&wrong, LONG).await);
    assert!(
        kind == ErrorKind::Failed && text.contains("1045") && !text.contains("wrong9876"),
        "{text}"
    );
    assert!(begin.elapsed() < LONG);
    let nobody = FollowPlan {
        source: SourceEndpoint {
            host: "127.0.0.1".into(),
            port: 1,
        },
        ..plan(&a)
    };
    let begin = Instant::now();
    let (kind, text) = told(b.role().follow(&nobody, Duration::from_secs(2)).await);
    assert!(kind == ErrorKind::Timeout && text.contains("127.0.0.1:1"), "{text}");
    assert!(begin.elapsed() < LONG);
    assert!(
        b.role().status().await.unwrap().read_only,
        "what follows nobody yet is not open either"
    );
    b.follow(&a).await;
    let at = a.role().position().await.unwrap();
    b.role().wait_for(&at, LONG).await.unwrap();
    // The passwords are in no log of the server's.
    for log in ["general.log", "slow.log", "error.log"] {
        let text = std::fs::read_to_string(b.machine.folder.path().join("root/var/log/mysql").join(log)).unwrap_or_default();
        assert!(!text.contains("secret4711") && !text.contains("wrong9876"), "{log}");
    }
}

#[tokio::test]
async fn logins_come_and_go_and_are_no_transactions() {
    let a = Node::new().await;
    let role = a.role();
    let before = role.log_state().await.unwrap();
    assert_eq!(role.ensure_login(&login()).await.unwrap(), Change::Unchanged);
    let made = role.create_login().await.unwrap();
    assert!(made.user.starts_with("slave_") && made.user.len() == 14);
    let mut conn = a.login(&made.user, made.password.expose_secret()).await.unwrap();
    let grants: Vec<String> = conn.query("SHOW GRANTS").await.unwrap();
    assert!(
        grants.len() == 1 && grants[0].starts_with("GRANT REPLICATION SLAVE ON *.* TO"),
        "{grants:?}"
    );
    let other = ReplicaLogin {
        user: made.user.clone(),
        password: Secret::from("another one"),
    };
    assert_eq!(role.ensure_login(&other).await.unwrap(), Change::Done);
    assert!(a.login(&made.user, made.password.expose_secret()).await.is_err());
    assert_eq!(role.drop_login(&made.user).await.unwrap(), Change::Done);
    assert_eq!(role.drop_login(&made.user).await.unwrap(), Change::Unchanged);
    for bad in ["root", "", "a'b", "os_admin"] {
        assert_eq!(told(role.drop_login(bad).await).0, ErrorKind::Invalid, "{bad}");
    }
    assert_eq!(role.log_state().await.unwrap(), before);
}

#[tokio::test]
async fn what_was_seeded_begins_where_its_copy_was_taken() {
    let (a, b) = (Node::new().await, Node::new().await);
    a.make_shop().await;
    let at = a.role().position().await.unwrap();
    // The copy, by hand, and the log of a life before.
    let mut copy = b.admin().await;
    copy.query_drop("CREATE DATABASE shop; CREATE TABLE shop.t (n INT PRIMARY KEY AUTO_INCREMENT, x INT NOT NULL)")
        .await
        .unwrap();
    copy.query_drop("CREATE TABLE shop.u (n INT PRIMARY KEY, x INT NOT NULL); INSERT INTO shop.u VALUES (1, 0), (2, 0)")
        .await
        .unwrap();
    copy.query_drop("CREATE DATABASE own; DROP DATABASE own; DROP TABLE IF EXISTS shop.v")
        .await
        .unwrap();
    a.client()
        .await
        .query_drop("INSERT INTO shop.t (x) VALUES (1)")
        .await
        .unwrap();
    let seeded = FollowPlan {
        start: Start::At(Position(format!("0-{}-99", a.role().status().await.unwrap().server_id))),
        ..plan(&a)
    };
    assert!(
        b.role().follow(&seeded, LONG).await.is_err(),
        "a position the source never had"
    );
    let mut copy = b.admin().await;
    copy.query_drop("SET GLOBAL read_only = 1; STOP SLAVE; RESET SLAVE ALL; RESET MASTER; SET GLOBAL gtid_slave_pos = ''")
        .await
        .unwrap();
    let seeded = FollowPlan {
        start: Start::At(at.clone()),
        ..plan(&a)
    };
    b.role().follow(&seeded, LONG).await.unwrap();
    let now = a.role().position().await.unwrap();
    b.role().wait_for(&now, LONG).await.unwrap();
    assert_eq!(rows(&a).await, rows(&b).await);
    // The request comes again: it goes on from where it is.
    b.role().follow(&seeded, LONG).await.unwrap();
    assert_eq!(b.role().position().await.unwrap(), now);
    assert_eq!(rows(&a).await, rows(&b).await);
    assert_eq!(
        a.role().errant(&b.role().log_state().await.unwrap()).await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn the_control_planes_options_are_taken_as_far_as_they_go() {
    let a = Node::new().await;
    let text = "[mysqld]\nlog_bin = /var/lib/mysql/data/mariadb-bin.log\nbinlog_format = MIXED\nlog_slave_updates = ON\n\
                no_such_thing = 1\nmax_binlog_size = 8M\nrelay_log_recovery = 1\n";
    assert_eq!(a.role().make_source(Some(text)).await.unwrap(), Change::Done);
    assert_eq!(a.role().make_source(Some(text)).await.unwrap(), Change::Unchanged);
    let (format, size): (String, u64) = a.value("SELECT @@binlog_format, @@max_binlog_size").await;
    assert_eq!((format.as_str(), size), ("ROW", 8 << 20));
    assert_eq!(told(a.role().make_source(Some("a\0b")).await).0, ErrorKind::Invalid);
}

#[tokio::test]
async fn a_member_of_a_pair_starts_closed() {
    let a = Node::new().await;
    assert_eq!(a.role().set_start(ServerStart::closed(true)).await.unwrap(), Change::Done);
    assert_eq!(
        a.role().set_start(ServerStart::closed(true)).await.unwrap(),
        Change::Unchanged
    );
    a.datastore.configuration().unwrap().write_base(common::CONFIG).await.unwrap();
    a.datastore.restart().await.unwrap();
    assert!(a.role().status().await.unwrap().read_only);
    assert_eq!(a.value::<u8>("SELECT @@rpl_semi_sync_slave_enabled").await, 1);
    assert_eq!(a.role().set_start(ServerStart::default()).await.unwrap(), Change::Done);
    a.datastore.restart().await.unwrap();
    assert!(!a.role().status().await.unwrap().read_only);
}

#[tokio::test]
async fn a_server_prepared_before_replication_says_what_it_lacks() {
    let a = Node::new().await;
    let layers = a.machine.folder.path().join("root/etc/mysql/conf.d");
    let system = layers.join("50-system-001-common.cnf");
    let old: String = std::fs::read_to_string(&system)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("log_"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&system, old).unwrap();
    a.datastore.restart().await.unwrap();
    let (kind, text) = told(a.role().make_source(None).await);
    assert!(
        kind == ErrorKind::Failed && text.contains("restart") && text.contains("log_bin"),
        "{text}"
    );
    a.datastore.restart().await.unwrap();
    a.role().make_source(None).await.unwrap();
}
