//! Databases, users and grants.

use crate::{Change, DriverError, Secret};
use async_trait::async_trait;

/// A database (schema) of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Character set; `None` means the server's default.
    pub character_set: Option<String>,
    /// Collation; `None` means the character set's default.
    pub collation: Option<String>,
}

/// Who a user is: the name and, for engines that have it, the host pattern the user may come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// User name.
    pub name: String,
    /// Host pattern (`%`, an address, a network); engines without hosts ignore it and answer `%`.
    pub host: String,
}

/// A user with what it may reach. As an answer the password is `None`, but for the root user that was just enabled.
#[derive(Debug, Clone)]
pub struct User {
    /// Name and host.
    pub account: Account,
    /// Clear password, only on the way in and in the answer of [`Accounts::enable_root`].
    pub password: Option<Secret>,
    /// Names of the databases the user may use.
    pub databases: Vec<String>,
}

/// One entry of a password change.
#[derive(Debug, Clone)]
pub struct PasswordChange {
    /// Whose password.
    pub account: Account,
    /// The new one.
    pub password: Secret,
}

/// New attributes of a user; `None` keeps the present one.
#[derive(Debug, Clone, Default)]
pub struct UserAttributes {
    /// New name.
    pub name: Option<String>,
    /// New host pattern.
    pub host: Option<String>,
    /// New password.
    pub password: Option<Secret>,
}

/// Which page of a list is wanted. Lists are in the order of their key (name; `user@host` where hosts exist).
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// At most this many entries; `None` means all.
    pub limit: Option<u32>,
    /// Start after this key.
    pub marker: Option<String>,
    /// Start at `marker`, not after it.
    pub include_marker: bool,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in key order.
    pub items: Vec<T>,
    /// Key of the last entry if more follow.
    pub next_marker: Option<String>,
}

/// The capability to manage databases, users, grants and the root user. Every verb may be repeated.
///
/// Errors common to all: `Unavailable` (server does not answer), `Invalid` (a name, host or value is not acceptable; checked
/// before anything is changed), `Reserved` (a name of the engine or the agent), `Timeout`, `Failed`.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Creates the databases that do not exist yet. All names are validated before the first is created.
    async fn create_databases(&self, databases: &[Database]) -> Result<Change, DriverError>;
    /// Drops a database; one that is not there is `Unchanged`.
    async fn delete_database(&self, name: &str) -> Result<Change, DriverError>;
    /// Databases but for the ignored ones.
    async fn list_databases(&self, page: &PageRequest) -> Result<Page<Database>, DriverError>;
    /// Creates users with their grants; an existing user gets the given password and grants. All entries are validated first.
    async fn create_users(&self, users: &[User]) -> Result<Change, DriverError>;
    /// Drops a user; one that is not there is `Unchanged`.
    async fn delete_user(&self, account: &Account) -> Result<Change, DriverError>;
    /// One user by name and host; `None` if there is none.
    async fn find_user(&self, account: &Account) -> Result<Option<User>, DriverError>;
    /// Users but for the ignored ones.
    async fn list_users(&self, page: &PageRequest) -> Result<Page<User>, DriverError>;
    /// Sets passwords. `NotFound` names the first unknown user; validated before the first is changed.
    async fn change_passwords(&self, changes: &[PasswordChange]) -> Result<Change, DriverError>;
    /// Changes name, host or password of a user. `NotFound` if there is no such user, `Exists` if the new name is taken.
    async fn update_user(&self, account: &Account, wanted: &UserAttributes) -> Result<Change, DriverError>;
    /// Grants all privileges on the databases. `NotFound` if there is no such user.
    async fn grant(&self, account: &Account, databases: &[String]) -> Result<Change, DriverError>;
    /// Revokes all privileges on the database.
    async fn revoke(&self, account: &Account, database: &str) -> Result<Change, DriverError>;
    /// Databases on which the user has any privilege. `NotFound` if there is no such user.
    async fn list_access(&self, account: &Account) -> Result<Vec<Database>, DriverError>;
    /// Enables the remote root user with the given or a generated password, and answers it.
    async fn enable_root(&self, password: Option<Secret>) -> Result<User, DriverError>;
    /// Makes the remote root user unusable.
    async fn disable_root(&self) -> Result<Change, DriverError>;
    /// Whether a remote root user exists, read from the server.
    async fn is_root_enabled(&self) -> Result<bool, DriverError>;
}
