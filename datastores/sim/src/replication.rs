//! Pretended replication: a position is a count of changes, and a source is another pretended server of this process, found by its port.
//!
//! A replica has everything its source has the moment somebody asks: what is received late is the affair of tests with real servers.
//! The data themselves come over only by a copy.

use crate::datastore::Sim;
use crate::state::{Role, State};
use async_trait::async_trait;
use datastore_api::{
    BlockLimits, Blocked, Change, DriverError, Durability, ErrorKind, ExposeSecret, FollowPlan, Position, ReplicaLogin,
    Replication, ReplicationStatus, Saved, Secret, SemiSync, ServerStart, SourceEndpoint, Start,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How far each pretended server of this process is, by its port.
static SERVERS: Mutex<BTreeMap<u16, u64>> = Mutex::new(BTreeMap::new());
/// Longest copy that is taken, in bytes.
const LONGEST: u64 = 64 << 20;

/// Makes known how far a server is.
pub(crate) fn publish(port: u16, position: u64) {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner).insert(port, position);
}

fn position_of(port: u16) -> Option<u64> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner).get(&port).copied()
}

fn count(position: &Position) -> Result<u64, DriverError> {
    let text = position.0.as_str();
    let number = if text.is_empty() { Ok(0) } else { text.parse() };
    number.map_err(|_| DriverError::new(ErrorKind::Invalid, format!("'{}' is no position", text.escape_debug())))
}

fn position(count: u64) -> Position {
    Position(if count == 0 { String::new() } else { count.to_string() })
}

fn failed(text: &str) -> DriverError {
    DriverError::new(ErrorKind::Failed, text)
}

/// The role with everything its source has.
fn caught_up(mut role: Role) -> Role {
    let there = role.following.as_ref().and_then(|(_, port)| position_of(*port));
    role.position = role.position.max(there.unwrap_or_default());
    role
}

impl Sim {
    /// Does what a test wants of this verb, then answers the role as it is.
    async fn role(&self, verb: &str) -> Result<Role, DriverError> {
        if self.options().hang_verb.as_deref() == Some(verb) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if self.options().fail_verb.as_deref() == Some(verb) {
            return Err(failed(&format!("{verb} failed, as the test wanted")));
        }
        let role = caught_up(self.running().await?.role);
        publish(self.port(), role.position);
        Ok(role)
    }

    /// Changes the role; `Unchanged` if it is as it was.
    async fn set_role(&self, verb: &str, act: impl FnOnce(&mut Role) + Send) -> Result<Change, DriverError> {
        let mut role = self.role(verb).await?;
        act(&mut role);
        self.change(move |state| {
            let is_new = state.role != role;
            state.role = role;
            Ok(if is_new { Change::Done } else { Change::Unchanged })
        })
        .await
    }
}

#[async_trait]
impl Replication for Sim {
    fn strategy(&self) -> &'static str {
        "SimReplication"
    }

    fn port(&self) -> u16 {
        self.options().port.unwrap_or(crate::datastore::INFO.default_port)
    }

    async fn status(&self) -> Result<ReplicationStatus, DriverError> {
        let role = self.role("status").await?;
        let follows = role.following.is_some();
        let is_on = role.durability != Durability::Async;
        Ok(ReplicationStatus {
            server_id: u32::from(self.port()),
            read_only: role.read_only,
            following: role.following.map(|(host, port)| SourceEndpoint { host, port }),
            receiving: follows,
            applying: follows,
            lag: follows.then_some(Duration::ZERO),
            position: position(role.position),
            received: position(role.position),
            error: None,
            semi_sync: SemiSync {
                source_on: is_on && !follows,
                replica_on: is_on,
                replicas: u32::from(is_on && !follows),
                ..SemiSync::default()
            },
        })
    }

    async fn position(&self) -> Result<Position, DriverError> {
        Ok(position(self.role("position").await?.position))
    }

    async fn log_state(&self) -> Result<Position, DriverError> {
        Ok(position(self.role("log_state").await?.position))
    }

    fn covers(&self, have: &Position, want: &Position) -> Result<bool, DriverError> {
        Ok(count(have)? >= count(want)?)
    }

    fn missing(&self, have: &Position, want: &Position) -> Result<u64, DriverError> {
        Ok(count(want)?.saturating_sub(count(have)?))
    }

    async fn errant(&self, source_log_state: &Position) -> Result<Vec<String>, DriverError> {
        let mine = self.role("errant").await?.position;
        let theirs = count(source_log_state)?;
        Ok((theirs + 1..=mine).map(|number| number.to_string()).collect())
    }

    async fn save_errant(&self, source_log_state: &Position, folder: &Path) -> Result<Option<Saved>, DriverError> {
        let errant = self.errant(source_log_state).await?;
        if errant.is_empty() {
            return Ok(None);
        }
        let path = folder.join(format!("errant-{}.txt", self.port()));
        let text = errant.join("\n");
        let mode = datastore_api::FileMode {
            mode: 0o600,
            owner: None,
        };
        let written = self.context().host.write_atomic(&path, text.as_bytes(), &mode).await;
        written.map_err(|error| DriverError::caused(ErrorKind::Failed, format!("could not write {}", path.display()), error))?;
        Ok(Some(Saved {
            path,
            transactions: errant.len() as u64,
            bytes: text.len() as u64,
        }))
    }

    async fn make_source(&self, _options: Option<&str>) -> Result<Change, DriverError> {
        self.role("make_source").await.map(|_| Change::Unchanged)
    }

    async fn create_login(&self) -> Result<ReplicaLogin, DriverError> {
        let number = self.role("create_login").await?.logins.len();
        let login = ReplicaLogin {
            user: format!("slave_{number:08x}"),
            password: Secret::from(format!("sim-{number}-{}", self.context().instance_id)),
        };
        self.ensure_login(&login).await?;
        Ok(login)
    }

    async fn ensure_login(&self, login: &ReplicaLogin) -> Result<Change, DriverError> {
        let (user, password) = (login.user.clone(), crate::state::hash(&login.password));
        self.set_role("ensure_login", |role| {
            role.logins.insert(user, password);
        })
        .await
    }

    async fn drop_login(&self, user: &str) -> Result<Change, DriverError> {
        self.set_role("drop_login", |role| {
            role.logins.remove(user);
        })
        .await
    }

    async fn follow(&self, plan: &FollowPlan, _limit: Duration) -> Result<Change, DriverError> {
        let source = (plan.source.host.clone(), plan.source.port);
        if plan.login.password.expose_secret().is_empty() {
            return Err(DriverError::new(
                ErrorKind::Invalid,
                "the password of the replica's account is empty",
            ));
        }
        let from = match &plan.start {
            Start::At(at) => Some(count(at)?),
            Start::Current => None,
        };
        let mine = from.unwrap_or(self.role("follow").await?.position);
        if position_of(source.1).is_some_and(|theirs| theirs < mine) {
            let text = format!("source {}:{} does not have all that this server has", source.0, source.1);
            return Err(DriverError::new(ErrorKind::WrongData, text));
        }
        self.set_role("follow", |role| {
            (role.read_only, role.position, role.following) = (true, mine, Some(source));
        })
        .await
    }

    async fn detach(&self, _limit: Duration) -> Result<Position, DriverError> {
        self.set_role("detach", |role| role.following = None).await?;
        self.position().await
    }

    async fn wait_for(&self, at: &Position, limit: Duration) -> Result<(), DriverError> {
        let (want, end) = (count(at)?, tokio::time::Instant::now() + limit);
        while self.role("wait_for").await?.position < want {
            if tokio::time::Instant::now() >= end {
                return Err(DriverError::new(
                    ErrorKind::Timeout,
                    format!("position {at} was not reached in time"),
                ));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn block_writes(&self, _limits: &BlockLimits) -> Result<Blocked, DriverError> {
        self.set_role("block_writes", |role| role.read_only = true).await?;
        Ok(Blocked {
            idle_ended: 0,
            writers_killed: 0,
            position: self.position().await?,
        })
    }

    async fn open_writes(&self) -> Result<Change, DriverError> {
        self.set_role("open_writes", |role| role.read_only = false).await
    }

    async fn end_sessions(&self) -> Result<u64, DriverError> {
        self.role("end_sessions").await.map(|_| 0)
    }

    async fn set_durability(&self, mode: Durability, _is_source: bool) -> Result<Change, DriverError> {
        self.set_role("set_durability", |role| role.durability = mode).await
    }

    async fn set_start(&self, start: ServerStart) -> Result<Change, DriverError> {
        self.set_role("set_start", |role| role.starts_closed = start.closed).await
    }

    async fn user_databases(&self) -> Result<Vec<String>, DriverError> {
        Ok(self.running().await?.databases.into_keys().collect())
    }

    async fn last_of_source(&self) -> Result<(Option<String>, u64), DriverError> {
        let role = self.role("last_of_source").await?;
        Ok((role.following.map(|(_, port)| port.to_string()), role.position))
    }

    async fn send_clone(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Position, DriverError> {
        self.role("send_clone").await?;
        let state = self.running().await?;
        let bytes = serde_json::to_vec(&state).map_err(|error| copy("encode", error))?;
        out.write_all(&bytes).await.map_err(|error| copy("send", error))?;
        out.shutdown().await.map_err(|error| copy("send", error))?;
        Ok(position(state.role.position))
    }

    async fn receive_clone(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Position, DriverError> {
        self.role("receive_clone").await?;
        let mut bytes = Vec::new();
        from.take(LONGEST)
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| copy("receive", error))?;
        let copied: State = serde_json::from_slice(&bytes).map_err(|error| copy("read", error))?;
        let at = copied.role.position;
        self.change(move |state| {
            (state.databases, state.users) = (copied.databases, copied.users);
            (state.role.position, state.role.read_only) = (at, true);
            Ok(Change::Done)
        })
        .await?;
        Ok(position(at))
    }
}

fn copy(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> DriverError {
    DriverError::caused(ErrorKind::Failed, format!("could not {doing} the copy"), error)
}
