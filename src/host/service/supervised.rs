//! The supervisor for machines without systemd: the agent starts servers itself and finds them again after its own restart.
//!
//! One task per service owns the process; orders come by a channel, the state goes out by a watch. The order of writing
//! decides what a crash leaves behind: `Starting` is on disk before a process exists, so a restarted agent that reads it
//! looks for the marked process; a process number on disk is believed only with its start time and boot.

use super::record::{Record, check_id, check_spec};
use super::task::{Order, Service};
use crate::host::{HostError, as_blocking};
use datastore_api::{Change, ServiceId, ServiceSpec, ServiceState};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// All services of this agent.
pub(in crate::host) struct Supervised {
    folder: PathBuf,
    lock: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Held while this agent supervises; two supervisors would start two servers on one data directory.
    lock: Option<File>,
    services: HashMap<ServiceId, Handle>,
    /// Ended with us; the servers go on.
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Handle {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<ServiceState>,
}

impl Supervised {
    pub(in crate::host) fn new(run_dir: &Path, state_dir: &Path) -> Result<Self, HostError> {
        let folder = state_dir.join("services");
        fs::create_dir_all(&folder).map_err(HostError::path("create", &folder))?;
        // The mark of a process holds this path: one spelling of it for ever.
        let folder = folder.canonicalize().map_err(HostError::path("resolve", &folder))?;
        Ok(Self {
            folder,
            lock: run_dir.join("supervisor.lock"),
            inner: Mutex::default(),
        })
    }

    /// Takes up every service that is on record: those that run are watched again, none is started.
    pub(in crate::host) async fn adopt(&self) -> Result<(), HostError> {
        let folder = self.folder.clone();
        let ids = as_blocking(move || {
            let entries = fs::read_dir(&folder).map_err(HostError::path("list", &folder))?;
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            Ok(names
                .filter_map(|name| Some(ServiceId(name.strip_suffix(".json")?.to_owned())))
                .collect::<Vec<_>>())
        })
        .await?;
        for id in ids.iter().filter(|id| check_id(id).is_ok()) {
            self.handle(id).await?;
        }
        Ok(())
    }

    pub(in crate::host) async fn start(&self, spec: &ServiceSpec) -> Result<Change, HostError> {
        check_spec(spec)?;
        let (answer, answered) = oneshot::channel();
        self.order(&spec.id, Order::Start(spec.clone(), answer)).await?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    pub(in crate::host) async fn stop(&self, id: &ServiceId, limit: Duration) -> Result<Change, HostError> {
        let (answer, answered) = oneshot::channel();
        self.order(id, Order::Stop(limit, answer)).await?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    pub(in crate::host) async fn state(&self, id: &ServiceId) -> Result<ServiceState, HostError> {
        Ok(self.handle(id).await?.state.borrow().clone())
    }

    pub(in crate::host) async fn changed(&self, id: &ServiceId, seen: &ServiceState) -> Result<(), HostError> {
        let mut state = self.handle(id).await?.state;
        state.wait_for(|now| now != seen).await.map(|_| ()).map_err(|_| gone())
    }

    async fn order(&self, id: &ServiceId, order: Order) -> Result<(), HostError> {
        self.handle(id).await?.orders.send(order).await.map_err(|_| gone())
    }

    /// The service's task, begun now if this is the first that is heard of it.
    async fn handle(&self, id: &ServiceId) -> Result<Handle, HostError> {
        check_id(id)?;
        let mut inner = self.inner.lock().await;
        if let Some(handle) = inner.services.get(id).filter(|handle| !handle.orders.is_closed()) {
            return Ok(handle.clone());
        }
        if inner.lock.is_none() {
            let path = self.lock.clone();
            inner.lock = Some(as_blocking(move || take_lock(&path)).await?);
        }
        let service = Service::open(id.clone(), self.folder.join(format!("{}.json", id.0))).await?;
        let (orders, inbox) = mpsc::channel(8);
        let handle = Handle {
            orders,
            state: service.watch(),
        };
        inner.tasks.spawn(service.run(inbox));
        inner.services.insert(id.clone(), handle.clone());
        Ok(handle)
    }
}

fn take_lock(path: &Path) -> Result<File, HostError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // Who may open it may lock it, and so keep us from starting.
        .mode(0o600)
        .open(path)
        .map_err(HostError::path("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(HostError::Locked {
            path: path.to_path_buf(),
        }),
        Err(error) => Err(HostError::path("lock", path)(error.into())),
    }
}

fn gone() -> HostError {
    HostError::Invalid("the supervisor is shutting down".to_owned())
}

/// Reads a record, or tells that there is no usable one.
pub(super) fn load_or_forget(path: &Path) -> Result<Option<Record>, HostError> {
    match Record::load(path) {
        Err(HostError::Corrupt { path, problem }) => {
            tracing::error!(path = %path.display(), problem, "service record is damaged, its process is looked for instead");
            Ok(None)
        }
        other => other,
    }
}
