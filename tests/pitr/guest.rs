//! A guest with a real MariaDB whose log is shipped into a folder.

use super::*;

pub struct Guest {
    pub folder: TempDir,
    pub datastore: Arc<dyn Datastore>,
    pub store: Arc<dyn Store>,
    pub keys: Arc<Keys>,
    pub shipping: Option<Shipping>,
    pub status: watch::Sender<LogStatus>,
}

pub struct Shipping {
    pub on: watch::Sender<bool>,
    pub task: JoinHandle<()>,
}

impl Guest {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(folder.path().join("volume/lost+found")).unwrap();
        fs::create_dir(folder.path().join("store")).unwrap();
        let machine = Machine::new(HostSettings {
            run_dir: folder.path().join("run"),
            state_dir: folder.path().join("state"),
            supervisor: SupervisorKind::Supervised,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let options = [("port", port.to_string()), ("bind_address", "127.0.0.1".to_owned())];
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let context = DriverContext {
            host: Arc::new(machine.unwrap()),
            mount_point: folder.path().join("volume"),
            instance_id: format!("instance-{port}"),
            service_user: "mysql".into(),
            ignore_users: names(&["os_admin", "root"]),
            ignore_databases: names(&["mysql", "information_schema", "performance_schema", "sys"]),
            hostname_require_valid_ip: true,
            root_grant: names(&["ALL"]),
            root_grant_option: true,
            password_length: 36,
            state_change_limit: Duration::from_secs(120),
            root: folder.path().join("root"),
            options: options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        };
        let datastore = (datastore_mysql::ENTRY.open)(context, "mariadb").unwrap();
        let plan = PreparePlan {
            config_contents: Some(CONFIG.to_owned()),
            overrides: Map::new(),
            memory_mb: 512,
            version: Some("10.11".into()),
        };
        for step in datastore.prepare_steps() {
            datastore.prepare_step(*step, &plan).await.unwrap();
        }
        let settings = storage::Settings {
            place: Place::parse(&format!("file://{}", folder.path().join("store").display())).unwrap(),
            limit: Duration::from_secs(1),
            ..storage::Settings::default()
        };
        let key = "ab".repeat(32).into();
        Self {
            store: storage::open(&settings, &Access::default()).unwrap(),
            keys: Arc::new(Keys::default().with_request("k1", &key).unwrap()),
            folder,
            datastore,
            shipping: None,
            status: watch::Sender::new(LogStatus::default()),
        }
    }

    pub async fn sql(&self, text: &str) -> String {
        self.try_sql(text).await.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[expect(clippy::disallowed_methods, reason = "a tenant's client")]
    pub async fn try_sql(&self, text: &str) -> Result<String, String> {
        let path = self.folder.path().join("volume/conf.d/root.cnf");
        let credentials = fs::read_to_string(path).unwrap();
        // A statement with semicolons inside.
        let (delimiter, text) = text.strip_prefix("//").map_or((";", text), |text| ("//", text));
        let password = credentials.lines().find_map(|line| line.strip_prefix("password = ")).unwrap();
        let output = tokio::process::Command::new("/usr/bin/mariadb")
            .args([
                "--no-defaults",
                "--batch",
                "--skip-column-names",
                "--user=root",
                "--execute",
                text,
            ])
            .arg(format!("--delimiter={delimiter}"))
            .arg(format!(
                "--socket={}",
                self.folder.path().join("root/var/run/mysqld/mysqld.sock").display()
            ))
            .env("MYSQL_PWD", password)
            .output()
            .await
            .unwrap();
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(shown(&output.stdout))
        } else {
            Err(shown(&output.stderr))
        }
    }

    pub async fn position(&self) -> String {
        self.sql("SELECT @@gtid_binlog_pos").await
    }

    pub fn shelf(&self) -> Arc<Shelf> {
        Arc::new(Shelf::new(self.store.clone(), self.keys.clone()))
    }

    pub fn ship(&mut self) {
        let shipper = Shipper {
            datastore: self.datastore.clone(),
            shelf: self.shelf(),
            guest: GUEST.to_owned(),
            settings: Settings::default(),
        };
        let (on, is_on) = watch::channel(true);
        let task = tokio::spawn(shipper.run(is_on, self.status.clone()));
        self.shipping = Some(Shipping { on, task });
    }

    /// As a killed agent: in the middle of whatever it does.
    pub fn cut_off(&mut self) {
        self.shipping.take().unwrap().task.abort();
    }

    pub async fn stop(&mut self) {
        let Shipping { on, task } = self.shipping.take().unwrap();
        drop(on);
        task.await.unwrap();
    }

    /// Waits until everything that was written is in the store.
    pub async fn shipped(&self) {
        let position = self.position().await;
        self.until(|status| status.position == position && status.state == LogState::Current)
            .await;
    }

    pub async fn until(&self, is_so: impl Fn(&LogStatus) -> bool) {
        let end = Instant::now() + LONG;
        while !is_so(&self.status.borrow()) {
            assert!(Instant::now() < end, "{:?}", *self.status.borrow());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn backup(&self) -> (EngineFacts, Vec<u8>, Base) {
        let mut blob = Vec::new();
        let facts = self
            .datastore
            .backups()
            .unwrap()
            .send_backup(&BackupKind::Full, &mut blob)
            .await
            .unwrap();
        let base = Base {
            id: GUEST.to_owned(),
            finished: now(),
            position: facts.position.clone(),
        };
        (facts, blob, base)
    }

    pub async fn window(&self, bases: &[Base]) -> Window {
        let guests = [GUEST.to_owned()];
        window(self.datastore.logs().unwrap(), &self.shelf(), &guests, bases)
            .await
            .unwrap()
    }

    /// Restores the backup and replays the log up to the target.
    pub async fn recover(&self, blob: &[u8], bases: &[Base], target: &Target) -> Result<datastore_api::Replayed, BackupError> {
        let shelf = self.shelf();
        let way = plan(self.datastore.logs().unwrap(), &shelf, &[GUEST.to_owned()], bases, target).await?;
        let backups = self.datastore.backups().unwrap();
        let mut restore = backups
            .begin_restore(GUEST, &RestorePlace::Replace)
            .await
            .map_err(BackupError::Engine)?;
        restore.unpack(&mut &*blob).await.map_err(BackupError::Engine)?;
        let mut log = Replay::new(shelf, &way);
        match restore.replay(&way.replay_plan(LONG * 3), &mut log).await {
            Ok(replayed) => {
                let restored = restore.finish(RestoredAs::Open).await.map_err(BackupError::Engine)?;
                assert_eq!(restored.position, replayed.position);
                Ok(replayed)
            }
            Err(error) => {
                restore.abandon().await.unwrap();
                Err(BackupError::Engine(error))
            }
        }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("volume/data")
    }

    #[expect(clippy::disallowed_methods, reason = "a test hurts its own server")]
    pub async fn kill(&self) {
        let pid = fs::read_to_string(self.folder.path().join("root/var/run/mysqld/mysqld.pid")).unwrap();
        let killed = tokio::process::Command::new("/bin/kill")
            .args(["-KILL", pid.trim()])
            .status()
            .await;
        assert!(killed.unwrap().success());
    }

    pub async fn stop_server(&self) {
        self.datastore.stop(StopMode::Fast { limit: LONG }).await.unwrap();
    }
}

impl Drop for Guest {
    /// A server outlives its agent; this one must not outlive its test.
    #[expect(clippy::disallowed_methods, reason = "a test ends its own server")]
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.folder.path().join("root/var/run/mysqld/mysqld.pid")) {
            let _ = std::process::Command::new("/bin/kill").args(["-KILL", pid.trim()]).status();
        }
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub fn told(error: &BackupError) -> String {
    datastore_api::chain(error)
}
