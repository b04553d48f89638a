//! What a use-case may reach.

use crate::backup;
use crate::bus::BusState;
use crate::conductor::Conductor;
use crate::host::Volumes;
use crate::instance::gate::Gate;
use crate::instance::view::Publisher;
use crate::instance::{Phase, pulse};
use crate::journal::{Journal, JournalError};
use crate::pair::Pair;
use datastore_api::{Accounts, Configuration, Datastore, Health, Host, Replication, chain};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

use super::copies::Copies;
use super::failure::{ErrorClass, RpcError};

/// Key of the phase in the journal.
pub const PHASE_KEY: &str = "phase";

/// What the use-cases need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Datastore manager name, as Trove spells it.
    pub manager: String,
    /// Instance id.
    pub guest_id: String,
    /// Folder of upstream's prepare markers.
    pub marker_dir: PathBuf,
    /// Block device of the data volume.
    pub device_path: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Whether the datastore lives on a volume of its own that the agent mounts and formats.
    pub volume_support: bool,
    /// How long a stop may take before the process is killed.
    pub stop_limit: Duration,
    /// Our address in the data network, if the control plane described one.
    pub data_address: Option<IpAddr>,
    /// Folder before every system path, so that several guests live on one machine; empty on a real guest.
    pub root: PathBuf,
}

impl Settings {
    /// The mount point a caller names must be the configured one; none is fine.
    pub fn check_mount_point(&self, given: Option<&str>) -> Result<(), RpcError> {
        let Some(given) = given.filter(|given| !given.is_empty()) else {
            return Ok(());
        };
        if self.on_this_machine(given) == self.mount_point {
            return Ok(());
        }
        let text = format!(
            "mount point {given} is not the configured one, {}",
            self.mount_point.display()
        );
        Err(RpcError::new(ErrorClass::BadRequest, text))
    }

    /// A path of the caller's, who knows nothing of our root.
    #[must_use]
    pub fn on_this_machine(&self, given: &str) -> PathBuf {
        let given = Path::new(given);
        match given.strip_prefix("/") {
            Ok(below) if !self.root.as_os_str().is_empty() && !given.starts_with(&self.root) => self.root.join(below),
            _ => given.to_owned(),
        }
    }
}

/// What a use-case may reach.
pub struct Ctx {
    /// What they need to know.
    pub settings: Settings,
    /// The database engine.
    pub datastore: Arc<dyn Datastore>,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// The data volume.
    pub volumes: Volumes,
    /// The journal.
    pub journal: Journal,
    /// The conductor's client.
    pub conductor: Conductor,
    /// The writer of the view.
    pub publisher: Publisher,
    /// What the bus is doing.
    pub bus_state: watch::Receiver<BusState>,
    /// Copies promised to new replicas.
    pub copies: Arc<Copies>,
    /// Role, service address, the other guest.
    pub pair: Pair,
    /// Backups and restores.
    pub backups: Arc<backup::Service>,
    /// Admission.
    pub gate: Mutex<Gate>,
}

impl Ctx {
    /// The gate, locked; never held over an await.
    pub fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accounts capability, or upstream's "not supported".
    pub fn accounts(&self, operation: &str) -> Result<&dyn Accounts, RpcError> {
        self.datastore.accounts().ok_or_else(|| self.not_supported(operation))
    }

    /// The configuration capability, or upstream's "not supported".
    pub fn configuration(&self, operation: &str) -> Result<&dyn Configuration, RpcError> {
        self.datastore.configuration().ok_or_else(|| self.not_supported(operation))
    }

    /// The capability to replicate, or upstream's "not supported".
    pub fn replication(&self, operation: &str) -> Result<&dyn Replication, RpcError> {
        self.datastore.replication().ok_or_else(|| self.not_supported(operation))
    }

    /// Upstream's "not supported".
    pub fn not_supported(&self, operation: &str) -> RpcError {
        RpcError::not_supported(operation, &self.settings.manager)
    }

    /// Publishes a phase and makes it durable. A journal that cannot be written is not a reason to stop: the markers and the
    /// unfinished operation tell the same at the next start.
    pub async fn set_phase(&self, phase: Phase) {
        self.publisher.update(|view| view.phase = phase);
        let bytes = serde_json::to_vec(&phase).expect("a plain enum always encodes");
        if let Err(error) = self.journal.put(PHASE_KEY, bytes).await {
            warn!(error = chain(&error), ?phase, "could not record the phase");
        }
    }

    /// Looks at the health now and publishes it.
    pub async fn look(&self) -> Health {
        pulse::look(self.datastore.as_ref(), &self.publisher).await;
        self.publisher.now().health.unwrap_or(Health::Unknown {
            reason: "not looked at".to_owned(),
        })
    }
}

/// Reads the phase that was in force when the agent last ran.
pub async fn stored_phase(journal: &Journal) -> Result<Option<Phase>, JournalError> {
    let bytes = journal.get(PHASE_KEY).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
