//! What is remembered of a service in `<state_dir>/services/<id>.json`, written before anybody relies on it.

use crate::host::{HostError, files};
use datastore_api::{FileMode, ServiceId, ServiceSpec};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Format of the file.
const VERSION: u32 = 1;

/// A service as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub version: u32,
    /// Whether it shall run.
    pub wanted: bool,
    /// With what it is started next.
    pub spec: Spec,
    /// What was done last about the process.
    pub run: Run,
}

/// [`ServiceSpec`] as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    program: PathBuf,
    args: Vec<String>,
    user: String,
    log_file: PathBuf,
    open_files: u64,
}

/// The process of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(super) enum Run {
    /// There is none.
    Down,
    /// One is about to be started; if this is found after a crash it must be looked for.
    Starting,
    /// It was started.
    Up {
        /// Process id.
        pid: u32,
        /// Start, in clock ticks after boot.
        start_time: u64,
        /// The boot it was started in.
        boot_id: String,
    },
}

impl Record {
    pub(super) fn new(spec: &ServiceSpec) -> Self {
        Self {
            version: VERSION,
            wanted: false,
            spec: Spec::from(spec),
            run: Run::Down,
        }
    }

    /// Reads it; `None` if the service was never started.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, HostError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HostError::path("read", path)(error)),
        };
        let corrupt = |problem: String| HostError::Corrupt {
            path: path.to_path_buf(),
            problem,
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if record.version != VERSION {
            return Err(corrupt(format!("version {} is not {VERSION}", record.version)));
        }
        Ok(Some(record))
    }

    /// Writes it, on disk when this returns.
    pub(super) fn save(&self, path: &Path) -> Result<(), HostError> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| HostError::Invalid(format!("the service cannot be recorded: {error}")))?;
        files::write_atomic(
            path,
            &bytes,
            &FileMode {
                mode: 0o600,
                owner: None,
            },
        )
        .map(|_| ())
        .map_err(HostError::path("record the service in", path))
    }
}

impl Spec {
    /// The specification this was made of.
    pub(super) fn with_id(&self, id: &ServiceId) -> ServiceSpec {
        ServiceSpec {
            id: id.clone(),
            program: self.program.clone(),
            args: self.args.clone(),
            user: self.user.clone(),
            log_file: self.log_file.clone(),
            open_files: self.open_files,
        }
    }
}

impl From<&ServiceSpec> for Spec {
    fn from(spec: &ServiceSpec) -> Self {
        Self {
            program: spec.program.clone(),
            args: spec.args.clone(),
            user: spec.user.clone(),
            log_file: spec.log_file.clone(),
            open_files: spec.open_files,
        }
    }
}

/// A name that is safe as a file name and as a unit name.
pub(super) fn check_id(id: &ServiceId) -> Result<(), HostError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if id.0.is_empty() || id.0.len() > 200 || id.0.starts_with(['.', '-']) || !id.0.chars().all(good) {
        return Err(HostError::Invalid(format!("{:?} cannot be the name of a service", id.0)));
    }
    Ok(())
}

/// Checks what can be checked before anything is started or written.
pub(super) fn check_spec(spec: &ServiceSpec) -> Result<(), HostError> {
    check_id(&spec.id)?;
    for path in [&spec.program, &spec.log_file] {
        if !path.is_absolute() || path.to_str().is_none_or(|path| path.contains(['\0', '\n'])) {
            return Err(HostError::Invalid(format!(
                "{path:?} of service {} is not an absolute path of one line",
                spec.id.0
            )));
        }
    }
    if let Some(arg) = spec.args.iter().find(|arg| arg.contains('\0')) {
        return Err(HostError::Invalid(format!(
            "argument {arg:?} of service {} has a null byte",
            spec.id.0
        )));
    }
    Ok(())
}
