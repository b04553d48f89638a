//! The pretended server: what it would have on disk.

use datastore_api::{Account, Change, Database, DriverError, Durability, ErrorKind, FileMode, Host, Secret};
use datastore_api::{ExposeSecret, PasswordChange};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::Path;

/// Everything the pretended server knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// Instance that began the preparation.
    pub instance: String,
    /// Steps done so far.
    pub done: BTreeSet<String>,
    /// Whether the server runs.
    pub running: bool,
    /// Base configuration text.
    pub base: String,
    /// User parameters.
    pub overrides: Map<String, Value>,
    /// Values in force.
    pub live: Map<String, Value>,
    /// Databases by name: character set and collation.
    pub databases: BTreeMap<String, (Option<String>, Option<String>)>,
    /// Users by `name@host`.
    pub users: BTreeMap<String, StoredUser>,
    /// Its place among other servers.
    #[serde(default)]
    pub role: Role,
}

/// The pretended server's place among others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Role {
    /// How many changes it has.
    pub position: u64,
    /// Nobody can write.
    pub read_only: bool,
    /// Whether it starts so.
    pub starts_closed: bool,
    /// Host and port of its source.
    pub following: Option<(String, u16)>,
    /// What a write is worth.
    pub durability: Durability,
    /// Accounts of replicas, with a hash of the password.
    pub logins: BTreeMap<String, u64>,
}

/// One user of the pretended server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredUser {
    /// Name.
    pub name: String,
    /// Host pattern.
    pub host: String,
    /// A hash of the password: never the password.
    pub password: u64,
    /// Databases the user may use.
    pub grants: BTreeSet<String>,
}

impl State {
    /// Reads the state; a missing file is the empty state. `WrongData` if the file is not ours.
    pub async fn load(host: &dyn Host, path: &Path) -> Result<Self, DriverError> {
        let bytes = host
            .read(path)
            .await
            .map_err(|error| failed(format!("could not read {}", path.display()), error))?;
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!("{} is not a state of the sim datastore", path.display());
            DriverError::caused(ErrorKind::WrongData, text, error)
        })
    }

    /// Writes the state in one step.
    pub async fn save(&self, host: &dyn Host, path: &Path) -> Result<Change, DriverError> {
        let bytes = serde_json::to_vec(self).map_err(|error| failed("could not encode the state".into(), error))?;
        let mode = FileMode {
            mode: 0o600,
            owner: None,
        };
        host.write_atomic(path, &bytes, &mode)
            .await
            .map_err(|error| failed(format!("could not write {}", path.display()), error))
    }

    /// The user, or `NotFound` naming it.
    pub fn user(&mut self, account: &Account) -> Result<&mut StoredUser, DriverError> {
        let key = key(account);
        self.users
            .get_mut(&key)
            .ok_or_else(|| DriverError::new(ErrorKind::NotFound, format!("there is no user {key}")))
    }

    /// Sets a password; says whether it was another one before.
    pub fn set_password(&mut self, change: &PasswordChange) -> Result<Change, DriverError> {
        let user = self.user(&change.account)?;
        let hash = hash(&change.password);
        let before = std::mem::replace(&mut user.password, hash);
        Ok(if before == hash { Change::Unchanged } else { Change::Done })
    }

    /// A database as the lists answer it.
    pub fn database(&self, name: &str) -> Database {
        let (character_set, collation) = self.databases.get(name).cloned().unwrap_or_default();
        Database {
            name: name.to_owned(),
            character_set,
            collation,
        }
    }
}

/// The key of a user in lists and markers.
pub(crate) fn key(account: &Account) -> String {
    format!("{}@{}", account.name, account.host)
}

/// A stand-in for a password hash.
pub(crate) fn hash(password: &Secret) -> u64 {
    let mut hasher = DefaultHasher::new();
    password.expose_secret().hash(&mut hasher);
    hasher.finish()
}

fn failed(text: String, error: impl std::error::Error + Send + Sync + 'static) -> DriverError {
    DriverError::caused(ErrorKind::Failed, text, error)
}
