//! Life cycle, health and preparation of the pretended server.

use crate::options::Options;
use crate::state::State;
use async_trait::async_trait;
use datastore_api::{
    Accounts, Backups, Change, Configuration, Datastore, DriverContext, DriverError, DriverInfo, ErrorKind, FileMode, Health,
    PreparePlan, Replication, Step, StopMode, VolumePaths,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

pub(crate) static INFO: DriverInfo = DriverInfo {
    name: "sim",
    default_port: 33060,
    programs: &[],
    config_file: "/etc/sim/sim.cnf",
};

static STEPS: [Step; 4] = [Step("folders"), Step("configuration"), Step("data"), Step("start")];

/// The datastore.
#[derive(Clone)]
pub(crate) struct Sim {
    context: DriverContext,
    options: Options,
    /// One change of the state file at a time.
    turn: Arc<Mutex<()>>,
    /// When the volume thaws by itself; `None` if it is not frozen.
    pub frozen: Arc<Mutex<Option<tokio::time::Instant>>>,
}

impl Sim {
    /// A datastore whose state lies under the mount point.
    pub fn new(context: DriverContext, options: Options) -> Self {
        Self {
            context,
            options,
            turn: Arc::default(),
            frozen: Arc::default(),
        }
    }

    /// The names no request may touch.
    pub fn context(&self) -> &DriverContext {
        &self.context
    }

    /// What a test wants of it.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn state_file(&self) -> PathBuf {
        self.context.mount_point.join("data/sim.json")
    }

    fn crash_file(&self) -> PathBuf {
        self.context.mount_point.join("sim.crashed")
    }

    /// Reads the state.
    pub async fn state(&self) -> Result<State, DriverError> {
        State::load(&*self.context.host, &self.state_file()).await
    }

    /// Reads the state of a running server. `Unavailable` if it does not run.
    pub async fn running(&self) -> Result<State, DriverError> {
        let state = self.state().await?;
        if state.running && self.crash_reason().await.is_none() {
            return Ok(state);
        }
        Err(DriverError::new(ErrorKind::Unavailable, "the server does not run"))
    }

    /// Changes the state of a running server in one step; nothing is kept if `act` fails.
    pub async fn change(
        &self,
        act: impl FnOnce(&mut State) -> Result<Change, DriverError> + Send,
    ) -> Result<Change, DriverError> {
        let _turn = self.turn.lock().await;
        let mut state = self.running().await?;
        let change = act(&mut state)?;
        if change == Change::Done {
            state.save(&*self.context.host, &self.state_file()).await?;
        }
        Ok(change)
    }

    /// Changes data of users: refused while writes are closed, one more change in the history otherwise.
    pub async fn write(&self, act: impl FnOnce(&mut State) -> Result<Change, DriverError> + Send) -> Result<Change, DriverError> {
        let mut now = 0;
        let count = &mut now;
        let change = self
            .change(move |state| {
                if state.role.read_only {
                    let text = "the server is read-only: databases and users of a replica are changed on its source";
                    return Err(DriverError::new(ErrorKind::Failed, text));
                }
                let change = act(state)?;
                state.role.position += u64::from(change == Change::Done);
                *count = state.role.position;
                Ok(change)
            })
            .await?;
        crate::replication::publish(Replication::port(self), now);
        Ok(change)
    }

    /// Changes the state of a server that may be down.
    pub async fn change_stored(
        &self,
        act: impl FnOnce(&mut State) -> Result<(), DriverError> + Send,
    ) -> Result<Change, DriverError> {
        let _turn = self.turn.lock().await;
        let mut state = self.state().await?;
        act(&mut state)?;
        state.save(&*self.context.host, &self.state_file()).await
    }

    async fn crash_reason(&self) -> Option<String> {
        match self.context.host.read(&self.crash_file()).await {
            Ok(Some(text)) => Some(String::from_utf8_lossy(&text).trim().to_owned()),
            _ => None,
        }
    }

    async fn make_folders(&self) -> Result<Change, DriverError> {
        let folder = self.context.mount_point.join("data");
        let mode = FileMode {
            mode: 0o700,
            owner: None,
        };
        self.context
            .host
            .make_dir(&folder, &mode)
            .await
            .map_err(|error| DriverError::caused(ErrorKind::Failed, format!("could not make {}", folder.display()), error))
    }
}

#[async_trait]
impl Datastore for Sim {
    fn info(&self) -> &DriverInfo {
        &INFO
    }

    fn paths(&self) -> VolumePaths {
        VolumePaths {
            mount_point: self.context.mount_point.clone(),
            data_dir: self.context.mount_point.join("data"),
        }
    }

    async fn health(&self) -> Health {
        if let Some(reason) = self.crash_reason().await {
            return Health::Crashed { reason };
        }
        match self.state().await {
            Ok(state) if state.running => Health::Healthy,
            Ok(_) => Health::Stopped,
            Err(error) => Health::Unknown {
                reason: error.to_string(),
            },
        }
    }

    async fn server_version(&self) -> Option<String> {
        self.running().await.ok().map(|_| "1.0.0-sim".to_owned())
    }

    async fn check_plan(&self, plan: &PreparePlan) -> Result<(), DriverError> {
        if let Some(version) = plan.version.as_deref().filter(|version| !version.starts_with('1')) {
            let text = format!("version '{version}' was asked for, installed is 1.0.0-sim");
            return Err(DriverError::new(ErrorKind::WrongData, text));
        }
        if plan.config_contents.as_deref().is_some_and(|text| text.contains('\0')) {
            return Err(DriverError::new(
                ErrorKind::Invalid,
                "the configuration text holds a NUL byte",
            ));
        }
        let state = self.state().await?;
        let finished = STEPS.iter().all(|step| state.done.contains(step.0));
        if finished || (!state.instance.is_empty() && state.instance != self.context.instance_id) {
            let text = format!("the data directory belongs to instance {}", state.instance);
            return Err(DriverError::new(ErrorKind::WrongData, text));
        }
        Ok(())
    }

    fn prepare_steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn prepare_step(&self, step: Step, plan: &PreparePlan) -> Result<Change, DriverError> {
        tokio::time::sleep(self.options.slow).await;
        if self.options.hang_step.as_deref() == Some(step.0) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if self.options.fail_step.as_deref() == Some(step.0) {
            let text = format!("step {} failed, as the test wanted", step.0);
            return Err(DriverError::new(ErrorKind::Failed, text));
        }
        let made = match step.0 {
            "folders" => self.make_folders().await?,
            _ => Change::Unchanged,
        };
        let instance = self.context.instance_id.clone();
        let changed = self
            .change_stored(|state| {
                state.instance = instance;
                match step.0 {
                    "folders" | "data" => {}
                    "configuration" => {
                        state.base = plan.config_contents.clone().unwrap_or_default();
                        state.overrides = plan.overrides.clone();
                        state.live = plan.overrides.clone();
                    }
                    "start" => state.running = true,
                    name => {
                        return Err(DriverError::new(
                            ErrorKind::NotSupported,
                            format!("there is no step '{name}'"),
                        ));
                    }
                }
                state.done.insert(step.0.to_owned());
                Ok(())
            })
            .await?;
        Ok(made.or(changed))
    }

    async fn start(&self) -> Result<Change, DriverError> {
        tokio::time::sleep(self.options.slow).await;
        let cleared = self
            .context
            .host
            .remove(&self.crash_file())
            .await
            .map_err(|error| DriverError::caused(ErrorKind::Failed, "could not clear the crash", error))?;
        let started = self
            .change_stored(|state| {
                if state.done.is_empty() {
                    return Err(DriverError::new(
                        ErrorKind::Failed,
                        "could not start the server: nothing was prepared",
                    ));
                }
                if !state.running {
                    state.live = state.overrides.clone();
                }
                state.running = true;
                state.role.read_only |= state.role.starts_closed;
                Ok(())
            })
            .await?;
        Ok(cleared.or(started))
    }

    async fn stop(&self, _mode: StopMode) -> Result<Change, DriverError> {
        tokio::time::sleep(self.options.slow).await;
        if !self.state().await?.running {
            return Ok(Change::Unchanged);
        }
        self.change_stored(|state| {
            state.running = false;
            Ok(())
        })
        .await
    }

    async fn restart(&self) -> Result<(), DriverError> {
        let limit = self.context.state_change_limit;
        self.stop(StopMode::Fast { limit }).await?;
        self.start().await?;
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

    fn backups(&self) -> Option<&dyn Backups> {
        Some(self)
    }
}
