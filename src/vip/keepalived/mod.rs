//! The plane `keepalived`: VRRP between the pair's hosts moves the address; the agent says by a file whether this host may hold it.
//!
//! Owns: the configuration, that file, the notify FIFO, and what a dead keepalived leaves on the NIC. Uses: the `Host` it is given
//! for running, checking and supervising keepalived 2.2.7 and later. Never does: let keepalived run a script, or decide who may hold.
//!
//! ```text
//!  FAULT --file says 1--> BACKUP --no master is heard--> MASTER (address on the NIC)
//!    ^                      |                               |
//!    '------ file says 0, or is not there (after a boot) ---'
//! ```
//!
//! A host that gives up says so, and one that waits as BACKUP takes over within milliseconds; one that is let in only afterwards
//! waits for three advertisements first. So let the new host hold before the old one releases.

mod follow;
mod render;

use super::{AddressPlane, DataNic, HoldOptions, Probe, ProbeOptions, Vip, VipError, VipEvent, VipState, probe};
use async_trait::async_trait;
use datastore_api::{Change, Cmd, ExecError, FileMode, Host, ServiceId, ServiceSpec, ServiceState, chain};
use follow::Shared;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use render::Files;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How long keepalived has to take the address away before we do.
const LEAVE_LIMIT: Duration = Duration::from_millis(200);
/// How long keepalived has to end.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// How long its check of a configuration may take.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// A look at the kernel while something is waited for.
const LOOK_EACH: Duration = Duration::from_millis(5);

/// How keepalived is run.
#[derive(Debug, Clone)]
pub struct KeepalivedSettings {
    /// Its program.
    pub program: PathBuf,
    /// Folder for FIFO, process ids and the file that lets it hold. It must be emptied by a reboot: then nobody holds until an agent
    /// says so.
    pub run_dir: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// Its log.
    pub log_file: PathBuf,
    /// Name of the service.
    pub service: ServiceId,
    /// This host's own data address.
    pub source: IpAddr,
    /// Data addresses of the pair's other hosts, of the same family.
    pub peers: Vec<IpAddr>,
    /// VRRP's number of the pair, 1 to 255; the same on all its hosts.
    pub router_id: u8,
    /// Time between advertisements, counted in hundredths of a second; three missed ones are a dead master.
    pub advert: Duration,
    /// How long `hold` waits for VRRP.
    pub hold_limit: Duration,
}

impl KeepalivedSettings {
    /// Debian's program, an advertisement each 100 ms, 5 s to become master; files in folders of their own below the agent's.
    #[must_use]
    pub fn new(run_dir: &Path, state_dir: &Path, source: IpAddr, peers: Vec<IpAddr>, router_id: u8) -> Self {
        Self {
            program: "/usr/sbin/keepalived".into(),
            run_dir: run_dir.join("keepalived"),
            config: state_dir.join("keepalived/keepalived.conf"),
            log_file: state_dir.join("keepalived/keepalived.log"),
            service: ServiceId("trove-keepalived".to_owned()),
            source,
            peers,
            router_id,
            advert: Duration::from_millis(100),
            hold_limit: Duration::from_secs(5),
        }
    }
}

/// The VIP on one NIC, by keepalived. Dropping it leaves keepalived as it is (R5); a later plane takes it up again.
pub struct KeepalivedPlane {
    shared: Arc<Shared>,
    follower: JoinHandle<()>,
}

impl KeepalivedPlane {
    /// Has the configuration checked and put in place, and keepalived running by it. One that runs goes on, and holds what it holds;
    /// it is told of another configuration. Where none runs, what a dead one left on the NIC is removed, and the VIP is not held.
    ///
    /// # Errors
    /// keepalived is missing or refuses the configuration (nothing is changed then), or its files cannot be made.
    pub async fn open(nic: &DataNic, vip: Vip, settings: KeepalivedSettings, host: Arc<dyn Host>) -> Result<Self, VipError> {
        let files = Files::below(&settings.run_dir);
        let text = render::configuration(nic.name(), &vip, &settings, &files)?;
        let folder = |path: &Path| path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let private = FileMode {
            mode: 0o700,
            owner: None,
        };
        for dir in [settings.run_dir.clone(), folder(&settings.config), folder(&settings.log_file)] {
            let made = host.make_dir(&dir, &private).await;
            made.map_err(|error| broken("make the folder of keepalived", &error))?;
        }
        let shared = Arc::new(Shared::open(nic, vip, settings, files, host)?);
        let changed = shared.configure(&text).await?;

        let running = matches!(shared.service().await?, ServiceState::Running { .. });
        if !running {
            shared.allow(false)?;
            shared.remove_all()?;
        }
        let told = open_fifo(&shared.files.fifo)?;
        let spec = shared.spec();
        let started = shared.host.start_service(&spec).await;
        started.map_err(|error| broken("start keepalived", &error))?;
        if running && changed == Change::Done {
            shared.reload().await?;
        }
        shared.adopt(running)?;
        let follower = tokio::spawn(Arc::clone(&shared).follow(told));
        Ok(Self { shared, follower })
    }

    /// Ends keepalived and takes away its files and the VIP: the pair is no more, or has another plane.
    ///
    /// # Errors
    /// It could not be stopped, or the VIP could not be removed.
    pub async fn dismantle(self) -> Result<(), VipError> {
        self.follower.abort();
        let Shared {
            host, settings, files, ..
        } = &*self.shared;
        self.shared.want(false);
        self.shared.allow(false)?;
        let stopped = host.stop_service(&settings.service, STOP_LIMIT).await;
        let removed = self.shared.remove_all();
        stopped.map_err(|error| broken("stop keepalived", &error))?;
        removed?;
        for path in [&settings.config, &files.may_hold, &files.fifo, &files.pid, &files.vrrp_pid] {
            host.remove(path)
                .await
                .map_err(|error| broken("remove a file of keepalived", &error))?;
        }
        Ok(())
    }
}

impl Drop for KeepalivedPlane {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

#[async_trait]
impl AddressPlane for KeepalivedPlane {
    fn name(&self) -> &'static str {
        "keepalived"
    }

    fn vip(&self) -> &Vip {
        &self.shared.vip
    }

    async fn holds(&self) -> Result<bool, VipError> {
        Ok(self.shared.look()?.complete)
    }

    async fn probe(&self, options: &ProbeOptions) -> Result<Probe, VipError> {
        let nic = DataNic::by_name(&self.shared.nic)?;
        probe(&nic, &self.shared.vip, options).await
    }

    /// Waits until VRRP has made this host the master: while another host advertises, that is until it releases.
    async fn hold(&self, options: &HoldOptions) -> Result<Change, VipError> {
        let shared = &self.shared;
        let before = shared.look()?.complete && shared.state.borrow().wanted;
        if before {
            self.announce().await?;
            return Ok(Change::Unchanged);
        }
        if let Some(probe) = &options.probe
            && let Probe::Taken { address, by } = self.probe(probe).await?
        {
            return Err(VipError::Taken { address, by });
        }
        shared.want(true);
        shared.allow(true)?;
        match shared.become_master().await {
            Ok(()) => Ok(Change::Done),
            Err(error) => {
                // All or nothing; what could not be undone is seen by the follower, which tries again.
                shared.want(false);
                let _ = shared.leave(Duration::ZERO).await;
                Err(error)
            }
        }
    }

    async fn release(&self, linger: Duration) -> Result<Change, VipError> {
        let nothing = self.shared.look()?.there.is_empty() && !self.shared.state.borrow().wanted;
        self.shared.want(false);
        // A task of its own: a caller that goes away must not leave the address where it is.
        let leaving = tokio::spawn(Arc::clone(&self.shared).leave_owned(linger));
        leaving.await.map_err(|_| VipError::Stopped)??;
        Ok(if nothing { Change::Unchanged } else { Change::Done })
    }

    async fn announce(&self) -> Result<(), VipError> {
        self.shared.announce()
    }

    fn state(&self) -> watch::Receiver<VipState> {
        self.shared.state.subscribe()
    }

    fn events(&self) -> broadcast::Receiver<VipEvent> {
        self.shared.events.subscribe()
    }
}

impl Shared {
    /// Checks the configuration and puts it in place.
    async fn configure(&self, text: &str) -> Result<Change, VipError> {
        let KeepalivedSettings { program, config, .. } = &self.settings;
        let candidate = config.with_extension("new");
        let mode = FileMode {
            mode: 0o600,
            owner: None,
        };
        let written = self.host.write_atomic(&candidate, text.as_bytes(), &mode).await;
        written.map_err(|error| broken("write keepalived's configuration", &error))?;
        let check = Cmd::new(program)
            .arg("--config-test")
            .arg("-f")
            .arg(candidate.to_string_lossy());
        let checked = self.host.run(check.deadline(CHECK_LIMIT)).await;
        let _ = self.host.remove(&candidate).await;
        checked.map_err(|error| match error {
            ExecError::Exit { stderr_tail, .. } => VipError::Plane {
                doing: "have keepalived check its configuration",
                problem: stderr_tail,
            },
            other => broken("have keepalived check its configuration", &other),
        })?;
        let replaced = self.host.write_atomic(config, text.as_bytes(), &mode).await;
        replaced.map_err(|error| broken("write keepalived's configuration", &error))
    }

    fn spec(&self) -> ServiceSpec {
        let KeepalivedSettings { program, config, .. } = &self.settings;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let args = ["--dont-fork", "--log-console", "--log-detail", "--vrrp"].map(str::to_owned);
        let files = [("-f", config), ("-p", &self.files.pid), ("-r", &self.files.vrrp_pid)];
        ServiceSpec {
            id: self.settings.service.clone(),
            program: program.clone(),
            args: args
                .into_iter()
                .chain(files.into_iter().flat_map(|(flag, file)| [flag.to_owned(), path(file)]))
                .collect(),
            user: "root".to_owned(),
            log_file: self.settings.log_file.clone(),
            open_files: 1024,
        }
    }

    async fn service(&self) -> Result<ServiceState, VipError> {
        let state = self.host.service_state(&self.settings.service).await;
        state.map_err(|error| broken("look at keepalived", &error))
    }

    /// Has a running keepalived read its configuration again.
    async fn reload(&self) -> Result<(), VipError> {
        let ServiceState::Running { pid } = self.service().await? else {
            // It reads the file when it is started.
            return Ok(());
        };
        let pid = i32::try_from(pid).map(Pid::from_raw).expect("process ids are small");
        match kill(pid, Signal::SIGHUP) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(broken("reload keepalived", &std::io::Error::from(errno))),
        }
    }

    async fn become_master(&self) -> Result<(), VipError> {
        let end = Instant::now() + self.settings.hold_limit;
        let mut complete_since = None;
        while Instant::now() < end {
            if !self.state.borrow().wanted {
                return Err(VipError::Plane {
                    doing: "hold the service address",
                    problem: "it was released meanwhile".to_owned(),
                });
            }
            if self.look()?.complete {
                // The word comes after the announcements; a keepalived that was master already says nothing.
                let since = *complete_since.get_or_insert_with(Instant::now);
                if self.said() == "MASTER" || since.elapsed() > LEAVE_LIMIT {
                    return Ok(());
                }
            } else {
                complete_since = None;
            }
            sleep(LOOK_EACH).await;
        }
        let state = self.service().await?;
        let problem = match state {
            ServiceState::Running { .. } => format!(
                "VRRP is {} after {:?}; does another host hold the address?",
                self.said(),
                self.settings.hold_limit
            ),
            other => format!("keepalived does not run: {other:?}"),
        };
        Err(VipError::Plane {
            doing: "hold the service address",
            problem,
        })
    }

    async fn leave_owned(self: Arc<Self>, linger: Duration) -> Result<(), VipError> {
        self.leave(linger).await
    }

    /// Off the NIC, by keepalived if it does, else by ourselves.
    async fn leave(&self, linger: Duration) -> Result<(), VipError> {
        sleep(linger).await;
        if self.state.borrow().wanted {
            // Held again while it lingered.
            return Ok(());
        }
        let allowed = self.allow(false);
        let held = !self.look()?.there.is_empty();
        let end = Instant::now() + LEAVE_LIMIT;
        while !self.look()?.there.is_empty() {
            if Instant::now() >= end || allowed.is_err() {
                tracing::warn!("keepalived did not take the service address away; it is removed");
                self.remove_all()?;
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        if held {
            let _ = self.events.send(VipEvent::Released);
        }
        allowed
    }
}

/// The FIFO, open for both ways: keepalived's end may come and go.
fn open_fifo(path: &Path) -> Result<pipe::Receiver, VipError> {
    let doing = "open keepalived's notify FIFO";
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(broken(doing, &std::io::Error::from(errno))),
    }
    let kind = std::fs::symlink_metadata(path)
        .map_err(|error| broken(doing, &error))?
        .file_type();
    if !kind.is_fifo() {
        return Err(VipError::Plane {
            doing,
            problem: format!("{} is something else", path.display()),
        });
    }
    let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(path);
    receiver.map_err(|error| broken(doing, &error))
}

fn broken(doing: &'static str, error: &(dyn std::error::Error + 'static)) -> VipError {
    VipError::Plane {
        doing,
        problem: chain(error),
    }
}
