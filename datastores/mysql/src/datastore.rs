//! One server: its parts, and the trait the agent sees.

use crate::backup::Hold;
use crate::conn::{Pool, Sql};
use crate::credentials::Credentials;
use crate::flavour::Flavour;
use crate::health::Probe;
use crate::paths::Layout;
use crate::replication::Following;
use crate::settings::Settings;
use crate::tool::Widened;
use async_trait::async_trait;
use datastore_api::{
    Accounts, Backups, Change, Configuration, Datastore, DriverContext, DriverError, DriverInfo, Health, Logs, PreparePlan,
    Replication, Step, StopMode, VolumePaths,
};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Mutex;

/// How long the server keeps binary logs unless it is told otherwise: what its option file says by default.
const KEPT_SECONDS: u64 = 604_800;

/// One server of the family. Clones are handles of the same.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) context: DriverContext,
    pub(crate) flavour: &'static Flavour,
    pub(crate) settings: Settings,
    pub(crate) layout: Layout,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) sql: Arc<Sql>,
    /// Sessions for changes of role.
    pub(crate) role: Arc<Sql>,
    pub(crate) following: Arc<Following>,
    pub(crate) probe: Arc<Probe>,
    /// Held while a copy of the data is taken, and until nothing is left of it.
    pub(crate) copying: Arc<Mutex<()>>,
    /// How long binary logs are kept when nobody needs them longer, in seconds; set aside while they are held.
    pub(crate) log_seconds: Arc<AtomicU64>,
    /// The same for a backup.
    pub(crate) backing_up: Arc<Mutex<()>>,
    /// Held while a backup is restored here.
    pub(crate) restoring: Arc<Mutex<()>>,
    /// Size of the redo log while the tool runs.
    pub(crate) redo_log: Arc<Mutex<Widened>>,
    /// The frozen volume, while it is.
    pub(crate) frozen: Arc<Mutex<Option<Hold>>>,
}

impl Server {
    /// Opens it; nothing is touched. `Invalid` names a bad option or path.
    pub fn new(context: DriverContext, flavour: &'static Flavour) -> Result<Self, DriverError> {
        let settings = Settings::parse(&context.options)?;
        let layout = Layout::new(&context)?;
        let credentials = Arc::new(Credentials::new(Arc::clone(&context.host), &layout.secrets));
        let sessions = |setup, pool| Sql::new(&layout.socket, setup, Arc::clone(&credentials), pool);
        let sql = Arc::new(sessions(flavour.session_setup, Pool::EVERYDAY));
        let role = Arc::new(sessions(flavour.role_setup, Pool::ROLE));
        Ok(Self {
            context,
            flavour,
            settings,
            layout,
            credentials,
            sql,
            role,
            following: Arc::default(),
            probe: Arc::default(),
            copying: Arc::default(),
            log_seconds: Arc::new(AtomicU64::new(KEPT_SECONDS)),
            backing_up: Arc::default(),
            restoring: Arc::default(),
            redo_log: Arc::default(),
            frozen: Arc::default(),
        })
    }
}

#[async_trait]
impl Datastore for Server {
    fn info(&self) -> &DriverInfo {
        &self.flavour.info
    }

    fn paths(&self) -> VolumePaths {
        VolumePaths {
            mount_point: self.context.mount_point.clone(),
            data_dir: self.layout.data.clone(),
        }
    }

    async fn health(&self) -> Health {
        self.look().await
    }

    async fn changed(&self) {
        self.differs().await;
    }

    async fn server_version(&self) -> Option<String> {
        let mut session = self.sql.session().await.ok()?;
        let rows: Vec<String> = session.rows("read the version", "SELECT VERSION()", ()).await.ok()?;
        rows.into_iter().next()
    }

    async fn check_plan(&self, plan: &PreparePlan) -> Result<(), DriverError> {
        self.check_prepare(plan).await
    }

    fn prepare_steps(&self) -> &'static [Step] {
        &crate::prepare::STEPS
    }

    async fn prepare_step(&self, step: Step, plan: &PreparePlan) -> Result<Change, DriverError> {
        self.do_prepare(step, plan).await
    }

    async fn start(&self) -> Result<Change, DriverError> {
        self.start_server().await
    }

    async fn stop(&self, mode: StopMode) -> Result<Change, DriverError> {
        let StopMode::Fast { limit } = mode;
        self.stop_server(limit).await
    }

    async fn restart(&self) -> Result<(), DriverError> {
        self.stop_server(self.context.state_change_limit).await?;
        self.start_server().await?;
        Ok(())
    }

    fn configuration(&self) -> Option<&dyn Configuration> {
        Some(self)
    }

    fn accounts(&self) -> Option<&dyn Accounts> {
        Some(self)
    }

    fn replication(&self) -> Option<&dyn Replication> {
        Some(self)
    }

    fn logs(&self) -> Option<&dyn Logs> {
        Some(self)
    }

    fn backups(&self) -> Option<&dyn Backups> {
        Some(self)
    }
}
