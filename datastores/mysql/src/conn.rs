//! Connections to the server: over its socket, as the agent's user, a few at a time ([`Pool`]), some of them kept idle.
//!
//! There are two pools: one for the everyday, and one for changes of role, which must never wait behind a slow statement of the first.
//!
//! A statement is never cancelled by dropping it (its rows would be the answer to the next one): it runs in a task of its own that
//! owns the connection, has a limit in the server, and is only abandoned, connection and all, when the server keeps to no limit. The
//! abandoned task keeps its permit until the server answers or dies, so that a hung server is not asked more and more.

use crate::credentials::{ADMIN, Credentials};
use crate::errors;
use datastore_api::{DriverError, ErrorKind, ExposeSecret};
use futures_util::future::BoxFuture;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error as SqlError, Opts, OptsBuilder, Params, Row};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many sessions, and how long a statement of theirs may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool {
    /// Sessions at a time.
    pub sessions: usize,
    /// How many of them are kept when nobody uses them.
    pub kept: usize,
    /// How long to wait for a statement before its connection is given up.
    pub statement: Duration,
}

impl Pool {
    /// The everyday: the server's own limit (see the flavour's session setup) and some more.
    pub const EVERYDAY: Pool = Pool {
        sessions: 2,
        kept: 1,
        statement: Duration::from_secs(40),
    };
    /// Changes of role and their watching.
    pub const ROLE: Pool = Pool {
        sessions: 8,
        kept: 3,
        statement: Duration::from_secs(10),
    };
}

/// How long to wait for a free session or a new connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long an idle connection may take to prove that it is alive.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// Opens sessions.
pub(crate) struct Sql {
    socket: PathBuf,
    setup: &'static str,
    credentials: Arc<Credentials>,
    permits: Arc<Semaphore>,
    pool: Pool,
    idle: Idle,
}

type Idle = Arc<Mutex<Vec<Conn>>>;

/// A connection with its right to exist.
struct Held {
    conn: Conn,
    _permit: OwnedSemaphorePermit,
}

/// A connection in use. Given back when dropped, unless a statement is still under way on it.
pub(crate) struct Session {
    held: Option<Held>,
    id: u32,
    limit: Duration,
    kept: usize,
    idle: Idle,
}

impl Sql {
    /// Connections to this socket. None is opened yet.
    pub fn new(socket: &Path, setup: &'static str, credentials: Arc<Credentials>, pool: Pool) -> Self {
        Self {
            socket: socket.to_owned(),
            setup,
            credentials,
            permits: Arc::new(Semaphore::new(pool.sessions)),
            pool,
            idle: Idle::default(),
        }
    }

    /// How to connect as the agent's user.
    pub async fn options(&self) -> Result<Opts, DriverError> {
        let password = self.credentials.need(ADMIN).await?;
        Ok(OptsBuilder::default()
            .socket(Some(self.socket.display().to_string()))
            .user(Some(ADMIN))
            .pass(Some(password.expose_secret()))
            // Known values spare a question to the server at each connect.
            .max_allowed_packet(Some(16 << 20))
            .wait_timeout(Some(900))
            .stmt_cache_size(0)
            .setup(vec![self.setup])
            .into())
    }

    /// A session. `Unavailable` if the server does not answer, or all sessions wait for it.
    pub async fn session(&self) -> Result<Session, DriverError> {
        let permit = timeout(CONNECT_LIMIT, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| unavailable("every session still waits for the server"))?
            .expect("the semaphore is never closed");
        let permit = match self.take_idle() {
            Some(conn) => {
                let (alive, permit) = self.still_alive(conn, permit).await?;
                if let Some(conn) = alive {
                    return Ok(self.give(conn, permit));
                }
                permit
            }
            None => permit,
        };
        let options = self.options().await?;
        let connecting = tokio::spawn(async move { (Conn::new(options).await, permit) });
        let (conn, permit) = finished(CONNECT_LIMIT, connecting, "connect").await?;
        let conn = conn.map_err(|error| errors::sql("connect to the server", unreachable_is_io(error)))?;
        Ok(self.give(conn, permit))
    }

    /// Forgets the idle connections, because the server is about to end.
    pub fn forget_idle(&self) {
        drop(std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    async fn still_alive(
        &self,
        mut conn: Conn,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Option<Conn>, OwnedSemaphorePermit), DriverError> {
        let asking = tokio::spawn(async move {
            let alive = conn.ping().await.is_ok();
            (alive.then_some(conn), permit)
        });
        finished(PING_LIMIT, asking, "answer a ping").await
    }

    fn give(&self, conn: Conn, permit: OwnedSemaphorePermit) -> Session {
        Session {
            id: conn.id(),
            held: Some(Held { conn, _permit: permit }),
            limit: self.pool.statement,
            kept: self.pool.kept,
            idle: Arc::clone(&self.idle),
        }
    }

    fn take_idle(&self) -> Option<Conn> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Session {
    /// The server's number of this session, for `KILL`.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How long to wait for each of the next statements.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// The rows of several statements, sent as one text: one round trip. The first that fails ends the rest.
    pub async fn sets(&mut self, doing: &str, sql: impl Into<String>) -> Result<Vec<Vec<Row>>, DriverError> {
        let sql = sql.into();
        let read = self.with(doing, move |conn| {
            Box::pin(async move {
                let mut result = conn.query_iter(sql).await?;
                let mut sets = Vec::new();
                while sets.is_empty() || !result.is_empty() {
                    sets.push(result.collect::<Row>().await?);
                }
                Ok(sets)
            })
        });
        read.await?.map_err(|error| errors::sql(doing, error))
    }

    /// The rows of a query. `doing` completes the sentence "could not ..." of an error.
    pub async fn rows<T>(&mut self, doing: &str, sql: impl Into<String>, params: impl Into<Params>) -> Result<Vec<T>, DriverError>
    where
        T: FromRow + Send + 'static,
    {
        let (sql, params) = (sql.into(), params.into());
        self.with(doing, move |conn| Box::pin(async move { conn.exec(sql, params).await }))
            .await?
            .map_err(|error| errors::sql(doing, error))
    }

    /// Runs a statement that answers no rows.
    pub async fn run(&mut self, doing: &str, sql: impl Into<String>) -> Result<(), DriverError> {
        self.try_run(doing, sql).await?.map_err(|error| errors::sql(doing, error))
    }

    /// Runs a statement; an error of the server is the inner result.
    pub async fn try_run(&mut self, doing: &str, sql: impl Into<String>) -> Result<Result<(), SqlError>, DriverError> {
        let sql = sql.into();
        self.with(doing, move |conn| Box::pin(async move { conn.query_drop(sql).await }))
            .await
    }

    /// Rows of a statement in the text protocol, for statements that cannot be prepared; an error of the server is the inner result.
    pub async fn try_text_rows<T>(&mut self, doing: &str, sql: impl Into<String>) -> Result<Result<Vec<T>, SqlError>, DriverError>
    where
        T: FromRow + Send + 'static,
    {
        let sql = sql.into();
        self.with(doing, move |conn| Box::pin(async move { conn.query(sql).await }))
            .await
    }

    async fn with<T, F>(&mut self, doing: &str, act: F) -> Result<Result<T, SqlError>, DriverError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, SqlError>> + Send + 'static,
    {
        let Some(mut held) = self.held.take() else {
            return Err(unavailable("the connection was lost"));
        };
        let running = tokio::spawn(async move {
            let result = act(&mut held.conn).await;
            (held, result)
        });
        let (held, result) = finished(self.limit, running, doing).await?;
        if !matches!(&result, Err(error) if error.is_fatal()) {
            self.held = Some(held);
        }
        Ok(result)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < self.kept {
                idle.push(held.conn);
            }
        }
    }
}

/// Waits for a task; past the limit the task goes on alone and its result is thrown away.
async fn finished<T>(limit: Duration, task: tokio::task::JoinHandle<T>, doing: &str) -> Result<T, DriverError> {
    match timeout(limit, task).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(DriverError::caused(ErrorKind::Failed, format!("could not {doing}"), error)),
        Err(_) => Err(DriverError::new(
            ErrorKind::Timeout,
            format!("could not {doing}: no answer from the server in {limit:?}"),
        )),
    }
}

fn unavailable(text: &str) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, text)
}

/// A server that closes the connection during the handshake is as absent as one that has no socket.
fn unreachable_is_io(error: SqlError) -> SqlError {
    match error {
        SqlError::Driver(mysql_async::DriverError::ConnectionClosed) => {
            SqlError::Io(mysql_async::IoError::Io(std::io::ErrorKind::ConnectionAborted.into()))
        }
        other => other,
    }
}
