//! The drivers: one line for each.

use datastore_api::{Datastore, DriverContext, DriverEntry, DriverError, ErrorKind};
use std::sync::Arc;

/// All drivers of this build.
pub static DRIVERS: &[&DriverEntry] = &[
    &datastore_mysql::ENTRY,
    #[cfg(feature = "sim")]
    &datastore_sim::ENTRY,
];

/// Opens the driver for a datastore manager's name; `NotSupported` lists the names there are.
pub fn open(name: &str, context: DriverContext) -> Result<Arc<dyn Datastore>, DriverError> {
    match DRIVERS.iter().find(|entry| entry.names.contains(&name)) {
        Some(entry) => (entry.open)(context, name),
        None => {
            let known = names().collect::<Vec<_>>().join(", ");
            let text = format!("there is no driver for datastore manager '{name}' (there are: {known})");
            Err(DriverError::new(ErrorKind::NotSupported, text))
        }
    }
}

/// Names of all datastore managers there are drivers for.
pub fn names() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().flat_map(|entry| entry.names.iter().copied())
}
