//! Databases, users, grants and the remote root user. Everything in a request is checked before the first thing is changed.

mod databases;
mod names;
mod page;
mod root;
mod users;

use crate::conn::Session;
use crate::datastore::Server;
use async_trait::async_trait;
use datastore_api::{
    Account, Accounts, Change, Database, DriverError, ErrorKind, Page, PageRequest, PasswordChange, Secret, User, UserAttributes,
};

#[async_trait]
impl Accounts for Server {
    async fn create_databases(&self, databases: &[Database]) -> Result<Change, DriverError> {
        self.make_databases(databases).await
    }

    async fn delete_database(&self, name: &str) -> Result<Change, DriverError> {
        self.drop_database(name).await
    }

    async fn list_databases(&self, page: &PageRequest) -> Result<Page<Database>, DriverError> {
        self.page_of_databases(page).await
    }

    async fn create_users(&self, users: &[User]) -> Result<Change, DriverError> {
        self.make_users(users).await
    }

    async fn delete_user(&self, account: &Account) -> Result<Change, DriverError> {
        self.drop_user(account).await
    }

    async fn find_user(&self, account: &Account) -> Result<Option<User>, DriverError> {
        self.one_user(account).await
    }

    async fn list_users(&self, page: &PageRequest) -> Result<Page<User>, DriverError> {
        self.page_of_users(page).await
    }

    async fn change_passwords(&self, changes: &[PasswordChange]) -> Result<Change, DriverError> {
        self.set_passwords(changes).await
    }

    async fn update_user(&self, account: &Account, wanted: &UserAttributes) -> Result<Change, DriverError> {
        self.set_attributes(account, wanted).await
    }

    async fn grant(&self, account: &Account, databases: &[String]) -> Result<Change, DriverError> {
        self.grant_databases(account, databases).await
    }

    async fn revoke(&self, account: &Account, database: &str) -> Result<Change, DriverError> {
        self.revoke_database(account, database).await
    }

    async fn list_access(&self, account: &Account) -> Result<Vec<Database>, DriverError> {
        self.databases_of(account).await
    }

    async fn enable_root(&self, password: Option<Secret>) -> Result<User, DriverError> {
        self.make_root(password).await
    }

    async fn disable_root(&self) -> Result<Change, DriverError> {
        self.lock_root().await
    }

    async fn is_root_enabled(&self) -> Result<bool, DriverError> {
        self.has_remote_root().await
    }
}

impl Server {
    /// A session for changes. The agent's user may write to a read-only server, and then a replica would hold transactions that its source
    /// never had, and could follow it no longer.
    async fn writer(&self) -> Result<Session, DriverError> {
        let mut session = self.sql.session().await?;
        let query = "SELECT @@global.read_only";
        let closed: Vec<u8> = session.rows("look whether writes are open", query, ()).await?;
        if closed == [1] {
            let text = "the server is read-only: databases and users of a replica are changed on its source";
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        Ok(session)
    }
}
