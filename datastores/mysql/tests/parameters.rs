//! Parameters in files and in the running server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use datastore_api::{Cmd, ConfigEffect, ConfigOverrides, ErrorKind, Health, Host};
use serde_json::{Map, Value, json};
use std::fs;

fn values(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test]
async fn every_parameter_the_control_plane_offers_is_taken_and_the_server_still_starts() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    let config = datastore.configuration().unwrap();
    // The names of the control plane's rules for MariaDB, each with a value in its range.
    let offered = values(json!({
        "innodb_file_per_table": 1, "autocommit": 1, "local_infile": 0, "lower_case_table_names": 0, "key_buffer_size": 16777216,
        "connect_timeout": 20, "join_buffer_size": "2M", "sort_buffer_size": "2m", "innodb_buffer_pool_size": "64M",
        "innodb_flush_log_at_trx_commit": 2, "innodb_log_buffer_size": "8M", "innodb_open_files": 300, "innodb_thread_concurrency": 4,
        "sync_binlog": 1, "auto_increment_increment": 1, "auto_increment_offset": 1, "bulk_insert_buffer_size": 8388608,
        "expire_logs_days": 3, "interactive_timeout": 600, "max_allowed_packet": "4M", "max_connect_errors": 50, "max_connections": 90,
        "myisam_sort_buffer_size": "4M", "max_user_connections": 80, "server_id": 77, "wait_timeout": 300,
        "character_set_client": "utf8mb4", "character_set_connection": "utf8mb4", "character_set_database": "utf8mb4",
        "character_set_filesystem": "binary", "character_set_results": "utf8mb4", "character_set_server": "utf8mb4",
        "collation_connection": "utf8mb4_bin", "collation_database": "utf8mb4_bin", "collation_server": "utf8mb4_bin",
        "long_query_time": 0.5, "query_cache_type": 0, "sql_mode": "ANSI,NO_BACKSLASH_ESCAPES", "tmp_table_size": "32M",
    }));
    for (name, value) in &offered {
        let one = Map::from_iter([(name.clone(), value.clone())]);
        config
            .update_overrides(&ConfigOverrides {
                remove: false,
                values: one.clone(),
            })
            .await
            .unwrap();
        config
            .apply_overrides(&one)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error} {:?}", std::error::Error::source(&error)));
    }
    datastore.restart().await.unwrap();
    assert_eq!(datastore.health().await, Health::Healthy);
    let kept = values(
        json!({"max_connections": 90, "sort_buffer_size": "2M", "long_query_time": "0.5", "innodb_log_buffer_size": "8M"}),
    );
    assert_eq!(config.apply_overrides(&kept).await.unwrap(), ConfigEffect::Unchanged);
}

#[tokio::test]
async fn a_wrong_value_is_named_and_what_was_set_before_it_is_taken_back() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    let config = datastore.configuration().unwrap();
    let wrong = [
        (json!({"no_such_thing": 1}), "no_such_thing"),
        (json!({"max_connections": "many"}), "max_connections"),
        (json!({"max_connections": 5}), "from 10 to"),
        (json!({"wait_timeout": "10X"}), "wait_timeout"),
        (json!({"binlog_format": "SOMETIMES"}), "STATEMENT"),
        (json!({"last_insert_id": 5}), "last_insert_id"),
        (json!({"max_connections": "99; DROP DATABASE mysql"}), "max_connections"),
    ];
    for (bad, word) in wrong {
        let bad = values(bad);
        for error in [
            config
                .update_overrides(&ConfigOverrides {
                    remove: false,
                    values: bad.clone(),
                })
                .await
                .unwrap_err(),
            config.apply_overrides(&bad).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    let half = values(json!({"init_connect": "SET @x = 'a\\b'", "max_connections": 55, "time_zone": "Nowhere/Land"}));
    let error = config.apply_overrides(&half).await.unwrap_err();
    assert!(error.to_string().contains("time_zone"), "{error}");
    let before = values(json!({"init_connect": "", "max_connections": 100}));
    assert_eq!(config.apply_overrides(&before).await.unwrap(), ConfigEffect::Unchanged);
}

#[tokio::test]
async fn the_servers_own_reader_reads_the_values_that_were_stored() {
    let machine = Machine::new();
    let datastore = machine.open();
    let mut plan = machine.plan();
    let odd = [
        ("a1", "plain"),
        ("a2", "two words"),
        ("a3", "hash # inside"),
        ("a4", "back\\slash\\n"),
        ("a5", "quote\"s 'both'"),
        ("a6", ""),
        ("a7", "ünï"),
        ("a8", " blanks at the ends "),
        ("a9", "semi;colon"),
        ("b1", "equals=sign"),
        ("b2", "[group]"),
        ("b3", "'single'"),
        ("b4", "\\"),
        ("b5", "a\\s\\t"),
    ];
    plan.overrides = odd.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    for step in datastore.prepare_steps().iter().take_while(|step| step.0 != "data") {
        datastore.prepare_step(*step, &plan).await.unwrap();
    }
    let base = machine.folder.path().join("root/etc/mysql/my.cnf");
    let reader = Cmd::new("/usr/bin/my_print_defaults")
        .arg(format!("--defaults-file={}", base.display()))
        .arg("mysqld");
    let output = machine.host.run(reader).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for (name, value) in odd {
        assert!(
            text.lines().any(|line| line == format!("--{name}={value}")),
            "{name}={value} is not in\n{text}"
        );
    }
    assert!(text.contains(&format!("--port={}", machine.port)));
    let layer = fs::read_to_string(machine.folder.path().join("root/etc/mysql/conf.d/20-user-001-common.cnf")).unwrap();
    assert_eq!(layer.lines().count(), odd.len() + 1);
}
