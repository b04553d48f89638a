//! Databases.

use super::page;
use crate::conn::Session;
use crate::datastore::Server;
use crate::errors::invalid;
use crate::sql;
use datastore_api::{Change, Database, DriverError, Page, PageRequest};

/// What a database has when the request names neither character set nor collation.
const DEFAULT: (&str, &str) = ("utf8mb3", "utf8mb3_general_ci");

impl Server {
    pub(super) async fn make_databases(&self, databases: &[Database]) -> Result<Change, DriverError> {
        for database in databases {
            self.check_new_database(&database.name)?;
        }
        let mut session = self.writer().await?;
        let mut clauses = Vec::with_capacity(databases.len());
        for database in databases {
            clauses.push(alphabet(&mut session, database).await?);
        }
        let mut change = Change::Unchanged;
        for (database, clause) in databases.iter().zip(clauses) {
            if exists(&mut session, &database.name).await? {
                continue;
            }
            let statement = format!("CREATE DATABASE IF NOT EXISTS {}{clause}", sql::name(&database.name));
            session
                .run(&format!("create database '{}'", database.name), statement)
                .await?;
            change = Change::Done;
        }
        Ok(change)
    }

    pub(super) async fn drop_database(&self, name: &str) -> Result<Change, DriverError> {
        self.check_database(name)?;
        let mut session = self.writer().await?;
        if !exists(&mut session, name).await? {
            return Ok(Change::Unchanged);
        }
        let statement = format!("DROP DATABASE IF EXISTS {}", sql::name(name));
        session
            .run(&format!("drop database '{}'", name.escape_debug()), statement)
            .await?;
        Ok(Change::Done)
    }

    pub(super) async fn page_of_databases(&self, page: &PageRequest) -> Result<Page<Database>, DriverError> {
        let engine = self.flavour.reserved_databases.iter().copied();
        let hidden: Vec<&str> = engine
            .chain(self.context.ignore_databases.iter().map(String::as_str))
            .collect();
        let filter = format!("schema_name NOT IN ({})", sql::marks(hidden.len()));
        let bound = hidden.into_iter().map(mysql_async::Value::from).collect();
        let (clauses, bound) = page::clauses("schema_name", page, &filter, bound);
        let query = format!(
            "SELECT schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata{clauses}"
        );
        let mut session = self.sql.session().await?;
        let rows: Vec<(String, String, String)> = session.rows("list databases", query, bound).await?;
        let databases = rows
            .into_iter()
            .map(|(name, character_set, collation)| Database {
                name,
                character_set: Some(character_set),
                collation: Some(collation),
            })
            .collect();
        Ok(page::cut(databases, page.limit, |database: &Database| database.name.clone()))
    }
}

async fn exists(session: &mut Session, name: &str) -> Result<bool, DriverError> {
    let query =
        "SELECT 1 FROM information_schema.schemata WHERE schema_name = ? AND CAST(schema_name AS BINARY) = CAST(? AS BINARY)";
    let rows: Vec<u8> = session.rows("look for a database", query, (name, name)).await?;
    Ok(!rows.is_empty())
}

/// The clauses for character set and collation, after both were looked up in the server.
async fn alphabet(session: &mut Session, database: &Database) -> Result<String, DriverError> {
    let given = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(modern);
    let (set, collation) = match (given(&database.character_set), given(&database.collation)) {
        (None, None) => return Ok(format!(" CHARACTER SET {} COLLATE {}", DEFAULT.0, DEFAULT.1)),
        (Some(set), None) => {
            let query = "SELECT 1 FROM information_schema.character_sets WHERE character_set_name = ?";
            let known: Vec<u8> = session.rows("look up a character set", query, (&set,)).await?;
            if known.is_empty() {
                return Err(unknown("character set", &set));
            }
            return Ok(format!(" CHARACTER SET {}", sql::text(&set)));
        }
        (set, Some(collation)) => (set, collation),
    };
    let query = "SELECT character_set_name FROM information_schema.collation_character_set_applicability \
                 WHERE ? IN (collation_name, full_collation_name)";
    let sets: Vec<String> = session.rows("look up a collation", query, (&collation,)).await?;
    if sets.is_empty() {
        return Err(unknown("collation", &collation));
    }
    let set = match set {
        None => sets.into_iter().next().unwrap_or_default(),
        Some(set) if sets.iter().any(|known| known.eq_ignore_ascii_case(&set)) => set,
        Some(set) => {
            return Err(invalid(format!(
                "collation '{collation}' does not belong to character set '{set}'"
            )));
        }
    };
    Ok(format!(
        " CHARACTER SET {} COLLATE {}",
        sql::text(&set),
        sql::text(&collation)
    ))
}

/// The older name of `utf8mb3`, which the catalogue no longer lists.
fn modern(name: &str) -> String {
    match name.strip_prefix("utf8") {
        Some("") => "utf8mb3".to_owned(),
        Some(rest) if rest.starts_with('_') => format!("utf8mb3{rest}"),
        _ => name.to_owned(),
    }
}

fn unknown(what: &str, name: &str) -> DriverError {
    let shown: String = name.chars().take(64).collect();
    invalid(format!("the server has no {what} '{}'", shown.escape_debug()))
}
