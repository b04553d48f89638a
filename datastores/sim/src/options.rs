//! What a test may tell the datastore to do wrong.

use datastore_api::{DriverError, ErrorKind};
use std::collections::BTreeMap;
use std::time::Duration;

/// The options of the datastore's section in the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `fail_step`: this step of a preparation fails each time.
    pub fail_step: Option<String>,
    /// `hang_step`: this step of a preparation does not end within an hour.
    pub hang_step: Option<String>,
    /// `fail_verb`: this verb of replication (`block_writes`, `detach`, ...) fails each time.
    pub fail_verb: Option<String>,
    /// `hang_verb`: this verb of replication does not end within an hour.
    pub hang_verb: Option<String>,
    /// `slow_ms`: each step, start and stop takes this long.
    pub slow: Duration,
    /// `port`: how pretended servers of one process find each other. Nothing listens there.
    pub port: Option<u16>,
}

impl Options {
    /// Reads them. `Invalid` names an unknown option or a bad number.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self, DriverError> {
        let mut options = Self::default();
        for (key, value) in given {
            match key.as_str() {
                "fail_step" => options.fail_step = Some(value.clone()),
                "hang_step" => options.hang_step = Some(value.clone()),
                "fail_verb" => options.fail_verb = Some(value.clone()),
                "hang_verb" => options.hang_verb = Some(value.clone()),
                "slow_ms" => options.slow = Duration::from_millis(number(key, value)?),
                "port" => options.port = Some(number(key, value)?),
                "bind_address" => {}
                _ => return Err(invalid(format!("the sim datastore has no option '{key}'"))),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, DriverError> {
    value
        .parse()
        .map_err(|_| invalid(format!("option {key}='{value}' of the sim datastore is not a fitting number")))
}

fn invalid(text: String) -> DriverError {
    DriverError::new(ErrorKind::Invalid, text)
}
