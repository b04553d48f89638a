//! A MariaDB that does not start, dies, hangs or is in the way of itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use datastore_api::{Database, Datastore, ErrorKind, Health, Host, ServiceId, ServiceState, StopMode};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use serde_json::{Map, Value, json};
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn values(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

async fn pid(machine: &Machine) -> u32 {
    match machine.host.service_state(&ServiceId("trove-mariadb".into())).await.unwrap() {
        ServiceState::Running { pid } => pid,
        other => panic!("{other:?}"),
    }
}

async fn signal(pid: u32, name: &str) {
    #[expect(clippy::disallowed_methods, reason = "a test hurts its own server")]
    let mut kill = tokio::process::Command::new("/bin/kill");
    kill.args([format!("-{name}"), pid.to_string()]).stdout(Stdio::null());
    assert!(kill.status().await.unwrap().success());
}

async fn within(what: &str, limit: Duration, datastore: &Arc<dyn Datastore>, wanted: impl Fn(&Health) -> bool) {
    let start = Instant::now();
    let mut last = datastore.health().await;
    while !wanted(&last) {
        assert!(start.elapsed() < limit, "{what}: still {last:?} after {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        last = datastore.health().await;
    }
}

#[tokio::test]
async fn a_bad_configuration_fails_at_once_with_the_servers_own_words() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    datastore
        .stop(StopMode::Fast {
            limit: Duration::from_secs(30),
        })
        .await
        .unwrap();
    let config = datastore.configuration().unwrap();
    config.write_base("[mysqld]\nno_such_thing = 1\n").await.unwrap();
    let start = Instant::now();
    let error = datastore.start().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "it waited for its limit");
    assert!(error.to_string().contains("no_such_thing"), "{error}");
    match datastore.health().await {
        Health::Crashed { reason } => assert!(reason.contains("no_such_thing"), "{reason}"),
        other => panic!("{other:?}"),
    }
    config.write_base(common::CONFIG).await.unwrap();
    datastore.start().await.unwrap();
    assert_eq!(datastore.health().await, Health::Healthy);
}

#[tokio::test]
async fn a_bad_parameter_in_a_plan_fails_the_preparation_and_a_second_one_mends_it() {
    let machine = Machine::new();
    let datastore = machine.open();
    let mut plan = machine.plan();
    plan.overrides = values(json!({"no_such_thing": 5}));
    let mut failed = None;
    for step in datastore.prepare_steps() {
        if let Err(error) = datastore.prepare_step(*step, &plan).await {
            failed = Some((
                step.0,
                error.to_string() + &format!("{:?}", std::error::Error::source(&error)),
            ));
            break;
        }
    }
    let (step, error) = failed.unwrap();
    assert!(error.contains("no_such_thing"), "{step}: {error}");
    let datastore = machine.prepared().await;
    assert_eq!(datastore.health().await, Health::Healthy);
}

#[tokio::test]
async fn a_killed_server_is_crashed_and_comes_back_with_its_data() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    let accounts = datastore.accounts().unwrap();
    let database = Database {
        name: "kept".into(),
        character_set: None,
        collation: None,
    };
    accounts.create_databases(std::slice::from_ref(&database)).await.unwrap();
    signal(pid(&machine).await, "KILL").await;
    within("crashed", Duration::from_secs(30), &datastore, |health| {
        matches!(health, Health::Crashed { .. })
    })
    .await;
    let error = accounts.list_databases(&Default::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    datastore.start().await.unwrap();
    assert_eq!(
        accounts.list_databases(&Default::default()).await.unwrap().items[0].name,
        "kept"
    );
}

#[tokio::test]
async fn a_hung_server_costs_each_look_two_seconds_and_one_connection() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    assert_eq!(datastore.health().await, Health::Healthy);
    let server = pid(&machine).await;
    signal(server, "STOP").await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..4 {
        let start = Instant::now();
        assert_eq!(datastore.health().await, Health::Starting);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    assert!(
        tokio::runtime::Handle::current().metrics().num_alive_tasks() <= tasks + 1,
        "questions pile up"
    );
    let error = datastore.accounts().unwrap().is_root_enabled().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error}");
    signal(server, "CONT").await;
    within("healthy", Duration::from_secs(30), &datastore, |health| {
        *health == Health::Healthy
    })
    .await;
    assert!(!datastore.accounts().unwrap().is_root_enabled().await.unwrap());
}

#[tokio::test]
async fn a_tenants_lock_does_not_hold_a_change_for_ever() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    let accounts = datastore.accounts().unwrap();
    let database = Database {
        name: "busy".into(),
        character_set: None,
        collation: None,
    };
    accounts.create_databases(&[database]).await.unwrap();
    let text = fs::read_to_string(machine.folder.path().join("volume/conf.d/root.cnf")).unwrap();
    let password = text.lines().find_map(|line| line.strip_prefix("password = ")).unwrap();
    let socket = machine.folder.path().join("root/var/run/mysqld/mysqld.sock");
    let opts = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"))
        .pass(Some(password));
    let mut tenant = Conn::new(opts).await.unwrap();
    tenant
        .query_drop("CREATE TABLE busy.t (n INT) ENGINE=InnoDB; BEGIN; INSERT INTO busy.t VALUES (1)")
        .await
        .unwrap();
    let start = Instant::now();
    let error = accounts.delete_database("busy").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(start.elapsed() < Duration::from_secs(60));
    tenant.query_drop("COMMIT").await.unwrap();
    accounts.delete_database("busy").await.unwrap();
}

#[tokio::test]
async fn foreign_data_is_named_and_never_touched() {
    for (file, word) in [
        ("PG_VERSION", "PostgreSQL"),
        ("mysql.ibd", "MySQL"),
        ("ibdata1", "MariaDB"),
        ("photo.jpg", "photo.jpg"),
    ] {
        let machine = Machine::new();
        let datastore = machine.open();
        let data = machine.folder.path().join("volume/data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join(file), "precious").unwrap();
        let error = datastore.check_plan(&machine.plan()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongData);
        assert!(error.to_string().contains(word), "{error}");
        for step in datastore.prepare_steps() {
            if ["folders", "data"].contains(&step.0) {
                assert_eq!(
                    datastore.prepare_step(*step, &machine.plan()).await.unwrap_err().kind(),
                    ErrorKind::WrongData,
                    "{}",
                    step.0
                );
            }
        }
        assert_eq!(fs::read_to_string(data.join(file)).unwrap(), "precious");
    }
}

#[tokio::test]
async fn a_reused_volume_gets_new_passwords_and_an_unfinished_one_of_another_is_refused() {
    let machine = Machine::new();
    let secrets = machine.folder.path().join("volume/conf.d");
    fs::create_dir(&secrets).unwrap();
    fs::write(
        secrets.join("os_admin.cnf"),
        "[client]\nuser = os_admin\npassword = old-password\nhost = localhost\n",
    )
    .unwrap();
    let datastore = machine.open();
    for step in &datastore.prepare_steps()[..2] {
        datastore.prepare_step(*step, &machine.plan()).await.unwrap();
    }
    let first = fs::read_to_string(secrets.join("os_admin.cnf")).unwrap();
    assert!(!first.contains("old-password"));
    datastore
        .prepare_step(datastore.prepare_steps()[0], &machine.plan())
        .await
        .unwrap();
    datastore
        .prepare_step(datastore.prepare_steps()[1], &machine.plan())
        .await
        .unwrap();
    assert_eq!(
        fs::read_to_string(secrets.join("os_admin.cnf")).unwrap(),
        first,
        "a resumed preparation keeps its own"
    );
    let mut other = machine.context();
    other.instance_id = "another".into();
    let other = (datastore_mysql::ENTRY.open)(other, "mariadb").unwrap();
    assert_eq!(
        other.check_plan(&machine.plan()).await.unwrap_err().kind(),
        ErrorKind::WrongData
    );
}

#[tokio::test]
async fn versions_are_compared_by_series() {
    let machine = Machine::new();
    let datastore = machine.open();
    for (version, fits) in [
        ("10.11.8", true),
        ("10.11", true),
        ("10", true),
        ("latest", true),
        ("10.6.1", false),
        ("11.4", false),
        ("8.0.37", false),
    ] {
        let mut plan = machine.plan();
        plan.version = Some(version.into());
        match datastore.check_plan(&plan).await {
            Ok(()) => assert!(fits, "{version}"),
            Err(error) => assert!(!fits && error.to_string().contains("10.11."), "{version}: {error}"),
        }
    }
}
