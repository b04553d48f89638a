//! The replay: what the sieve lets through becomes relay logs, and a server that nobody reaches applies them to the restored data.
//!
//! It runs beside the old one: own folder, own socket, no network, no log of its own, another identity than any writer of the log (a server
//! leaves out what it wrote itself). Event scheduler off: what its events did is in the log.

use super::event::Format;
use super::relay::{FIRST, NAME, Relay};
use super::sieve::{Sieve, shown};
use super::walk::Marks;
use crate::conn::{Pool, Session, Sql};
use crate::datastore::Server;
use crate::replication::Gtids;
use crate::{errors, sql};
use datastore_api::{Cmd, DriverError, ErrorKind, ExecError, LogSource, Pipes, Position, ReplayPlan, Replayed};
use futures_util::future::BoxFuture;
use mysql_async::Row;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks at a server that starts or applies.
const POLL: Duration = Duration::from_millis(50);
/// How long a server may take to start over restored data, and to stop.
const START: Duration = Duration::from_secs(600);
/// No server of ours has this identity.
const NOBODY: u32 = u32::MAX;
/// The old server still has its memory.
const MEMORY: &str = "256M";
/// Appliers.
const APPLIERS: u32 = 4;
/// Disk that must stay free beside the log and what it grows the data by.
const SPARE: u64 = 128 << 20;

/// A server that only we reach. Dropped, it is killed.
struct Hidden {
    sql: Sql,
    end: BoxFuture<'static, Result<(), ExecError>>,
    log: PathBuf,
}

impl Server {
    /// Applies a log to the prepared data in `folder`, which are at `from`, have the agent's own accounts, and which no server uses.
    pub(crate) async fn replay_into(
        &self,
        folder: &Path,
        from: &Position,
        plan: &ReplayPlan,
        log: &mut dyn LogSource,
    ) -> Result<Replayed, DriverError> {
        let end = Instant::now() + plan.limit;
        let have: Marks = Gtids::parse(&from.0)?
            .marks()
            .into_iter()
            .map(|mark| (mark.domain, mark))
            .collect();
        let mut sieve = Sieve::new(have, plan.until)?;
        self.check_replay_space(folder, plan.bytes).await?;
        self.clear_replay(folder).await?;
        let mut relay = Relay::new(Arc::clone(&self.context.host), folder, &self.context.service_user);
        let taken = self.take_log(&mut sieve, &mut relay, log, end).await;
        let first = match taken {
            Ok(()) => relay.finish().await?,
            Err(error) => return Err(error),
        };
        let marks: Vec<_> = sieve.have.values().copied().collect();
        let replayed = Replayed {
            position: datastore_api::Logs::position(self, &marks),
            transactions: sieve.count,
            last_time: sieve.last_time,
        };
        if let Some(first) = first.filter(|_| sieve.count > 0) {
            let mut hidden = self.start_hidden(folder).await?;
            let applied = tokio::select! {
                applied = apply(&hidden.sql, from, &first, &sieve, end) => applied,
                died = &mut hidden.end => Err(self.hidden_died(died, &hidden.log).await),
            };
            applied?;
            self.stop_hidden(hidden).await?;
        }
        self.clear_replay(folder).await?;
        tracing::info!(from = %from, to = %replayed.position, transactions = replayed.transactions, "a log was replayed");
        Ok(replayed)
    }

    async fn take_log(
        &self,
        sieve: &mut Sieve,
        relay: &mut Relay,
        log: &mut dyn LogSource,
        end: Instant,
    ) -> Result<(), DriverError> {
        while !sieve.reached {
            let left = end.saturating_duration_since(Instant::now());
            let next = timeout(left, log.next()).await.map_err(|_| late("the log did not come"))?;
            let Some(feed) = next? else { break };
            let format = Format::parse(&feed.stretch.head).map_err(|bad| {
                let text = format!("the log is damaged: {}: {bad}", feed.stretch.file);
                DriverError::new(ErrorKind::Failed, text)
            })?;
            relay.begin(&feed.stretch.file, &format).await?;
            sieve.pass(&feed, &format, &mut relay.buffer)?;
            relay.write().await?;
        }
        sieve.check_end()
    }

    async fn check_replay_space(&self, folder: &Path, bytes: u64) -> Result<(), DriverError> {
        let free = self.free_space(folder).await?;
        // The log itself, and at most as much again in the tables.
        let needed = bytes.saturating_mul(2).saturating_add(SPARE);
        if free >= needed {
            return Ok(());
        }
        let text = format!(
            "replaying {bytes} bytes of log needs {needed} bytes in {}, {free} are free",
            folder.display()
        );
        Err(DriverError::new(ErrorKind::NoSpace, text))
    }

    /// Removes what a replay leaves beside the data.
    async fn clear_replay(&self, folder: &Path) -> Result<(), DriverError> {
        let names = self.context.host.list_dir(folder).await;
        let names = names.map_err(|error| errors::file("list", folder, error))?;
        let is_ours = |name: &String| {
            name.strip_prefix(NAME).is_some_and(|rest| rest.starts_with('.'))
                || ["master.info", "relay-log.info", "multi-master.info"].contains(&name.as_str())
        };
        for name in names.unwrap_or_default().into_iter().filter(is_ours) {
            let path = folder.join(name);
            let removed = self.context.host.remove(&path).await;
            removed.map_err(|error| errors::file("remove", &path, error))?;
        }
        Ok(())
    }

    async fn start_hidden(&self, folder: &Path) -> Result<Hidden, DriverError> {
        self.make_runtime_folders().await?;
        let socket = self.layout.run.join("replay.sock");
        let log = self.layout.logs.join("replay.log");
        for path in [&socket, &log] {
            let removed = self.context.host.remove(path).await;
            removed.map_err(|error| errors::file("remove", path, error))?;
        }
        let mut cmd = Cmd::new(self.flavour.server)
            .arg(format!("--defaults-file={}", self.layout.base.display()))
            .arg(format!("--datadir={}", folder.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", self.layout.run.join("replay.pid").display()))
            .arg(format!("--log-error={}", log.display()))
            .arg(format!("--server-id={NOBODY}"))
            .arg(format!("--relay-log={NAME}"))
            .arg(format!("--relay-log-index={NAME}.index"))
            .arg(format!("--slave-parallel-threads={APPLIERS}"))
            .arg(format!("--innodb-buffer-pool-size={MEMORY}"))
            .user(self.context.service_user.clone())
            .deadline(Duration::from_secs(7 * 86_400));
        cmd.args.extend(HIDDEN.iter().map(|arg| (*arg).to_owned()));
        let doing = "start a server for the replay";
        let running = self.context.host.spawn(cmd, Pipes::Stdout).await;
        let running = running.map_err(|error| errors::program(doing, error))?;
        let mut end: BoxFuture<'static, _> = Box::pin(async move { running.wait().await.map(drop) });
        let sql = Sql::new(&socket, self.flavour.role_setup, Arc::clone(&self.credentials), Pool::ROLE);
        let answers = async {
            loop {
                if socket.exists() {
                    match sql.session().await {
                        Ok(_) => return Ok(()),
                        Err(error) if error.kind() == ErrorKind::Unavailable => {}
                        Err(error) => return Err(error),
                    }
                }
                sleep(POLL).await;
            }
        };
        let started = tokio::select! {
            answered = timeout(START, answers) => answered.map_err(|_| late("the server for the replay did not answer"))?,
            died = &mut end => Err(self.hidden_died(died, &log).await),
        };
        started.map(|()| Hidden { sql, end, log })
    }

    async fn hidden_died(&self, ended: Result<(), ExecError>, log: &Path) -> DriverError {
        let tail = self
            .context
            .host
            .read_tail(log, 16 << 10)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        let reason = crate::lifecycle::reason(&String::from_utf8_lossy(&tail));
        let kind = if errors::is_full(&reason) {
            ErrorKind::NoSpace
        } else {
            ErrorKind::Failed
        };
        let text = format!("the server for the replay ended: {reason}");
        match ended {
            Err(error) => DriverError::caused(kind, text, error),
            Ok(()) => DriverError::new(kind, text),
        }
    }

    async fn stop_hidden(&self, hidden: Hidden) -> Result<(), DriverError> {
        let Hidden { sql, end, log } = hidden;
        let mut session = sql.session().await?;
        let doing = "stop the server of the replay";
        session.run(doing, "SHUTDOWN").await?;
        drop(session);
        sql.forget_idle();
        match timeout(START, end).await {
            Ok(Ok(())) => Ok(()),
            Ok(died) => Err(self.hidden_died(died, &log).await),
            Err(_) => Err(late("the server of the replay did not stop")),
        }
    }
}

/// What the server for the replay is told beside paths and figures, whatever its option file says.
const HIDDEN: [&str; 17] = [
    "--skip-networking",
    "--skip-log-bin",
    "--skip-slave-start",
    "--event-scheduler=OFF",
    "--read-only=0",
    "--init-connect=",
    "--init-slave=",
    "--slave-skip-errors=OFF",
    "--slave-exec-mode=STRICT",
    "--slave-run-triggers-for-rbr=NO",
    "--relay-log-recovery=0",
    "--max-statement-time=0",
    // A replay that is cut off is thrown away as a whole.
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-relay-log-info=0",
    "--performance-schema=0",
    "--loose-innodb-buffer-pool-load-at-startup=0",
    "--loose-innodb-buffer-pool-dump-at-shutdown=0",
];

async fn apply(hidden: &Sql, from: &Position, first: &str, sieve: &Sieve, end: Instant) -> Result<(), DriverError> {
    // One session for all: a statement of the log may change the very account that we log in with.
    let mut session = hidden.session().await?;
    let switched_off = "SELECT CONCAT(db, '.', name) FROM mysql.event WHERE status = 'SLAVESIDE_DISABLED'";
    let off_before: Vec<String> = session.rows("list the events", switched_off, ()).await?;
    let set = format!("SET GLOBAL gtid_slave_pos = {}", sql::text(&from.0));
    session.run("set the position to replay from", set).await?;
    let change = format!(
        "CHANGE MASTER TO MASTER_HOST = 'replay', MASTER_USER = 'replay', MASTER_USE_GTID = no, RELAY_LOG_FILE = {}, RELAY_LOG_POS = {FIRST}",
        sql::text(first)
    );
    session.run("set the log to replay", change).await?;
    session.run("start the replay", "START SLAVE SQL_THREAD").await?;
    wait_until_applied(&mut session, sieve, end).await?;
    session.run("end the replay", "STOP SLAVE").await?;
    session.run("end the replay", "RESET SLAVE ALL").await?;
    let off_now: Vec<String> = session.rows("list the events", switched_off, ()).await?;
    let off: Vec<String> = off_now.into_iter().filter(|name| !off_before.contains(name)).collect();
    if off.is_empty() {
        return Ok(());
    }
    // An applier switches events off, since they run on the source. This server is the source.
    if sieve.switches_events_off {
        tracing::warn!(
            events = off.join(", "),
            "events of the replayed log stay switched off: it is not known which of them were on"
        );
        return Ok(());
    }
    let names: Vec<String> = off.iter().map(|name| sql::text(name)).collect();
    let update = format!(
        "UPDATE mysql.event SET status = 'ENABLED' WHERE CONCAT(db, '.', name) IN ({})",
        names.join(", ")
    );
    session.run("switch on the events of the replayed log", update).await
}

async fn wait_until_applied(session: &mut Session, sieve: &Sieve, end: Instant) -> Result<(), DriverError> {
    let mut pause = Duration::from_millis(5);
    loop {
        let sets = session
            .sets(
                "look how far the replay is",
                "SELECT @@GLOBAL.gtid_slave_pos; SHOW SLAVE STATUS",
            )
            .await?;
        let value = |set: usize, column: &str| -> String {
            let row: Option<&Row> = sets.get(set).and_then(|rows| rows.first());
            let value = row.and_then(|row| row.get_opt::<Option<String>, _>(column));
            value.and_then(Result::ok).flatten().unwrap_or_default()
        };
        let now = Gtids::parse(&value(0, "@@GLOBAL.gtid_slave_pos"))?;
        if sieve.have.values().all(|mark| now.has(mark.domain, mark.writer, mark.number)) {
            return Ok(());
        }
        if value(1, "Slave_SQL_Running") == "No" {
            let text = format!(
                "the server refuses a transaction of the log after {}: {}",
                now.position(),
                value(1, "Last_SQL_Error")
            );
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        if Instant::now() >= end {
            let wanted: Vec<String> = sieve.have.values().map(|mark| shown(*mark)).collect();
            return Err(late(&format!(
                "the replay came to {} and not to {}",
                now.position(),
                wanted.join(",")
            )));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

fn late(text: &str) -> DriverError {
    DriverError::new(ErrorKind::Timeout, format!("{text} in time"))
}
