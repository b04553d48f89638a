//! The remote root user. Whether there is one is read from the server, never remembered.

use super::names::check_password;
use crate::credentials::ROOT;
use crate::datastore::Server;
use crate::errors::invalid;
use crate::{password, sql};
use datastore_api::{Account, Change, DriverError, Secret, User};

impl Server {
    pub(super) async fn make_root(&self, wanted: Option<Secret>) -> Result<User, DriverError> {
        let account = Account {
            name: ROOT.to_owned(),
            host: "%".to_owned(),
        };
        let password = match wanted {
            Some(password) => password,
            None => password::generate(self.context.password_length)?,
        };
        check_password(&account, &password)?;
        let privileges = self.root_privileges()?;
        let mut session = self.writer().await?;
        let create = format!(
            "CREATE USER IF NOT EXISTS {} {}",
            sql::account(&account),
            self.flavour.scheme.clause(&password)
        );
        session.run("create the remote root user", create).await?;
        self.force_password(&mut session, &account, &password).await?;
        let option = if self.context.root_grant_option {
            " WITH GRANT OPTION"
        } else {
            ""
        };
        let grant = format!("GRANT {privileges} ON *.* TO {}{option}", sql::account(&account));
        session.run("grant the remote root user its privileges", grant).await?;
        if self.grants_all() {
            // Nobody but the agent writes to a replica: what root wrote there, its source would never have.
            let revoke = format!("REVOKE {} ON *.* FROM {}", self.flavour.bypass, sql::account(&account));
            session
                .run("keep the remote root user from writing to a replica", revoke)
                .await?;
        }
        Ok(User {
            account,
            password: Some(password),
            databases: Vec::new(),
        })
    }

    pub(super) async fn lock_root(&self) -> Result<Change, DriverError> {
        let mut change = Change::Unchanged;
        let mut session = self.writer().await?;
        for host in self.root_hosts(&mut session).await? {
            let unknown = password::generate(self.context.password_length)?;
            let account = Account {
                name: ROOT.to_owned(),
                host,
            };
            change = change.or(self.force_password(&mut session, &account, &unknown).await?);
        }
        Ok(change)
    }

    pub(super) async fn has_remote_root(&self) -> Result<bool, DriverError> {
        let mut session = self.sql.session().await?;
        Ok(!self.root_hosts(&mut session).await?.is_empty())
    }

    async fn root_hosts(&self, session: &mut crate::conn::Session) -> Result<Vec<String>, DriverError> {
        let query = format!(
            "SELECT host FROM {} WHERE user = ? AND host <> 'localhost'",
            self.flavour.users
        );
        session.rows("look for a remote root user", query, (ROOT,)).await
    }

    /// Whether the configured privileges are all there are. An operator who names each one gets exactly these.
    fn grants_all(&self) -> bool {
        let all = |word: &String| ["ALL", "ALL PRIVILEGES"].contains(&word.trim().to_ascii_uppercase().as_str());
        self.context.root_grant.is_empty() || self.context.root_grant.iter().any(all)
    }

    /// The configured privileges. They come from a file of the operator, and still are not pasted unread.
    fn root_privileges(&self) -> Result<String, DriverError> {
        let words: Vec<String> = self
            .context
            .root_grant
            .iter()
            .map(|word| word.trim().to_ascii_uppercase())
            .collect();
        let plain = |word: &String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b' ');
        match words.iter().find(|word| !plain(word)) {
            Some(bad) => Err(invalid(format!("'{}' is not a privilege (root_grant)", bad.escape_debug()))),
            None if words.is_empty() => Ok("ALL PRIVILEGES".to_owned()),
            None => Ok(words.join(", ")),
        }
    }
}
