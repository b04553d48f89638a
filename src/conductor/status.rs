//! What a guest may say about itself, and what it says of a view.

use super::Era;
use crate::instance::{Phase, View};
use datastore_api::Health;

/// A status that a guest may report (contract section 7.2); the others are the control plane's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Being prepared or rebuilt.
    Building,
    /// The database answers.
    Healthy,
    /// The process is there and not yet proven healthy; before Trove 13 *the* good state.
    Running,
    /// The database is stopped.
    Shutdown,
    /// It should run and does not.
    Crashed,
    /// Preparation failed.
    FailedToSpawn,
    /// It cannot be told.
    Unknown,
    /// A member of a cluster is prepared; the cluster is not yet complete.
    InstanceReady,
    /// Parameters wait for a restart. The conductor drops every later heartbeat until the user restarts.
    RestartRequired,
}

impl Status {
    /// All of them, for tests and tables.
    pub const ALL: [Status; 9] = [
        Status::Building,
        Status::Healthy,
        Status::Running,
        Status::Shutdown,
        Status::Crashed,
        Status::FailedToSpawn,
        Status::Unknown,
        Status::InstanceReady,
        Status::RestartRequired,
    ];

    /// The description on the wire. A conductor before Trove 13 loses a heartbeat that says `healthy`.
    #[must_use]
    pub fn description(self, era: Era) -> &'static str {
        match self {
            Status::Healthy if era < Era::Ussuri => "running",
            Status::Building => "building",
            Status::Healthy => "healthy",
            Status::Running => "running",
            Status::Shutdown => "shutdown",
            Status::Crashed => "crashed",
            Status::FailedToSpawn => "failed to spawn",
            Status::Unknown => "unknown",
            Status::InstanceReady => "instance ready",
            Status::RestartRequired => "restart required",
        }
    }
}

/// What is reported of this view; `None`: nothing, because nothing true can be said yet, or because it would be taken for
/// the end of what still runs.
#[must_use]
pub fn reportable(view: &View) -> Option<Status> {
    match view.phase {
        Phase::New => None,
        Phase::Preparing => Some(Status::Building),
        Phase::Failed => Some(Status::FailedToSpawn),
        Phase::Ready => match view.health.as_ref()? {
            // The control plane waits for `healthy` as the sign that a restart or an upgrade is over: one sent before the
            // server is stopped would end the wait at once.
            Health::Healthy if view.planned => None,
            Health::Healthy if view.restart_required => Some(Status::RestartRequired),
            Health::Healthy => Some(Status::Healthy),
            Health::Starting => Some(Status::Running),
            Health::Stopped => Some(Status::Shutdown),
            Health::Crashed { .. } => Some(Status::Crashed),
            Health::Unknown { .. } => Some(Status::Unknown),
        },
    }
}
