//! Lists stay whole and quick with ten thousand entries.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use datastore_api::PageRequest;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::fs;
use std::time::{Duration, Instant};

#[tokio::test]
async fn ten_thousand_users_are_listed_page_by_page() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    let text = fs::read_to_string(machine.folder.path().join("volume/conf.d/root.cnf")).unwrap();
    let password = text.lines().find_map(|line| line.strip_prefix("password = ")).unwrap();
    let socket = machine.folder.path().join("root/var/run/mysqld/mysqld.sock");
    let opts = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"))
        .pass(Some(password));
    let mut admin = Conn::new(opts).await.unwrap();
    let users = "INSERT INTO mysql.global_priv (Host, User, Priv) SELECT '%', CONCAT('user', seq), '{}' FROM mysql.numbers";
    let grants =
        "INSERT INTO mysql.db (Host, User, Db, Select_priv) SELECT '%', CONCAT('user', seq), 'shop', 'Y' FROM mysql.numbers";
    let numbers = "CREATE TABLE mysql.numbers AS WITH RECURSIVE n AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM n WHERE seq < 10000) SELECT seq FROM n";
    for statement in ["SET max_recursive_iterations = 20000", numbers, users, grants] {
        admin.query_drop(statement).await.unwrap();
    }
    let accounts = datastore.accounts().unwrap();
    let (mut seen, mut page, mut times) = (
        0,
        PageRequest {
            limit: Some(50),
            ..PageRequest::default()
        },
        Vec::new(),
    );
    loop {
        let start = Instant::now();
        let part = accounts.list_users(&page).await.unwrap();
        times.push(start.elapsed());
        assert!(part.items.iter().all(|user| user.databases == ["shop"]));
        seen += part.items.len();
        page.marker = part.next_marker;
        if page.marker.is_none() {
            break;
        }
    }
    assert_eq!(seen, 10_000);
    times.sort();
    println!(
        "a page of 50 of 10,000 users: median {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    assert!(times[times.len() / 2] < Duration::from_secs(2));
    let all = accounts.list_users(&PageRequest::default()).await.unwrap();
    assert_eq!(all.items.len(), 10_000);
}
