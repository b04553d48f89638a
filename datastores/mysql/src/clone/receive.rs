//! Receiving: this server's data are thrown away and replaced. From the mark on they are nobody's until the new server has answered.

use super::header::{self, Header};
use super::{BUFFER, IDLE, tool};
use crate::datastore::Server;
use crate::errors;
use crate::flavour::SYNC;
use crate::marker::Progress;
use datastore_api::{Change, Cmd, DriverError, ErrorKind, FileMode, Owner, Pipes, Position, Secret};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// What each part of the tool's own stream begins with.
const CHUNK: &[u8] = b"XBSTCK01";
/// How long the old server may take to stop: its data are worth nothing any more.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Limit of a program that reads or writes all of the data once.
const LONG: Duration = Duration::from_secs(6 * 3600);
/// Limit of a program with little to do.
const SHORT: Duration = Duration::from_secs(300);
/// Memory for applying the redo log. The server, which has more, is stopped.
const MEMORY: &str = "256M";
/// Files of the tool in the copy.
const TOOLS_FILES: [&str; 6] = [
    "backup-my.cnf",
    "xtrabackup_info",
    "xtrabackup_checkpoints",
    "xtrabackup_binlog_info",
    "xtrabackup_binlog_pos_innodb",
    "xtrabackup_slave_info",
];

type Source<'a> = BufReader<&'a mut (dyn AsyncRead + Send + Unpin)>;

impl Server {
    /// Replaces the data by the copy in the stream and starts the server read-only. Nothing is touched unless a copy begins to come
    /// that fits. May be repeated, whatever became of the time before.
    pub(crate) async fn receive_copy(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Position, DriverError> {
        let mut from = BufReader::with_capacity(BUFFER, from);
        let header = read_header(&mut from).await?;
        self.check_fits(&header).await?;
        self.throw_away(&header).await?;
        self.unpack(&mut from).await?;
        let position = self.check_unpacked().await?;
        self.apply_redo_log().await?;
        for name in TOOLS_FILES {
            let path = self.layout.data.join(name);
            let removed = self.context.host.remove(&path).await;
            removed.map_err(|error| errors::file("remove", &path, error))?;
        }
        self.set_own_accounts().await?;
        self.sync_data().await?;
        self.start_copy(&position).await?;
        self.unmark().await?;
        tracing::info!(%position, "data were replaced by a copy of the source's");
        Ok(position)
    }

    async fn check_fits(&self, header: &Header) -> Result<(), DriverError> {
        let own = self.installed_version().await?;
        let theirs = crate::prepare::numbers(&header.version).unwrap_or_default();
        if own.is_empty() || own.iter().zip(&theirs).take(2).filter(|(own, theirs)| own == theirs).count() < 2 {
            let own: Vec<String> = own.iter().map(u32::to_string).collect();
            let text = format!(
                "the copy is of a server {}, installed is {} {}",
                header.version.escape_debug(),
                self.flavour.title,
                own.join(".")
            );
            return Err(DriverError::new(ErrorKind::WrongData, text));
        }
        // A server that runs can say what its end will set free; without that only the emptied disk will tell.
        match self.data_size().await {
            Ok(freed) => self.check_space(header, freed).await,
            Err(_) => Ok(()),
        }
    }

    async fn data_size(&self) -> Result<u64, DriverError> {
        let mut session = self.role.session().await?;
        let query = "SELECT CAST(COALESCE(SUM(ALLOCATED_SIZE), 0) AS UNSIGNED) FROM information_schema.INNODB_SYS_TABLESPACES";
        let rows: Vec<u64> = session.rows("measure the data", query, ()).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    async fn check_space(&self, header: &Header, freed: u64) -> Result<(), DriverError> {
        let mount = &self.context.mount_point;
        let free = self.free_space(mount).await?.saturating_add(freed);
        let needed = header
            .bytes
            .saturating_add(header.bytes / 20)
            .saturating_add(self.flavour.least_space / 4);
        if free >= needed {
            return Ok(());
        }
        let text = format!("the copy needs {needed} bytes, {} has room for {free}", mount.display());
        Err(DriverError::new(ErrorKind::NoSpace, text))
    }

    /// The point of no return: marks, stops, empties.
    async fn throw_away(&self, header: &Header) -> Result<(), DriverError> {
        let (host, data) = (&self.context.host, &self.layout.data);
        self.mark(Progress::Replacing).await?;
        self.stop_server(STOP_LIMIT).await?;
        let cleared = host.clear_dir(data).await;
        cleared.map_err(|error| errors::file("clear", data, error))?;
        let mode = FileMode {
            mode: 0o700,
            owner: Some(Owner {
                user: self.context.service_user.clone(),
            }),
        };
        let made = host.make_dir(data, &mode).await;
        made.map_err(|error| errors::file("make", data, error))?;
        self.make_runtime_folders().await?;
        self.check_space(header, 0).await
    }

    async fn unpack(&self, from: &mut Source<'_>) -> Result<(), DriverError> {
        let doing = "unpack the copy";
        let cmd = Cmd::new(self.flavour.unpack_tool)
            .arg("--extract")
            .arg(format!("--directory={}", self.layout.data.display()))
            .user(self.context.service_user.clone())
            .deadline(IDLE);
        let spawned = self.context.host.spawn(cmd, Pipes::Stdin).await;
        let mut running = spawned.map_err(tool::failed(doing))?;
        let mut input = running.stdin.take().expect("its standard input was asked for");
        loop {
            let bytes = fill(from).await?;
            if bytes.is_empty() {
                break;
            }
            let n = bytes.len();
            if let Err(error) = input.write_all(bytes).await {
                // The tool has ended and knows better why.
                drop(input);
                let ended = running.wait().await.map_err(tool::failed(doing));
                return ended.and(Err(DriverError::caused(
                    ErrorKind::Failed,
                    format!("could not {doing}"),
                    error,
                )));
            }
            from.consume(n);
        }
        drop(input);
        let ended = running.wait().await.map(drop);
        ended.map_err(tool::failed("unpack the end of the copy, which may have been cut off"))
    }

    /// `Failed` unless what the tool writes last is there. Answers the position of the copy.
    async fn check_unpacked(&self) -> Result<Position, DriverError> {
        let is_whole = self.checkpoints().await?.contains("backup_type = full-backuped")
            && self.tools_file("xtrabackup_info").await?.contains("binlog_pos");
        let log = self.tools_file("xtrabackup_binlog_info").await?;
        if !is_whole || log.is_empty() {
            let text = "the copy is not complete: what its sender writes last is missing";
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        let gtids: Vec<&str> = log.split('\t').nth(2).unwrap_or_default().split_whitespace().collect();
        Ok(Position(gtids.concat()))
    }

    async fn checkpoints(&self) -> Result<String, DriverError> {
        self.tools_file("xtrabackup_checkpoints").await
    }

    /// The text of one of the tool's files; empty if it is not there.
    async fn tools_file(&self, name: &str) -> Result<String, DriverError> {
        let path = self.layout.data.join(name);
        let read = self.context.host.read_tail(&path, 64 << 10).await;
        let bytes = read.map_err(|error| errors::file("read", &path, error))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    }

    async fn apply_redo_log(&self) -> Result<(), DriverError> {
        let data = &self.layout.data;
        let cmd = Cmd::new(self.flavour.backup_tool)
            .arg(format!("--defaults-file={}", data.join("backup-my.cnf").display()))
            .arg("--prepare")
            .arg(format!("--target-dir={}", data.display()))
            .arg(format!("--use-memory={MEMORY}"))
            .user(self.context.service_user.clone())
            .deadline(LONG);
        let doing = "apply the redo log to the copy";
        let output = self.context.host.run(cmd).await.map_err(tool::failed(doing))?;
        tool::check_completed(&output.stderr_tail)?;
        if self.checkpoints().await?.contains("backup_type = log-applied") {
            return Ok(());
        }
        let text = "the redo log was not applied to the copy, whatever the backup tool says";
        Err(DriverError::new(ErrorKind::Failed, text))
    }

    /// The accounts of this instance instead of the source's, before the server listens.
    async fn set_own_accounts(&self) -> Result<(), DriverError> {
        let mut statements = vec!["FLUSH PRIVILEGES".to_owned()];
        statements.extend(self.own_account_statements().await?);
        statements.push(tool::drop_statement());
        statements.push("FLUSH PRIVILEGES".to_owned());
        let text: String = statements.into_iter().map(|statement| statement + ";\n").collect();
        let mut cmd = Cmd::new(self.flavour.server)
            .arg(format!("--defaults-file={}", self.layout.base.display()))
            .arg(format!("--datadir={}", self.layout.data.display()))
            .arg("--bootstrap")
            .user(self.context.service_user.clone())
            .deadline(SHORT);
        cmd.args
            .extend(self.flavour.bootstrap_args.iter().map(|arg| (*arg).to_owned()));
        cmd.stdin = Some(Secret::from(text));
        let done = self.context.host.run(cmd).await;
        done.map(drop).map_err(tool::failed("set the agent's accounts in the copy"))
    }

    async fn sync_data(&self) -> Result<(), DriverError> {
        let data = self.layout.data.display().to_string();
        let cmd = Cmd::new(SYNC).arg("--file-system").arg(data).deadline(LONG);
        let synced = self.context.host.run(cmd).await;
        synced
            .map(drop)
            .map_err(|error| errors::program("write the data directory to its disk", error))
    }

    /// Starts it, closed for writes, and makes it forget what it was as the source: whom it followed, and the source's own log.
    async fn start_copy(&self, position: &Position) -> Result<Change, DriverError> {
        self.launch(&["--read-only=1", "--skip-slave-start"]).await?;
        let mut session = self.role.session().await?;
        for statement in ["STOP ALL SLAVES", "RESET SLAVE ALL", "RESET MASTER"] {
            session.run("forget the past of the copy", statement).await?;
        }
        let set = format!("SET GLOBAL gtid_slave_pos = {}", crate::sql::text(&position.0));
        session.run("set the position of the copy", set).await?;
        let query = "SELECT @@datadir, @@read_only";
        let rows: Vec<(String, bool)> = session.rows("look at the new server", query, ()).await?;
        match rows.first() {
            Some((data, true)) if Path::new(data) == self.layout.data => {}
            other => {
                let text = format!("the server that answers is not the copy: {other:?}");
                return Err(DriverError::new(ErrorKind::WrongData, text));
            }
        }
        // It stays as it is until it is told otherwise; how it starts the next time is not for this copy to say.
        self.remember_spec().await
    }
}

async fn read_header(from: &mut Source<'_>) -> Result<Header, DriverError> {
    let mut line = Vec::new();
    let longest = u64::try_from(header::LONGEST).unwrap_or(u64::MAX);
    let mut beginning = (&mut *from).take(longest);
    match timeout(IDLE, beginning.read_until(b'\n', &mut line)).await {
        Ok(Ok(0)) => return Err(cut_off("nothing came".to_owned())),
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            return Err(DriverError::caused(
                ErrorKind::Unavailable,
                "the sender of the copy went away",
                error,
            ));
        }
        Err(_) => return Err(silent()),
    }
    let header = Header::parse(line.strip_suffix(b"\n").unwrap_or_default())?;
    let first = fill(from).await?;
    if first.is_empty() {
        return Err(cut_off("nothing came after its first line".to_owned()));
    }
    if !first.iter().zip(CHUNK).all(|(byte, wanted)| byte == wanted) {
        let text = "what was received does not go on like a copy of a server";
        return Err(DriverError::new(ErrorKind::Invalid, text));
    }
    Ok(header)
}

/// The next bytes; none at the end.
async fn fill<'s>(from: &'s mut Source<'_>) -> Result<&'s [u8], DriverError> {
    match timeout(IDLE, from.fill_buf()).await {
        Ok(filled) => filled.map_err(|error| DriverError::caused(ErrorKind::Unavailable, "the copy was cut off", error)),
        Err(_) => Err(silent()),
    }
}

fn cut_off(what: String) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, format!("there was no copy to receive: {what}"))
}

fn silent() -> DriverError {
    let text = format!("the sender of the copy sent nothing for {IDLE:?}");
    DriverError::new(ErrorKind::Timeout, text)
}
