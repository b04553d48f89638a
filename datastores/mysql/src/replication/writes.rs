//! Writes of users: blocked and opened again.
//!
//! `read_only` is set by one statement that waits for every write under way and lets no new one begin; when it is through, nothing can
//! be committed any more, so what is left (idle transactions) is only tidied up. While it waits, its way is cleared: idle transactions
//! at once (a writer may wait for their locks), writers after their grace, and then whoever holds a lock without showing it.
//!
//! The whole runs in a task of its own: a caller that goes away does not leave it half done.

use super::sessions::{self, Client, Doing};
use super::status;
use crate::conn::{Session, Sql};
use crate::datastore::Server;
use crate::errors;
use datastore_api::{BlockLimits, Blocked, Change, DriverError, ErrorKind};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

/// How long the statement may take before anybody is looked at.
const FIRST_LOOK: Duration = Duration::from_millis(4);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(15);
/// After killing the writers, how long the way may still be closed before everybody is ended.
const LAST: Duration = Duration::from_millis(150);
/// How long, and for how many looks in a row, the way may be closed while nobody is seen in it. The statement itself may only be waiting
/// for the processor.
const UNSEEN: Duration = Duration::from_millis(150);
const UNSEEN_LOOKS: u32 = 6;
/// How long taking it back may take.
const UNDO_LIMIT: Duration = Duration::from_secs(2);

impl Server {
    pub(super) async fn close_writes(&self, limits: &BlockLimits) -> Result<Blocked, DriverError> {
        let (role, limits) = (Arc::clone(&self.role), *limits);
        let closing = tokio::spawn(async move { close(&role, limits).await });
        closing
            .await
            .map_err(|error| DriverError::caused(ErrorKind::Failed, "could not block writes", error))?
    }

    pub(super) async fn reopen_writes(&self) -> Result<Change, DriverError> {
        let mut session = self.role_session().await?;
        let closed = "SELECT @@global.read_only; SET GLOBAL read_only = 0";
        let sets = session.sets("open writes", closed).await?;
        let was: Option<u8> = sets.first().and_then(|rows| rows.first()?.get(0));
        Ok(if was == Some(0) { Change::Unchanged } else { Change::Done })
    }

    /// Ends all sessions of clients.
    pub(super) async fn end_clients(&self) -> Result<u64, DriverError> {
        let mut session = self.role_session().await?;
        let clients = sessions::list(&mut session).await?;
        let ids: Vec<u64> = clients
            .iter()
            .filter(|client| !client.is_agent)
            .map(|client| client.id)
            .collect();
        sessions::kill(&mut session, &ids).await?;
        Ok(ids.len() as u64)
    }
}

/// The sessions that were ended so far.
#[derive(Default)]
struct Ended {
    /// When the sessions were looked at first: what the server says about transactions is no older, and may be no newer.
    first_look: Option<Instant>,
    /// How long after that the last look was.
    age: Duration,
    idle: HashSet<u64>,
    writers: HashSet<u64>,
    others: HashSet<u64>,
}

impl Ended {
    async fn look(&mut self, side: &mut Session) -> Result<Vec<Client>, DriverError> {
        let now = Instant::now();
        let clients = sessions::list(side).await?;
        self.age = now - *self.first_look.get_or_insert(now);
        Ok(clients)
    }

    /// Ends a session once.
    fn choose(&mut self, client: &Client) -> bool {
        let known = |set: &HashSet<u64>| set.contains(&client.id);
        if [&self.idle, &self.writers, &self.others].into_iter().any(known) {
            return false;
        }
        match client.doing {
            // Its transaction may be over: it did something since the first look.
            Doing::Dawdles if client.lasts < self.age => self.others.insert(client.id),
            Doing::Dawdles => self.idle.insert(client.id),
            Doing::Writes | Doing::Waits => self.writers.insert(client.id),
            Doing::Nothing | Doing::Reads => self.others.insert(client.id),
        }
    }
}

async fn close(role: &Arc<Sql>, limits: BlockLimits) -> Result<Blocked, DriverError> {
    let begun = Instant::now();
    let end = begun + limits.limit;
    let mut side = role.session().await?;
    let was: Vec<u8> = side
        .rows("look whether writes are open", "SELECT @@global.read_only", ())
        .await?;
    let was_open = was != [1];
    let mut ended = Ended::default();
    let closed = if was_open {
        let main = role.session().await?;
        set_read_only(main, &mut side, begun, &limits, &mut ended).await
    } else {
        Ok(())
    };
    let closed = match closed {
        Ok(()) => settle(&mut side, end, &mut ended).await,
        Err(error) => Err(error),
    };
    match closed {
        Ok(position) => {
            if !ended.others.is_empty() {
                info!(
                    sessions = ended.others.len(),
                    "ended sessions that could write or hold locks unseen"
                );
            }
            Ok(Blocked {
                idle_ended: ended.idle.len() as u64,
                writers_killed: ended.writers.len() as u64,
                position: position.position(),
            })
        }
        Err(error) => {
            if was_open {
                undo(role).await;
            }
            Err(error)
        }
    }
}

/// Runs the statement and clears its way.
async fn set_read_only(
    mut main: Session,
    side: &mut Session,
    begun: Instant,
    limits: &BlockLimits,
    ended: &mut Ended,
) -> Result<(), DriverError> {
    let id = main.id();
    let end = begun + limits.limit;
    main.set_limit(limits.limit + UNDO_LIMIT);
    let setting = main.try_run("block writes", "SET GLOBAL read_only = 1");
    tokio::pin!(setting);
    let mut next = begun + FIRST_LOOK;
    let (mut unseen_since, mut unseen_looks) = (begun, 0);
    loop {
        tokio::select! {
            biased;
            set = &mut setting => {
                // Killed by somebody else is not set.
                return set?.map_err(|error| errors::sql("block writes", error));
            }
            () = sleep_until(next.min(end)) => {}
        }
        if Instant::now() >= end {
            let text = format!("writes could not be blocked within {:?}", limits.limit);
            let killed = sessions::kill_statement(side, id).await;
            if killed.is_err() || timeout(UNDO_LIMIT, &mut setting).await.is_err() {
                warn!("the statement that blocks writes could not be ended");
            }
            return Err(DriverError::new(ErrorKind::Timeout, text));
        }
        let waited = begun.elapsed();
        let grace_over = waited >= limits.grace;
        let everybody = waited >= limits.grace + LAST;
        let clients = ended.look(side).await?;
        // Nobody is seen writing: then a lock is held by a session that seems to do nothing.
        let seen = |client: &Client| matches!(client.doing, Doing::Writes | Doing::Waits | Doing::Dawdles);
        if clients.iter().any(|client| !client.is_agent && seen(client)) {
            (unseen_since, unseen_looks) = (Instant::now(), 0);
        } else {
            unseen_looks += 1;
        }
        let unseen = unseen_looks >= UNSEEN_LOOKS && unseen_since.elapsed() >= UNSEEN;
        let chosen: Vec<u64> = clients
            .iter()
            .filter(|client| !client.is_agent && client.id != u64::from(id))
            .filter(|client| match client.doing {
                Doing::Dawdles => true,
                Doing::Writes | Doing::Waits => grace_over,
                Doing::Nothing => everybody || unseen,
                Doing::Reads => everybody,
            })
            .filter(|client| ended.choose(client))
            .map(|client| client.id)
            .collect();
        sessions::kill(side, &chosen).await?;
        next = Instant::now() + EVERY;
    }
}

/// After `read_only` is set: ends idle transactions, which can never be committed, and those who may write all the same, and waits until
/// the latter are through. Then the position is final.
async fn settle(side: &mut Session, end: Instant, ended: &mut Ended) -> Result<super::gtid::Gtids, DriverError> {
    loop {
        let clients = ended.look(side).await?;
        let chosen: Vec<u64> = clients
            .iter()
            .filter(|client| !client.is_agent)
            .filter(|client| client.may_bypass || client.doing == Doing::Dawdles)
            .filter(|client| ended.choose(client))
            .map(|client| client.id)
            .collect();
        sessions::kill(side, &chosen).await?;
        let writes = |client: &Client| match client.doing {
            Doing::Writes | Doing::Waits => client.may_bypass,
            Doing::Dawdles => client.may_bypass && !client.is_agent,
            Doing::Nothing | Doing::Reads => false,
        };
        // Nobody who may write was there when the sessions were listed: nothing follows.
        if chosen.is_empty() && !clients.iter().any(writes) {
            return status::position(side).await;
        }
        if Instant::now() >= end {
            let text = "sessions that may write to a read-only server did not end in time";
            return Err(DriverError::new(ErrorKind::Timeout, text));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

async fn undo(role: &Arc<Sql>) {
    let opened = async {
        let mut session = role.session().await?;
        session.set_limit(UNDO_LIMIT);
        session.run("open writes again", "SET GLOBAL read_only = 0").await
    };
    if let Err(error) = opened.await {
        warn!(error = datastore_api::chain(&error), "writes could not be opened again");
    }
}
