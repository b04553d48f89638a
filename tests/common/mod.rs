//! A guest in this process: the real dispatcher, journal and conductor, the sim datastore, no broker.

use datastore_api::{DriverContext, Host};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trove_guestagent::backup;
use trove_guestagent::bus::{self, Answer, Bus, BusState, Cast, Request, RpcVersion};
use trove_guestagent::conductor::{self, Conductor, Era};
use trove_guestagent::host::{Machine, Settings, SupervisorKind, VolumeSettings, Volumes};
use trove_guestagent::instance::Phase;
use trove_guestagent::instance::gate::Gate;
use trove_guestagent::instance::view::Publisher;
use trove_guestagent::journal::Journal;
use trove_guestagent::pair;
use trove_guestagent::rpc::{self, Ctx, Dispatcher};
use trove_guestagent::storage;

/// How a guest is made.
pub struct GuestBuilder {
    dir: PathBuf,
    options: BTreeMap<String, String>,
    second: backup::Second,
    phase: Phase,
}

/// The guest.
#[allow(dead_code, reason = "not every test needs all of it")]
pub struct Guest {
    pub dispatcher: Dispatcher,
    pub ctx: Arc<Ctx>,
    pub reports: Arc<Mutex<Vec<Cast>>>,
    pub cancel: CancellationToken,
}

impl GuestBuilder {
    /// A guest whose files lie in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            options: BTreeMap::new(),
            second: backup::Second::Queue,
            phase: Phase::New,
        }
    }

    /// An option of the sim datastore.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What becomes of a second backup.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn second(mut self, second: backup::Second) -> Self {
        self.second = second;
        self
    }

    /// The phase it was in before.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// Makes it.
    pub async fn build(self) -> Guest {
        let cancel = CancellationToken::new();
        let (state, run) = (self.dir.join("state"), self.dir.join("run"));
        let machine = Settings {
            run_dir: run,
            state_dir: state.clone(),
            supervisor: SupervisorKind::Supervised,
        };
        let host: Arc<dyn Host> = Arc::new(Machine::new(machine).unwrap());
        let mount_point = self.dir.join("volume");
        std::fs::create_dir_all(&mount_point).unwrap();
        let context = DriverContext {
            host: host.clone(),
            mount_point: mount_point.clone(),
            instance_id: "guest".to_owned(),
            service_user: "root".to_owned(),
            ignore_users: vec!["os_admin".to_owned()],
            ignore_databases: vec!["mysql".to_owned()],
            hostname_require_valid_ip: true,
            root_grant: vec!["ALL".to_owned()],
            root_grant_option: true,
            password_length: 36,
            state_change_limit: Duration::from_secs(10),
            root: self.dir.clone(),
            options: self.options,
        };
        let datastore = trove_guestagent::registry::open("sim", context).unwrap();
        let journal = Journal::open(&state, None).unwrap();
        let (publisher, view) = Publisher::new(self.phase);
        let reports = Arc::new(Mutex::new(Vec::new()));
        let kept = reports.clone();
        let settings = conductor::Settings {
            guest_id: "guest".to_owned(),
            report_interval: Duration::from_secs(30),
            era: Era::Hibiscus,
        };
        let sender = move |cast: Cast| {
            kept.lock().unwrap().push(cast);
            Ok(())
        };
        let conductor = Conductor::start(settings, journal.clone(), view, sender, cancel.clone());
        let (bus, _inbox) = Bus::start(nowhere(), cancel.clone());
        let copies = rpc::Copies::load(journal.clone()).await;
        let room = pair::Settings {
            guest_id: "guest".to_owned(),
            data_interface: None,
            management_interface: None,
            link_port: 0,
            vip: Vec::new(),
            plane: pair::Plane::Arp,
            keepalived: PathBuf::from("/nonexistent"),
            run_dir: state.clone(),
            state_dir: state.clone(),
        };
        let strangers = copies.serve(datastore.clone(), 0);
        let pair = pair::Pair::start(
            room,
            datastore.clone(),
            host.clone(),
            journal.clone(),
            publisher.subscribe(),
            strangers,
            cancel.clone(),
        );
        let store = self.dir.join("store");
        std::fs::create_dir_all(&store).unwrap();
        let backups = backup::Settings {
            guest_id: "guest".to_owned(),
            mount_point: mount_point.clone(),
            storage: storage::Settings {
                place: storage::Place::parse(&format!("file://{}", store.display())).unwrap(),
                ..storage::Settings::default()
            },
            pipeline: backup::pipeline::PipelineSettings::default(),
            key_file: None,
            format: backup::Format::Native,
            verify: backup::VerifyPolicy::Always,
            second: self.second,
            log: None,
            seed_replicas: true,
            progress_interval: Duration::from_millis(200),
            scratch: state.join("scratch"),
        };
        let backups = backup::Service::load(backups, datastore.clone(), conductor.clone(), journal.clone()).await;
        let ctx = Arc::new(Ctx {
            backups,
            pair: pair.await.unwrap(),
            settings: rpc::Settings {
                manager: "sim".to_owned(),
                guest_id: "guest".to_owned(),
                marker_dir: self.dir.join("markers"),
                device_path: PathBuf::from("/nonexistent"),
                mount_point,
                volume_support: false,
                stop_limit: Duration::from_secs(5),
                data_address: None,
                root: Default::default(),
            },
            datastore,
            host,
            volumes: volumes(),
            journal,
            conductor,
            publisher,
            copies,
            bus_state: tokio::sync::watch::channel(BusState::Down("no broker".to_owned())).1,
            gate: Mutex::new(Gate::new(self.phase)),
        });
        let dispatcher = Dispatcher::new(ctx.clone(), bus, TaskTracker::new());
        Guest {
            dispatcher,
            ctx,
            reports,
            cancel,
        }
    }
}

impl Guest {
    /// Calls a method as the local socket does.
    pub async fn call(&self, method: &str, args: Value) -> Result<Value, String> {
        self.ask(&format!("test-{}", rand()), method, args).await
    }

    /// Calls it under an id of the test's choice.
    pub async fn ask(&self, id: &str, method: &str, args: Value) -> Result<Value, String> {
        let answer = tokio::time::timeout(Duration::from_secs(60), self.send(id, method, args))
            .await
            .unwrap();
        match answer.unwrap() {
            Answer::Result(value) => Ok(value),
            Answer::Failure(failure) => Err(format!("{}: {}", failure.class, failure.message)),
        }
    }

    /// Hands a request in and does not wait for its answer.
    pub fn send(&self, id: &str, method: &str, args: Value) -> tokio::sync::oneshot::Receiver<Answer> {
        self.send_with(id, method, args, Map::new())
    }

    /// The same, with a context.
    pub fn send_with(
        &self,
        id: &str,
        method: &str,
        args: Value,
        context: Map<String, Value>,
    ) -> tokio::sync::oneshot::Receiver<Answer> {
        let Value::Object(args) = args else {
            panic!("arguments are an object")
        };
        let request = Request {
            unique_id: id.to_owned(),
            method: method.to_owned(),
            version: RpcVersion { major: 1, minor: 0 },
            args,
            context,
            reply: None,
            keep_alive: None,
            deadline: None,
        };
        self.dispatcher.local(request)
    }

    /// Statuses reported so far.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn statuses(&self) -> Vec<String> {
        let reports = self.reports.lock().unwrap();
        let heartbeats = reports.iter().filter(|cast| cast.method == "heartbeat");
        let mut statuses: Vec<_> = heartbeats
            .map(|cast| cast.args["payload"]["service_status"].as_str().unwrap().to_owned())
            .collect();
        statuses.dedup();
        statuses
    }
}

fn rand() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

/// Bus settings of a broker that is not there: answers of these tests go to local callers.
fn nowhere() -> bus::Settings {
    let broker = bus::Broker {
        host: "127.0.0.1".into(),
        port: 1,
        user: "guest".into(),
        password: "guest".to_owned().into(),
    };
    bus::Settings {
        brokers: vec![broker],
        vhost: "/".into(),
        tls: None,
        login_method: "PLAIN".into(),
        control_exchange: "trove".into(),
        topic: "guestagent.guest".into(),
        server: "guest".into(),
        conductor_topic: "trove-conductor".into(),
        durable: false,
        auto_delete: false,
        queue: bus::QueueType::default(),
        heartbeat: Duration::from_secs(15),
        prefetch: 16,
        key: None,
        missing_reply_queue: Duration::from_secs(1),
        outbox_limit: 16,
        self_ping: Duration::ZERO,
        max_body: 1 << 20,
        connection_name: "test".into(),
    }
}

fn volumes() -> Volumes {
    Volumes::new(VolumeSettings::new("/nonexistent"))
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
