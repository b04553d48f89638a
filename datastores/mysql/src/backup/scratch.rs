//! A server over restored data that nobody else reaches: it proves that a backup is one.

use super::room::Room;
use super::sample;
use crate::conn::{Pool, Session, Sql};
use crate::datastore::Server;
use crate::{errors, sql};
use async_trait::async_trait;
use datastore_api::{CheckReport, Cmd, DriverError, ErrorKind, ExecError, Output, Pipes, ScratchServer, TableSample, chain};
use mysql_async::Conn;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks whether it answers.
const POLL: Duration = Duration::from_millis(50);
/// It says nothing while all is well: this is the longest it may live.
const LIFE: Duration = Duration::from_secs(7 * 86_400);
/// How long it may take to end in order; its data are thrown away.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Problems that are told one by one.
const TOLD: usize = 20;
/// What the server must not do there: be seen, follow, write logs, run events, take the memory of the one beside it.
const ARGS: [&str; 16] = [
    "--skip-networking",
    "--skip-log-bin",
    "--skip-slave-start",
    "--read-only=1",
    "--event-scheduler=DISABLED",
    "--general-log=0",
    "--slow-query-log=0",
    "--performance-schema=0",
    "--max-statement-time=0",
    "--max-connections=10",
    "--innodb-buffer-pool-size=128M",
    "--innodb-fast-shutdown=2",
    "--loose-innodb-buffer-pool-load-at-startup=0",
    "--loose-innodb-buffer-pool-dump-at-shutdown=0",
    "--loose-rpl-semi-sync-master-enabled=0",
    "--loose-rpl-semi-sync-slave-enabled=0",
];

/// The running scratch server. Dropped, it is killed; its folder is removed by the next one there.
struct Scratch {
    server: Server,
    room: Room,
    sql: Sql,
    process: Process,
}

/// The process, killed when this is dropped.
struct Process(JoinHandle<Result<Output, ExecError>>);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    /// Starts a server over the room's data and waits until it answers.
    pub(super) async fn start_scratch(&self, room: &Room) -> Result<Box<dyn ScratchServer>, DriverError> {
        let (run, tmp) = (room.folder.join("run"), room.folder.join("tmp"));
        self.make_own_dir(&run).await?;
        self.make_own_dir(&tmp).await?;
        let (socket, log) = (run.join("s.sock"), run.join("error.log"));
        let mut cmd = Cmd::new(self.flavour.server)
            .arg(format!("--defaults-file={}", self.layout.base.display()))
            .arg(format!("--datadir={}", room.new.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", run.join("pid").display()))
            .arg(format!("--log-error={}", log.display()))
            .arg(format!("--tmpdir={}", tmp.display()))
            .user(self.context.service_user.clone())
            .deadline(LIFE)
            .give_way();
        cmd.args.extend(ARGS.iter().map(|arg| (*arg).to_owned()));
        let doing = "start a scratch server";
        let spawned = self.context.host.spawn(cmd, Pipes::Stdout).await;
        let running = spawned.map_err(|error| errors::program(doing, error))?;
        let sql = Sql::new(&socket, self.flavour.role_setup, Arc::clone(&self.credentials), Pool::ROLE);
        let mut scratch = Scratch {
            server: self.clone(),
            room: room.clone(),
            sql,
            process: Process(tokio::spawn(running.wait())),
        };
        if let Err(error) = scratch.wait_until_it_answers().await {
            let bytes = self
                .context
                .host
                .read_tail(&log, 16 << 10)
                .await
                .ok()
                .flatten()
                .unwrap_or_default();
            let reason = crate::lifecycle::reason(&String::from_utf8_lossy(&bytes));
            return Err(DriverError::caused(
                ErrorKind::Failed,
                format!("the restored data do not start: {reason}"),
                error,
            ));
        }
        Ok(Box::new(scratch))
    }
}

impl Scratch {
    async fn wait_until_it_answers(&mut self) -> Result<(), DriverError> {
        let limit = self.server.context.state_change_limit;
        let end = Instant::now() + limit;
        let options = self.sql.options().await?;
        loop {
            if self.process.0.is_finished() {
                return Err(DriverError::new(
                    ErrorKind::Failed,
                    "the scratch server ended while it started",
                ));
            }
            let left = end.saturating_duration_since(Instant::now());
            match timeout(left, Conn::new(options.clone())).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if errors::kind(&error) == ErrorKind::Unavailable => {}
                Ok(Err(error)) => return Err(errors::sql("log in to the scratch server", error)),
                Err(_) => {}
            }
            if Instant::now() >= end {
                let text = format!("the scratch server did not answer within {limit:?}");
                return Err(DriverError::new(ErrorKind::Timeout, text));
            }
            sleep(POLL).await;
        }
    }

    /// All tables, the small ones first.
    async fn tables(&self, session: &mut Session) -> Result<Vec<(String, String)>, DriverError> {
        let query = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' \
                     AND TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema') \
                     ORDER BY COALESCE(DATA_LENGTH, 0) + COALESCE(INDEX_LENGTH, 0)";
        session.rows("list the tables of the scratch server", query, ()).await
    }
}

/// What the engine's check has against a table.
async fn check_table(session: &mut Session, database: &str, table: &str) -> Result<Vec<String>, DriverError> {
    let name = format!("{}.{}", sql::name(database), sql::name(table));
    let doing = "check a table";
    let rows = session
        .try_text_rows::<(String, String, String, String)>(doing, format!("CHECK TABLE {name}"))
        .await?;
    let rows = rows.map_err(|error| errors::sql(doing, error))?;
    let bad = rows.into_iter().filter(|(_, _, kind, text)| {
        let is_fine = kind == "status" && (text == "OK" || text.contains("already up to date"));
        !is_fine && kind != "note" && !text.contains("doesn't support check")
    });
    Ok(bad
        .map(|(_, _, _, text)| format!("table {database}.{table}: {text}"))
        .collect())
}

#[async_trait]
impl ScratchServer for Scratch {
    async fn check(&self, sample: &[TableSample], budget: Duration) -> Result<CheckReport, DriverError> {
        let end = Instant::now() + budget;
        let mut report = CheckReport {
            complete: true,
            ..CheckReport::default()
        };
        let mut session = self.sql.session().await?;
        session.set_limit(budget.max(Duration::from_secs(1)));
        for wanted in sample {
            let have = sample::read_table(&mut session, &wanted.database, &wanted.table).await?;
            report.compared += 1;
            if have.as_ref() != Some(wanted) {
                let rows = have.map_or_else(|| "cannot be read".to_owned(), |have| format!("has {} rows", have.rows));
                report.problems.push(format!(
                    "table {}.{} is not as it was ({} rows): it {rows}",
                    wanted.database, wanted.table, wanted.rows
                ));
            }
        }
        let tables = self.tables(&mut session).await?;
        report.tables = tables.len() as u64;
        for (database, table) in tables {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                report.complete = false;
                break;
            }
            session.set_limit(left);
            match check_table(&mut session, &database, &table).await {
                Ok(problems) => report.problems.extend(problems),
                Err(error) if error.kind() == ErrorKind::Timeout && Instant::now() >= end => {
                    report.complete = false;
                    break;
                }
                Err(error) => {
                    report.problems.push(format!("table {database}.{table}: {}", chain(&error)));
                    if self.process.0.is_finished() || error.kind() == ErrorKind::Unavailable {
                        report
                            .problems
                            .push("the server died while its tables were checked".to_owned());
                        report.complete = false;
                        break;
                    }
                }
            }
            report.checked += 1;
        }
        let more = report.problems.len().saturating_sub(TOLD);
        report.problems.truncate(TOLD);
        if more > 0 {
            report.problems.push(format!("and {more} more"));
        }
        Ok(report)
    }

    async fn close(mut self: Box<Self>) -> Result<(), DriverError> {
        if let Ok(mut session) = self.sql.session().await {
            // It answers by its end.
            let _ = session.try_run("end the scratch server", "SHUTDOWN").await;
        }
        self.sql.forget_idle();
        if timeout(STOP_LIMIT, &mut self.process.0).await.is_err() {
            self.process.0.abort();
            // Killed, it is gone in a moment; what it still writes meanwhile is removed below.
            let _ = timeout(STOP_LIMIT, &mut self.process.0).await;
            sleep(Duration::from_millis(500)).await;
        }
        self.server.remove_room(&self.room).await
    }
}
