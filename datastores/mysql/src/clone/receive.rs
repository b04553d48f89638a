//! Receiving: this server's data are thrown away and replaced. From the mark on they are nobody's until the new server has answered.

use super::header::{self, Header};
use crate::datastore::Server;
use crate::errors;
use crate::marker::Progress;
use crate::tool::xbstream::MAGIC;
use crate::tool::{BUFFER, IDLE, fill};
use datastore_api::{Change, DriverError, ErrorKind, FileMode, Owner, Position};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

/// How long the old server may take to stop: its data are worth nothing any more.
const STOP_LIMIT: Duration = Duration::from_secs(5);
type Source<'a> = BufReader<&'a mut (dyn AsyncRead + Send + Unpin)>;

impl Server {
    /// Replaces the data by the copy in the stream and starts the server read-only. Nothing is touched unless a copy begins to come
    /// that fits. May be repeated, whatever became of the time before.
    pub(crate) async fn receive_copy(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Position, DriverError> {
        let mut from = BufReader::with_capacity(BUFFER, from);
        let header = read_header(&mut from).await?;
        self.check_fits(&header).await?;
        self.throw_away(&header).await?;
        let data = &self.layout.data;
        let found = self.unpack_buffered(data, &mut from, false).await?;
        let position = found.notes.binlog().map(|(_, _, position)| position).ok_or_else(|| {
            let text = "the copy is not complete: it does not say at which position it is";
            DriverError::new(ErrorKind::Failed, text)
        })?;
        self.apply(data, None, false).await?;
        self.remove_tools_files(data).await?;
        self.set_own_accounts(data).await?;
        self.sync_disk_of(data).await?;
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

    /// Starts it, closed for writes, and makes it forget what it was as the source: whom it followed, and the source's own log.
    pub(crate) async fn start_copy(&self, position: &Position) -> Result<Change, DriverError> {
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
    if !first.iter().zip(MAGIC).all(|(byte, wanted)| byte == wanted) {
        let text = "what was received does not go on like a copy of a server";
        return Err(DriverError::new(ErrorKind::Invalid, text));
    }
    Ok(header)
}

fn cut_off(what: String) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, format!("there was no copy to receive: {what}"))
}

fn silent() -> DriverError {
    let text = format!("the sender of the copy sent nothing for {IDLE:?}");
    DriverError::new(ErrorKind::Timeout, text)
}
