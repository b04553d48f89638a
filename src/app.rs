//! The composition root: builds every room, spawns the tasks, owns the order of stopping.
//!
//! Stopping ends the agent only: database, VIP and keepalived stay as they are (architecture, rule R5).

mod log_file;
mod logging;
mod witness;

pub use witness::{WitnessSettings, witness};

use crate::backup;
use crate::bus::{Bus, BusState};
use crate::conductor::Conductor;
use crate::config::{DataInterface, Settings, Supervisor};
use crate::host::{self, Machine, SupervisorKind, VolumeSettings, Volumes};
use crate::instance::gate::Gate;
use crate::instance::view::Publisher;
use crate::instance::{Phase, pulse};
use crate::journal::Journal;
use crate::pair::{self, Pair};
use crate::registry;
use crate::rpc::{self, Copies, Ctx, Dispatcher};
use crate::vip::DataNic;
use anyhow::Context;
use datastore_api::{Datastore, DriverContext, Host};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// How long running requests may take to end when the agent stops; what is not done is resumed at the next start.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long the bus may take to close its connection.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// When the service manager is told that we are ready even though no broker answered: the database must not wait for the bus.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// Runs the daemon until it is told to stop.
pub fn start(settings: Settings) -> anyhow::Result<()> {
    logging::start(&settings.log)?;
    keep_memory_private();
    // One thread: a call costs half the switches of two workers, and nothing here computes for long. What may block for
    // longer has threads of its own (the journal, the AMQP connection) or goes to the blocking pool.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let result = runtime.block_on(run(settings));
    // A blocking call on a hung mount must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    logging::flush();
    result
}

/// No core dump of this process and no look into it by its own user: passwords and keys are in its memory. Programs it
/// starts are not concerned: the one is reset by `execve`, of the other only the soft limit is lowered (prctl(2), getrlimit(2)).
fn keep_memory_private() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limited = getrlimit(Resource::RLIMIT_CORE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, 0, hard));
    if let Err(error) = limited.and_then(|()| nix::sys::prctl::set_dumpable(false)) {
        warn!(%error, "could not forbid core dumps");
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let guest = settings.guest_id.clone();
    info!(guest, version = env!("CARGO_PKG_VERSION"), "the agent starts");
    let (bus, mut inbox) = Bus::start(settings.bus.clone(), cancel.clone());
    let machine = Arc::new(Machine::new(host_settings(&settings))?);
    // Waits for the disk, while the bus waits for the broker.
    let journal = tokio::task::spawn_blocking({
        let (folder, key) = (settings.agent.state_dir.clone(), settings.bus.key.clone());
        move || Journal::open(&folder, key.as_ref())
    });
    machine.adopt().await?;
    let datastore = registry::open(&settings.datastore_manager, driver_context(&settings, machine.clone()))?;
    let journal = journal.await.context("opening the journal")??;

    let (phase, gate) = first_phase(&journal, &settings).await?;
    let (publisher, view) = Publisher::new(phase);
    let sender = bus.clone();
    let conductor = Conductor::start(
        settings.conductor.clone(),
        journal.clone(),
        view,
        move |cast| sender.cast(cast),
        cancel.clone(),
    );
    let copies = Copies::load(journal.clone()).await;
    let strangers = copies.serve(datastore.clone(), settings.pair.link_port);
    let pair = Pair::start(
        pair_settings(&settings),
        datastore.clone(),
        machine.clone(),
        journal.clone(),
        publisher.subscribe(),
        strangers,
        cancel.clone(),
    );
    let pair = pair.await?;
    let backups = backup::Service::load(settings.backup.clone(), datastore.clone(), conductor.clone(), journal.clone());
    let backups = backups.await;
    let ctx = Arc::new(Ctx {
        settings: rpc_settings(&settings),
        datastore: datastore.clone(),
        host: machine,
        volumes: Volumes::new(volume_settings(&settings)?),
        journal: journal.clone(),
        conductor,
        publisher: publisher.clone(),
        copies,
        pair: pair.clone(),
        backups: backups.clone(),
        gate: Mutex::new(Gate::new(gate)),
        bus_state: bus.state(),
    });
    tokio::spawn(backups.clone().ship_log(publisher.subscribe(), cancel.clone()));
    let tasks = TaskTracker::new();
    let dispatcher = Dispatcher::new(ctx.clone(), bus.clone(), tasks.clone());
    if journal.opened_damaged() {
        error!(
            ?phase,
            "the journal was damaged: what was asked before is not known, the phase is read from the markers"
        );
    }
    // First, because after a reboot what is taken up needs the database.
    dispatcher.bring_up();
    let resumed = dispatcher.resume().await?;
    if resumed > 0 {
        info!(count = resumed, "unfinished operations were taken up");
    }
    let listener = rpc::local::bind(&settings.agent.socket)?;
    tokio::spawn(rpc::local::serve(listener, dispatcher.clone(), cancel.clone()));
    tokio::spawn(pulse::run(datastore, publisher, cancel.clone()));
    tokio::spawn(tell_ready(bus.clone(), cancel.clone()));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => logging::reopen(),
            delivery = inbox.recv() => match delivery {
                Some(delivery) => dispatcher.deliver(delivery),
                None => break,
            },
        }
    }
    info!("the agent stops; the database goes on");
    // Consuming ends, answers and casts still go out. What was delivered and not taken stays with the broker.
    drop(inbox);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    pair.stop().await;
    // Nothing would be left of it at the next start, and its row would wait until then.
    backups.cancel(None, "the agent was stopped");
    tasks.close();
    if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
        warn!(
            count = tasks.len(),
            "requests were cut off and will be taken up at the next start"
        );
    }
    bus.flush(Duration::from_secs(2)).await;
    cancel.cancel();
    // An acknowledgement on its way that is lost brings a request again.
    let _ = tokio::time::timeout(CLOSE_LIMIT, bus.ended()).await;
    let _ = std::fs::remove_file(&settings.agent.socket);
    Ok(())
}

/// The phase in force when the agent last ran: from the journal, else from upstream's markers. The second one is the gate's: it
/// lets a preparation that was cut off go on, also one whose database was ready and whose contents were not.
async fn first_phase(journal: &Journal, settings: &Settings) -> anyhow::Result<(Phase, Phase)> {
    let stored = rpc::stored_phase(journal).await?;
    for record in journal.unfinished().await?.iter().filter(|record| record.method == "prepare") {
        match stored {
            Some(Phase::Ready) if rpc::was_ready(record) && !record.is_sealed() => return Ok((Phase::Ready, Phase::Preparing)),
            // A second preparation of a prepared instance, which the gate will refuse, or one that cannot be read any more.
            Some(Phase::Ready) => {}
            _ => return Ok((Phase::Preparing, Phase::Preparing)),
        }
    }
    let marker = |which: &str| {
        let name = format!(".guestagent.prepare.{which}");
        settings.agent.marker_dir.join(name).exists()
    };
    let phase = match stored {
        // A preparation that no operation stands for was cut off in a way nobody can take up.
        Some(Phase::Preparing) => Phase::Failed,
        Some(phase) => phase,
        None if marker("end") => Phase::Ready,
        None if marker("start") => Phase::Failed,
        None => Phase::New,
    };
    Ok((phase, phase))
}

/// Tells the service manager that we are ready: when the bus is joined, or after a while without it.
async fn tell_ready(bus: Bus, cancel: CancellationToken) {
    let mut state = bus.state();
    tokio::select! {
        () = cancel.cancelled() => return,
        _ = state.wait_for(|state| matches!(state, BusState::Up { .. })) => {}
        () = tokio::time::sleep(READY_LIMIT) => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

fn rpc_settings(settings: &Settings) -> rpc::Settings {
    rpc::Settings {
        manager: settings.datastore_manager.clone(),
        guest_id: settings.guest_id.clone(),
        marker_dir: settings.agent.marker_dir.clone(),
        device_path: settings.datastore.device_path.clone(),
        mount_point: settings.datastore.mount_point.clone(),
        volume_support: settings.datastore.volume_support,
        stop_limit: Duration::from_secs(13),
        data_address: settings.network.as_ref().and_then(|network| network.address()),
        root: settings.agent.root.clone(),
    }
}

fn pair_settings(settings: &Settings) -> pair::Settings {
    let network = &settings.pair;
    // A NIC that is not there yet, or has no such hardware address, is told when it is needed.
    let name = |nic: &DataInterface| match nic {
        DataInterface::Named(name) => Some(name.clone()),
        DataInterface::Mac(mac) => {
            let found = mac.parse().ok().and_then(|mac| DataNic::by_mac(mac).ok());
            found.map(|nic| nic.name().to_owned())
        }
    };
    pair::Settings {
        guest_id: settings.guest_id.clone(),
        data_interface: network.data_interface.as_ref().and_then(name),
        management_interface: network.management_interface.clone(),
        link_port: network.link_port,
        vip: network.vip.clone(),
        plane: network.plane,
        keepalived: network.keepalived_program.clone(),
        run_dir: settings.agent.run_dir.clone(),
        state_dir: settings.agent.state_dir.clone(),
    }
}

fn driver_context(settings: &Settings, host: Arc<dyn Host>) -> DriverContext {
    let datastore = &settings.datastore;
    DriverContext {
        host,
        mount_point: datastore.mount_point.clone(),
        instance_id: settings.guest_id.clone(),
        service_user: datastore.service_user.clone(),
        ignore_users: datastore.ignore_users.clone(),
        ignore_databases: datastore.ignore_dbs.clone(),
        hostname_require_valid_ip: datastore.hostname_require_valid_ip,
        root_grant: datastore.root_grant.clone(),
        root_grant_option: datastore.root_grant_option,
        password_length: datastore.default_password_length,
        state_change_limit: datastore.state_change_wait_time,
        root: settings.agent.root.clone(),
        options: datastore.options.clone(),
    }
}

/// Opens the driver and verifies that its programs are there. Touches nothing.
pub fn check_driver(settings: &Settings) -> anyhow::Result<()> {
    // A folder of its own: looking must not make the agent's.
    let folder = tempfile::tempdir().context("could not make a temporary folder")?;
    let machine = Arc::new(Machine::new(nowhere(folder.path()))?);
    let driver = registry::open(&settings.datastore_manager, driver_context(settings, machine))?;
    let missing: Vec<_> = driver
        .info()
        .programs
        .iter()
        .filter(|program| !Path::new(program).exists())
        .collect();
    anyhow::ensure!(
        missing.is_empty(),
        "datastore '{}' needs programs that are not installed: {missing:?}",
        driver.info().name
    );
    Ok(())
}

fn host_settings(settings: &Settings) -> host::Settings {
    host::Settings {
        run_dir: settings.agent.run_dir.clone(),
        state_dir: settings.agent.state_dir.clone(),
        supervisor: match settings.agent.supervisor {
            Supervisor::Auto => SupervisorKind::Auto,
            Supervisor::Systemd => SupervisorKind::Systemd,
            Supervisor::Supervised => SupervisorKind::Supervised,
        },
    }
}

fn volume_settings(settings: &Settings) -> anyhow::Result<VolumeSettings> {
    let datastore = &settings.datastore;
    let kind = datastore.volume_fstype.parse();
    Ok(VolumeSettings {
        fs_type: kind.map_err(|error: host::HostError| anyhow::anyhow!("volume_fstype: {error}"))?,
        format_options: datastore.format_options.join(" "),
        format_limit: datastore.volume_format_timeout,
        mount_options: datastore.mount_options.clone(),
        num_tries: datastore.num_tries,
        ..VolumeSettings::new(&settings.agent.state_dir)
    })
}

fn nowhere(folder: &Path) -> host::Settings {
    host::Settings {
        run_dir: folder.to_owned(),
        state_dir: folder.to_owned(),
        supervisor: SupervisorKind::Supervised,
    }
}

/// The journaled steps of `prepare` with a driver, in order.
pub fn prepare_steps(manager: &str, replica: bool) -> anyhow::Result<Vec<&'static str>> {
    let folder = tempfile::tempdir().context("could not make a temporary folder")?;
    let machine = Arc::new(Machine::new(nowhere(folder.path()))?);
    let context = DriverContext {
        host: machine,
        mount_point: PathBuf::from("/nonexistent"),
        instance_id: String::new(),
        service_user: String::new(),
        ignore_users: Vec::new(),
        ignore_databases: Vec::new(),
        hostname_require_valid_ip: true,
        root_grant: Vec::new(),
        root_grant_option: true,
        password_length: 36,
        state_change_limit: Duration::from_secs(180),
        root: PathBuf::from("/nonexistent"),
        options: std::collections::BTreeMap::new(),
    };
    let driver: Arc<dyn Datastore> = registry::open(manager, context)?;
    Ok(match replica {
        true => rpc::prepare_replica_steps(driver.as_ref()),
        false => rpc::prepare_steps(driver.as_ref()),
    })
}
