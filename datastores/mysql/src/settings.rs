//! The driver's own options.

use crate::errors::invalid;
use datastore_api::DriverError;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The options of the datastore's section in the configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// `port`: TCP port, whatever the base configuration says.
    pub port: Option<u16>,
    /// `bind_address`: the one address to listen on.
    pub bind_address: Option<IpAddr>,
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
                _ => return Err(invalid(format!("the datastore has no option '{}'", key.escape_debug()))),
            }
        }
        Ok(settings)
    }
}
