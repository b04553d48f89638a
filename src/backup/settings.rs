//! What the room needs to know.

use super::pipeline::PipelineSettings;
use super::{BackupId, Format, log};
use crate::storage;
use std::path::PathBuf;
use std::time::Duration;

/// What to do when a backup is asked for while one runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Second {
    /// It waits.
    #[default]
    Queue,
    /// It is refused.
    Refuse,
}

/// Which backups are verified as soon as they are complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VerifyPolicy {
    /// All.
    Always,
    /// About one in seven: which, its id decides.
    Sampled,
    /// None.
    #[default]
    Never,
}

impl VerifyPolicy {
    /// Whether this one is.
    #[must_use]
    pub fn takes(self, id: &BackupId) -> bool {
        match self {
            VerifyPolicy::Always => true,
            VerifyPolicy::Never => false,
            VerifyPolicy::Sampled => blake3::hash(id.as_str().as_bytes()).as_bytes()[0].is_multiple_of(7),
        }
    }
}

/// What the room needs to know. Filled by `config`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Identity of this guest.
    pub guest_id: String,
    /// Mount point of the data volume.
    pub mount_point: PathBuf,
    /// Where backups lie.
    pub storage: storage::Settings,
    /// How a stream is packed.
    pub pipeline: PipelineSettings,
    /// `backup_key_file`.
    pub key_file: Option<PathBuf>,
    /// `backup_format`.
    pub format: Format,
    /// `backup_verify`.
    pub verify: VerifyPolicy,
    /// `backup_second`.
    pub second: Second,
    /// `replica_seed`: replicas are made from a stored backup where the caller names a store.
    pub seed_replicas: bool,
    /// `backup_log`: the log is shipped, so.
    pub log: Option<log::Settings>,
    /// How often the control plane hears how far a backup is.
    pub progress_interval: Duration,
    /// Folder for scratch servers.
    pub scratch: PathBuf,
}
