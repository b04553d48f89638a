//! The driver's own options.

use crate::errors::invalid;
use datastore_api::DriverError;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// The options of the datastore's section in the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `port`: TCP port, whatever the base configuration says.
    pub port: Option<u16>,
    /// `bind_address`: the one address to listen on.
    pub bind_address: Option<IpAddr>,
    /// `backup_lock_limit`: seconds that clients and a backup may wait for each other's locks; then the backup gives way.
    pub backup_lock_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: None,
            bind_address: None,
            backup_lock_limit: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// Reads them. `Invalid` names an unknown option or a bad value.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self, DriverError> {
        let mut settings = Self::default();
        for (key, value) in given {
            let bad = |what: &str| {
                invalid(format!(
                    "option {key} of the datastore is '{}', which is no {what}",
                    value.escape_debug()
                ))
            };
            match key.as_str() {
                "port" => settings.port = Some(value.parse().ok().filter(|port| *port != 0).ok_or_else(|| bad("port"))?),
                "bind_address" => settings.bind_address = Some(value.parse().map_err(|_| bad("address"))?),
                "backup_lock_limit" => {
                    let seconds = value.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
                    settings.backup_lock_limit = Duration::from_secs(seconds.ok_or_else(|| bad("number of seconds"))?);
                }
                _ => return Err(invalid(format!("the datastore has no option '{}'", key.escape_debug()))),
            }
        }
        Ok(settings)
    }
}
