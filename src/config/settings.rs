//! What the agent runs with, complete and checked. Rooms that have a `Settings` of their own get it from here.

use super::network::DataNetwork;
use crate::pair::Plane;
use crate::{backup, bus, conductor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Identity of the instance.
    pub guest_id: String,
    /// Name the registry finds the driver by: the key of `datastore_registry_ext` if there is one, else `datastore_manager`.
    pub datastore_manager: String,
    /// Version of the datastore the control plane named; after a rebuild it is the name of the version.
    pub datastore_version: Option<String>,
    /// Dotted path of upstream's replication class.
    pub replication_strategy: Option<String>,
    /// TLS mode of the database, `None` while off.
    pub ssl_mode: Option<SslMode>,
    /// Generation of Trove we talk to.
    pub era: conductor::Era,
    /// For the bus.
    pub bus: bus::Settings,
    /// For the client of the conductor.
    pub conductor: conductor::Settings,
    /// For the driver and the volume.
    pub datastore: DatastoreSettings,
    /// The data network, if the control plane described one.
    pub network: Option<DataNetwork>,
    /// Whether the instance has a data network of its own.
    pub network_isolation: bool,
    /// For logging.
    pub log: LogSettings,
    /// The agent's own.
    pub agent: AgentSettings,
    /// For pairs and service addresses.
    pub pair: PairSettings,
    /// For backups.
    pub backup: backup::Settings,
}

/// TLS mode of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SslMode {
    /// TLS is offered.
    Basic,
    /// TLS is required.
    Enforced,
    /// TLS with a client certificate is required.
    Mtls,
}

/// For the driver and its volume.
#[derive(Debug, Clone)]
pub struct DatastoreSettings {
    /// Mount point of the data volume.
    pub mount_point: PathBuf,
    /// Block device of the data volume.
    pub device_path: PathBuf,
    /// Whether there is a data volume at all.
    pub volume_support: bool,
    /// File system made on a blank device.
    pub volume_fstype: String,
    /// Options of mkfs, split at blanks.
    pub format_options: Vec<String>,
    /// Options of mount, as in `fstab`.
    pub mount_options: String,
    /// How long making a file system may take.
    pub volume_format_timeout: Duration,
    /// How often to look for the block device.
    pub num_tries: u32,
    /// Limit of other external programs.
    pub command_timeout: Duration,
    /// User names that lists hide and no request may touch.
    pub ignore_users: Vec<String>,
    /// Database names that lists hide and no request may touch.
    pub ignore_dbs: Vec<String>,
    /// Privileges of root.
    pub root_grant: Vec<String>,
    /// Whether root may grant them on.
    pub root_grant_option: bool,
    /// Whether a user's host must be an address, a network or a pattern of one.
    pub hostname_require_valid_ip: bool,
    /// Length of generated passwords.
    pub default_password_length: usize,
    /// Operating-system user of the server.
    pub service_user: String,
    /// How long a start or stop may take.
    pub state_change_wait_time: Duration,
    /// Options of the datastore's own section that are not in this list, and all of `[datastore]`, which wins.
    pub options: BTreeMap<String, String>,
}

/// For logging.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Debug messages too.
    pub debug: bool,
    /// File to append to (`log_file`, under `log_dir` unless it is absolute); standard error if `None`.
    pub file: Option<PathBuf>,
    /// Folder of the log.
    pub dir: Option<PathBuf>,
    /// One JSON object a line.
    pub json: bool,
    /// To the journal of systemd.
    pub journal: bool,
    /// To syslog, with this facility.
    pub syslog: Option<String>,
    /// `strftime` format of the time.
    pub date_format: String,
}

/// Who runs the database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Supervisor {
    /// systemd where it runs, else the agent.
    Auto,
    /// systemd, over D-Bus.
    Systemd,
    /// The agent itself.
    Supervised,
}

/// The agent's own options, section `[trove_guestagent]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// Folder of what must not be forgotten.
    pub state_dir: PathBuf,
    /// Folder of what may be lost in a reboot.
    pub run_dir: PathBuf,
    /// Socket of the command line.
    pub socket: PathBuf,
    /// Folder before every system path; empty on a real guest.
    pub root: PathBuf,
    /// Folder of the prepare markers.
    pub marker_dir: PathBuf,
    /// Who runs the database server.
    pub supervisor: Supervisor,
}

/// How the NIC of the data network is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataInterface {
    /// By its name.
    Named(String),
    /// By its hardware address, six bytes in lower-case hex with colons.
    Mac(String),
}

/// For pairs and service addresses, section `[trove_guestagent]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairSettings {
    /// The NIC of the data network; `None`: nothing tells which it is, and this guest can hold no address and join no pair.
    pub data_interface: Option<DataInterface>,
    /// The NIC of the management network.
    pub management_interface: Option<String>,
    /// TCP port of the link between agents.
    pub link_port: u16,
    /// Service addresses that are held without a pair, `ADDR/PREFIX`; each is one ([`crate::vip::Vip::parse`] takes them), none twice.
    pub vip: Vec<String>,
    /// How they are held.
    pub plane: Plane,
    /// keepalived's program.
    pub keepalived_program: PathBuf,
}
