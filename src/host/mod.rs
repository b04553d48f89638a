//! The machine: programs, services, files, volumes. The only room that starts processes, mounts, or writes system files.
//!
//! Owns: [`datastore_api::Host`]'s real implementation ([`Machine`]), the data volume ([`Volumes`]),
//! the machine's figures.
//! Uses: nothing of ours but the driver API's types. Never does: know a datastore, or why something is wanted.

mod dead_man;
mod error;
mod exec;
mod figures;
mod files;
mod orphans;
mod service;
mod stream;
mod users;
mod volume;

pub use dead_man::guard;
pub use error::HostError;
pub use figures::{FilesystemStats, Hardware, ProcessFigures, filesystem_stats, gigabytes, hardware, process_figures};
pub use volume::{Content, Filesystem, FsType, VolumeSettings, Volumes};

use async_trait::async_trait;
use datastore_api::{
    Change, Cmd, DeadMan, ExecError, FileMode, Host, Output, Owner, Pipes, Running, ServiceError, ServiceId, ServiceSpec,
    ServiceState,
};
use orphans::Mark;
use service::Supervised;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who keeps servers running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SupervisorKind {
    /// systemd where it runs and this build knows it, else the agent itself.
    #[default]
    Auto,
    /// systemd.
    Systemd,
    /// The agent itself.
    Supervised,
}

/// Settings of the room.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Runtime folder (the supervisor's lock); created if it is not there.
    pub run_dir: PathBuf,
    /// Folder of what must outlast a reboot (the services' records); created if it is not there.
    pub state_dir: PathBuf,
    /// Who keeps servers running.
    pub supervisor: SupervisorKind,
}

/// The machine we run on.
pub struct Machine {
    services: Services,
    mark: Mark,
}

enum Services {
    Supervised(Supervised),
    #[cfg(feature = "systemd")]
    Systemd(service::Systemd),
}

impl Machine {
    /// Prepares the room's folders. Touches no service; see [`Machine::adopt`].
    ///
    /// # Errors
    /// [`HostError::Path`] names the folder that cannot be used, [`HostError::Invalid`] a supervisor that is not here.
    pub fn new(settings: Settings) -> Result<Self, HostError> {
        fs::create_dir_all(&settings.run_dir).map_err(HostError::path("create", &settings.run_dir))?;
        make_private(&settings.state_dir).map_err(HostError::path("create", &settings.state_dir))?;
        let supervised = || Supervised::new(&settings.run_dir, &settings.state_dir).map(Services::Supervised);
        let has_systemd = Path::new("/run/systemd/system").is_dir();
        let services = match settings.supervisor {
            SupervisorKind::Supervised => supervised()?,
            #[cfg(feature = "systemd")]
            SupervisorKind::Auto if has_systemd => Services::Systemd(service::Systemd::new()),
            SupervisorKind::Auto => supervised()?,
            _ if !has_systemd => {
                return Err(HostError::Invalid(
                    "systemd does not run here (no /run/systemd/system)".to_owned(),
                ));
            }
            #[cfg(feature = "systemd")]
            SupervisorKind::Systemd => Services::Systemd(service::Systemd::new()),
            #[cfg(not(feature = "systemd"))]
            SupervisorKind::Systemd => return Err(HostError::Invalid("this build does not know systemd".to_owned())),
        };
        let mark = Mark::new(&settings.state_dir)?;
        Ok(Self { services, mark })
    }

    /// At start-up, before anything is run: ends the programs of an agent that died, and takes up the supervision of every service that still runs. Starts none: whether one may run again is the
    /// driver's to decide ([`Host::start_service`]); until then a wanted one that does not run is [`ServiceState::Failed`].
    ///
    /// # Errors
    /// [`HostError::Locked`] if another agent supervises here, [`HostError::Path`] if a record cannot be read,
    /// [`HostError::Late`] if a program does not end.
    pub async fn adopt(&self) -> Result<(), HostError> {
        self.mark.end_orphans().await?;
        match &self.services {
            Services::Supervised(services) => services.adopt().await,
            #[cfg(feature = "systemd")]
            Services::Systemd(_) => Ok(()),
        }
    }
}

/// Makes a folder that only we may enter; those above it are for everybody, and one that is there stays as it is.
fn make_private(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(_) if folder.is_dir() => Ok(()),
        made => made,
    }
}

#[async_trait]
impl Host for Machine {
    async fn run(&self, cmd: Cmd) -> Result<Output, ExecError> {
        exec::run(cmd, Some(&self.mark)).await
    }

    async fn spawn(&self, cmd: Cmd, pipes: Pipes) -> Result<Running, ExecError> {
        stream::spawn(cmd, pipes, &self.mark)
    }

    async fn start_service(&self, spec: &ServiceSpec) -> Result<Change, ServiceError> {
        match &self.services {
            Services::Supervised(services) => services.start(spec).await,
            #[cfg(feature = "systemd")]
            Services::Systemd(services) => services.start(spec).await,
        }
        .map_err(failed("start", &spec.id))
    }

    async fn stop_service(&self, id: &ServiceId, limit: Duration) -> Result<Change, ServiceError> {
        match &self.services {
            Services::Supervised(services) => services.stop(id, limit).await,
            #[cfg(feature = "systemd")]
            Services::Systemd(services) => services.stop(id, limit).await,
        }
        .map_err(failed("stop", id))
    }

    async fn service_state(&self, id: &ServiceId) -> Result<ServiceState, ServiceError> {
        match &self.services {
            Services::Supervised(services) => services.state(id).await,
            #[cfg(feature = "systemd")]
            Services::Systemd(services) => services.state(id).await,
        }
        .map_err(failed("look at", id))
    }

    async fn service_changed(&self, id: &ServiceId, seen: &ServiceState) {
        let changed = match &self.services {
            Services::Supervised(services) => services.changed(id, seen).await,
            #[cfg(feature = "systemd")]
            Services::Systemd(services) => services.changed(id, seen).await,
        };
        if changed.is_err() {
            // It cannot be told: let the caller look for itself, but not in a spin.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn write_atomic(&self, path: &Path, bytes: &[u8], mode: &FileMode) -> io::Result<Change> {
        let (path, bytes, mode) = (path.to_path_buf(), bytes.to_vec(), mode.clone());
        blocking(move || files::write_atomic(&path, &bytes, &mode)).await
    }

    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let path = path.to_path_buf();
        blocking(move || files::read(&path)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<Change> {
        let path = path.to_path_buf();
        blocking(move || files::remove(&path)).await
    }

    async fn make_dir(&self, path: &Path, mode: &FileMode) -> io::Result<Change> {
        let (path, mode) = (path.to_path_buf(), mode.clone());
        blocking(move || files::make_dir(&path, &mode)).await
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Option<Vec<String>>> {
        let path = path.to_path_buf();
        blocking(move || files::list_dir(&path)).await
    }

    async fn clear_dir(&self, path: &Path) -> io::Result<Change> {
        let path = path.to_path_buf();
        blocking(move || files::clear_dir(&path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        blocking(move || files::rename(&from, &to)).await
    }

    async fn remove_tree(&self, path: &Path) -> io::Result<Change> {
        let path = path.to_path_buf();
        blocking(move || files::remove_tree(&path)).await
    }

    async fn dead_man(&self, cmd: Cmd, limit: Duration) -> Result<DeadMan, ExecError> {
        dead_man::start(&cmd, limit)
    }

    async fn read_tail(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let path = path.to_path_buf();
        blocking(move || files::read_tail(&path, limit)).await
    }

    async fn read_range(&self, path: &Path, offset: u64, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let path = path.to_path_buf();
        blocking(move || files::read_range(&path, offset, limit)).await
    }

    async fn append(&self, path: &Path, bytes: Vec<u8>) -> io::Result<u64> {
        let path = path.to_path_buf();
        blocking(move || files::append(&path, &bytes)).await
    }

    async fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stats = filesystem_stats(path).await.map_err(error::as_io)?;
        Ok(stats.avail_blocks.saturating_mul(stats.block_size))
    }

    async fn chown_tree(&self, path: &Path, owner: &Owner) -> io::Result<Change> {
        let (path, owner) = (path.to_path_buf(), owner.clone());
        blocking(move || files::chown_tree(&path, &owner)).await
    }
}

fn failed(doing: &'static str, id: &ServiceId) -> impl FnOnce(HostError) -> ServiceError {
    let id = id.0.clone();
    move |error| ServiceError {
        doing,
        id,
        source: Box::new(error),
    }
}

/// Work that may wait for a disk, off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The same for work with the room's own errors.
async fn as_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, HostError> + Send + 'static) -> Result<T, HostError> {
    let lost = |error| HostError::Invalid(format!("the work was not done: {error}"));
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(lost(error)))
}
