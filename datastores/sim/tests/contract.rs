//! The contract suite against the in-memory datastore.

use datastore_api::contract::{Setup, TestHost, run};
use datastore_api::{DriverContext, PreparePlan};
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn the_sim_datastore_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    let report = run(&datastore_sim::ENTRY, "sim", || {
        count += 1;
        Setup {
            context: DriverContext {
                host: Arc::new(TestHost::default()),
                mount_point: folder.path().join(format!("volume{count}")),
                instance_id: format!("instance-{count}"),
                service_user: "nobody".into(),
                ignore_users: vec!["os_admin".into(), "root".into()],
                ignore_databases: vec!["system".into()],
                hostname_require_valid_ip: true,
                root_grant: vec!["ALL".into()],
                root_grant_option: true,
                password_length: 36,
                state_change_limit: Duration::from_secs(60),
                root: folder.path().join(format!("root{count}")),
                options: Default::default(),
            },
            plan: PreparePlan {
                config_contents: None,
                overrides: Map::new(),
                memory_mb: 512,
                version: Some("1.0".into()),
            },
            live: ("speed", json!(1), json!(2)),
            restart: ("restart_speed", json!(7)),
            other_version: "2.0",
            has_hosts: true,
        }
    })
    .await;
    print!("{report}");
    report.assert_passed();
}
