//! The pair: one source and its replica behind a service address.
//!
//! Owns: the role of this guest (through [`crate::instance::role`]), switchover, failover, rejoin, the lease, and what is remembered of
//! them. Uses: `instance`, `journal`, `link`, `vip`, the driver's replication. Never does: parse what comes over the bus.
//!
//! ```text
//!  rpc, local socket ─► verbs (one at a time: the lane) ─┐
//!  the other guest   ─► serve ─► leave (source's side)  ─┼─► memory (role machine, on disk) ─► wires: address, door, sessions
//!  database, lease   ─► guard (every 100 ms)            ─┘
//! ```

mod beat;
mod configure;
mod error;
mod failover;
mod guard;
mod join;
pub mod lease;
mod leave;
mod memory;
mod mend;
mod peer;
mod report;
mod serve;
mod spec;
mod status;
mod take;
mod talk;
mod upstream;
mod vouch;
mod wires;
pub mod witness;
mod worth;

pub use error::{PairError, PairErrorKind};
pub use report::{Report, ReportState};
pub use spec::{FailoverMode, PairSpec, Peer, Plane, SpecRole, Witness};
pub use upstream::Extra;

use crate::instance::View;
use crate::instance::role::RoleState;
use crate::journal::{Journal, JournalError};
use crate::link::{Handler, KeyLookup, PairKey};
use datastore_api::{Datastore, Health, Host, Replication};
use memory::{Memory, Store};
use peer::PeerLink;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;
use wires::Wires;

/// How long a verb waits for another one to end.
const LANE_LIMIT: Duration = Duration::from_secs(10);

/// What the room needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Instance id.
    pub guest_id: String,
    /// Interface of the data network; without one there is no service address and no door.
    pub data_interface: Option<String>,
    /// Interface of the management network.
    pub management_interface: Option<String>,
    /// Port the agents of a pair talk on.
    pub link_port: u16,
    /// Service addresses of an instance whose control plane knows nothing of pairs.
    pub vip: Vec<String>,
    /// How they are held.
    pub plane: Plane,
    /// Path of keepalived.
    pub keepalived: PathBuf,
    /// Folder of what may be lost in a reboot.
    pub run_dir: PathBuf,
    /// Folder of what must not be forgotten.
    pub state_dir: PathBuf,
}

/// The room.
#[derive(Clone)]
pub struct Pair(Arc<Inner>);

struct Inner {
    settings: Settings,
    datastore: Arc<dyn Datastore>,
    host: Arc<dyn Host>,
    view: watch::Receiver<View>,
    store: Store,
    wires: Mutex<Arc<Wires>>,
    peer: Mutex<Option<Arc<PeerLink>>>,
    key: Mutex<Option<PairKey>>,
    /// One verb at a time.
    lane: tokio::sync::Mutex<()>,
    /// One step of giving way at a time.
    leave: tokio::sync::Mutex<()>,
    /// What the agent saw of a running operation, for status.
    running: Mutex<Option<Report>>,
    lease: Mutex<beat::LeaseState>,
    /// Semi-synchronous replication was in force at the last look.
    in_sync: std::sync::atomic::AtomicBool,
    /// How often the database was seen not to answer, from 1 on; and that number when the replica last had all that its source had. A
    /// replica's server forgets at its start what it received and had not applied, though it may have acknowledged it.
    starts: std::sync::atomic::AtomicU64,
    caught_up: std::sync::atomic::AtomicU64,
    /// The agent is stopping and has said so.
    away: std::sync::atomic::AtomicBool,
    /// A probe for the address that was begun before it is needed.
    early: Mutex<Option<upstream::EarlyProbe>>,
    /// A promotion by silence is being made.
    promoting: std::sync::atomic::AtomicBool,
    /// The generation that a failover is about to begin; 0 if none.
    coming: std::sync::atomic::AtomicU64,
    cancel: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pair {
    /// Reads what is remembered, takes up what it finds, and begins to guard it. `strangers` are others than the pair's guest who may talk
    /// to this agent over the same port, with keys of their own, and what answers them.
    ///
    /// # Errors
    /// What is remembered cannot be read.
    pub async fn start(
        settings: Settings,
        datastore: Arc<dyn Datastore>,
        host: Arc<dyn Host>,
        journal: Journal,
        view: watch::Receiver<View>,
        strangers: (KeyLookup, Arc<dyn Handler>),
        cancel: CancellationToken,
    ) -> Result<Self, JournalError> {
        let store = Store::open(journal).await?;
        let this = Self(Arc::new(Inner {
            settings,
            datastore,
            host,
            view,
            store,
            wires: Mutex::new(Arc::new(Wires::none())),
            peer: Mutex::new(None),
            key: Mutex::new(None),
            lane: tokio::sync::Mutex::new(()),
            leave: tokio::sync::Mutex::new(()),
            running: Mutex::new(None),
            lease: Mutex::new(beat::LeaseState::default()),
            in_sync: std::sync::atomic::AtomicBool::new(false),
            starts: std::sync::atomic::AtomicU64::new(1),
            caught_up: std::sync::atomic::AtomicU64::new(0),
            away: std::sync::atomic::AtomicBool::new(false),
            early: Mutex::new(None),
            promoting: std::sync::atomic::AtomicBool::new(false),
            coming: std::sync::atomic::AtomicU64::new(0),
            cancel,
        }));
        // What a killed failover may have left.
        let _ = crate::vip::routes::clean();
        if let Err(failure) = this.rewire().await {
            error!(error = datastore_api::chain(&failure), "the data network cannot be used");
        }
        this.listen(strangers);
        tokio::spawn(worth::count_starts(this.clone()));
        tokio::spawn(guard::run(this.clone()));
        tokio::spawn(beat::run(this.clone()));
        Ok(this)
    }

    /// The role of this guest.
    #[must_use]
    pub fn role(&self) -> RoleState {
        self.0.store.role()
    }

    fn memory(&self) -> Memory {
        self.0.store.now()
    }

    fn spec(&self) -> Result<PairSpec, PairError> {
        self.memory()
            .spec()
            .ok_or_else(|| PairError::Refused("this guest belongs to no pair".to_owned()))
    }

    fn replication(&self) -> Result<&dyn Replication, PairError> {
        self.0.datastore.replication().ok_or(PairError::NotSupported)
    }

    fn wires(&self) -> Arc<Wires> {
        lock(&self.0.wires).clone()
    }

    fn peer(&self) -> Result<Arc<PeerLink>, PairError> {
        lock(&self.0.peer)
            .clone()
            .ok_or_else(|| PairError::Refused("this guest belongs to no pair".to_owned()))
    }

    fn healthy(&self) -> bool {
        self.0.view.borrow().health == Some(Health::Healthy)
    }

    /// The lane of verbs.
    async fn lane(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, PairError> {
        tokio::time::timeout(LANE_LIMIT, self.0.lane.lock())
            .await
            .map_err(|_| PairError::Refused("another change of role is still running".to_owned()))
    }

    /// The address of this guest on the data network.
    #[must_use]
    pub fn data_address(&self) -> Option<IpAddr> {
        self.wires().own_address(
            lock(&self.0.key)
                .is_some()
                .then(|| self.memory().spec())
                .flatten()
                .map(|spec| spec.peer.host),
        )
    }

    /// Builds address plane, door and link anew from what is remembered.
    async fn rewire(&self) -> Result<(), PairError> {
        let memory = self.memory();
        let spec = memory.spec();
        let port = self.0.datastore.replication().map_or(0, Replication::port);
        let wires = Wires::build(self, &memory, spec.as_ref(), port).await;
        let (wires, failure) = match wires {
            Ok(wires) => (wires, None),
            Err(failure) => (Wires::none(), Some(failure)),
        };
        let own = wires.own_address(spec.as_ref().map(|spec| spec.peer.host));
        *lock(&self.0.wires) = Arc::new(wires);
        let key = spec.as_ref().and_then(|spec| PairKey::from_base64(&spec.key).ok());
        let peer = match (&spec, &key) {
            (Some(spec), Some(key)) => Some(PeerLink::start(spec, key, own)),
            _ => None,
        };
        *lock(&self.0.peer) = peer;
        *lock(&self.0.key) = key;
        failure.map_or(Ok(()), Err)
    }

    /// Shows a running operation, and remembers one that is over.
    async fn remember(&self, report: &Report) {
        if report.state == ReportState::Running {
            *lock(&self.0.running) = Some(report.clone());
            return;
        }
        let last = report.clone();
        if let Err(failure) = self
            .0
            .store
            .change(|memory| {
                memory.last = Some(last);
                Ok(())
            })
            .await
        {
            error!(
                error = datastore_api::chain(&failure),
                "could not record the end of an operation"
            );
        }
        *lock(&self.0.running) = None;
    }

    /// The end of an operation that was asked for before, if it is remembered.
    fn known(&self, operation: &str) -> Option<Report> {
        self.memory().last.filter(|last| last.operation == operation)
    }

    /// What a stopping agent does: the address and the database stay. An automatic pair is told to hold off.
    pub async fn stop(&self) {
        self.say_away().await;
    }
}

/// Milliseconds since.
fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}
