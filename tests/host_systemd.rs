//! Servers under systemd: needs a machine that runs it, and leave to change its units (`HOST_TEST_SYSTEMD=1`, as root).
#![cfg(feature = "systemd")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test that cannot go on says where"
)]

use datastore_api::{Change, Host, ServiceId, ServiceSpec, ServiceState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use trove_guestagent::host::{Machine, Settings, SupervisorKind};

const LIMIT: Duration = Duration::from_secs(20);

/// A machine with systemd and a service of its own name, which goes with it.
struct Guest {
    dir: tempfile::TempDir,
    host: Machine,
    id: String,
}

impl Guest {
    /// `None`, with the reason printed, where systemd does not run.
    fn new(id: &str) -> Option<Self> {
        if std::env::var_os("HOST_TEST_SYSTEMD").is_none() || !Path::new("/run/systemd/system").is_dir() {
            println!("SKIPPED: needs systemd and HOST_TEST_SYSTEMD=1, for it changes the machine's units");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            run_dir: dir.path().join("run"),
            state_dir: dir.path().join("state"),
            supervisor: SupervisorKind::Auto,
        };
        let host = Machine::new(settings).unwrap();
        assert!(!dir.path().join("state/services").exists(), "systemd was chosen");
        Some(Self {
            dir,
            host,
            id: format!("host-test-{id}"),
        })
    }

    fn spec(&self, script: &str) -> ServiceSpec {
        ServiceSpec {
            id: ServiceId(self.id.clone()),
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned(), "100% $HOME \"a\\b\"\n;".to_owned()],
            user: "daemon".to_owned(),
            log_file: self.log_path(),
            open_files: 4321,
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("a b%n.log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    async fn running(&self) -> u32 {
        let until = Instant::now() + LIMIT;
        loop {
            let state = self.host.service_state(&ServiceId(self.id.clone())).await.unwrap();
            if let ServiceState::Running { pid } = state {
                return pid;
            }
            assert!(Instant::now() < until, "does not run: {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn ctl(&self, verb: &str) -> String {
        let out = Command::new("/usr/bin/systemctl").args([verb, &self.id]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.ctl("kill");
        self.ctl("stop");
        self.ctl("disable");
        let _ = std::fs::remove_dir_all(format!("/etc/systemd/system/{}.service.d", self.id));
        let _ = std::fs::remove_file(format!("/etc/systemd/system/{}.service", self.id));
        let _ = Command::new("/usr/bin/systemctl").arg("daemon-reload").output();
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_unit_is_written_started_enabled_stopped_and_disabled() {
    let Some(guest) = Guest::new("life") else { return };
    let spec =
        guest.spec("trap 'echo bye; exit 0' TERM; id -un; ulimit -n; printf '<%s>\\n' \"$0\"; while :; do sleep 0.1; done");
    assert_eq!(guest.host.service_state(&spec.id).await.unwrap(), ServiceState::Stopped);
    assert_eq!(guest.host.stop_service(&spec.id, LIMIT).await.unwrap(), Change::Unchanged);
    assert_eq!(guest.host.start_service(&spec).await.unwrap(), Change::Done);
    let pid = guest.running().await;
    assert_eq!(guest.host.start_service(&spec).await.unwrap(), Change::Unchanged);
    assert_eq!(guest.running().await, pid);
    assert_eq!(guest.ctl("is-enabled"), "enabled");
    let wanted = "daemon\n4321\n<100% $HOME \"a\\b\"\n;>\n";
    until("it tells who it is", || guest.log().lines().count() >= 4).await;
    assert_eq!(guest.log(), wanted);
    // Another specification waits for the next start.
    let other = ServiceSpec {
        open_files: 4322,
        ..spec.clone()
    };
    assert_eq!(guest.host.start_service(&other).await.unwrap(), Change::Done);
    assert_eq!(guest.host.start_service(&other).await.unwrap(), Change::Unchanged);
    assert_eq!(guest.running().await, pid);
    assert_eq!(guest.host.stop_service(&spec.id, LIMIT).await.unwrap(), Change::Done);
    assert_eq!(guest.host.stop_service(&spec.id, LIMIT).await.unwrap(), Change::Unchanged);
    assert_eq!(guest.host.service_state(&spec.id).await.unwrap(), ServiceState::Stopped);
    assert_eq!(guest.ctl("is-enabled"), "disabled");
    assert!(guest.log().ends_with("bye\n"), "{}", guest.log());
}

#[tokio::test]
async fn a_killed_server_comes_back_and_the_change_is_heard() {
    let Some(guest) = Guest::new("kill") else { return };
    let spec = guest.spec("exec sleep 300");
    guest.host.start_service(&spec).await.unwrap();
    let pid = guest.running().await;
    let seen = ServiceState::Running { pid };
    let kill = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            Command::new("/bin/sh")
                .args(["-c", &format!("kill -9 {pid}")])
                .status()
                .unwrap()
                .success()
        );
    };
    let changed = tokio::time::timeout(LIMIT, guest.host.service_changed(&spec.id, &seen));
    let (changed, ()) = tokio::join!(changed, kill);
    changed.expect("the death is heard of");
    assert_ne!(guest.running().await, pid);
    guest.host.stop_service(&spec.id, LIMIT).await.unwrap();
}

#[tokio::test]
async fn one_that_ignores_the_order_is_killed() {
    let Some(guest) = Guest::new("deaf") else { return };
    let spec = guest.spec("trap '' TERM; echo up; while :; do sleep 0.1; done");
    guest.host.start_service(&spec).await.unwrap();
    until("it is deaf", || guest.log().contains("up")).await;
    assert_eq!(
        guest.host.stop_service(&spec.id, Duration::from_millis(500)).await.unwrap(),
        Change::Done
    );
    assert_eq!(guest.host.service_state(&spec.id).await.unwrap(), ServiceState::Stopped);
}

#[tokio::test]
async fn what_cannot_start_is_an_error_with_its_cause() {
    let Some(guest) = Guest::new("bad") else { return };
    let spec = ServiceSpec {
        program: "/no/such/server".into(),
        ..guest.spec("")
    };
    let error = guest.host.start_service(&spec).await.unwrap_err();
    println!("{error}: {}", error.source);
    assert!(error.source.to_string().contains("did not start"), "{}", error.source);
    guest.host.stop_service(&spec.id, LIMIT).await.unwrap();
    let spec = ServiceSpec {
        user: "no-such-user".to_owned(),
        ..guest.spec("")
    };
    assert!(guest.host.start_service(&spec).await.is_err());
    guest.ctl("stop");
    assert!(
        Command::new("/usr/bin/systemctl")
            .args(["mask", "--runtime", "host-test-masked"])
            .status()
            .unwrap()
            .success()
    );
    let spec = ServiceSpec {
        id: ServiceId("host-test-masked".to_owned()),
        ..guest.spec("")
    };
    let error = guest.host.start_service(&spec).await.unwrap_err();
    assert!(error.source.to_string().contains("masked"), "{}", error.source);
    let _ = Command::new("/usr/bin/systemctl")
        .args(["unmask", "--runtime", "host-test-masked"])
        .status();
    let _ = std::fs::remove_dir_all("/etc/systemd/system/host-test-masked.service.d");
}
