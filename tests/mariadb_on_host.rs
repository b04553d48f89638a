//! The driver contract with a real MariaDB on the agent's own host room: its files, its programs, its supervisor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use datastore_api::contract::{Setup, run};
use datastore_api::{Cmd, DriverContext, Host, Owner, PreparePlan, ServiceId, ServiceSpec, StopMode};
use serde_json::{Map, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trove_guestagent::host::{Machine, Settings, SupervisorKind};

const CONFIG: &str = include_str!("../datastores/mysql/tests/common/config.cnf");

fn setup(folder: &Path) -> Setup {
    fs::create_dir_all(folder.join("volume/lost+found")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let machine = Machine::new(Settings {
        run_dir: folder.join("run"),
        state_dir: folder.join("state"),
        supervisor: SupervisorKind::Supervised,
    });
    let options = [("port", port.to_string()), ("bind_address", "127.0.0.1".to_owned())];
    Setup {
        context: DriverContext {
            host: Arc::new(machine.unwrap()),
            mount_point: folder.join("volume"),
            instance_id: format!("instance-{port}"),
            service_user: "mysql".into(),
            ignore_users: vec!["os_admin".into(), "root".into()],
            ignore_databases: vec![
                "mysql".into(),
                "information_schema".into(),
                "performance_schema".into(),
                "sys".into(),
            ],
            hostname_require_valid_ip: true,
            root_grant: vec!["ALL".into()],
            root_grant_option: true,
            password_length: 36,
            state_change_limit: Duration::from_secs(60),
            root: folder.join("root"),
            options: options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        },
        plan: PreparePlan {
            config_contents: Some(CONFIG.to_owned()),
            overrides: Map::new(),
            memory_mb: 512,
            version: Some("10.11".into()),
        },
        live: ("max_connections", json!(77), json!(99)),
        restart: ("innodb_log_buffer_size", json!("4M")),
        other_version: "11.4.2",
        has_hosts: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_keeps_the_contract_on_the_agents_own_host() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut count = 0;
    let report = run(&datastore_mysql::ENTRY, "mariadb", || {
        count += 1;
        setup(&folder.path().join(count.to_string()))
    })
    .await;
    print!("{report}");
    report.assert_passed();
}

/// Prints what a preparation costs beside the same by hand (installer, server start, first greeting), alternating.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it alone"]
async fn what_a_preparation_costs() {
    const ROUNDS: usize = 9;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (mut ours, mut hand) = (Vec::new(), Vec::new());
    let mut steps: Vec<(&str, Vec<Duration>)> = Vec::new();
    for round in 0..ROUNDS {
        let guest = folder.path().join(round.to_string());
        let Setup { context, plan, .. } = setup(&guest);
        let driver = (datastore_mysql::ENTRY.open)(context, "mariadb").unwrap();
        let start = Instant::now();
        driver.check_plan(&plan).await.unwrap();
        for (index, step) in driver.prepare_steps().iter().enumerate() {
            let begun = Instant::now();
            driver.prepare_step(*step, &plan).await.unwrap();
            steps.resize_with(steps.len().max(index + 1), || (step.0, Vec::new()));
            steps[index].1.push(begun.elapsed());
        }
        ours.push(start.elapsed());
        driver
            .stop(StopMode::Fast {
                limit: Duration::from_secs(60),
            })
            .await
            .unwrap();
        hand.push(by_hand(&guest).await);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    println!(
        "by hand {:?}, prepared {:?} (medians of {ROUNDS})",
        median(&mut hand),
        median(&mut ours)
    );
    for (name, times) in &mut steps {
        println!("  {name:<14} {:?}", median(times));
    }
}

/// Installer and server with the same files, in a data directory of their own.
async fn by_hand(guest: &Path) -> Duration {
    let (data, config) = (guest.join("by_hand"), guest.join("root/etc/mysql/my.cnf"));
    let socket = guest.join("root/var/run/mysqld/hand.sock");
    fs::create_dir(&data).unwrap();
    let host = Machine::new(Settings {
        run_dir: guest.join("run2"),
        state_dir: guest.join("state2"),
        supervisor: SupervisorKind::Supervised,
    });
    let host = host.unwrap();
    host.chown_tree(&data, &Owner { user: "mysql".into() }).await.unwrap();
    let (data, config) = (
        format!("--datadir={}", data.display()),
        format!("--defaults-file={}", config.display()),
    );
    let spec = ServiceSpec {
        id: ServiceId("hand".into()),
        program: "/usr/sbin/mariadbd".into(),
        args: vec![config.clone(), data.clone(), format!("--socket={}", socket.display())],
        user: "mysql".into(),
        log_file: guest.join("root/var/log/mysql/hand.log"),
        open_files: 65_536,
    };
    let start = Instant::now();
    let installer = Cmd::new("/usr/bin/mariadb-install-db").arg(config).arg(data).user("mysql");
    host.run(installer).await.unwrap();
    host.start_service(&spec).await.unwrap();
    let mut greeting = [0; 8];
    loop {
        if let Ok(mut stream) = tokio::net::UnixStream::connect(&socket).await
            && tokio::io::AsyncReadExt::read_exact(&mut stream, &mut greeting).await.is_ok()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let time = start.elapsed();
    host.stop_service(&spec.id, Duration::from_secs(60)).await.unwrap();
    time
}
