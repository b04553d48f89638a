//! What an acknowledged write is worth, and how the server starts by itself.

use super::sessions::{self, Doing};
use super::status::look;
use crate::conn::Session;
use crate::datastore::Server;
use datastore_api::{Change, DriverError, Durability, ServerStart};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::warn;

/// How long a commit waits for a replica before it goes on without, in milliseconds: semi-synchronous, and as good as for ever (ten
/// years; the server adds it to the time of day).
const SEMI_SYNC_MS: u64 = 10_000;
const FOR_EVER_MS: u64 = 315_360_000_000;
/// How long to go on ending commits that wait.
const WAITERS_LIMIT: Duration = Duration::from_secs(2);
/// The variables in the order they are set: nothing is switched on before its limits are as wanted.
const VARIABLES: [&str; 5] = [
    "rpl_semi_sync_master_wait_point",
    "rpl_semi_sync_master_timeout",
    "rpl_semi_sync_master_wait_no_slave",
    "rpl_semi_sync_slave_enabled",
    "rpl_semi_sync_master_enabled",
];

impl Server {
    pub(super) async fn change_durability(&self, mode: Durability, is_source: bool) -> Result<Change, DriverError> {
        let mut session = self.role_session().await?;
        let is_on = mode != Durability::Async;
        let is_durable = mode == Durability::Durable;
        let timeout = if is_durable { FOR_EVER_MS } else { SEMI_SYNC_MS };
        let wanted = [
            "AFTER_SYNC".to_owned(),
            timeout.to_string(),
            u8::from(is_durable).to_string(),
            u8::from(is_on).to_string(),
            u8::from(is_on && is_source).to_string(),
        ];
        let query = format!("SELECT {}", VARIABLES.map(|name| format!("@@global.{name}")).join(", "));
        let now = session.sets("read the durability of commits", query).await?;
        let row = now.first().and_then(|rows| rows.first());
        let is_now = |index: usize| row.and_then(|row| row.get::<String, _>(index)).unwrap_or_default();
        let changes: Vec<String> = VARIABLES
            .iter()
            .enumerate()
            .filter(|(index, _)| is_now(*index) != wanted[*index])
            .map(|(index, name)| {
                let quote = if index == 0 { "'" } else { "" };
                format!("GLOBAL {name} = {quote}{}{quote}", wanted[index])
            })
            .collect();
        if !is_source && is_now(4) == "1" {
            // Switched off, they would all be told that they succeeded, and no replica has them.
            end_waiting_commits(&mut session).await?;
        }
        if !changes.is_empty() {
            session
                .run("set the durability of commits", format!("SET {}", changes.join(", ")))
                .await?;
        }
        let was_on = is_now(3) == "1";
        let reconnected = self.reconnect_receiver(&mut session, was_on, is_on).await?;
        Ok(if changes.is_empty() { reconnected } else { Change::Done })
    }

    /// A receiver says whether it acknowledges when it connects.
    async fn reconnect_receiver(&self, session: &mut Session, was_on: bool, wanted: bool) -> Result<Change, DriverError> {
        let look = look(session).await?;
        let Some(source) = look.source.as_ref().filter(|source| source.wants_to_receive()) else {
            return Ok(Change::Unchanged);
        };
        let status = session
            .sets("look at the receiver", "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_slave_status'")
            .await?;
        let acknowledges = status
            .first()
            .and_then(|rows| rows.first()?.get::<String, _>(1))
            .is_some_and(|value| value == "ON");
        if was_on == wanted && acknowledges == wanted {
            return Ok(Change::Unchanged);
        }
        if !source.applies() && source.applier_error.0 == 0 {
            session.run("start the applier", "START SLAVE SQL_THREAD").await?;
        } else if !source.applies() {
            // Both threads stopped together would drop what was received.
            warn!("the applier does not run: how this replica acknowledges changes when it connects again");
            return Ok(Change::Unchanged);
        }
        session
            .sets("connect to the source again", "STOP SLAVE IO_THREAD; START SLAVE IO_THREAD")
            .await?;
        Ok(Change::Done)
    }

    /// Ends the sessions whose commits wait now. The ones after them are acknowledged as ever, and with them all that came before.
    pub(super) async fn end_stuck_commits(&self) -> Result<Change, DriverError> {
        let mut session = self.role_session().await?;
        let clients = sessions::list(&mut session).await?;
        let waiting: Vec<u64> = clients
            .iter()
            .filter(|client| client.doing == Doing::Waits)
            .map(|client| client.id)
            .collect();
        if waiting.is_empty() {
            return Ok(Change::Unchanged);
        }
        warn!(
            commits = waiting.len(),
            "ended commits that no replica will acknowledge any more"
        );
        sessions::kill(&mut session, &waiting).await?;
        Ok(Change::Done)
    }

    pub(super) async fn write_start(&self, start: ServerStart) -> Result<Change, DriverError> {
        let mut wanted = crate::config::option_file::Parameters::new();
        if start.closed {
            wanted.insert("read_only".to_owned(), "1".to_owned());
        }
        if start.yields {
            wanted.insert("init_rpl_role".to_owned(), "SLAVE".to_owned());
        }
        if start.acknowledges || start.yields {
            wanted.insert("rpl_semi_sync_slave_enabled".to_owned(), "1".to_owned());
        }
        self.write_role_layer(&wanted).await
    }
}

/// Ends all sessions whose commit waits for a replica: their clients are never told that it succeeded.
async fn end_waiting_commits(session: &mut Session) -> Result<(), DriverError> {
    let end = Instant::now() + WAITERS_LIMIT;
    loop {
        let clients = sessions::list(session).await?;
        let waiting: Vec<u64> = clients
            .iter()
            .filter(|client| client.doing == Doing::Waits)
            .map(|client| client.id)
            .collect();
        if waiting.is_empty() || Instant::now() >= end {
            return Ok(());
        }
        sessions::kill(session, &waiting).await?;
        sleep(Duration::from_millis(2)).await;
    }
}
