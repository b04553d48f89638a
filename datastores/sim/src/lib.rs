//! The in-memory datastore for tests, and the example to copy for a new driver.
//!
//! Owns: a pretended database whose state is one JSON file under the mount point, so that it outlives the agent.
//! Uses: `datastore-api` and the [`Host`](datastore_api::Host) it is handed. Never does: start a process, open a socket, take part in a release.
//!
//! A test tells it how to misbehave through the datastore's options: see [`Options`]. A file `sim.crashed` at the mount point makes
//! its health `Crashed` with that file's text as reason, until it is started again.

mod accounts;
mod backup;
mod config;
mod datastore;
mod options;
mod replication;
mod state;

use datastore_api::{Datastore, DriverContext, DriverEntry, DriverError};
pub use options::{BackupFault, Options};
use std::sync::Arc;

/// How the registry finds this driver.
pub static ENTRY: DriverEntry = DriverEntry { names: &["sim"], open };

fn open(context: DriverContext, _name: &str) -> Result<Arc<dyn Datastore>, DriverError> {
    let options = Options::parse(&context.options)?;
    Ok(Arc::new(datastore::Sim::new(context, options)))
}
