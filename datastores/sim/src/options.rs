//! What a test may tell the datastore to do wrong.

use datastore_api::{DriverError, ErrorKind};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a pretended backup goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFault {
    /// `fail`: the tool fails, and the driver says so.
    Fail,
    /// `truncate`: the stream ends early, and the driver notices that the last word is missing.
    Truncate,
    /// `swallow`: the stream ends early, and the driver says that all is well.
    Swallow,
    /// `hang`: nothing more comes.
    Hang,
}

/// The options of the datastore's section in the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `fail_step`: this step of a preparation fails each time.
    pub fail_step: Option<String>,
    /// `hang_step`: this step of a preparation does not end within an hour.
    pub hang_step: Option<String>,
    /// `fail_verb`: this verb of replication or backup (`block_writes`, `detach`, `send_backup`, `unpack`, ...) fails each time.
    pub fail_verb: Option<String>,
    /// `hang_verb`: this verb of replication or backup does not end within an hour.
    pub hang_verb: Option<String>,
    /// `backup_bytes`: made-up bytes in the stream of a backup.
    pub backup_bytes: u64,
    /// `backup_fault`: how each backup goes wrong (`fail`, `truncate`, `swallow`, `hang`).
    pub backup_fault: Option<BackupFault>,
    /// `backup_fault_at`: after how many bytes of the stream it does.
    pub backup_fault_at: u64,
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
                "backup_bytes" => options.backup_bytes = number(key, value)?,
                "backup_fault" => options.backup_fault = Some(fault(value)?),
                "backup_fault_at" => options.backup_fault_at = number(key, value)?,
                "slow_ms" => options.slow = Duration::from_millis(number(key, value)?),
                "port" => options.port = Some(number(key, value)?),
                "bind_address" => {}
                _ => return Err(invalid(format!("the sim datastore has no option '{key}'"))),
            }
        }
        Ok(options)
    }
}

fn fault(value: &str) -> Result<BackupFault, DriverError> {
    match value {
        "fail" => Ok(BackupFault::Fail),
        "truncate" => Ok(BackupFault::Truncate),
        "swallow" => Ok(BackupFault::Swallow),
        "hang" => Ok(BackupFault::Hang),
        _ => Err(invalid(format!("the sim datastore knows no backup_fault '{value}'"))),
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
