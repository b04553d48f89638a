//! Replication by global transaction ids: one source, replicas that follow it, changes of role without a restart.
//!
//! Owns: roles of the server (source, replica), positions, durability. Uses: `conn` (a session of its own), `config` (the system layer).
//! Never does: restart the server, decide which server has which role.

use crate::datastore::Server;
use async_trait::async_trait;
use datastore_api::{
    BlockLimits, Blocked, Change, DriverError, Durability, ErrorKind, FollowPlan, Position, ReplicaLogin, Replication,
    ReplicationStatus, Saved,
};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

fn not_yet<T>(what: &str) -> Result<T, DriverError> {
    Err(DriverError::new(
        ErrorKind::NotSupported,
        format!("this driver cannot {what} yet"),
    ))
}

#[async_trait]
impl Replication for Server {
    fn strategy(&self) -> &'static str {
        "MariaDBGTIDReplication"
    }

    fn port(&self) -> u16 {
        self.settings.port.unwrap_or(self.flavour.info.default_port)
    }

    async fn status(&self) -> Result<ReplicationStatus, DriverError> {
        not_yet("tell the state of replication")
    }

    async fn position(&self) -> Result<Position, DriverError> {
        not_yet("tell its position")
    }

    async fn log_state(&self) -> Result<Position, DriverError> {
        not_yet("tell the state of its log")
    }

    fn covers(&self, _have: &Position, _want: &Position) -> Result<bool, DriverError> {
        not_yet("compare positions")
    }

    fn missing(&self, _have: &Position, _want: &Position) -> Result<u64, DriverError> {
        not_yet("compare positions")
    }

    async fn errant(&self, _source_log_state: &Position) -> Result<Vec<String>, DriverError> {
        not_yet("list transactions of its own")
    }

    async fn save_errant(&self, _source_log_state: &Position, _folder: &Path) -> Result<Option<Saved>, DriverError> {
        not_yet("save transactions of its own")
    }

    async fn make_source(&self, _options: Option<&str>) -> Result<Change, DriverError> {
        not_yet("be a source")
    }

    async fn create_login(&self) -> Result<ReplicaLogin, DriverError> {
        not_yet("create an account for a replica")
    }

    async fn ensure_login(&self, _login: &ReplicaLogin) -> Result<Change, DriverError> {
        not_yet("create an account for a replica")
    }

    async fn drop_login(&self, _user: &str) -> Result<Change, DriverError> {
        not_yet("remove an account of a replica")
    }

    async fn follow(&self, _plan: &FollowPlan, _limit: Duration) -> Result<Change, DriverError> {
        not_yet("follow a source")
    }

    async fn detach(&self, _limit: Duration) -> Result<Position, DriverError> {
        not_yet("end following")
    }

    async fn wait_for(&self, _at: &Position, _limit: Duration) -> Result<(), DriverError> {
        not_yet("wait for a position")
    }

    async fn block_writes(&self, _limits: &BlockLimits) -> Result<Blocked, DriverError> {
        not_yet("block writes")
    }

    async fn open_writes(&self) -> Result<Change, DriverError> {
        not_yet("open writes")
    }

    async fn end_sessions(&self) -> Result<u64, DriverError> {
        not_yet("end the sessions of clients")
    }

    async fn set_durability(&self, _mode: Durability, _is_source: bool) -> Result<Change, DriverError> {
        not_yet("set what a write is worth")
    }

    async fn set_start(&self, _closed: bool, _yields: bool) -> Result<Change, DriverError> {
        not_yet("set how it starts")
    }

    async fn user_databases(&self) -> Result<Vec<String>, DriverError> {
        not_yet("list databases of users")
    }

    async fn last_of_source(&self) -> Result<(Option<String>, u64), DriverError> {
        not_yet("tell how far it is")
    }

    async fn send_clone(&self, _out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Position, DriverError> {
        not_yet("send a copy of its data")
    }

    async fn receive_clone(&self, _from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Position, DriverError> {
        not_yet("receive a copy of another server's data")
    }
}
