//! Is the server well? Asked every few seconds, so it costs one `SELECT 1` on a connection that is kept.
//!
//! The question runs in a task of its own. If the server hangs, that one task waits for it and no second one is begun: health stays cheap
//! however long the server hangs.

use crate::conn::Sql;
use crate::datastore::Server;
use crate::{errors, lifecycle};
use datastore_api::{DriverError, ErrorKind, Health, ServiceState, chain};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error as SqlError};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long the server has for its answer.
const LIMIT: Duration = Duration::from_secs(2);
/// A server that has answered before and does not for this long is called crashed (the control plane's health window).
const WINDOW: Duration = Duration::from_secs(30);
/// The server's error "too many connections": it is there, and busy with its clients.
const TOO_MANY_CONNECTIONS: u16 = 1040;

/// What is remembered between two looks.
#[derive(Default)]
pub(crate) struct Probe {
    state: Mutex<State>,
    /// What the supervisor said at the last look, so that a change since then is not missed.
    seen: std::sync::Mutex<Option<ServiceState>>,
    forget: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct State {
    /// The kept connection.
    idle: Option<Conn>,
    /// A question that is still without answer.
    asking: Option<JoinHandle<Result<Conn, SqlError>>>,
    /// The process that answered last, and since when it does not.
    answered: Option<u32>,
    silent_since: Option<Instant>,
}

impl Probe {
    fn saw(&self, state: &ServiceState) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
    }

    fn last_seen(&self) -> Option<ServiceState> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Server {
    /// Forgets the kept connection, because the server is about to end.
    pub(crate) fn forget_probe(&self) {
        self.probe.forget.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Resolves when the server's process is not as it was at the last look.
    pub(crate) async fn differs(&self) {
        let seen = self.probe.last_seen().unwrap_or(ServiceState::Stopped);
        self.context.host.service_changed(&self.service(), &seen).await;
    }

    /// Looks at the server; at most a little longer than [`LIMIT`].
    pub(crate) async fn look(&self) -> Health {
        let state = match self.service_state().await {
            Ok(state) => state,
            Err(error) => return Health::Unknown { reason: chain(&error) },
        };
        self.probe.saw(&state);
        let pid = match state {
            ServiceState::Running { pid } => pid,
            ServiceState::Stopped => return Health::Stopped,
            ServiceState::Restarting { last_exit } | ServiceState::Failed { last_exit } => {
                let words = lifecycle::reason(&self.log_tail().await);
                let between = if words.is_empty() { "" } else { "; its log: " };
                return Health::Crashed {
                    reason: format!("{last_exit}{between}{words}"),
                };
            }
        };
        // Looks that overlap share one answer's wait; the later one asks again, which costs nothing.
        let Ok(mut probe) = timeout(LIMIT, self.probe.state.lock()).await else {
            return Health::Starting;
        };
        if self.probe.forget.swap(false, std::sync::atomic::Ordering::Relaxed) {
            probe.idle = None;
        }
        let answer = probe.ask(&self.sql).await;
        probe.judge(pid, answer, Instant::now())
    }
}

impl State {
    /// Asks the server. `None` means that it has not answered yet.
    async fn ask(&mut self, sql: &Sql) -> Option<Result<(), DriverError>> {
        let mut asking = match self.asking.take() {
            Some(still) => still,
            None => match sql.options().await {
                Ok(options) => {
                    let idle = self.idle.take();
                    tokio::spawn(async move {
                        if let Some(mut conn) = idle
                            && conn.query_drop("SELECT 1").await.is_ok()
                        {
                            return Ok(conn);
                        }
                        let mut conn = Conn::new(options).await?;
                        conn.query_drop("SELECT 1").await?;
                        Ok(conn)
                    })
                }
                Err(error) => return Some(Err(error)),
            },
        };
        match timeout(LIMIT, &mut asking).await {
            Err(_) => {
                self.asking = Some(asking);
                None
            }
            Ok(Ok(Ok(conn))) => {
                self.idle = Some(conn);
                Some(Ok(()))
            }
            Ok(Ok(Err(error))) if errors::code(&error) == Some(TOO_MANY_CONNECTIONS) => Some(Ok(())),
            Ok(Ok(Err(error))) => Some(Err(errors::sql("log in to the server", error))),
            Ok(Err(error)) => Some(Err(DriverError::caused(ErrorKind::Failed, "could not ask the server", error))),
        }
    }

    fn judge(&mut self, pid: u32, answer: Option<Result<(), DriverError>>, now: Instant) -> Health {
        match answer {
            Some(Ok(())) => {
                (self.answered, self.silent_since) = (Some(pid), None);
                Health::Healthy
            }
            Some(Err(error)) if error.kind() != ErrorKind::Unavailable => Health::Unknown { reason: chain(&error) },
            silent => {
                let since = *self.silent_since.get_or_insert(now);
                let hangs = self.answered == Some(pid) || silent.is_none();
                if self.answered.is_some_and(|before| before != pid) {
                    // Another process: it has not been given its time yet.
                    (self.answered, self.silent_since) = (None, Some(now));
                    return Health::Starting;
                }
                if hangs && now.duration_since(since) >= WINDOW {
                    let seconds = now.duration_since(since).as_secs();
                    return Health::Crashed {
                        reason: format!("the server process lives but has not answered for {seconds} seconds"),
                    };
                }
                Health::Starting
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> Option<Result<(), DriverError>> {
        Some(Err(DriverError::new(ErrorKind::Unavailable, "no socket")))
    }

    #[test]
    fn a_server_that_recovers_is_starting_however_long_it_takes() {
        let (mut state, start) = (State::default(), Instant::now());
        for minutes in 0..100 {
            let now = start + Duration::from_secs(60 * minutes);
            assert_eq!(state.judge(1, unavailable(), now), Health::Starting);
        }
    }

    #[test]
    fn a_server_that_hangs_is_crashed_after_the_window() {
        let (mut state, start) = (State::default(), Instant::now());
        let later = start + WINDOW;
        assert_eq!(state.judge(1, Some(Ok(())), start), Health::Healthy);
        assert_eq!(state.judge(1, None, start), Health::Starting);
        assert!(matches!(state.judge(1, None, later), Health::Crashed { .. }));
        assert_eq!(
            state.judge(2, None, later),
            Health::Starting,
            "a new process has its own time"
        );
        assert_eq!(state.judge(2, Some(Ok(())), later), Health::Healthy);
    }
}
