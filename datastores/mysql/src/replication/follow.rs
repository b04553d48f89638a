//! Following a source, and ending it.
//!
//! What was received is never thrown away in silence: the server drops its relay log when both threads start together, so the applier
//! goes on running while the receiver is changed, and a source is left only when everything received from it is applied.

use super::gtid::Gtids;
use super::status::{Look, Source, look, position};
use crate::conn::{Session, Sql};
use crate::datastore::Server;
use crate::errors::invalid;
use crate::sql;
use datastore_api::{BlockLimits, Change, DriverError, ErrorKind, ExposeSecret, FollowPlan, Position, SourceEndpoint, Start};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep};
use tracing::warn;

/// Appliers of a replica.
const APPLIERS: u32 = 4;
/// Between two looks at a receiver that connects.
const POLL: Duration = Duration::from_millis(3);
/// A wait inside the server is cut into pieces of this length, so that an applier that has stopped is noticed.
const SLICE: Duration = Duration::from_millis(500);
/// How long stopping and starting of threads may take beyond the caller's limit.
const THREAD_LIMIT: Duration = Duration::from_secs(10);
/// Seconds of silence after which a receiver reconnects; a source that has nothing to say sends a sign of life more often.
const SILENCE: u32 = 4;
const SIGN_OF_LIFE: &str = "0.5";
/// The server's error numbers of a source that refuses this account.
const REFUSED: [u32; 3] = [1045, 1044, 1227];

/// Who follows whom changes one request at a time.
#[derive(Default)]
pub(crate) struct Following {
    turn: Mutex<()>,
    /// The source was left and the server is still clearing its files away.
    forgotten: AtomicBool,
}

impl Following {
    /// Whether what the server says about a source is over.
    pub(super) fn is_over(&self) -> bool {
        self.forgotten.load(Ordering::Acquire)
    }
}

impl Server {
    pub(super) async fn follow_source(&self, plan: &FollowPlan, limit: Duration) -> Result<Change, DriverError> {
        let end = Instant::now() + limit;
        check(plan)?;
        self.replica_account(&plan.login.user)?;
        let _turn = self.following.turn.lock().await;
        let mut session = self.role_session().await?;
        session.set_limit(limit + THREAD_LIMIT);
        let before = look(&mut session).await?;
        if !before.read_only {
            let limits = BlockLimits {
                grace: (limit / 4).min(Duration::from_secs(1)),
                limit,
            };
            self.close_writes(&limits).await?;
        }
        self.leave_old_source(&mut session, &before, plan, end).await?;
        self.set_position(&mut session, &plan.start).await?;
        let tls = self.write_tls(plan.tls.as_ref()).await?;
        session
            .run(
                "set how long a source may be silent",
                // Several appliers commit in order and in groups, as the source did; one alone pays for each commit and falls behind.
                format!("SET GLOBAL slave_net_timeout = {SILENCE}, GLOBAL slave_parallel_threads = {APPLIERS}"),
            )
            .await?;
        let statement = format!("{}{tls}", change_master(plan));
        session.run("set the source", statement).await?;
        session.run("start following", "START SLAVE").await?;
        wait_until_connected(&mut session, &plan.source, end).await?;
        Ok(Change::Done)
    }

    /// Stops following whatever is followed now. From another source everything received is applied first.
    async fn leave_old_source(
        &self,
        session: &mut Session,
        before: &Look,
        plan: &FollowPlan,
        end: Instant,
    ) -> Result<(), DriverError> {
        let Some(source) = &before.source else { return Ok(()) };
        let is_same = source.endpoint == (plan.source.host.clone(), plan.source.port);
        // What the same source sent it can send again; new data have no use for the old ones' relay log.
        if !is_same && plan.start == Start::Current {
            stop_receiver(session, source).await?;
            apply_received(session, end).await?;
        }
        session.run("stop following", "STOP SLAVE").await
    }

    /// Sets where to begin. The server's own log is a part of where it is, whatever it followed before.
    async fn set_position(&self, session: &mut Session, start: &Start) -> Result<(), DriverError> {
        let here = look(session).await?;
        let seeded = match start {
            Start::At(at) => Some(Gtids::parse(&at.0)?),
            Start::Current => None,
        };
        // A request that is repeated after some progress begins where it is.
        let is_new = seeded.as_ref().is_some_and(|at| !here.position.covers(at));
        if let Some(at) = &seeded {
            let log: Vec<Option<String>> = session
                .rows("read the state of the log", "SELECT @@global.gtid_binlog_state", ())
                .await?;
            let is_empty = log.into_iter().flatten().all(|state| state.is_empty());
            if is_new && !is_empty {
                session.run("forget the log of the data before", "RESET MASTER").await?;
            }
            if is_new || is_empty {
                // So that it knows later, as a source, that it has what was in the copy.
                let state = format!("SET GLOBAL gtid_binlog_state = {}", sql::text(&at.to_string()));
                session.run("set the state of the log", state).await?;
            }
        }
        let wanted = seeded.filter(|_| is_new);
        let from = wanted.unwrap_or(here.position).position();
        if here.applied.position() != from {
            let set = format!("SET GLOBAL gtid_slave_pos = {}", sql::text(&from.0));
            session.run("set the position to follow from", set).await?;
        }
        Ok(())
    }

    pub(super) async fn leave_source(&self, limit: Duration) -> Result<Position, DriverError> {
        let end = Instant::now() + limit;
        let following = Arc::clone(&self.following);
        let role = Arc::clone(&self.role);
        let (done, answer) = oneshot::channel();
        // A task of its own: a caller that goes away does not leave it half done, and one that is content does not wait for the rest.
        tokio::spawn(async move {
            let _turn = following.turn.lock().await;
            let left = leave(&role, limit, end).await;
            let session = match left {
                Ok((position, session)) => {
                    following.forgotten.store(session.is_some(), Ordering::Release);
                    let _ = done.send(Ok(position));
                    session
                }
                Err(error) => {
                    let _ = done.send(Err(error));
                    None
                }
            };
            if let Some(mut session) = session {
                // The threads are gone; what is left is to delete files, and nobody has to wait for the disk.
                if let Err(error) = session.run("forget the source", "RESET SLAVE ALL").await {
                    warn!(
                        error = datastore_api::chain(&error),
                        "the source that was left could not be forgotten"
                    );
                }
                following.forgotten.store(false, Ordering::Release);
            }
        });
        let gone = |error| DriverError::caused(ErrorKind::Failed, "could not end following", error);
        answer.await.map_err(gone)?
    }

    pub(super) async fn wait_until(&self, at: &Position, limit: Duration) -> Result<(), DriverError> {
        let want = Gtids::parse(&at.0)?;
        let mut session = self.role_session().await?;
        session.set_limit(limit + THREAD_LIMIT);
        reach(&mut session, &want, Instant::now() + limit).await
    }
}

/// Applies what was received and stops both threads. A session if there is a source to forget.
async fn leave(role: &Sql, limit: Duration, end: Instant) -> Result<(Position, Option<Session>), DriverError> {
    let mut session = role.session().await?;
    session.set_limit(limit + THREAD_LIMIT);
    let before = look(&mut session).await?;
    let Some(source) = &before.source else {
        return Ok((before.position.position(), None));
    };
    if !source.applies() && source.wants_to_receive() {
        // While the receiver runs, this drops nothing.
        session.run("start the applier", "START SLAVE SQL_THREAD").await?;
    }
    stop_receiver(&mut session, source).await?;
    if let Err(error) = apply_received(&mut session, end).await {
        if source.wants_to_receive()
            && let Err(again) = session.run("follow again", "START SLAVE IO_THREAD").await
        {
            warn!(
                error = datastore_api::chain(&again),
                "the receiver could not be started again"
            );
        }
        return Err(error);
    }
    session.run("stop following", "STOP SLAVE").await?;
    let at = position(&mut session).await?.position();
    Ok((at, Some(session)))
}

fn check(plan: &FollowPlan) -> Result<(), DriverError> {
    let host = &plan.source.host;
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:_-%".contains(c);
    if host.is_empty() || host.len() > 255 || !host.chars().all(plain) || plan.source.port == 0 {
        let text = format!(
            "'{}' port {} is no address of a source",
            host.escape_debug(),
            plan.source.port
        );
        return Err(invalid(text));
    }
    let password = plan.login.password.expose_secret();
    if password.is_empty() || password.len() > 96 || password.chars().any(char::is_control) {
        return Err(invalid(
            "the password of the replica's account is empty, too long, or has control characters",
        ));
    }
    if let Start::At(at) = &plan.start {
        Gtids::parse(&at.0)?;
    }
    Ok(())
}

/// The whole statement but for encryption: nothing of an earlier one stays.
fn change_master(plan: &FollowPlan) -> String {
    format!(
        "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {}, MASTER_USE_GTID = slave_pos, \
         MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = {SIGN_OF_LIFE}, MASTER_DELAY = 0, IGNORE_SERVER_IDS = (), \
         DO_DOMAIN_IDS = (), IGNORE_DOMAIN_IDS = ()",
        sql::text(&plan.source.host),
        plan.source.port,
        sql::text(&plan.login.user),
        sql::text(plan.login.password.expose_secret()),
    )
}

/// Stops the receiver; the applier goes on.
async fn stop_receiver(session: &mut Session, source: &Source) -> Result<(), DriverError> {
    if !source.wants_to_receive() {
        return Ok(());
    }
    session.run("stop the receiver", "STOP SLAVE IO_THREAD").await
}

/// Waits until everything received is applied, the receiver being stopped.
async fn apply_received(session: &mut Session, end: Instant) -> Result<(), DriverError> {
    let now = look(session).await?;
    let Some(source) = &now.source else { return Ok(()) };
    if source.applies() {
        return reach(session, &source.received, end).await;
    }
    if source.has_unapplied(&now.applied) {
        let why = source.error().unwrap_or_else(|| "the applier does not run".to_owned());
        let text = format!("not all that was received can be applied (up to {}): {why}", source.received);
        return Err(DriverError::new(ErrorKind::Failed, text));
    }
    Ok(())
}

/// Waits until the server has all of `want`, applied.
async fn reach(session: &mut Session, want: &Gtids, end: Instant) -> Result<(), DriverError> {
    loop {
        let now = look(session).await?;
        // What is in the log but not yet applied is a replicated transaction in the middle of its commit.
        if now.applied.covers(want) || (now.position.covers(want) && !now.source.as_ref().is_some_and(Source::applies)) {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!(
                "position {want} was not reached in time: {} transactions are missing",
                now.position.missing(want)
            );
            return Err(DriverError::new(ErrorKind::Timeout, text));
        }
        let applier_failed = now
            .source
            .as_ref()
            .filter(|source| !source.applies() && source.applier_error.0 != 0);
        if let Some(source) = applier_failed {
            let text = format!("position {want} cannot be reached: {}", source.error().unwrap_or_default());
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        let slice = left.min(SLICE).as_secs_f64();
        let wait = "SELECT MASTER_GTID_WAIT(?, ?)";
        let _: Vec<Option<i64>> = session.rows("wait for a position", wait, (want.position().0, slice)).await?;
    }
}

async fn wait_until_connected(session: &mut Session, to: &SourceEndpoint, end: Instant) -> Result<(), DriverError> {
    loop {
        let now = look(session).await?;
        let Some(source) = &now.source else {
            return Err(DriverError::new(
                ErrorKind::Failed,
                "the source was taken away while it was being followed",
            ));
        };
        // Connected is not accepted: the source refuses a position it never had a moment later, before it names its log.
        let is_accepted = !source.coordinates[0].0.is_empty();
        if source.receives() && source.applies() && is_accepted {
            return Ok(());
        }
        let (number, words) = &source.receiver_error;
        let at = format!("{}:{}", to.host, to.port);
        if REFUSED.contains(number) {
            let text = format!("source {at} refuses the replica's account: {words} ({number})");
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        let gave_up = source.receiver == "No" && *number != 0;
        let broke = !source.applies() && source.applier_error.0 != 0;
        if gave_up || broke {
            let text = format!("could not follow {at}: {}", source.error().unwrap_or_default());
            let diverged = gave_up && *number == 1236;
            return Err(DriverError::new(
                if diverged { ErrorKind::WrongData } else { ErrorKind::Failed },
                text,
            ));
        }
        if Instant::now() >= end {
            let why = source.error().unwrap_or_else(|| "no answer yet".to_owned());
            let text = format!("source {at} is not reached, trying goes on: {why}");
            return Err(DriverError::new(ErrorKind::Timeout, text));
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datastore_api::{ReplicaLogin, Secret};

    fn plan(host: &str, password: &str) -> FollowPlan {
        FollowPlan {
            source: SourceEndpoint {
                host: host.to_owned(),
                port: 3306,
            },
            login: ReplicaLogin {
                user: "r".to_owned(),
                password: Secret::from(password),
            },
            start: Start::Current,
            tls: None,
        }
    }

    #[test]
    fn the_statement_is_quoted() {
        let text = change_master(&plan("fd00::7", "it's \\ this"));
        assert!(
            text.contains("MASTER_HOST = 'fd00::7'") && text.contains("MASTER_PASSWORD = 'it''s \\ this'"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for (host, password) in [("", "x"), ("a'b", "x"), ("a b", "x"), ("h", ""), ("h", "a\nb")] {
            assert!(check(&plan(host, password)).is_err(), "{host:?} {password:?}");
        }
    }
}
