//! Databases and users of the pretended server.

use crate::datastore::Sim;
use crate::state::{State, StoredUser, hash, key};
use async_trait::async_trait;
use datastore_api::{
    Account, Accounts, Change, Database, DriverError, ErrorKind, ExposeSecret, Page, PageRequest, PasswordChange, Secret, User,
    UserAttributes,
};
use std::collections::BTreeMap;
use std::ops::Bound;

#[async_trait]
impl Accounts for Sim {
    async fn create_databases(&self, databases: &[Database]) -> Result<Change, DriverError> {
        for database in databases {
            self.check_database(&database.name)?;
        }
        self.write(|state| {
            let before = state.databases.len();
            for database in databases {
                let properties = (database.character_set.clone(), database.collation.clone());
                state.databases.entry(database.name.clone()).or_insert(properties);
            }
            Ok(changed(state.databases.len() != before))
        })
        .await
    }

    async fn delete_database(&self, name: &str) -> Result<Change, DriverError> {
        self.check_database(name)?;
        self.write(|state| Ok(changed(state.databases.remove(name).is_some()))).await
    }

    async fn list_databases(&self, page: &PageRequest) -> Result<Page<Database>, DriverError> {
        let state = self.running().await?;
        let hidden = &self.context().ignore_databases;
        Ok(page_of(
            &state.databases,
            page,
            |name| !hidden.contains(name),
            |name, _| state.database(name),
        ))
    }

    async fn create_users(&self, users: &[User]) -> Result<Change, DriverError> {
        for user in users {
            self.check_user(&user.account)?;
            match &user.password {
                Some(password) => check_password(password)?,
                None => return Err(invalid(format!("user {} has no password", key(&user.account)))),
            }
            for database in &user.databases {
                self.check_database(database)?;
            }
        }
        self.write(|state| {
            let before = state.users.clone();
            for user in users {
                let stored = state.users.entry(key(&user.account)).or_insert_with(|| StoredUser {
                    name: user.account.name.clone(),
                    host: user.account.host.clone(),
                    password: 0,
                    grants: Default::default(),
                });
                stored.password = user.password.as_ref().map(hash).unwrap_or_default();
                stored.grants.extend(user.databases.iter().cloned());
            }
            Ok(changed(before != state.users))
        })
        .await
    }

    async fn delete_user(&self, account: &Account) -> Result<Change, DriverError> {
        self.check_user(account)?;
        self.write(|state| Ok(changed(state.users.remove(&key(account)).is_some())))
            .await
    }

    async fn find_user(&self, account: &Account) -> Result<Option<User>, DriverError> {
        self.check_user(account)?;
        Ok(self.running().await?.users.get(&key(account)).map(answer))
    }

    async fn list_users(&self, page: &PageRequest) -> Result<Page<User>, DriverError> {
        let state = self.running().await?;
        let hidden = &self.context().ignore_users;
        let shown = |key: &String| state.users.get(key).is_some_and(|user| !hidden.contains(&user.name));
        Ok(page_of(&state.users, page, shown, |_, user| answer(user)))
    }

    async fn change_passwords(&self, changes: &[PasswordChange]) -> Result<Change, DriverError> {
        for change in changes {
            self.check_user(&change.account)?;
            check_password(&change.password)?;
        }
        self.write(|state| {
            changes
                .iter()
                .try_fold(Change::Unchanged, |so_far, change| Ok(so_far.or(state.set_password(change)?)))
        })
        .await
    }

    async fn update_user(&self, account: &Account, wanted: &UserAttributes) -> Result<Change, DriverError> {
        self.check_user(account)?;
        let renamed = Account {
            name: wanted.name.clone().unwrap_or_else(|| account.name.clone()),
            host: wanted.host.clone().unwrap_or_else(|| account.host.clone()),
        };
        self.check_user(&renamed)?;
        self.write(|state| {
            let mut user = state.user(account)?.clone();
            let before = user.clone();
            if renamed != *account && state.users.contains_key(&key(&renamed)) {
                return Err(DriverError::new(
                    ErrorKind::Exists,
                    format!("there is already a user {}", key(&renamed)),
                ));
            }
            user.password = wanted.password.as_ref().map_or(user.password, hash);
            (user.name, user.host) = (renamed.name.clone(), renamed.host.clone());
            let differs = user != before;
            state.users.remove(&key(account));
            state.users.insert(key(&renamed), user);
            Ok(changed(differs))
        })
        .await
    }

    async fn grant(&self, account: &Account, databases: &[String]) -> Result<Change, DriverError> {
        self.check_user(account)?;
        for database in databases {
            self.check_database(database)?;
        }
        self.write(|state| {
            let grants = &mut state.user(account)?.grants;
            let before = grants.len();
            grants.extend(databases.iter().cloned());
            Ok(changed(grants.len() != before))
        })
        .await
    }

    async fn revoke(&self, account: &Account, database: &str) -> Result<Change, DriverError> {
        self.check_user(account)?;
        self.check_database(database)?;
        self.write(|state| Ok(changed(state.user(account)?.grants.remove(database))))
            .await
    }

    async fn list_access(&self, account: &Account) -> Result<Vec<Database>, DriverError> {
        self.check_user(account)?;
        let mut state = self.running().await?;
        let granted = state.user(account)?.grants.clone();
        Ok(granted
            .into_iter()
            .map(|name| Database {
                name,
                character_set: None,
                collation: None,
            })
            .collect())
    }

    async fn enable_root(&self, password: Option<Secret>) -> Result<User, DriverError> {
        let password = password.unwrap_or_else(|| Secret::from("sim-root-password".to_owned()));
        check_password(&password)?;
        let account = root();
        self.write(|state| {
            let root = StoredUser {
                name: account.name.clone(),
                host: account.host.clone(),
                password: hash(&password),
                grants: Default::default(),
            };
            state.users.insert(key(&account), root);
            Ok(Change::Done)
        })
        .await?;
        Ok(User {
            account,
            password: Some(password),
            databases: Vec::new(),
        })
    }

    async fn disable_root(&self) -> Result<Change, DriverError> {
        self.write(|state: &mut State| {
            let root = state.users.get_mut(&key(&root()));
            Ok(changed(
                root.is_some_and(|user| std::mem::replace(&mut user.password, 0) != 0),
            ))
        })
        .await
    }

    async fn is_root_enabled(&self) -> Result<bool, DriverError> {
        Ok(self.running().await?.users.contains_key(&key(&root())))
    }
}

impl Sim {
    fn check_user(&self, account: &Account) -> Result<(), DriverError> {
        check_name("user", &account.name, 32)?;
        check_name("host", &account.host, 255)?;
        reserved("user", &account.name, &self.context().ignore_users)
    }

    fn check_database(&self, name: &str) -> Result<(), DriverError> {
        check_name("database", name, 64)?;
        reserved("database", name, &self.context().ignore_databases)
    }
}

fn check_name(what: &str, name: &str, longest: usize) -> Result<(), DriverError> {
    let bad = |c: char| c.is_control() || "'\"`;,\\".contains(c);
    if name.is_empty() || name.chars().count() > longest || name.contains(bad) || name.trim() != name {
        return Err(invalid(format!("'{}' is not a valid {what} name", name.escape_debug())));
    }
    Ok(())
}

fn check_password(password: &Secret) -> Result<(), DriverError> {
    check_name("password", password.expose_secret(), 255).map_err(|_| invalid("the password is not acceptable".to_owned()))
}

fn reserved(what: &str, name: &str, list: &[String]) -> Result<(), DriverError> {
    if list.iter().any(|entry| entry == name) {
        return Err(DriverError::new(
            ErrorKind::Reserved,
            format!("{what} name '{name}' is reserved"),
        ));
    }
    Ok(())
}

fn page_of<V, T>(
    all: &BTreeMap<String, V>,
    page: &PageRequest,
    shown: impl Fn(&String) -> bool,
    make: impl Fn(&str, &V) -> T,
) -> Page<T> {
    let from = match &page.marker {
        None => Bound::Unbounded,
        Some(marker) if page.include_marker => Bound::Included(marker.clone()),
        Some(marker) => Bound::Excluded(marker.clone()),
    };
    let mut entries = all.range((from, Bound::Unbounded)).filter(|(key, _)| shown(key)).peekable();
    let limit = page.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut items = Vec::new();
    let mut last = None;
    while items.len() < limit {
        let Some((key, value)) = entries.next() else { break };
        items.push(make(key, value));
        last = Some(key.clone());
    }
    Page {
        items,
        next_marker: entries.peek().and(last),
    }
}

fn answer(user: &StoredUser) -> User {
    User {
        account: Account {
            name: user.name.clone(),
            host: user.host.clone(),
        },
        password: None,
        databases: user.grants.iter().cloned().collect(),
    }
}

fn root() -> Account {
    Account {
        name: "root".into(),
        host: "%".into(),
    }
}

fn changed(yes: bool) -> Change {
    if yes { Change::Done } else { Change::Unchanged }
}

fn invalid(text: String) -> DriverError {
    DriverError::new(ErrorKind::Invalid, text)
}
