//! Configuration of the pretended server. Parameters whose name begins with `restart_` take effect at the next start only.

use crate::datastore::Sim;
use async_trait::async_trait;
use datastore_api::{Change, ConfigEffect, ConfigOverrides, Configuration, DriverError, ErrorKind};
use serde_json::{Map, Value};

#[async_trait]
impl Configuration for Sim {
    async fn write_base(&self, contents: &str) -> Result<Change, DriverError> {
        self.change_stored(|state| {
            contents.clone_into(&mut state.base);
            Ok(())
        })
        .await
    }

    async fn update_overrides(&self, wanted: &ConfigOverrides) -> Result<Change, DriverError> {
        check(&wanted.values)?;
        self.change_stored(|state| {
            if wanted.remove {
                state.overrides.clear();
            }
            state.overrides.extend(wanted.values.clone());
            Ok(())
        })
        .await
    }

    async fn apply_overrides(&self, values: &Map<String, Value>) -> Result<ConfigEffect, DriverError> {
        check(values)?;
        let (later, now): (Map<_, _>, Map<_, _>) = values.clone().into_iter().partition(|(name, _)| name.starts_with("restart_"));
        let change = self
            .change(|state| {
                let before = state.live.clone();
                state.live.extend(now);
                Ok(if before == state.live {
                    Change::Unchanged
                } else {
                    Change::Done
                })
            })
            .await?;
        Ok(match (later.is_empty(), change) {
            (false, _) => ConfigEffect::RestartRequired(later.keys().cloned().collect()),
            (true, Change::Done) => ConfigEffect::Live,
            (true, Change::Unchanged) => ConfigEffect::Unchanged,
        })
    }
}

/// The parameters a server would know: any name of small letters, digits and underscores.
fn check(values: &Map<String, Value>) -> Result<(), DriverError> {
    for (name, value) in values {
        let known = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !known {
            return Err(DriverError::new(
                ErrorKind::Invalid,
                format!("there is no parameter '{}'", name.escape_debug()),
            ));
        }
        if value.is_null() || value.is_array() || value.is_object() {
            return Err(DriverError::new(
                ErrorKind::Invalid,
                format!("parameter {name} needs a number, text or boolean"),
            ));
        }
    }
    Ok(())
}
