//! What a datastore driver is: the traits it implements, the values they exchange, and the errors they answer.
//!
//! Owns: [`Datastore`] and its capability traits, [`Host`] (what a driver may ask of the machine), the value types.
//! Uses: nothing of ours. Never does: I/O, wire formats, choice of a driver.
//!
//! A driver crate exports one [`DriverEntry`]; the agent's registry lists it in one line. Capabilities a driver does not
//! have answer `None`, and the agent turns that into the control plane's "operation not supported" in one place.

mod accounts;
mod backup;
#[cfg(feature = "contract")]
pub mod contract;
mod driver;
mod error;
mod host;
mod log;
mod replication;
mod stream;

pub use accounts::{Account, Accounts, Database, Page, PageRequest, PasswordChange, User, UserAttributes};
pub use backup::{
    BackupKind, Backups, CheckReport, EngineFacts, Frozen, Restore, RestorePlace, Restored, RestoredAs, ScratchServer,
    TableSample,
};
pub use driver::{
    ConfigEffect, ConfigOverrides, Configuration, Datastore, DriverContext, DriverEntry, DriverInfo, Health, OpenDriver,
    PreparePlan, Step, StopMode, VolumePaths,
};
pub use error::{DriverError, ErrorKind, chain};
pub use host::{Cmd, EnvVar, ExecError, FileMode, Host, Output, Owner, ServiceError, ServiceId, ServiceSpec, ServiceState};
pub use log::{
    Beginning, Feed, LogBreak, LogCursor, LogFile, LogRead, LogReader, LogSource, Logs, Mark, Piece, ReplayPlan, Replayed, Run,
    Stretch, Until, push_run,
};
pub use replication::{
    BlockLimits, Blocked, Durability, FollowPlan, Position, ReplicaLogin, ReplicaTls, Replication, ReplicationStatus, Saved,
    SemiSync, ServerStart, SourceEndpoint, Start,
};
pub use secrecy::{ExposeSecret, SecretString as Secret};
pub use stream::{DeadMan, PipeIn, PipeOut, Pipes, Running};

/// Whether a verb acted. Every verb may be repeated (requests are redelivered after a crash), and says what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something was changed.
    Done,
    /// The wanted state was already there.
    Unchanged,
}

impl Change {
    /// `Done` if either is.
    #[must_use]
    pub fn or(self, other: Change) -> Change {
        if self == Change::Done { self } else { other }
    }
}
