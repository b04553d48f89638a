//! The driver contract with a real MariaDB on the agent's own host room: its files, its programs, its supervisor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use datastore_api::contract::{Setup, run};
use datastore_api::{DriverContext, PreparePlan};
use serde_json::{Map, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
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
