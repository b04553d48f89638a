//! Users and their grants.

use super::names::check_password;
use super::page;
use crate::conn::Session;
use crate::datastore::Server;
use crate::errors::{self, invalid};
use crate::sql;
use datastore_api::{
    Account, Change, Database, DriverError, ErrorKind, Page, PageRequest, PasswordChange, Secret, User, UserAttributes,
};
use mysql_async::Value;
use std::collections::{BTreeSet, HashMap};

/// How many names one query for grants binds.
const BATCH: usize = 200;

/// What the server stores about a user's password.
struct Stored {
    plugin: String,
    hash: String,
}

impl Server {
    pub(super) async fn make_users(&self, users: &[User]) -> Result<Change, DriverError> {
        let mut checked = Vec::with_capacity(users.len());
        for user in users {
            let account = self.check_new_user(&user.account)?;
            let Some(password) = &user.password else {
                return Err(invalid(format!("user '{}' has no password", account.name)));
            };
            check_password(&account, password)?;
            user.databases.iter().try_for_each(|database| self.check_database(database))?;
            checked.push((account, password, &user.databases));
        }
        let mut session = self.writer().await?;
        let mut change = Change::Unchanged;
        for (account, password, databases) in checked {
            let made = match self.stored(&mut session, &account).await? {
                Some(stored) => self.set_password(&mut session, &account, &stored, password).await?,
                None => {
                    let statement = format!(
                        "CREATE USER IF NOT EXISTS {} {}",
                        sql::account(&account),
                        self.flavour.scheme.clause(password)
                    );
                    session.run(&format!("create user {}", shown(&account)), statement).await?;
                    Change::Done
                }
            };
            change = change.or(made).or(grant_all(&mut session, &account, databases).await?);
        }
        Ok(change)
    }

    pub(super) async fn drop_user(&self, account: &Account) -> Result<Change, DriverError> {
        let account = self.check_user(account)?;
        let mut session = self.writer().await?;
        if self.stored(&mut session, &account).await?.is_none() {
            return Ok(Change::Unchanged);
        }
        let statement = format!("DROP USER IF EXISTS {}", sql::account(&account));
        session.run(&format!("drop user {}", shown(&account)), statement).await?;
        Ok(Change::Done)
    }

    pub(super) async fn one_user(&self, account: &Account) -> Result<Option<User>, DriverError> {
        let account = self.check_user(account)?;
        let mut session = self.sql.session().await?;
        if account.host == "localhost" || self.stored(&mut session, &account).await?.is_none() {
            return Ok(None);
        }
        let databases = granted(&mut session, &account).await?.into_iter().collect();
        Ok(Some(User {
            account,
            password: None,
            databases,
        }))
    }

    pub(super) async fn page_of_users(&self, page: &PageRequest) -> Result<Page<User>, DriverError> {
        let hidden: Vec<Value> = self.hidden_users().map(Value::from).collect();
        let filter = format!("host <> 'localhost' AND user NOT IN ({})", sql::marks(hidden.len()));
        let (clauses, bound) = page::clauses("CONCAT(user, '@', host)", page, &filter, hidden);
        let query = format!("SELECT user, host FROM {}{clauses}", self.flavour.users);
        let mut session = self.sql.session().await?;
        let rows: Vec<(String, String)> = session.rows("list users", query, bound).await?;
        let rows = page::cut(rows, page.limit, |(user, host)| format!("{user}@{host}"));
        let mut grants = grants_of(&mut session, &rows.items).await?;
        let items = rows.items.into_iter().map(|key| {
            let databases = grants.remove(&key).unwrap_or_default().into_iter().collect();
            let (name, host) = key;
            User {
                account: Account { name, host },
                password: None,
                databases,
            }
        });
        Ok(Page {
            items: items.collect(),
            next_marker: rows.next_marker,
        })
    }

    pub(super) async fn set_passwords(&self, changes: &[PasswordChange]) -> Result<Change, DriverError> {
        let mut checked = Vec::with_capacity(changes.len());
        for change in changes {
            let account = self.check_user(&change.account)?;
            check_password(&account, &change.password)?;
            checked.push((account, &change.password));
        }
        let mut session = self.writer().await?;
        let mut known = Vec::with_capacity(checked.len());
        for (account, password) in checked {
            let stored = self.need(&mut session, &account).await?;
            known.push((account, stored, password));
        }
        let mut change = Change::Unchanged;
        for (account, stored, password) in known {
            change = change.or(self.set_password(&mut session, &account, &stored, password).await?);
        }
        Ok(change)
    }

    pub(super) async fn set_attributes(&self, account: &Account, wanted: &UserAttributes) -> Result<Change, DriverError> {
        let account = self.check_user(account)?;
        let renamed = Account {
            name: wanted.name.clone().unwrap_or_else(|| account.name.clone()),
            host: wanted.host.clone().unwrap_or_else(|| account.host.clone()).to_lowercase(),
        };
        if renamed != account {
            self.check_new_user(&renamed)?;
        }
        if let Some(password) = &wanted.password {
            check_password(&account, password)?;
        }
        let mut session = self.writer().await?;
        let stored = self.need(&mut session, &account).await?;
        if renamed != account && self.stored(&mut session, &renamed).await?.is_some() {
            return Err(DriverError::new(
                ErrorKind::Exists,
                format!("there is already a user {}", shown(&renamed)),
            ));
        }
        let mut change = Change::Unchanged;
        if let Some(password) = &wanted.password {
            change = self.set_password(&mut session, &account, &stored, password).await?;
        }
        if renamed != account {
            let statement = format!("RENAME USER {} TO {}", sql::account(&account), sql::account(&renamed));
            session
                .run(&format!("rename user {} to {}", shown(&account), shown(&renamed)), statement)
                .await?;
            change = Change::Done;
        }
        Ok(change)
    }

    pub(super) async fn grant_databases(&self, account: &Account, databases: &[String]) -> Result<Change, DriverError> {
        let account = self.check_user(account)?;
        for database in databases {
            self.check_database(database).map_err(|error| match error.kind() {
                ErrorKind::Reserved => {
                    DriverError::new(ErrorKind::Reserved, format!("Grant access to {database} is not allowed"))
                }
                _ => error,
            })?;
        }
        let mut session = self.writer().await?;
        self.need(&mut session, &account).await?;
        grant_all(&mut session, &account, databases).await
    }

    pub(super) async fn revoke_database(&self, account: &Account, database: &str) -> Result<Change, DriverError> {
        let account = self.check_user(account)?;
        self.check_database(database)?;
        let mut session = self.writer().await?;
        self.need(&mut session, &account).await?;
        let mut change = Change::Unchanged;
        for stored in stored_grants(&mut session, &account).await? {
            // The stored form may be the control plane's own, which has no escapes.
            if sql::granted_database(&stored) == database {
                let statement = format!(
                    "REVOKE ALL PRIVILEGES ON {}.* FROM {}",
                    sql::name(&stored),
                    sql::account(&account)
                );
                session
                    .run(&format!("revoke '{database}' from {}", shown(&account)), statement)
                    .await?;
                change = Change::Done;
            }
        }
        Ok(change)
    }

    pub(super) async fn databases_of(&self, account: &Account) -> Result<Vec<Database>, DriverError> {
        let account = self.check_user(account)?;
        let mut session = self.sql.session().await?;
        self.need(&mut session, &account).await?;
        let names = granted(&mut session, &account).await?;
        Ok(names
            .into_iter()
            .map(|name| Database {
                name,
                character_set: None,
                collation: None,
            })
            .collect())
    }

    async fn stored(&self, session: &mut Session, account: &Account) -> Result<Option<Stored>, DriverError> {
        let query = format!("SELECT plugin, hash FROM {} WHERE user = ? AND host = ?", self.flavour.users);
        let rows: Vec<(Option<String>, Option<String>)> =
            session.rows("look for a user", query, (&account.name, &account.host)).await?;
        let stored = |(plugin, hash): (Option<String>, Option<String>)| Stored {
            plugin: plugin.unwrap_or_default(),
            hash: hash.unwrap_or_default(),
        };
        Ok(rows.into_iter().next().map(stored))
    }

    async fn need(&self, session: &mut Session, account: &Account) -> Result<Stored, DriverError> {
        let missing = || DriverError::new(ErrorKind::NotFound, format!("there is no user {}", shown(account)));
        self.stored(session, account).await?.ok_or_else(missing)
    }

    async fn set_password(
        &self,
        session: &mut Session,
        account: &Account,
        stored: &Stored,
        password: &Secret,
    ) -> Result<Change, DriverError> {
        if self.flavour.scheme.matches(&stored.plugin, &stored.hash, password) {
            return Ok(Change::Unchanged);
        }
        self.force_password(session, account, password).await
    }

    /// Sets a password whatever is stored.
    pub(super) async fn force_password(
        &self,
        session: &mut Session,
        account: &Account,
        password: &Secret,
    ) -> Result<Change, DriverError> {
        let statement = format!(
            "ALTER USER {} {}",
            sql::account(account),
            self.flavour.scheme.clause(password)
        );
        session
            .run(&format!("set the password of {}", shown(account)), statement)
            .await?;
        Ok(Change::Done)
    }
}

/// A user for people.
fn shown(account: &Account) -> String {
    format!("'{}'@'{}'", account.name.escape_debug(), account.host.escape_debug())
}

/// Grants all privileges; says whether the server's own account of the user's grants differs afterwards.
async fn grant_all(session: &mut Session, account: &Account, databases: &[String]) -> Result<Change, DriverError> {
    if databases.is_empty() {
        return Ok(Change::Unchanged);
    }
    let before = grants_shown(session, account).await?;
    for database in databases {
        let statement = format!(
            "GRANT ALL PRIVILEGES ON {} TO {}",
            sql::grant_target(database),
            sql::account(account)
        );
        session
            .run(&format!("grant '{database}' to {}", shown(account)), statement)
            .await?;
    }
    let after = grants_shown(session, account).await?;
    Ok(if before == after { Change::Unchanged } else { Change::Done })
}

async fn grants_shown(session: &mut Session, account: &Account) -> Result<BTreeSet<String>, DriverError> {
    let doing = "read a user's grants";
    let rows: Vec<String> = session
        .try_text_rows(doing, format!("SHOW GRANTS FOR {}", sql::account(account)))
        .await?
        .map_err(|error| errors::sql(doing, error))?;
    Ok(rows.into_iter().collect())
}

async fn stored_grants(session: &mut Session, account: &Account) -> Result<Vec<String>, DriverError> {
    let query = "SELECT Db FROM mysql.db WHERE User = ? AND Host = ? ORDER BY Db";
    session
        .rows("read a user's grants", query, (&account.name, &account.host))
        .await
}

async fn granted(session: &mut Session, account: &Account) -> Result<BTreeSet<String>, DriverError> {
    Ok(stored_grants(session, account)
        .await?
        .iter()
        .map(|stored| sql::granted_database(stored))
        .collect())
}

/// The databases of many users, in a few queries whatever their number.
async fn grants_of(
    session: &mut Session,
    users: &[(String, String)],
) -> Result<HashMap<(String, String), BTreeSet<String>>, DriverError> {
    let names: BTreeSet<&str> = users.iter().map(|(user, _)| user.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let mut grants: HashMap<_, BTreeSet<String>> = HashMap::new();
    for batch in names.chunks(BATCH) {
        let query = format!(
            "SELECT User, Host, Db FROM mysql.db WHERE User IN ({})",
            sql::marks(batch.len())
        );
        let bound: Vec<Value> = batch.iter().map(|name| Value::from(*name)).collect();
        let rows: Vec<(String, String, String)> = session.rows("read users' grants", query, bound).await?;
        for (user, host, stored) in rows {
            grants.entry((user, host)).or_default().insert(sql::granted_database(&stored));
        }
    }
    Ok(grants)
}
