//! A stream into a folder, and what is in the folder made whole: the redo log applied, increments joined, own accounts.

use super::checkpoints::{Checkpoints, Notes};
use super::xbstream::{Found, Scanner};
use super::{BUFFER, IDLE, LONG, check_completed, drop_statements, failed, last_lines};
use crate::datastore::Server;
use crate::errors;
use crate::flavour::SYNC;
use datastore_api::{Cmd, DriverError, ErrorKind, ExecError, FileMode, Owner, Pipes, Secret};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// Limit of a program with little to do.
const SHORT: Duration = Duration::from_secs(300);
/// Memory for applying the redo log; the running server keeps what it has.
const MEMORY: &str = "256M";
/// What the server says when it finds transactions of which it does not know whether they were committed.
const PREPARED: &str = "prepared transactions! It means";
/// The tool's own options in a copy.
const OPTIONS: &str = "backup-my.cnf";
/// What may stand there: everything else, and every path, is left out. The copy may come from anywhere.
const TAKEN: [&str; 12] = [
    "innodb_checksum_algorithm",
    "innodb_data_file_path",
    "innodb_log_file_size",
    "innodb_log_block_size",
    "innodb_page_size",
    "innodb_undo_tablespaces",
    "innodb_compression_level",
    "innodb_compression_algorithm",
    "innodb_fast_checksum",
    "innodb_buffer_pool_filename",
    "innodb_undo_directory",
    "server_id",
];

impl Server {
    /// Unpacks a stream into an empty folder of the server's user. `Failed` if it is damaged or was cut off, `Invalid` if it would
    /// write elsewhere, `Unavailable` if its sender went away.
    pub(crate) async fn unpack_into(
        &self,
        folder: &Path,
        from: &mut (dyn AsyncRead + Send + Unpin),
        gives_way: bool,
    ) -> Result<Found, DriverError> {
        let mut from = BufReader::with_capacity(BUFFER, from);
        self.unpack_buffered(folder, &mut from, gives_way).await
    }

    /// The same of what is buffered already.
    pub(crate) async fn unpack_buffered(
        &self,
        folder: &Path,
        from: &mut (dyn AsyncBufRead + Send + Unpin),
        gives_way: bool,
    ) -> Result<Found, DriverError> {
        let doing = "unpack the copy";
        let mut cmd = Cmd::new(self.flavour.unpack_tool)
            .arg("--extract")
            .arg(format!("--directory={}", folder.display()))
            .user(self.context.service_user.clone())
            .deadline(IDLE);
        cmd.gives_way = gives_way;
        let spawned = self.context.host.spawn(cmd, Pipes::Stdin).await;
        let mut running = spawned.map_err(failed(doing))?;
        let mut input = running.stdin.take().expect("its standard input was asked for");
        let mut scanner = Scanner::default();
        loop {
            let bytes = fill(from).await?;
            if bytes.is_empty() {
                break;
            }
            let n = bytes.len();
            scanner.feed(bytes)?;
            if let Err(error) = input.write_all(bytes).await {
                // The tool has ended and knows better why.
                drop(input);
                let ended = running.wait().await.map_err(failed(doing));
                let broken = DriverError::caused(ErrorKind::Failed, format!("could not {doing}"), error);
                return ended.and(Err(broken));
            }
            from.consume(n);
        }
        let found = scanner.finish()?;
        drop(input);
        let ended = running.wait().await;
        let ended = ended.map_err(failed("unpack the end of the copy, which may have been cut off"))?;
        // It ends well whatever becomes of a file, and has nothing to say when all is well.
        let words = last_lines(&ended.stderr_tail);
        if !words.is_empty() {
            let kind = if errors::is_full(&words) {
                ErrorKind::NoSpace
            } else {
                ErrorKind::Failed
            };
            return Err(DriverError::new(kind, format!("could not {doing}: {words}")));
        }
        for name in &found.links {
            let path = folder.join(name);
            let removed = self.context.host.remove(&path).await;
            removed.map_err(|error| errors::file("remove", &path, error))?;
        }
        self.clean_options(folder).await?;
        Ok(found)
    }

    /// What is left of the tool's options once everything is out that could lead the tool elsewhere.
    async fn clean_options(&self, folder: &Path) -> Result<(), DriverError> {
        let path = folder.join(OPTIONS);
        let read = self.context.host.read_tail(&path, BUFFER).await;
        let bytes = read.map_err(|error| errors::file("read", &path, error))?.unwrap_or_default();
        let text = clean(&String::from_utf8_lossy(&bytes));
        let mode = FileMode {
            mode: 0o640,
            owner: Some(Owner {
                user: self.context.service_user.clone(),
            }),
        };
        let written = self.context.host.write_atomic(&path, text.as_bytes(), &mode).await;
        written.map(drop).map_err(|error| errors::file("write", &path, error))
    }

    /// What the tool noted in this folder.
    pub(crate) async fn notes(&self, folder: &Path) -> Result<Notes, DriverError> {
        let mut notes = Notes::default();
        for name in Notes::names() {
            let path = folder.join(name);
            let read = self.context.host.read_tail(&path, 64 << 10).await;
            if let Some(bytes) = read.map_err(|error| errors::file("read", &path, error))? {
                notes.add(name, &bytes);
            }
        }
        Ok(notes)
    }

    /// Applies the redo log to what was unpacked there, and an increment to it.
    pub(crate) async fn apply(
        &self,
        folder: &Path,
        increment: Option<&Path>,
        gives_way: bool,
    ) -> Result<Checkpoints, DriverError> {
        let mut cmd = Cmd::new(self.flavour.backup_tool)
            .arg(format!("--defaults-file={}", folder.join(OPTIONS).display()))
            .arg("--prepare")
            .arg(format!("--target-dir={}", folder.display()))
            .arg(format!("--use-memory={MEMORY}"))
            .user(self.context.service_user.clone())
            .deadline(LONG);
        let mut doing = "apply the redo log to the copy";
        if let Some(increment) = increment {
            doing = "apply an increment to the copy";
            cmd = cmd.arg(format!("--incremental-dir={}", increment.display()));
        }
        cmd.gives_way = gives_way;
        let output = self.context.host.run(cmd).await.map_err(failed(doing))?;
        check_completed(&output.stderr_tail)?;
        let checkpoints = self.notes(folder).await?.checkpoints()?;
        if checkpoints.kind == "log-applied" {
            return Ok(checkpoints);
        }
        let text = format!("could not {doing}: it is not done, whatever the backup tool says");
        Err(DriverError::new(ErrorKind::Failed, text))
    }

    /// The accounts of this instance instead of those in the copy, before a server listens.
    pub(crate) async fn set_own_accounts(&self, data: &Path) -> Result<(), DriverError> {
        let mut statements = vec!["FLUSH PRIVILEGES".to_owned()];
        statements.extend(self.own_account_statements().await?);
        statements.extend(drop_statements());
        statements.push("FLUSH PRIVILEGES".to_owned());
        let text: String = statements.into_iter().map(|statement| statement + ";\n").collect();
        let doing = failed("set the agent's accounts in the copy");
        let run = |more: &str| {
            let mut cmd = Cmd::new(self.flavour.server)
                .arg(format!("--defaults-file={}", self.layout.base.display()))
                .arg(format!("--datadir={}", data.display()))
                .arg("--bootstrap")
                .user(self.context.service_user.clone())
                .deadline(SHORT);
            cmd.args
                .extend(self.flavour.bootstrap_args.iter().map(|arg| (*arg).to_owned()));
            cmd.args.extend((!more.is_empty()).then(|| more.to_owned()));
            cmd.stdin = Some(Secret::from(text.clone()));
            self.context.host.run(cmd)
        };
        match run("").await {
            Ok(_) => return Ok(()),
            // Transactions that were prepared and not in the log yet when commits were held: those of a replica's parallel appliers.
            // They come after the copy's position and are not part of it. Those that clients prepared themselves stay.
            Err(ExecError::Exit { stderr_tail, .. }) if stderr_tail.contains(PREPARED) => {
                tracing::info!("transactions that were not committed in the copy are rolled back");
                // It may end after this, whatever its exit code says; the next run tells.
                let _ = run("--tc-heuristic-recover=ROLLBACK").await;
            }
            Err(error) => return Err(doing(error)),
        }
        run("").await.map(drop).map_err(doing)
    }

    /// Removes the tool's own files.
    pub(crate) async fn remove_tools_files(&self, folder: &Path) -> Result<(), DriverError> {
        for name in super::checkpoints::ALL_FILES {
            let path = folder.join(name);
            let removed = self.context.host.remove(&path).await;
            removed.map_err(|error| errors::file("remove", &path, error))?;
        }
        Ok(())
    }

    /// Writes everything under way to the disk of this folder.
    pub(crate) async fn sync_disk_of(&self, folder: &Path) -> Result<(), DriverError> {
        let cmd = Cmd::new(SYNC)
            .arg("--file-system")
            .arg(folder.display().to_string())
            .deadline(LONG);
        let synced = self.context.host.run(cmd).await;
        synced
            .map(drop)
            .map_err(|error| errors::program("write the data directory to its disk", error))
    }
}

/// The next bytes; none at the end.
pub(crate) async fn fill(from: &mut (dyn AsyncBufRead + Send + Unpin)) -> Result<&[u8], DriverError> {
    match timeout(IDLE, from.fill_buf()).await {
        Ok(filled) => filled.map_err(|error| DriverError::caused(ErrorKind::Unavailable, "the copy was cut off", error)),
        Err(_) => {
            let text = format!("the sender of the copy sent nothing for {IDLE:?}");
            Err(DriverError::new(ErrorKind::Timeout, text))
        }
    }
}

fn clean(options: &str) -> String {
    let is_plain = |value: &str| value.trim() == "./" || !value.contains(['/', '\\', '\'', '"', '\0']) && !value.contains("..");
    let lines = options.lines().filter(|line| {
        line.split_once('=')
            .is_some_and(|(key, value)| TAKEN.contains(&key.trim()) && is_plain(value))
    });
    let lines: Vec<&str> = lines.collect();
    format!("[mysqld]\n{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_lead_elsewhere_are_left_out() {
        let text = "# The server\n[mysqld]\ninnodb_page_size=16384\ninnodb_undo_directory=./\ninnodb_data_file_path=/etc/x:12M\n\
                    plugin_load=evil.so\n!include /etc/passwd\ninnodb_data_file_path = ibdata1:12M:autoextend\ntmpdir=/etc\n";
        assert_eq!(
            clean(text),
            "[mysqld]\ninnodb_page_size=16384\ninnodb_undo_directory=./\ninnodb_data_file_path = ibdata1:12M:autoextend\n"
        );
    }
}
