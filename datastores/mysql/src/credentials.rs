//! The passwords of `os_admin` and `root`, in the control plane's files on the data volume, so that they survive a rebuild.

use crate::password;
use datastore_api::{Change, DriverError, ErrorKind, ExposeSecret, FileMode, Host, Secret};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The agent's own user.
pub(crate) const ADMIN: &str = "os_admin";
/// The superuser.
pub(crate) const ROOT: &str = "root";

/// Reads and writes the credential files.
pub(crate) struct Credentials {
    host: Arc<dyn Host>,
    folder: PathBuf,
}

impl Credentials {
    /// For the files in `folder`.
    pub fn new(host: Arc<dyn Host>, folder: &Path) -> Self {
        Self {
            host,
            folder: folder.to_owned(),
        }
    }

    fn file(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.cnf"))
    }

    /// The stored password, `None` if there is none.
    pub async fn read(&self, user: &str) -> Result<Option<Secret>, DriverError> {
        let path = self.file(user);
        let bytes = self
            .host
            .read(&path)
            .await
            .map_err(|error| DriverError::caused(ErrorKind::Failed, format!("could not read {}", path.display()), error))?;
        Ok(bytes.and_then(|bytes| parse(&String::from_utf8_lossy(&bytes))))
    }

    /// The stored password. `Failed` names the file if there is none.
    pub async fn need(&self, user: &str) -> Result<Secret, DriverError> {
        self.read(user).await?.ok_or_else(|| {
            let text = format!("there is no password of {user} in {}", self.file(user).display());
            DriverError::new(ErrorKind::Failed, text)
        })
    }

    /// Keeps a stored password, or makes and stores a new one.
    pub async fn ensure(&self, user: &str, length: usize) -> Result<Change, DriverError> {
        if self.read(user).await?.is_some() {
            return Ok(Change::Unchanged);
        }
        self.write(user, &password::generate(length)?).await
    }

    /// Stores a password.
    pub async fn write(&self, user: &str, password: &Secret) -> Result<Change, DriverError> {
        let path = self.file(user);
        let text = format!(
            "[client]\nuser = {user}\npassword = {}\nhost = localhost\n",
            password.expose_secret()
        );
        let mode = FileMode {
            mode: 0o600,
            owner: None,
        };
        self.host
            .write_atomic(&path, text.as_bytes(), &mode)
            .await
            .map_err(|error| crate::errors::file("write", &path, error))
    }

    /// Forgets a password of an earlier life of the volume.
    pub async fn forget(&self, user: &str) -> Result<Change, DriverError> {
        let path = self.file(user);
        self.host
            .remove(&path)
            .await
            .map_err(|error| crate::errors::file("remove", &path, error))
    }
}

/// The password in an option file; quotes around it are not part of it.
fn parse(text: &str) -> Option<Secret> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "password").then(|| value.trim())
    })?;
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let bare = quoted('\'').or_else(|| quoted('"')).unwrap_or(value);
    (!bare.is_empty()).then(|| Secret::from(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_and_our_own_files_are_understood() {
        for text in [
            "[client]\nuser = root\npassword = pw1\nhost = localhost\n",
            "[client]\npassword='pw1'\n",
            "password=\"pw1\"",
        ] {
            assert_eq!(parse(text).unwrap().expose_secret(), "pw1");
        }
        assert!(parse("[client]\npassword =\n").is_none());
        assert!(parse("").is_none());
    }
}
