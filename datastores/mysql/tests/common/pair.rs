//! Servers that replicate, and clients of theirs.
#![allow(clippy::unwrap_used, reason = "support code of tests")]

use crate::common::Machine;
use datastore_api::{
    BlockLimits, Datastore, ErrorKind, FollowPlan, Position, ReplicaLogin, Replication, Secret, SourceEndpoint, Start,
};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// A limit nothing should reach.
pub const LONG: Duration = Duration::from_secs(30);

/// One server of a pair.
pub struct Node {
    pub machine: Machine,
    pub datastore: Arc<dyn Datastore>,
}

#[allow(dead_code, reason = "each test uses its own part")]
impl Node {
    /// A prepared server with the pair's login and a user `app` (unlogged, so that all nodes have it).
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with more parameters.
    pub async fn with(more: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Self {
        let mut machine = Machine::new();
        more(&mut machine.overrides);
        machine.overrides.insert("skip_name_resolve".into(), true.into());
        let datastore = machine.prepared().await;
        let node = Self { machine, datastore };
        node.role().ensure_login(&login()).await.unwrap();
        let mut conn = node.admin().await;
        conn.query_drop("SET sql_log_bin = 0; CREATE USER app IDENTIFIED BY 'app'; GRANT ALL ON shop.* TO app")
            .await
            .unwrap();
        node
    }

    pub fn role(&self) -> &dyn Replication {
        self.datastore.replication().unwrap()
    }

    /// A session of local root, as a person's.
    pub async fn admin(&self) -> Conn {
        let folder = self.machine.folder.path();
        let text = fs::read_to_string(folder.join("volume/conf.d/root.cnf")).unwrap();
        let password = text.lines().find_map(|line| line.strip_prefix("password = ")).unwrap();
        let socket = folder.join("root/var/run/mysqld/mysqld.sock");
        let opts = OptsBuilder::default().socket(Some(socket.display().to_string()));
        Conn::new(opts.user(Some("root")).pass(Some(password))).await.unwrap()
    }

    /// A session of a user over the network.
    pub async fn client(&self) -> Conn {
        self.login("app", "app").await.unwrap()
    }

    pub async fn login(&self, user: &str, password: &str) -> Result<Conn, mysql_async::Error> {
        let opts = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.machine.port)
            .prefer_socket(false);
        Conn::new(opts.user(Some(user)).pass(Some(password))).await
    }

    /// One value.
    pub async fn value<T: FromRow + Send + 'static>(&self, query: &str) -> T {
        self.admin().await.query_first(query).await.unwrap().unwrap()
    }

    /// Follows another node.
    pub async fn follow(&self, source: &Node) {
        self.role().follow(&plan(source), LONG).await.unwrap();
    }

    pub async fn close(&self) -> Position {
        self.role().block_writes(&limits()).await.unwrap().position
    }

    /// Makes the database of the tests.
    pub async fn make_shop(&self) {
        let mut conn = self.admin().await;
        conn.query_drop("CREATE DATABASE shop; CREATE TABLE shop.t (n INT PRIMARY KEY AUTO_INCREMENT, x INT NOT NULL)")
            .await
            .unwrap();
        conn.query_drop("CREATE TABLE shop.u (n INT PRIMARY KEY, x INT NOT NULL); INSERT INTO shop.u VALUES (1, 0), (2, 0)")
            .await
            .unwrap();
    }

    /// Kills the server.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// Sends the server a signal.
    pub fn signal(&self, name: &str) {
        #[expect(clippy::disallowed_methods, reason = "a test hurts its own server")]
        let mut kill = std::process::Command::new("/bin/kill");
        assert!(
            kill.args([format!("-{name}"), self.pid().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn pid(&self) -> u32 {
        let path = self.machine.folder.path().join("root/var/run/mysqld/mysqld.pid");
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }
}

pub fn login() -> ReplicaLogin {
    ReplicaLogin {
        user: "pair_login".into(),
        password: Secret::from("it's \\ secret4711"),
    }
}

pub fn limits() -> BlockLimits {
    BlockLimits {
        grace: Duration::from_millis(300),
        limit: Duration::from_secs(10),
    }
}

pub fn plan(source: &Node) -> FollowPlan {
    FollowPlan {
        source: SourceEndpoint {
            host: "127.0.0.1".into(),
            port: source.machine.port,
        },
        login: login(),
        start: Start::Current,
        tls: None,
    }
}

/// The kind and the text of an error with its causes.
#[allow(dead_code, reason = "each test uses its own part")]
pub fn told<T: std::fmt::Debug>(result: Result<T, datastore_api::DriverError>) -> (ErrorKind, String) {
    let error = result.unwrap_err();
    (error.kind(), datastore_api::chain(&error))
}
