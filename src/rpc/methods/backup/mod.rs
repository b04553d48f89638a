//! Backups: upstream's methods, and ours.

mod create;
mod freeze;
mod list;
mod restore;
mod shapes;
mod snapshot;

pub use create::{CREATE_BACKUP, CancelBackup, CreateBackup, GetBackupStatus};
pub use freeze::{PostCreateBackup, PreCreateBackup};
pub use list::{GetRecoveryWindow, ListBackups};
pub use restore::{RestoreBackup, VerifyBackup};
pub use shapes::WireRestore;
pub use snapshot::{names_store, stored_snapshot};
