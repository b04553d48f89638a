//! Transactions that a source never had, out of this server's binary logs and into a text that a person can read and apply. The files
//! are read, not the server: it may run or not.

use super::binlog::{self, Id, Kind};
use super::gtid::Gtids;
use super::sql_text::{Filter, utc};
use crate::datastore::Server;
use crate::{errors, password};
use datastore_api::{Cmd, DriverError, ErrorKind, ExposeSecret, FileMode, Pipes, Position, Saved};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;

/// How much of a log is looked at in one step.
const STEP: usize = 1 << 20;
/// Longest header of a log: the list of transactions before it.
const LONGEST_HEAD: usize = 256 << 10;
/// Limit of the tool without progress.
const IDLE: Duration = Duration::from_secs(60);

/// Transactions of one log that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    log: PathBuf,
    /// Bytes of the file, the first and the one after the last.
    from: u64,
    to: u64,
    first: Id,
    last: Id,
    count: u64,
}

impl Server {
    pub(super) async fn save_own(&self, source: &Position, folder: &Path) -> Result<Option<Saved>, DriverError> {
        let source = Gtids::parse(&source.0)?;
        let mut runs = Vec::new();
        let (logs, is_all) = self.logs_with_more(&source).await?;
        for log in logs {
            self.scan(&log, &source, &mut runs).await?;
        }
        let transactions = runs.iter().map(|run| run.count).sum();
        if transactions == 0 {
            return Ok(None);
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let time = utc(now);
        let id = password::generate(16)?.expose_secret()[..8].to_ascii_lowercase();
        let path = folder.join(format!("errant-{}-{id}.sql", time.replace([':', '-'], "")));
        let host = &self.context.host;
        let mode = FileMode {
            mode: 0o600,
            owner: None,
        };
        let failed = |error| errors::file("write", &path, error);
        host.write_atomic(&path, self.preface(&runs, is_all, &time).as_bytes(), &mode)
            .await
            .map_err(failed)?;
        let written = async {
            for run in &runs {
                self.copy_statements(run, &path).await?;
            }
            let end = format!("-- end of {transactions} transactions\n");
            host.append(&path, end.into_bytes()).await.map_err(failed)
        };
        let bytes = match written.await {
            Ok(bytes) => bytes,
            Err(error) => {
                // Half of it must not be taken for all of it.
                let _ = host.remove(&path).await;
                return Err(error);
            }
        };
        tracing::warn!(path = %path.display(), transactions, bytes, "transactions that the source never had were saved");
        Ok(Some(Saved {
            path,
            transactions,
            bytes,
        }))
    }

    fn preface(&self, runs: &[Run], is_all: bool, time: &str) -> String {
        let transactions: u64 = runs.iter().map(|run| run.count).sum();
        let mut text = format!(
            "-- {transactions} transactions of instance {}, which its source never had; saved {time}.\n\
             -- To apply them, look at each: newer ones of the source may contradict it. They get new ids.\n\
             -- A statement may be as long as its transaction: max_allowed_packet of client and server must allow it.\n",
            self.context.instance_id
        );
        if !is_all {
            text.push_str("-- There may have been older ones: the logs before are gone.\n");
        }
        for Run { first, last, count, .. } in runs {
            let (from, to) = (written(*first), written(*last));
            text.push_str(&match count {
                1 => format!("--   {from}\n"),
                _ => format!("--   {from} to {to} ({count})\n"),
            });
        }
        text
    }

    /// The binary logs from the first on that may have something `source` has not, oldest first; and whether nothing is missing before.
    async fn logs_with_more(&self, source: &Gtids) -> Result<(Vec<PathBuf>, bool), DriverError> {
        let host = &self.context.host;
        let name = self.flavour.replication.iter().find(|(key, _)| *key == "log_bin");
        let index = self
            .layout
            .data
            .join(format!("{}.index", name.map_or("binlog", |(_, name)| name)));
        let read = host.read(&index).await.map_err(|error| errors::file("read", &index, error))?;
        let names = String::from_utf8(read.unwrap_or_default()).unwrap_or_default();
        let (mut logs, mut is_all) = (Vec::new(), true);
        for name in names.lines().rev().map(str::trim).filter(|name| !name.is_empty()) {
            let log = self.layout.data.join(name);
            let before = self.before(&log).await?;
            logs.insert(0, log);
            is_all = before
                .as_ref()
                .is_some_and(|ids| ids.iter().all(|id| source.has(id.domain, id.server, id.sequence)));
            if is_all {
                break;
            }
        }
        if logs.is_empty() {
            return Err(unreadable(&index, "it names no log"));
        }
        Ok((logs, is_all))
    }

    /// The last transactions before this log; `None` if it does not tell.
    async fn before(&self, log: &Path) -> Result<Option<Vec<Id>>, DriverError> {
        let mut at = MAGIC_LENGTH;
        let head = self.range(log, 0, LONGEST_HEAD).await?;
        if !head.starts_with(binlog::MAGIC) {
            return Err(unreadable(log, "it is no binary log"));
        }
        while let Some(event) = head.get(at..).and_then(binlog::event) {
            match event.kind {
                Kind::List => return Ok(binlog::list(&head[at..])),
                Kind::Encrypted => return Err(encrypted(log)),
                Kind::Begin(_) => break,
                Kind::Other => at += usize::try_from(event.length).unwrap_or(usize::MAX),
            }
        }
        Ok(None)
    }

    /// Adds the transactions of a log that the source has not.
    async fn scan(&self, log: &Path, source: &Gtids, runs: &mut Vec<Run>) -> Result<(), DriverError> {
        let (mut at, mut chunk, mut base) = (MAGIC_LENGTH as u64, Vec::new(), 0);
        // Whether the transaction at `at` belongs to the last run.
        let mut is_open = false;
        loop {
            let inside = usize::try_from(at - base).unwrap_or(usize::MAX);
            let event = match chunk.get(inside..).and_then(binlog::event) {
                Some(event) => event,
                None if base == at && !chunk.is_empty() => break,
                None => {
                    (base, chunk) = (at, self.range(log, at, STEP).await?);
                    if chunk.is_empty() {
                        break;
                    }
                    continue;
                }
            };
            if event.kind == Kind::Encrypted {
                return Err(encrypted(log));
            }
            let end = at + event.length;
            if end > base + chunk.len() as u64 && self.range(log, end - 1, 1).await?.is_empty() {
                // The server died while it wrote it.
                break;
            }
            if let Kind::Begin(id) = event.kind {
                let is_errant = !source.has(id.domain, id.server, id.sequence);
                if is_errant && !is_open {
                    let (from, to, log) = (at, end, log.to_owned());
                    let (first, last, count) = (id, id, 0);
                    runs.push(Run {
                        log,
                        from,
                        to,
                        first,
                        last,
                        count,
                    });
                }
                is_open = is_errant;
                if let Some(run) = runs.last_mut().filter(|_| is_open) {
                    (run.last, run.count) = (id, run.count + 1);
                }
            }
            at = end;
            if let Some(run) = runs.last_mut().filter(|_| is_open) {
                run.to = at;
            }
        }
        Ok(())
    }

    async fn copy_statements(&self, run: &Run, into: &Path) -> Result<(), DriverError> {
        let doing = "read transactions from a binary log";
        let cmd = Cmd::new(self.flavour.log_tool)
            .arg("--no-defaults")
            .arg(format!("--start-position={}", run.from))
            .arg(format!("--stop-position={}", run.to))
            .arg(run.log.display().to_string())
            .user(self.context.service_user.clone())
            .deadline(IDLE);
        let spawned = self.context.host.spawn(cmd, Pipes::Stdout).await;
        let mut running = spawned.map_err(|error| errors::program(doing, error))?;
        let mut output = running.stdout.take().expect("its standard output was asked for");
        let (mut filter, mut buffer, mut kept) = (Filter::default(), vec![0; 64 << 10], Vec::new());
        loop {
            let read = output.read(&mut buffer).await;
            let n = read.map_err(|error| DriverError::caused(ErrorKind::Failed, format!("could not {doing}"), error))?;
            filter.pass(&buffer[..n], &mut kept);
            if n == 0 || kept.len() >= STEP {
                let appended = self.context.host.append(into, std::mem::take(&mut kept)).await;
                appended.map_err(|error| errors::file("write", into, error))?;
            }
            if n == 0 {
                break;
            }
        }
        running.wait().await.map(drop).map_err(|error| errors::program(doing, error))
    }

    async fn range(&self, path: &Path, from: u64, limit: usize) -> Result<Vec<u8>, DriverError> {
        let read = self.context.host.read_range(path, from, limit).await;
        let bytes = read.map_err(|error| errors::file("read", path, error))?;
        bytes.ok_or_else(|| unreadable(path, "it is gone"))
    }
}

/// Where the first event is.
const MAGIC_LENGTH: usize = binlog::MAGIC.len();

fn written(id: Id) -> String {
    format!("{}-{}-{}", id.domain, id.server, id.sequence)
}

fn unreadable(log: &Path, why: &str) -> DriverError {
    DriverError::new(
        ErrorKind::Failed,
        format!("could not read binary log {}: {why}", log.display()),
    )
}

fn encrypted(log: &Path) -> DriverError {
    let text = format!(
        "binary log {} is encrypted: what only this server has cannot be saved from it",
        log.display()
    );
    DriverError::new(ErrorKind::NotSupported, text)
}
