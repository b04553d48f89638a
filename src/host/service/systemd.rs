//! The supervisor of a real guest: systemd, over D-Bus. systemd restarts; the agent says what, and watches.

use super::dbus::{JobRemovedStream, ManagerProxy, ServiceProxy, UnitProxy};
use super::record::check_id;
use super::unit;
use crate::host::{HostError, as_blocking, files};
use datastore_api::{Change, FileMode, ServiceId, ServiceSpec, ServiceState};
use futures_util::StreamExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath};

/// Where units of the administrator, and so ours, lie.
const UNITS: &str = "/etc/systemd/system";
/// How long systemd may take to answer a call.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a start may take; it ends with the program's first instruction, not with the server's first answer.
const START_LIMIT: Duration = Duration::from_secs(95);
/// How long a killed unit may take to be gone.
const LAST_BREATH: Duration = Duration::from_secs(10);
/// How often a state is looked at though nothing was heard.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
const KILL: i32 = 9;

/// systemd's services.
pub(in crate::host) struct Systemd {
    connection: Mutex<Option<Connection>>,
}

/// What systemd tells of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    load: String,
    active: String,
    sub: String,
    pid: u32,
    result: String,
    code: i32,
    status: i32,
}

impl Systemd {
    pub(in crate::host) fn new() -> Self {
        Self {
            connection: Mutex::default(),
        }
    }

    pub(in crate::host) async fn start(&self, spec: &ServiceSpec) -> Result<Change, HostError> {
        let name = unit_name(&spec.id)?;
        let manager = self.manager().await?;
        let failed = |doing: &str| problem(format!("{doing} {name}"));
        let version = manager
            .version()
            .await
            .map_err(failed("ask for the version before starting"))?;
        let mut written = write(&drop_in_path(&name), unit::drop_in(spec, leading_number(&version))?).await?;
        let mut unit = self.unit(&manager, &name).await?;
        if unit.load_state().await.map_err(failed("look at"))? == "not-found" {
            written = written.or(write(&Path::new(UNITS).join(&name), unit::bare(spec)).await?);
        }
        if written == Change::Done {
            manager.reload().await.map_err(failed("load the new settings of"))?;
            unit = self.unit(&manager, &name).await?;
        }
        let load = unit.load_state().await.map_err(failed("look at"))?;
        if load != "loaded" {
            return Err(HostError::Invalid(format!("unit {name} is {load}")));
        }
        let mut change = written;
        if !unit
            .unit_file_state()
            .await
            .map_err(failed("look at"))?
            .starts_with("enabled")
        {
            manager
                .enable_unit_files(&[&name], false, false)
                .await
                .map_err(failed("enable"))?;
            manager.reload().await.map_err(failed("enable"))?;
            change = Change::Done;
        }
        if unit.active_state().await.map_err(failed("look at"))? == "active" {
            return Ok(change);
        }
        // It may have given up, or wait for its next try: begin afresh.
        let _ = manager.reset_failed_unit(&name).await;
        let mut removed = manager.receive_job_removed().await.map_err(failed("watch the start of"))?;
        let job = manager.start_unit(&name, "replace").await.map_err(failed("start"))?;
        match timeout(START_LIMIT, finished(&mut removed, &job)).await {
            Ok(result) if result == "done" => Ok(Change::Done),
            Ok(result) => {
                let facts = self.facts(&name).await?;
                Err(HostError::Invalid(format!(
                    "unit {name} did not start ({result}): {}",
                    facts.ended()
                )))
            }
            Err(_) => Err(HostError::Late {
                what: format!("unit {name} did not start"),
                limit: START_LIMIT,
            }),
        }
    }

    pub(in crate::host) async fn stop(&self, id: &ServiceId, limit: Duration) -> Result<Change, HostError> {
        let name = unit_name(id)?;
        let manager = self.manager().await?;
        let failed = |doing: &str| problem(format!("{doing} {name}"));
        let unit = self.unit(&manager, &name).await?;
        if unit.load_state().await.map_err(failed("look at"))? == "not-found" {
            return Ok(Change::Unchanged);
        }
        let mut change = Change::Unchanged;
        if unit
            .unit_file_state()
            .await
            .map_err(failed("look at"))?
            .starts_with("enabled")
        {
            manager.disable_unit_files(&[&name], false).await.map_err(failed("disable"))?;
            manager.reload().await.map_err(failed("disable"))?;
            change = Change::Done;
        }
        if unit.active_state().await.map_err(failed("look at"))? == "inactive" {
            return Ok(change);
        }
        let mut removed = manager.receive_job_removed().await.map_err(failed("watch the stop of"))?;
        let job = manager.stop_unit(&name, "replace").await.map_err(failed("stop"))?;
        if timeout(limit, finished(&mut removed, &job)).await.is_err() {
            tracing::warn!(service = %id.0, ?limit, "service did not stop in time and is killed");
            manager.kill_unit(&name, "all", KILL).await.map_err(failed("kill"))?;
            if timeout(LAST_BREATH, finished(&mut removed, &job)).await.is_err() {
                return Err(HostError::Late {
                    what: format!("unit {name} did not end after it was killed"),
                    limit: LAST_BREATH,
                });
            }
        }
        // One that was killed counts as failed; it was told to.
        let _ = manager.reset_failed_unit(&name).await;
        Ok(Change::Done)
    }

    pub(in crate::host) async fn state(&self, id: &ServiceId) -> Result<ServiceState, HostError> {
        Ok(self.facts(&unit_name(id)?).await?.state())
    }

    pub(in crate::host) async fn changed(&self, id: &ServiceId, seen: &ServiceState) -> Result<(), HostError> {
        let name = unit_name(id)?;
        let manager = self.manager().await?;
        let failed = |doing: &str| problem(format!("{doing} {name}"));
        let path = manager.load_unit(&name).await.map_err(failed("find"))?;
        let properties = PropertiesProxy::builder(manager.inner().connection())
            .destination("org.freedesktop.systemd1")
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failed("watch"))?;
        // Listen first, then look: nothing falls between.
        let mut heard = properties.receive_properties_changed().await.map_err(failed("watch"))?;
        while self.state(id).await? == *seen {
            if let Ok(None) = timeout(LOOK_AGAIN, heard.next()).await {
                return Err(HostError::Invalid("the connection to systemd was closed".to_owned()));
            }
        }
        Ok(())
    }

    async fn facts(&self, name: &str) -> Result<Facts, HostError> {
        let manager = self.manager().await?;
        let unit = self.unit(&manager, name).await?;
        let failed = || problem(format!("look at {name}"));
        let service = ServiceProxy::builder(unit.inner().connection())
            .path(unit.inner().path().to_owned())
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failed())?;
        Ok(Facts {
            load: unit.load_state().await.map_err(failed())?,
            active: unit.active_state().await.map_err(failed())?,
            sub: unit.sub_state().await.map_err(failed())?,
            pid: service.main_pid().await.map_err(failed())?,
            result: service.result().await.map_err(failed())?,
            code: service.exec_main_code().await.map_err(failed())?,
            status: service.exec_main_status().await.map_err(failed())?,
        })
    }

    async fn unit(&self, manager: &ManagerProxy<'static>, name: &str) -> Result<UnitProxy<'static>, HostError> {
        let failed = || problem(format!("find {name}"));
        let path = manager.load_unit(name).await.map_err(failed())?;
        UnitProxy::builder(manager.inner().connection())
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failed())
    }

    /// The manager, over the connection there is or a new one.
    async fn manager(&self) -> Result<ManagerProxy<'static>, HostError> {
        let failed = || problem("be heard".to_owned());
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return manager_on(connection).await.map_err(failed());
        }
        let connect = zbus::connection::Builder::system().method_timeout(CALL_LIMIT).build();
        let late = || HostError::Late {
            what: "the system bus did not answer".to_owned(),
            limit: CALL_LIMIT,
        };
        let connection = timeout(CALL_LIMIT, connect).await.map_err(|_| late())?.map_err(failed())?;
        let manager = manager_on(&connection).await.map_err(failed())?;
        // Without this systemd does not tell of changes.
        manager.subscribe().await.map_err(failed())?;
        *kept = Some(connection);
        Ok(manager)
    }
}

async fn manager_on(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Waits until a job is over; how it ended. The connection's end is one, too.
async fn finished(removed: &mut JobRemovedStream, job: &OwnedObjectPath) -> String {
    while let Some(signal) = removed.next().await {
        if let Ok(args) = signal.args()
            && args.job().as_str() == job.as_str()
        {
            return args.result().to_string();
        }
    }
    "connection lost".to_owned()
}

impl Facts {
    fn state(&self) -> ServiceState {
        match (self.active.as_str(), self.sub.as_str()) {
            ("activating", "auto-restart" | "auto-restart-queued") => ServiceState::Restarting { last_exit: self.ended() },
            ("active" | "activating" | "reloading" | "refreshing" | "deactivating", _) if self.pid != 0 => {
                ServiceState::Running { pid: self.pid }
            }
            ("failed", _) => ServiceState::Failed { last_exit: self.ended() },
            ("active" | "activating" | "reloading" | "refreshing" | "deactivating" | "maintenance", sub) => {
                ServiceState::Restarting {
                    last_exit: sub.to_owned(),
                }
            }
            _ if self.load != "loaded" && self.load != "not-found" => ServiceState::Failed {
                last_exit: format!("the unit is {}", self.load),
            },
            _ => ServiceState::Stopped,
        }
    }

    /// How the process ended last, for people.
    fn ended(&self) -> String {
        // waitid's codes: 1 exited, 2 killed, 3 killed with a core.
        match self.code {
            1 => format!("exit code {}", self.status),
            2 | 3 => format!("signal {}", self.status),
            _ => self.result.clone(),
        }
    }
}

fn unit_name(id: &ServiceId) -> Result<String, HostError> {
    check_id(id)?;
    Ok(format!("{}.service", id.0))
}

fn drop_in_path(name: &str) -> PathBuf {
    Path::new(UNITS).join(format!("{name}.d/50-trove.conf"))
}

fn leading_number(version: &str) -> u32 {
    let digits: String = version
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or(0)
}

fn problem(doing: String) -> impl FnOnce(zbus::Error) -> HostError {
    move |error| HostError::Systemd {
        doing,
        source: Box::new(error),
    }
}

async fn write(path: &Path, text: String) -> Result<Change, HostError> {
    let path = path.to_path_buf();
    as_blocking(move || {
        let folder = path.parent().unwrap_or(&path);
        files::make_dir(
            folder,
            &FileMode {
                mode: 0o755,
                owner: None,
            },
        )
        .map_err(HostError::path("create", folder))?;
        let mode = FileMode {
            mode: 0o644,
            owner: None,
        };
        files::write_atomic(&path, text.as_bytes(), &mode).map_err(HostError::path("write", &path))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(active: &str, sub: &str, pid: u32) -> Facts {
        let text = str::to_owned;
        Facts {
            load: text("loaded"),
            active: text(active),
            sub: text(sub),
            pid,
            result: text("signal"),
            code: 2,
            status: 9,
        }
    }

    #[test]
    fn states_are_told_as_the_other_supervisor_tells_them() {
        let last_exit = || "signal 9".to_owned();
        assert_eq!(facts("active", "running", 7).state(), ServiceState::Running { pid: 7 });
        assert_eq!(
            facts("deactivating", "stop-sigterm", 7).state(),
            ServiceState::Running { pid: 7 }
        );
        assert_eq!(
            facts("activating", "auto-restart", 0).state(),
            ServiceState::Restarting { last_exit: last_exit() }
        );
        assert_eq!(
            facts("failed", "failed", 0).state(),
            ServiceState::Failed { last_exit: last_exit() }
        );
        assert_eq!(facts("inactive", "dead", 0).state(), ServiceState::Stopped);
        let masked = Facts {
            load: "masked".to_owned(),
            ..facts("inactive", "dead", 0)
        };
        assert_eq!(
            masked.state(),
            ServiceState::Failed {
                last_exit: "the unit is masked".to_owned()
            }
        );
    }

    #[test]
    fn versions_are_read_from_what_systemd_says() {
        assert_eq!(leading_number("252.39-1~deb12u1"), 252);
        assert_eq!(leading_number("systemd 257"), 257);
        assert_eq!(leading_number("?"), 0);
    }
}
