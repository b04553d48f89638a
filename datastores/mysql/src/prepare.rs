//! From an empty volume to a running, secured server, in steps that may each be repeated.
//!
//! The accounts are put in place inside the installer, before the server ever listens: there is no moment with an open root.

use crate::credentials::{ADMIN, ROOT};
use crate::datastore::Server;
use crate::flavour::SYNC;
use crate::marker::Progress;
use crate::{config, errors, sql};
use datastore_api::{Account, Change, Cmd, DriverError, ErrorKind, FileMode, Owner, PreparePlan, Step};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The steps in order.
pub(crate) static STEPS: [Step; 6] = [
    Step("folders"),
    Step("credentials"),
    Step("configuration"),
    Step("data"),
    Step("start"),
    Step("verify"),
];

/// Limit of the installer, on a very slow disk.
const INSTALL_LIMIT: Duration = Duration::from_secs(120);
/// How long an installer that outlived its agent may take to end.
const ORPHAN_LIMIT: Duration = Duration::from_secs(60);

/// A disk with less free bytes than this is full: one page more of the server's does not fit.
const FULL: u64 = 64 * 1024;
/// How often to look for that.
const FULL_EVERY: Duration = Duration::from_millis(500);

impl Server {
    /// Looks whether the plan can be carried out, touching nothing.
    pub(crate) async fn check_prepare(&self, plan: &PreparePlan) -> Result<(), DriverError> {
        if let Some(contents) = &plan.config_contents {
            config::base::check(contents)?;
        }
        config::option_file::parameters(&plan.overrides, self.flavour.live_only)?;
        self.check_version(plan.version.as_deref()).await?;
        self.check_data_dir().await?;
        let mount = &self.context.mount_point;
        let free = self.free_space(mount).await?;
        if free < self.flavour.least_space {
            let text = format!(
                "{} has {free} bytes free, a new server needs {}",
                mount.display(),
                self.flavour.least_space
            );
            return Err(DriverError::new(ErrorKind::NoSpace, text));
        }
        Ok(())
    }

    async fn check_version(&self, wanted: Option<&str>) -> Result<(), DriverError> {
        let installed = self.installed_version().await?;
        match wanted.and_then(numbers) {
            Some(wanted) if !installed.iter().zip(&wanted).take(2).all(|(a, b)| a == b) || installed.is_empty() => {
                let join = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
                let title = self.flavour.title;
                let text = format!(
                    "{title} {} was asked for, installed is {title} {}",
                    join(&wanted),
                    join(&installed)
                );
                Err(DriverError::new(ErrorKind::WrongData, text))
            }
            _ => Ok(()),
        }
    }

    /// `WrongData` names what is in the data directory if that is not this very preparation's.
    pub(crate) async fn check_data_dir(&self) -> Result<Progress, DriverError> {
        if let Some(marker) = self.marker().await? {
            if marker.instance == self.context.instance_id {
                return Ok(marker.progress);
            }
            let text = format!("the volume holds an unfinished preparation of instance {}", marker.instance);
            return Err(DriverError::new(ErrorKind::WrongData, text));
        }
        let data = &self.layout.data;
        let names = self
            .context
            .host
            .list_dir(data)
            .await
            .map_err(|error| errors::file("list", data, error))?;
        let names: Vec<String> = names
            .unwrap_or_default()
            .into_iter()
            .filter(|name| name != "lost+found")
            .collect();
        if names.is_empty() {
            return Ok(Progress::Begun);
        }
        let has = |name: &str| names.iter().any(|entry| entry == name);
        let what = if has("PG_VERSION") || has("pgdata") {
            "a PostgreSQL data directory".to_owned()
        } else if has("mysql.ibd") || has("#innodb_redo") {
            "a MySQL data directory".to_owned()
        } else if has("aria_log_control") || has("ibdata1") {
            "a MariaDB data directory of another or an already prepared instance".to_owned()
        } else {
            names.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        };
        Err(DriverError::new(
            ErrorKind::WrongData,
            format!("{} is not empty: it holds {what}", data.display()),
        ))
    }

    /// Does one step.
    pub(crate) async fn do_prepare(&self, step: Step, plan: &PreparePlan) -> Result<Change, DriverError> {
        match step.0 {
            "folders" => self.prepare_folders().await,
            "credentials" => self.prepare_credentials().await,
            "configuration" => self.write_all_config(plan.config_contents.as_deref(), &plan.overrides).await,
            "data" => self.prepare_data().await,
            "start" => self.prepare_start().await,
            "verify" => self.prepare_verify().await,
            other => Err(DriverError::new(
                ErrorKind::NotSupported,
                format!("there is no step '{other}' of preparation"),
            )),
        }
    }

    async fn prepare_folders(&self) -> Result<Change, DriverError> {
        let is_new = self.marker().await?.is_none();
        self.check_data_dir().await?;
        let mut change = self.stop_server(self.context.state_change_limit).await?;
        let server = || {
            Some(Owner {
                user: self.context.service_user.clone(),
            })
        };
        let layout = &self.layout;
        let folders = [
            (&layout.secrets, 0o700, None),
            (&layout.etc, 0o755, None),
            (&layout.layers, 0o755, None),
            (&layout.data, 0o700, server()),
        ];
        for (path, mode, owner) in folders {
            let made = self.context.host.make_dir(path, &FileMode { mode, owner }).await;
            change = change.or(made.map_err(|error| errors::file("make", path, error))?);
        }
        change = change.or(self.make_runtime_folders().await?);
        if is_new {
            // A volume may have had another life: its passwords are not adopted.
            for user in [ADMIN, ROOT] {
                self.credentials.forget(user).await?;
            }
            change = change.or(self.mark(Progress::Begun).await?);
        }
        Ok(change)
    }

    async fn prepare_credentials(&self) -> Result<Change, DriverError> {
        let length = self.context.password_length;
        let root = self.credentials.ensure(ROOT, length).await?;
        Ok(root.or(self.credentials.ensure(ADMIN, length).await?))
    }

    async fn prepare_data(&self) -> Result<Change, DriverError> {
        match self.check_data_dir().await? {
            Progress::Filled | Progress::Restored => return Ok(Change::Unchanged),
            Progress::Begun => {}
            Progress::Restoring | Progress::Exchanging => {
                // Never an empty server where a backup was to come.
                let text = "the restore into this data directory was not finished: the backup must be restored again";
                return Err(DriverError::new(ErrorKind::WrongData, text));
            }
            Progress::Filling | Progress::Replacing => {
                self.wait_for_orphans().await?;
                let data = &self.layout.data;
                self.context
                    .host
                    .clear_dir(data)
                    .await
                    .map_err(|error| errors::file("clear", data, error))?;
            }
        }
        self.mark(Progress::Filling).await?;
        // In the folder that a reboot empties; it holds hashes, not passwords.
        let statements = self.layout.run.join("accounts.sql");
        let mode = FileMode {
            mode: 0o600,
            owner: Some(Owner {
                user: self.context.service_user.clone(),
            }),
        };
        let text = self.account_statements().await?;
        let written = self.context.host.write_atomic(&statements, text.as_bytes(), &mode).await;
        written.map_err(|error| errors::file("write", &statements, error))?;
        let installed = tokio::select! {
            done = self.context.host.run(self.installer(&statements)) => {
                done.map(drop).map_err(|error| errors::program("fill the data directory", error))
            }
            error = self.disk_full() => Err(error),
        };
        let removed = self.context.host.remove(&statements).await;
        installed?;
        let data = self.layout.data.display().to_string();
        let synced = self
            .context
            .host
            .run(Cmd::new(SYNC).arg("--file-system").arg(data).deadline(INSTALL_LIMIT))
            .await;
        synced.map_err(|error| errors::program("write the data directory to its disk", error))?;
        removed.map_err(|error| errors::file("remove", &statements, error))?;
        self.mark(Progress::Filled).await
    }

    /// Ends when the disk has been full for a while: the server would wait for somebody to make room, for ever and in silence.
    async fn disk_full(&self) -> DriverError {
        let data = &self.layout.data;
        let mut full = 0;
        while full < 3 {
            sleep(FULL_EVERY).await;
            let free = self.context.host.free_space(data).await;
            full = if free.is_ok_and(|free| free < FULL) { full + 1 } else { 0 };
        }
        let text = format!("the disk of {} became full while the server was installed", data.display());
        DriverError::new(ErrorKind::NoSpace, text)
    }

    fn installer(&self, statements: &Path) -> Cmd {
        let mut cmd = Cmd::new(self.flavour.installer)
            .arg(format!("--defaults-file={}", self.layout.base.display()))
            .arg(format!("--datadir={}", self.layout.data.display()))
            .arg(format!("--extra-file={}", statements.display()))
            .user(self.context.service_user.clone())
            .deadline(INSTALL_LIMIT);
        cmd.args
            .extend(self.flavour.installer_args.iter().map(|arg| (*arg).to_owned()));
        cmd
    }

    /// The accounts of a new server: os_admin and root on this host with their stored passwords, and nobody else who may log in.
    async fn account_statements(&self) -> Result<String, DriverError> {
        let mut statements = vec!["FLUSH PRIVILEGES".to_owned()];
        statements.extend(self.own_account_statements().await?);
        statements.push("DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost')".to_owned());
        statements.push("DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost'".to_owned());
        statements.push("DELETE FROM mysql.db".to_owned());
        statements.push("FLUSH PRIVILEGES".to_owned());
        Ok(statements.into_iter().map(|statement| statement + ";\n").collect())
    }

    /// os_admin and root on this host with their stored passwords, whatever they were before.
    pub(crate) async fn own_account_statements(&self) -> Result<Vec<String>, DriverError> {
        let mut statements = Vec::new();
        for user in [ADMIN, ROOT] {
            let account = sql::account(&Account {
                name: user.to_owned(),
                host: "localhost".to_owned(),
            });
            let clause = self.flavour.scheme.clause(&self.credentials.need(user).await?);
            statements.push(format!("CREATE OR REPLACE USER {account} {clause}"));
            statements.push(format!("GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION"));
        }
        Ok(statements)
    }

    /// Waits for an installer that outlived the agent that started it: two of them in one folder would spoil it.
    async fn wait_for_orphans(&self) -> Result<(), DriverError> {
        let sign = format!("--datadir={}", self.layout.data.display());
        let end = Instant::now() + ORPHAN_LIMIT;
        while self.is_in_a_command_line(&sign).await {
            if Instant::now() >= end {
                let text = format!("another process still fills {}", self.layout.data.display());
                return Err(DriverError::new(ErrorKind::Timeout, text));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn is_in_a_command_line(&self, argument: &str) -> bool {
        let processes = self
            .context
            .host
            .list_dir(Path::new("/proc"))
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        for process in processes.iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            let path = Path::new("/proc").join(process).join("cmdline");
            let line = self.context.host.read(&path).await.ok().flatten().unwrap_or_default();
            if line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()) {
                return true;
            }
        }
        false
    }

    async fn prepare_start(&self) -> Result<Change, DriverError> {
        let error = match self.start_server().await {
            Ok(change) => return Ok(change),
            Err(error) => error,
        };
        // The instance has failed: a server that dies over and over helps nobody.
        let _ = self.stop_server(Duration::from_secs(10)).await;
        let data = &self.layout.data;
        match self.context.host.free_space(data).await {
            // What the server says of it is about its own files and does not name the cause.
            Ok(free) if free < self.flavour.least_space / 16 => {
                let text = format!(
                    "the server did not start and its disk is full ({free} bytes free in {})",
                    data.display()
                );
                Err(DriverError::caused(ErrorKind::NoSpace, text, error))
            }
            _ => Err(error),
        }
    }

    /// Believes nothing: logs in as os_admin and looks who else could.
    async fn prepare_verify(&self) -> Result<Change, DriverError> {
        let mut session = self.sql.session().await?;
        let query = format!(
            "SELECT user, host FROM {} WHERE user = '' OR (user = 'root' AND host <> 'localhost') OR (hash = '' AND host <> 'localhost')",
            self.flavour.users
        );
        let open: Vec<(String, String)> = session.rows("look for open accounts", query, ()).await?;
        // Who may log in to restored data is their owner's affair.
        let is_restored = self
            .marker()
            .await?
            .is_some_and(|marker| marker.progress == Progress::Restored);
        if let Some((user, host)) = open.first().filter(|_| !is_restored) {
            return Err(DriverError::new(
                ErrorKind::Failed,
                format!("the new server has an open account '{user}'@'{host}'"),
            ));
        }
        let data: Vec<String> = session.rows("read the data directory", "SELECT @@datadir", ()).await?;
        if !data.iter().any(|path| Path::new(path) == self.layout.data) {
            let text = format!(
                "the server that answers has its data in {}, not in {}",
                data.concat(),
                self.layout.data.display()
            );
            return Err(DriverError::new(ErrorKind::WrongData, text));
        }
        self.unmark().await
    }
}

/// The first dotted number of a version or of its name; `None` if there is none.
pub(crate) fn numbers(text: &str) -> Option<Vec<u32>> {
    let from = text.find(|c: char| c.is_ascii_digit())?;
    let word = text[from..].split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    word.split('.')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_names() {
        assert_eq!(numbers("10.11.8"), Some(vec![10, 11, 8]));
        assert_eq!(numbers("mariadb-10.11"), Some(vec![10, 11]));
        assert_eq!(numbers("10.11.19-MariaDB-0+deb12u1 for debian"), Some(vec![10, 11, 19]));
        assert_eq!(numbers("latest"), None);
    }
}
