//! Replication by global transaction ids: one source, replicas that follow it, changes of role without a restart.
//!
//! Owns: roles of the server (source, replica), positions, durability. Uses: `conn` (a session of its own), `config` (the system layer).
//! Never does: restart the server, decide which server has which role.
//!
//! ```text
//! follow · writes · durability · source · login     verbs
//!          sessions · status · tls                  what is asked of the server and of the disk
//! errant_save                                       what only this server has, out of its logs
//!                  gtid · binlog · sql_text         sets of transactions, files and texts, pure
//! ```

mod binlog;
mod durability;
mod errant_save;
mod follow;
mod gtid;
mod login;
mod sessions;
mod source;
mod sql_text;
mod status;
mod tls;
mod writes;

use crate::datastore::Server;
use async_trait::async_trait;
use datastore_api::{
    BlockLimits, Blocked, Change, DriverError, Durability, FollowPlan, Position, ReplicaLogin, Replication, ReplicationStatus,
    Saved, ServerStart,
};
pub(crate) use follow::Following;
pub(crate) use gtid::Gtids;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

#[async_trait]
impl Replication for Server {
    fn strategy(&self) -> &'static str {
        "MariaDBGTIDReplication"
    }

    fn port(&self) -> u16 {
        self.settings.port.unwrap_or(self.flavour.info.default_port)
    }

    async fn status(&self) -> Result<ReplicationStatus, DriverError> {
        self.read_status().await
    }

    async fn position(&self) -> Result<Position, DriverError> {
        self.read_position().await
    }

    async fn log_state(&self) -> Result<Position, DriverError> {
        Ok(Position(self.read_log_state().await?.1.to_string()))
    }

    fn covers(&self, have: &Position, want: &Position) -> Result<bool, DriverError> {
        Ok(Gtids::parse(&have.0)?.covers(&Gtids::parse(&want.0)?))
    }

    fn missing(&self, have: &Position, want: &Position) -> Result<u64, DriverError> {
        Ok(Gtids::parse(&have.0)?.missing(&Gtids::parse(&want.0)?))
    }

    async fn errant(&self, source_log_state: &Position) -> Result<Vec<String>, DriverError> {
        self.list_errant(source_log_state).await
    }

    async fn save_errant(&self, source_log_state: &Position, folder: &Path) -> Result<Option<Saved>, DriverError> {
        self.save_own(source_log_state, folder).await
    }

    async fn make_source(&self, options: Option<&str>) -> Result<Change, DriverError> {
        self.be_source(options).await
    }

    async fn create_login(&self) -> Result<ReplicaLogin, DriverError> {
        self.new_login().await
    }

    async fn ensure_login(&self, login: &ReplicaLogin) -> Result<Change, DriverError> {
        self.keep_login(login).await
    }

    async fn drop_login(&self, user: &str) -> Result<Change, DriverError> {
        self.remove_login(user).await
    }

    async fn follow(&self, plan: &FollowPlan, limit: Duration) -> Result<Change, DriverError> {
        self.follow_source(plan, limit).await
    }

    async fn detach(&self, limit: Duration) -> Result<Position, DriverError> {
        self.leave_source(limit).await
    }

    async fn wait_for(&self, at: &Position, limit: Duration) -> Result<(), DriverError> {
        self.wait_until(at, limit).await
    }

    async fn block_writes(&self, limits: &BlockLimits) -> Result<Blocked, DriverError> {
        self.close_writes(limits).await
    }

    async fn open_writes(&self) -> Result<Change, DriverError> {
        self.reopen_writes().await
    }

    async fn end_sessions(&self) -> Result<u64, DriverError> {
        self.end_clients().await
    }

    async fn set_durability(&self, mode: Durability, is_source: bool) -> Result<Change, DriverError> {
        self.change_durability(mode, is_source).await
    }

    async fn unblock_commits(&self) -> Result<Change, DriverError> {
        self.end_stuck_commits().await
    }

    async fn set_start(&self, start: ServerStart) -> Result<Change, DriverError> {
        self.write_start(start).await
    }

    async fn user_databases(&self) -> Result<Vec<String>, DriverError> {
        self.list_user_databases().await
    }

    async fn last_of_source(&self) -> Result<(Option<String>, u64), DriverError> {
        self.read_last_of_source().await
    }

    async fn send_clone(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Position, DriverError> {
        self.send_copy(out).await
    }

    async fn receive_clone(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Position, DriverError> {
        self.receive_copy(from).await
    }
}
