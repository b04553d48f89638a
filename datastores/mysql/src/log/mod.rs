//! The binary log: followed as the server writes it, and replayed over restored data.
//!
//! Owns: what a log's bytes mean, reading of the server's log files, the replay. Uses: the files themselves (the server may run or not),
//! `conn` for what only the server can do. Never does: keep the log anywhere, know why it is read.
//!
//! ```text
//! follow   files ── reader ── pieces of whole transactions
//! replay   stretches ── sieve (had already? wanted?) ── relay ── a server that nobody reaches applies them
//!                       walk · event                 transactions and bytes, pure
//! ```
//!
//! Why the server itself applies a log, as a replica's applier: it alone knows all its forms (rows, statements with their variables,
//! DDL, XA, temporary tables) and keeps the transactions' ids. What is applied, and where it stops, is decided before: the relay logs it
//! gets hold exactly that.

mod event;
mod files;
mod reader;
mod relay;
mod replay;
mod sieve;
mod walk;

use crate::datastore::Server;
use crate::errors;
use crate::replication::Gtids;
use crate::sql;
use async_trait::async_trait;
use datastore_api::{Beginning, Change, DriverError, ErrorKind, LogBreak, LogCursor, LogFile, LogReader, Logs, Mark, Position};
use files::{Files, Head};
use reader::Reader;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Who begins to read begins with the file that was current so long ago, in seconds: a source that has just taken over has in its log
/// what the one before could not send any more.
const REACH_BACK: u64 = 3600;

#[async_trait]
impl Logs for Server {
    async fn files(&self) -> Result<Vec<LogFile>, DriverError> {
        let mut session = self.role.session().await?;
        let doing = "list the binary logs";
        let rows = session.try_text_rows::<(String, u64)>(doing, "SHOW BINARY LOGS").await?;
        let rows = rows.map_err(|error| errors::sql(doing, error))?;
        Ok(rows.into_iter().map(|(name, bytes)| LogFile { name, bytes }).collect())
    }

    async fn follow(&self, from: Option<&LogCursor>) -> Result<(Box<dyn LogReader>, Beginning), DriverError> {
        let files = self.log_files();
        let anew = match from {
            None => (LogBreak::First, "nothing was read before".to_owned()),
            Some(cursor) => match Reader::at(files.clone(), cursor).await? {
                Ok(reader) => return Ok((Box::new(reader), Beginning::Resumed)),
                Err(why) => why,
            },
        };
        let (name, head) = best_start(&files, from).await?;
        let (why, text) = anew;
        let reader = Reader::at_start(files, name, head);
        Ok((Box::new(reader), Beginning::Anew { why, text }))
    }

    async fn bytes(&self, file: &str, from: u64, to: u64) -> Result<Option<Vec<u8>>, DriverError> {
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let bytes = self.log_files().range(file, from, length).await?;
        Ok(bytes.filter(|bytes| bytes.len() == length))
    }

    async fn hold(&self, from: Option<&str>) -> Result<Change, DriverError> {
        let mut session = self.role.session().await?;
        let doing = "look how long binary logs are kept";
        let query = "SELECT CAST(GLOBAL_VALUE AS UNSIGNED), GLOBAL_VALUE_ORIGIN FROM information_schema.SYSTEM_VARIABLES \
                     WHERE VARIABLE_NAME = 'binlog_expire_logs_seconds'";
        let rows: Vec<(u64, String)> = session.rows(doing, query, ()).await?;
        let (now, origin) = rows.into_iter().next().unwrap_or_default();
        let wanted = match from {
            Some(_) if now == 0 => return Ok(Change::Unchanged),
            Some(_) => {
                self.log_seconds.store(now, Ordering::Relaxed);
                0
            }
            // What the option file says is in force; only what was set here is taken back.
            None if now != 0 || origin != "SQL" => return Ok(Change::Unchanged),
            None => self.log_seconds.load(Ordering::Relaxed),
        };
        let set = format!("SET GLOBAL binlog_expire_logs_seconds = {wanted}");
        session.run("set how long binary logs are kept", set).await?;
        Ok(Change::Done)
    }

    async fn drop_before(&self, file: &str) -> Result<Change, DriverError> {
        let mut session = self.role.session().await?;
        let purge = format!("PURGE BINARY LOGS TO {}", sql::text(file));
        session.run("drop old binary logs", purge).await?;
        Ok(Change::Done)
    }

    fn marks(&self, position: &Position) -> Result<Vec<Mark>, DriverError> {
        Ok(Gtids::parse(&position.0)?.marks())
    }

    fn position(&self, marks: &[Mark]) -> Position {
        let ids: Vec<String> = marks
            .iter()
            .map(|mark| format!("{}-{}-{}", mark.domain, mark.writer, mark.number))
            .collect();
        Position(ids.join(","))
    }
}

impl Server {
    fn log_files(&self) -> Files {
        let name = self.flavour.replication.iter().find(|(key, _)| *key == "log_bin");
        let name = name.map_or("binlog", |(_, name)| name);
        Files {
            host: Arc::clone(&self.context.host),
            folder: self.layout.data.clone(),
            index: self.layout.data.join(format!("{name}.index")),
        }
    }
}

/// The newest file whose beginning the cursor covers, or that was current a while ago; the oldest one if there is none such.
async fn best_start(files: &Files, cursor: Option<&LogCursor>) -> Result<(String, Head), DriverError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since = now.as_secs().saturating_sub(REACH_BACK);
    let mut best = None;
    for name in files.names().await?.into_iter().rev() {
        let Some(head) = files.head(&name).await? else { continue };
        let had = |mark: &Mark| {
            let known = cursor.map(|cursor| &cursor.before).into_iter().flatten();
            known
                .into_iter()
                .any(|before| before.domain == mark.domain && before.number >= mark.number)
        };
        let is_enough = match cursor {
            Some(_) => head.list.values().all(had),
            None => u64::from(head.format.time) <= since,
        };
        best = Some((name, head));
        if is_enough {
            break;
        }
    }
    best.ok_or_else(|| {
        let text = format!("{} names no binary log that can be read", files.index.display());
        DriverError::new(ErrorKind::Unavailable, text)
    })
}

#[cfg(test)]
mod tests;
