//! The driver itself: life cycle, health, preparation in steps, configuration.

use crate::{Accounts, Backups, Change, DriverError, Host, Logs, Replication};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Facts about a driver that do not change while the agent runs.
#[derive(Debug)]
pub struct DriverInfo {
    /// The datastore manager name this driver was opened for, as Trove spells it (`mariadb`).
    pub name: &'static str,
    /// Port clients connect to when the configuration names none.
    pub default_port: u16,
    /// Absolute paths of programs that must exist for the driver to work.
    pub programs: &'static [&'static str],
    /// Where the control plane's configuration text is written.
    pub config_file: &'static str,
}

/// What the server's state is. Never an error: `Unknown` is an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers a query.
    Healthy,
    /// The process is there (or being started) but does not answer yet.
    Starting,
    /// Stopped on purpose, or never started.
    Stopped,
    /// It should run and does not.
    Crashed {
        /// Why, as far as known, for people.
        reason: String,
    },
    /// It cannot be told.
    Unknown {
        /// Why not, for people.
        reason: String,
    },
}

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// As fast as is safe; comes back by crash recovery if the limit is passed. The service stays down over a reboot.
    Fast {
        /// How long to wait before the process is killed.
        limit: Duration,
    },
}

/// One named step of preparing an instance. The names are data: the agent journals them and its crash tests walk them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step(pub &'static str);

/// Everything a driver needs to make an empty volume a running database.
#[derive(Debug, Clone)]
pub struct PreparePlan {
    /// Complete text of the base configuration file; `None` or empty means the driver's own default.
    pub config_contents: Option<String>,
    /// User parameters that lie over the base configuration.
    pub overrides: Map<String, Value>,
    /// Memory of the flavor in MiB, 0 if unknown.
    pub memory_mb: u64,
    /// Wanted server version, `None` if the caller names none. A version that is not installed is `WrongData`.
    pub version: Option<String>,
}

/// A change of user parameters.
#[derive(Debug, Clone, Default)]
pub struct ConfigOverrides {
    /// Drop the present user parameters first.
    pub remove: bool,
    /// Parameters to merge over the present ones.
    pub values: Map<String, Value>,
}

/// What applying parameters to the running server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigEffect {
    /// All of them had their values already.
    Unchanged,
    /// All are in force.
    Live,
    /// These parameters need a restart to take effect; the others are in force.
    RestartRequired(Vec<String>),
}

/// Where a datastore's data lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePaths {
    /// Mount point of the data volume.
    pub mount_point: PathBuf,
    /// Data directory inside it.
    pub data_dir: PathBuf,
}

/// A database engine that the agent can run. Chosen at run time by name, hence object-safe.
///
/// Every verb may be repeated; a repeat answers [`Change::Unchanged`]. Errors: see [`crate::ErrorKind`]; the common ones are
/// `Unavailable`, `Timeout`, `Failed`.
#[async_trait]
pub trait Datastore: Send + Sync {
    /// Facts about the driver.
    fn info(&self) -> &DriverInfo;

    /// Where the data lies.
    fn paths(&self) -> VolumePaths;

    /// Looks at the server. Bounded to a few seconds even when the server hangs; never an error.
    async fn health(&self) -> Health;

    /// Resolves when the server's process starts, dies or is stopped, so that nobody has to poll for it. May resolve for
    /// nothing; a driver that cannot tell never resolves.
    async fn changed(&self) {
        std::future::pending().await
    }

    /// The server's own version text, `None` while it cannot be asked.
    async fn server_version(&self) -> Option<String>;

    /// Checks what can be checked of a plan without touching anything: version installed, configuration readable,
    /// data directory empty or this very preparation's own. `Invalid`, `WrongData` or `NoSpace` name what is wrong.
    async fn check_plan(&self, plan: &PreparePlan) -> Result<(), DriverError>;

    /// The steps of a preparation in order. After the last one the server runs, is secured, and answers.
    fn prepare_steps(&self) -> &'static [Step];

    /// Does one step. Each is idempotent: it may be repeated after a crash in the middle of it or of the next one.
    async fn prepare_step(&self, step: Step, plan: &PreparePlan) -> Result<Change, DriverError>;

    /// Starts the server and waits until it answers. Enables it for the next boot.
    async fn start(&self) -> Result<Change, DriverError>;

    /// Stops the server; it stays down over a reboot until [`Datastore::start`]. Already stopped is `Unchanged`.
    async fn stop(&self, mode: StopMode) -> Result<Change, DriverError>;

    /// Stops and starts, and waits until the server answers.
    async fn restart(&self) -> Result<(), DriverError>;

    /// The capability to keep configuration; `None` if the engine has none.
    fn configuration(&self) -> Option<&dyn Configuration> {
        None
    }

    /// The capability to manage databases and users; `None` if the engine has none.
    fn accounts(&self) -> Option<&dyn Accounts> {
        None
    }

    /// The capability to replicate; `None` if the engine has none.
    fn replication(&self) -> Option<&dyn Replication> {
        None
    }

    /// The capability to back up and restore; `None` if the engine has none.
    fn backups(&self) -> Option<&dyn Backups> {
        None
    }

    /// The capability to follow the server's log; `None` if the engine has none.
    fn logs(&self) -> Option<&dyn Logs> {
        None
    }
}

/// The capability to keep configuration in layers: base text, user parameters, system parameters.
#[async_trait]
pub trait Configuration: Send + Sync {
    /// Replaces the base configuration text; user and system layers stay. The running server is not touched.
    async fn write_base(&self, contents: &str) -> Result<Change, DriverError>;
    /// Changes the stored user parameters. The running server is not touched.
    async fn update_overrides(&self, wanted: &ConfigOverrides) -> Result<Change, DriverError>;
    /// Sets parameters in the running server.
    async fn apply_overrides(&self, values: &Map<String, Value>) -> Result<ConfigEffect, DriverError>;
}

/// What the agent hands a driver when it opens it.
#[derive(Clone)]
pub struct DriverContext {
    /// The machine.
    pub host: Arc<dyn Host>,
    /// Mount point of the data volume.
    pub mount_point: PathBuf,
    /// Identity of the instance, for what must be unique and stable (server id).
    pub instance_id: String,
    /// Operating-system user and group the server runs as.
    pub service_user: String,
    /// User names that lists hide and that no request may touch.
    pub ignore_users: Vec<String>,
    /// Database names that lists hide and that no request may touch.
    pub ignore_databases: Vec<String>,
    /// Whether a user's host must be an address, a network or a pattern of one.
    pub hostname_require_valid_ip: bool,
    /// Privileges granted to root, default `ALL`.
    pub root_grant: Vec<String>,
    /// Whether root may grant them on.
    pub root_grant_option: bool,
    /// Length of generated passwords in characters.
    pub password_length: usize,
    /// How long to wait for a start or stop.
    pub state_change_limit: Duration,
    /// Prefix before every system path of the driver (`/etc`, `/run`, `/var`): empty on a real guest, a folder of its own in
    /// development, so that several guests live on one machine.
    pub root: PathBuf,
    /// Driver-specific options of the datastore's section in the configuration, unknown to the agent.
    pub options: std::collections::BTreeMap<String, String>,
}

/// Opens a driver for one of its names.
pub type OpenDriver = fn(DriverContext, &str) -> Result<Arc<dyn Datastore>, DriverError>;

/// How the registry finds and opens a driver.
pub struct DriverEntry {
    /// The datastore manager names it answers to.
    pub names: &'static [&'static str],
    /// Opens it for one of these names. `Invalid` names a wrong option.
    pub open: OpenDriver,
}
