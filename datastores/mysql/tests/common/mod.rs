//! A guest of its own for a test: folders, port, and the control plane's configuration.
#![allow(clippy::unwrap_used, reason = "support code of tests")]

pub mod backups;
pub mod copies;

use datastore_api::contract::TestHost;
use datastore_api::{Datastore, DriverContext, PreparePlan};
use serde_json::{Map, Value};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// What the control plane renders for a small flavor.
pub const CONFIG: &str = include_str!("config.cnf");

/// One guest.
pub struct Machine {
    pub folder: TempDir,
    pub host: Arc<TestHost>,
    pub port: u16,
    /// User parameters of the plan.
    pub overrides: Map<String, Value>,
}

#[allow(dead_code, reason = "each test uses its own part")]
impl Machine {
    /// A guest with empty folders that the server's user may enter.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("volume")).unwrap();
        fs::create_dir(folder.path().join("volume/lost+found")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self {
            folder,
            host: Arc::new(TestHost::default()),
            port,
            overrides: Map::new(),
        }
    }

    /// What the driver is opened with.
    pub fn context(&self) -> DriverContext {
        let options = [("port", self.port.to_string()), ("bind_address", "127.0.0.1".to_owned())];
        DriverContext {
            host: self.host.clone(),
            mount_point: self.folder.path().join("volume"),
            instance_id: format!("instance-{}", self.port),
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
            state_change_limit: Duration::from_secs(120),
            root: self.folder.path().join("root"),
            options: options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    /// A plan with the control plane's configuration.
    pub fn plan(&self) -> PreparePlan {
        PreparePlan {
            config_contents: Some(CONFIG.to_owned()),
            overrides: self.overrides.clone(),
            memory_mb: 512,
            version: Some("10.11.8".into()),
        }
    }

    /// The driver.
    pub fn open(&self) -> Arc<dyn Datastore> {
        (datastore_mysql::ENTRY.open)(self.context(), "mariadb").unwrap()
    }

    /// The driver after a whole preparation.
    pub async fn prepared(&self) -> Arc<dyn Datastore> {
        let datastore = self.open();
        datastore.check_plan(&self.plan()).await.unwrap();
        for step in datastore.prepare_steps() {
            datastore.prepare_step(*step, &self.plan()).await.unwrap();
        }
        datastore
    }
}
