//! The driver for MariaDB (and, later, its family): runs the server natively and manages it over its socket.
//!
//! Owns: the server's life cycle, its configuration layers, its data directory while it is prepared, databases and users.
//! Uses: `datastore-api`, and the machine only through the [`Host`](datastore_api::Host) it is handed.
//! Never does: start a process itself, print a secret, put a clear password in a statement.
//!
//! ```text
//! datastore ── lifecycle · health · prepare ── config/ · accounts/ · replication/ · clone/ · backup/ · log/    what the agent asks for
//!                      conn · credentials · marker · tool/                                              the server, the volume
//!        flavour · paths · sql · password · errors                                                      data and pure functions
//! ```

mod accounts;
mod backup;
mod clone;
mod config;
mod conn;
mod credentials;
mod datastore;
mod errors;
mod flavour;
mod health;
mod lifecycle;
mod log;
mod marker;
mod password;
mod paths;
mod prepare;
mod replication;
mod settings;
mod sql;
mod tool;

use datastore_api::{Datastore, DriverContext, DriverEntry, DriverError, ErrorKind};
use std::sync::Arc;

/// How the registry finds this driver.
pub static ENTRY: DriverEntry = DriverEntry {
    names: &["mariadb"],
    open,
};

fn open(context: DriverContext, name: &str) -> Result<Arc<dyn Datastore>, DriverError> {
    let flavours = [&flavour::MARIADB];
    let Some(flavour) = flavours.into_iter().find(|flavour| flavour.info.name == name) else {
        let text = format!("datastore '{name}' is not one of this driver's");
        return Err(DriverError::new(ErrorKind::Invalid, text));
    };
    Ok(Arc::new(datastore::Server::new(context, flavour)?))
}
