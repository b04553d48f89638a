//! Accounts that replicas log in with. They are no transactions: each server has its own, so that a replica's log holds nothing of its own.

use super::status;
use crate::datastore::Server;
use crate::errors::invalid;
use crate::{password, sql};
use datastore_api::{Account, Change, DriverError, ErrorKind, ReplicaLogin};

/// Length of a generated password.
const PASSWORD: usize = 32;
/// Longest name of an account.
const LONGEST: usize = 80;

impl Server {
    pub(super) async fn new_login(&self) -> Result<ReplicaLogin, DriverError> {
        let mut bytes = [0u8; 4];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|error| DriverError::caused(ErrorKind::Failed, "could not draw a random name", error))?;
        let login = ReplicaLogin {
            user: format!("slave_{}", hex::encode(bytes)),
            password: password::generate(PASSWORD)?,
        };
        self.keep_login(&login).await?;
        Ok(login)
    }

    pub(super) async fn keep_login(&self, login: &ReplicaLogin) -> Result<Change, DriverError> {
        let account = self.replica_account(&login.user)?;
        let (name, clause) = (sql::account(&account), self.flavour.scheme.clause(&login.password));
        let mut session = self.role_session().await?;
        let query = format!("SELECT plugin, hash FROM {} WHERE user = ? AND host = ?", self.flavour.users);
        let bound = (account.name.as_str(), account.host.as_str());
        let stored: Vec<(Option<String>, Option<String>)> =
            session.rows("look for the account of a replica", query, bound).await?;
        let query = "SELECT Repl_slave_priv FROM mysql.user WHERE User = ? AND Host = ?";
        let granted: Vec<String> = session.rows("look for the account of a replica", query, bound).await?;
        let is_there = stored.first().is_some_and(|(plugin, hash)| {
            let (plugin, hash) = (plugin.as_deref().unwrap_or_default(), hash.as_deref().unwrap_or_default());
            self.flavour.scheme.matches(plugin, hash, &login.password)
        });
        if is_there && granted.first().is_some_and(|granted| granted == "Y") {
            return Ok(Change::Unchanged);
        }
        session
            .run(
                "create the account of a replica",
                format!("CREATE USER IF NOT EXISTS {name} {clause}"),
            )
            .await?;
        session
            .run(
                "set the password of a replica's account",
                format!("ALTER USER {name} {clause}"),
            )
            .await?;
        session
            .run(
                "grant a replica its rights",
                format!("GRANT REPLICATION SLAVE ON *.* TO {name}"),
            )
            .await?;
        Ok(Change::Done)
    }

    pub(super) async fn remove_login(&self, user: &str) -> Result<Change, DriverError> {
        let account = self.replica_account(user)?;
        let mut session = self.role_session().await?;
        let query = format!("SELECT host FROM {} WHERE user = ? AND host = ?", self.flavour.users);
        let bound = (account.name.as_str(), account.host.as_str());
        let there: Vec<String> = session.rows("look for the account of a replica", query, bound).await?;
        if there.is_empty() {
            return Ok(Change::Unchanged);
        }
        let drop = format!("DROP USER IF EXISTS {}", sql::account(&account));
        session.run("remove the account of a replica", drop).await?;
        Ok(Change::Done)
    }

    /// The account of this name, `Invalid` if no account of a replica can have it.
    pub(super) fn replica_account(&self, user: &str) -> Result<Account, DriverError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let reserved = self.flavour.reserved_users.contains(&user);
        if user.is_empty() || user.len() > LONGEST || !user.bytes().all(plain) || reserved {
            let text = format!("'{}' cannot be the account of a replica", user.escape_debug());
            return Err(invalid(text));
        }
        Ok(Account {
            name: user.to_owned(),
            host: "%".to_owned(),
        })
    }

    /// The number upstream orders the replicas of a dead source by. What was received counts: it is applied before a promotion.
    pub(super) async fn read_last_of_source(&self) -> Result<(Option<String>, u64), DriverError> {
        let mut session = self.role_session().await?;
        let look = status::look(&mut session).await?;
        let source = look.source.as_ref();
        let all = source.map_or_else(|| look.applied.clone(), |source| look.applied.clone().and(&source.received));
        let id = source.map(|source| source.server_id).filter(|id| *id != 0);
        Ok((id.map(|id| id.to_string()), all.highest()))
    }
}
