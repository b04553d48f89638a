//! Being a source: what must be in force, and what a server has that another has not.

use super::gtid::Gtids;
use crate::config::option_file;
use crate::datastore::Server;
use crate::errors::invalid;
use crate::sql;
use datastore_api::{Change, ConfigEffect, Configuration, DriverError, ErrorKind, Position, chain};
use serde_json::{Map, Value};
use tracing::warn;

/// What a source must have and only a start can give: variable and value.
const NEEDED: [(&str, &str); 2] = [("log_bin", "1"), ("log_slave_updates", "1")];
/// What a source must have and gets while it runs.
const SET: [(&str, &str); 3] = [("gtid_strict_mode", "1"), ("gtid_domain_id", "0"), ("binlog_format", "ROW")];
/// Parameters in the control plane's text that are this driver's business, whatever their value there.
const OURS: [&str; 10] = [
    "log_bin",
    "binlog_format",
    "log_slave_updates",
    "read_only",
    "server_id",
    "relay_log",
    "gtid_strict_mode",
    "gtid_domain_id",
    "log_bin_index",
    "relay_log_index",
];
/// Longest text of options.
const LONGEST: usize = 64 << 10;

impl Server {
    pub(super) async fn be_source(&self, options: Option<&str>) -> Result<Change, DriverError> {
        let mut session = self.role_session().await?;
        let names: Vec<&str> = NEEDED.iter().chain(&SET).map(|(name, _)| *name).collect();
        let columns = names
            .iter()
            .map(|name| format!("@@global.{name}"))
            .collect::<Vec<_>>()
            .join(", ");
        let rows = session
            .sets("look whether it can be a source", format!("SELECT {columns}"))
            .await?;
        let row = rows.first().and_then(|rows| rows.first());
        let is_now = |index: usize| row.and_then(|row| row.get::<String, _>(index)).unwrap_or_default();
        let lacks: Vec<String> = NEEDED
            .iter()
            .enumerate()
            .filter(|(index, (_, wanted))| is_now(*index) != *wanted)
            .map(|(_, (name, wanted))| format!("{name} = {wanted}"))
            .collect();
        if !lacks.is_empty() {
            let text = format!(
                "this server was prepared without replication and cannot be a source before its next restart: it runs without {}",
                lacks.join(", ")
            );
            self.write_system_layer().await?;
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        let changes: Vec<String> = SET
            .iter()
            .enumerate()
            .filter(|(index, (_, wanted))| is_now(NEEDED.len() + index) != *wanted)
            .map(|(_, (name, wanted))| format!("GLOBAL {name} = {wanted}"))
            .collect();
        let mut change = Change::Unchanged;
        if !changes.is_empty() {
            session
                .run("make it fit to be a source", format!("SET {}", changes.join(", ")))
                .await?;
            change = Change::Done;
        }
        drop(session);
        match options {
            Some(text) => Ok(change.or(self.take_options(text).await?)),
            None => Ok(change),
        }
    }

    /// Sets what the control plane wants of a source, as far as it can be set now. What cannot is no reason to refuse: its templates
    /// name settings of another lay-out (paths of logs), and the ones that replication rests on are in force already.
    async fn take_options(&self, text: &str) -> Result<Change, DriverError> {
        if text.len() > LONGEST || text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c)) {
            return Err(invalid("the options for a source are too long or hold control characters"));
        }
        let mut change = Change::Unchanged;
        for (name, value) in option_file::parse(text) {
            let name = name
                .trim_start_matches("loose_")
                .trim_start_matches("loose-")
                .replace('-', "_")
                .to_ascii_lowercase();
            if OURS.contains(&name.as_str()) {
                continue;
            }
            let one = Map::from_iter([(name.clone(), Value::String(value))]);
            match self.apply_overrides(&one).await {
                Ok(ConfigEffect::Unchanged) => {}
                Ok(ConfigEffect::Live) => change = Change::Done,
                Ok(ConfigEffect::RestartRequired(_)) => {
                    warn!(parameter = name, "an option for a source needs a restart: left out")
                }
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    warn!(parameter = name, error = chain(&error), "an option for a source was left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(change)
    }

    /// Transactions here that a source with this log state never had. While this server follows, what it received counts as the source's:
    /// the source's state is older than this look.
    pub(super) async fn list_errant(&self, source: &Position) -> Result<Vec<String>, DriverError> {
        let source = Gtids::parse(&source.0)?;
        let (id, mine) = self.read_log_state().await?;
        let suspects = mine.errant(&source, |_| true);
        if suspects.is_empty() {
            return Ok(suspects);
        }
        let follows = self.read_status().await?.applying;
        Ok(mine.errant(&source, |server| !follows || server == id))
    }

    pub(super) async fn list_user_databases(&self) -> Result<Vec<String>, DriverError> {
        let hidden: Vec<String> = self
            .flavour
            .reserved_databases
            .iter()
            .map(|name| (*name).to_owned())
            .chain(self.context.ignore_databases.iter().cloned())
            .map(|name| sql::text(&name))
            .collect();
        let query = format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ({}) ORDER BY 1",
            hidden.join(", ")
        );
        let mut session = self.role_session().await?;
        session.rows("list databases", query, ()).await
    }
}
