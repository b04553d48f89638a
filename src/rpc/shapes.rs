//! Data shapes of the wire (contract section 6), and their way to the driver's values and back.

use super::args::Object;
use datastore_api::{Account, Database, ExposeSecret, Page, PageRequest, Secret, User};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Contract 6.1. Empty texts count as absent.
#[derive(Debug, Clone, Deserialize)]
pub struct WireDatabase {
    #[serde(rename = "_name")]
    pub name: String,
    #[serde(rename = "_character_set", default)]
    pub character_set: Option<String>,
    #[serde(rename = "_collate", default)]
    pub collate: Option<String>,
}

impl From<WireDatabase> for Database {
    fn from(wire: WireDatabase) -> Self {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        Database {
            name: wire.name,
            character_set: some(wire.character_set),
            collation: some(wire.collate),
        }
    }
}

/// Contract 6.1, as an answer.
#[must_use]
pub fn database(database: &Database) -> Value {
    json!({"_name": database.name, "_character_set": database.character_set, "_collate": database.collation})
}

/// Contract 6.2.
#[derive(Debug, Clone, Deserialize)]
pub struct WireUser {
    #[serde(rename = "_name")]
    pub name: String,
    #[serde(rename = "_password", default)]
    pub password: Option<Secret>,
    #[serde(rename = "_host", default)]
    pub host: Option<String>,
    #[serde(rename = "_databases", default)]
    pub databases: Option<Vec<Object<WireDatabase>>>,
}

impl From<WireUser> for User {
    fn from(wire: WireUser) -> Self {
        let databases = wire.databases.unwrap_or_default();
        User {
            account: account(wire.name, wire.host),
            password: wire.password,
            databases: databases.into_iter().map(|Object(database)| database.name).collect(),
        }
    }
}

/// An account; a missing or empty host means everywhere.
#[must_use]
pub fn account(name: String, host: Option<String>) -> Account {
    Account {
        name,
        host: host.filter(|host| !host.is_empty()).unwrap_or_else(|| "%".to_owned()),
    }
}

/// Contract 6.2 as an answer: passwords are never read back.
#[must_use]
pub fn user(user: &User) -> Value {
    let databases: Vec<_> = user
        .databases
        .iter()
        .map(|name| json!({"_name": name, "_character_set": null, "_collate": null}))
        .collect();
    json!({"_name": user.account.name, "_password": null, "_host": user.account.host, "_databases": databases, "_is_root": false})
}

/// Contract 6.3: the one answer that carries a password in the clear, because the caller asked for it.
#[must_use]
pub fn root_user(user: &User) -> Value {
    let password = user.password.as_ref().map(|password| password.expose_secret());
    json!({"_name": user.account.name, "_password": password, "_host": user.account.host, "_databases": [], "_is_root": true})
}

/// Arguments of a list.
#[derive(Debug, Deserialize)]
pub struct ListArgs {
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    marker: Option<String>,
    #[serde(default)]
    include_marker: Option<bool>,
}

impl From<ListArgs> for PageRequest {
    fn from(args: ListArgs) -> Self {
        PageRequest {
            limit: args.limit,
            marker: args.marker.filter(|marker| !marker.is_empty()),
            include_marker: args.include_marker.unwrap_or(false),
        }
    }
}

/// Answer of a list: `[[...], next_marker]`.
#[derive(Debug, Serialize)]
pub struct ListReply(Vec<Value>, Option<String>);

impl ListReply {
    /// From a page.
    pub fn new<T>(page: &Page<T>, shape: fn(&T) -> Value) -> Self {
        Self(page.items.iter().map(shape).collect(), page.next_marker.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_host_may_come_from_everywhere() {
        let wire: WireUser = serde_json::from_value(json!({"_name": "bob", "_password": "pw"})).unwrap();
        let user = User::from(wire);
        assert_eq!(user.account.host, "%");
        assert!(user.databases.is_empty());
        assert!(!format!("{user:?}").contains("pw"));
    }

    #[test]
    fn an_empty_character_set_is_none() {
        let wire: WireDatabase = serde_json::from_value(json!({"_name": "db", "_character_set": "", "_collate": null})).unwrap();
        assert_eq!(Database::from(wire).character_set, None);
    }
}
