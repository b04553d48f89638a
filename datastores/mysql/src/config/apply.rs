//! Parameters of the running server: checked against its catalogue, set, read back, and taken back if one of them fails.

use super::option_file::check_name;
use super::variables::{QUERY, Row, Setting, Variable};
use crate::conn::Session;
use crate::datastore::Server;
use crate::errors::{self, invalid};
use crate::sql;
use datastore_api::{ConfigEffect, DriverError, chain};
use mysql_async::{Params, Value as SqlValue};
use serde_json::{Map, Value};
use tracing::warn;

impl Server {
    /// Checks names and values against the running server. `Unavailable` if it cannot be asked.
    pub(super) async fn check_values(&self, values: &Map<String, Value>) -> Result<(), DriverError> {
        if values.is_empty() {
            return Ok(());
        }
        let mut session = self.sql.session().await?;
        self.settings_of(&mut session, values).await.map(drop)
    }

    /// Sets what can be set now. Either all of it is in force afterwards or, after an error, none.
    pub(super) async fn apply_live(&self, values: &Map<String, Value>) -> Result<ConfigEffect, DriverError> {
        if values.is_empty() {
            return Ok(ConfigEffect::Unchanged);
        }
        let mut session = self.sql.session().await?;
        let changes: Vec<_> = self
            .settings_of(&mut session, values)
            .await?
            .into_iter()
            .filter(|(variable, setting)| !variable.is_now(setting))
            .collect();
        let (later, now): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(variable, _)| variable.read_only);
        for (index, (variable, setting)) in now.iter().enumerate() {
            if let Err(error) = set(&mut session, variable, &setting.literal()).await {
                take_back(&mut session, &now[..index]).await;
                return Err(error);
            }
        }
        let names: Vec<&str> = now.iter().map(|(variable, _)| variable.name.as_str()).collect();
        for variable in catalogue(&mut session, &names).await? {
            let wanted = now
                .iter()
                .find(|(before, _)| before.name == variable.name)
                .map(|(_, setting)| setting);
            if wanted.is_some_and(|wanted| !variable.is_now(wanted)) {
                // Rounded to the parameter's own steps, or adapted by the server: in force, but not to the letter.
                warn!(
                    parameter = variable.name,
                    value = variable.value,
                    "the server rounded a parameter"
                );
            }
        }
        Ok(match (later.is_empty(), now.is_empty()) {
            (false, _) => ConfigEffect::RestartRequired(later.into_iter().map(|(variable, _)| variable.name).collect()),
            (true, false) => ConfigEffect::Live,
            (true, true) => ConfigEffect::Unchanged,
        })
    }

    /// Each wanted value with the server's description of it. Options that are no variables are left out.
    async fn settings_of(
        &self,
        session: &mut Session,
        values: &Map<String, Value>,
    ) -> Result<Vec<(Variable, Setting)>, DriverError> {
        let names: Vec<&str> = values.keys().map(String::as_str).collect();
        names.iter().try_for_each(|name| check_name(name))?;
        let known = catalogue(session, &names).await?;
        let is_known = |name: &str| known.iter().any(|variable| variable.name == name) || self.flavour.file_only.contains(&name);
        if let Some(name) = names.iter().find(|name| !is_known(name)) {
            return Err(invalid(format!("the server has no parameter '{name}'")));
        }
        let checked = known.into_iter().map(|variable| {
            let setting = variable.check(&values[variable.name.as_str()])?;
            Ok((variable, setting))
        });
        checked.collect()
    }
}

async fn catalogue(session: &mut Session, names: &[&str]) -> Result<Vec<Variable>, DriverError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!("{QUERY} ({})", sql::marks(names.len()));
    let bound = Params::Positional(names.iter().map(|name| SqlValue::from(*name)).collect());
    let rows: Vec<Row> = session.rows("read the server's parameters", query, bound).await?;
    Ok(rows.into_iter().map(Variable::new).collect())
}

async fn set(session: &mut Session, variable: &Variable, literal: &str) -> Result<(), DriverError> {
    let doing = format!("set parameter {}", variable.name);
    let statement = format!("SET GLOBAL {} = {literal}", sql::name(&variable.name));
    session
        .try_run(&doing, statement)
        .await?
        .map_err(|error| errors::sql(&doing, error))
}

async fn take_back(session: &mut Session, done: &[(Variable, Setting)]) {
    for (variable, _) in done.iter().rev() {
        let before = Value::String(variable.value.clone());
        let literal = variable
            .check(&before)
            .map_or_else(|_| sql::text(&variable.value), |setting| setting.literal());
        if let Err(error) = set(session, variable, &literal).await {
            warn!(
                parameter = variable.name,
                error = chain(&error),
                "could not take a parameter back"
            );
        }
    }
}
