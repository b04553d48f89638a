//! What the service tests share.
#![allow(dead_code)]

use datastore_api::{Host, ServiceId, ServiceSpec, ServiceState};
use std::time::{Duration, Instant};
use trove_guestagent::host::{Machine, Settings, SupervisorKind};

/// A guest with folders of its own; whatever it started is killed when it goes.
pub struct Guest {
    pub dir: tempfile::TempDir,
}

impl Guest {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn machine(&self) -> Machine {
        machine(self.dir.path())
    }

    pub fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{id}.log"))).unwrap_or_default()
    }

    /// Waits until the service runs; its process id.
    pub async fn running(&self, host: &Machine, id: &ServiceId) -> u32 {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let state = host.service_state(id).await.unwrap();
            if let ServiceState::Running { pid } = state {
                return pid;
            }
            assert!(Instant::now() < until, "{} does not run: {state:?}", id.0);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Living processes of the service.
    pub fn processes(&self, id: &str) -> Vec<u32> {
        marked(
            &self
                .dir
                .path()
                .join(format!("state/services/{id}.json"))
                .display()
                .to_string(),
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        for pid in marked(&self.dir.path().join("state/services").display().to_string()) {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

pub fn machine(dir: &std::path::Path) -> Machine {
    let settings = Settings {
        run_dir: dir.join("run"),
        state_dir: dir.join("state"),
        supervisor: SupervisorKind::Supervised,
    };
    Machine::new(settings).expect("folders can be made")
}

/// Living processes whose environment has a mark that begins so.
pub fn marked(mark: &str) -> Vec<u32> {
    let mark = format!("TROVE_GUESTAGENT_SERVICE={mark}");
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
            all.split(|&byte| byte == 0)
                .any(|variable| variable.starts_with(mark.as_bytes()))
        })
    })
    .collect()
}

pub fn server(guest: &Guest, id: &str, script: &str) -> ServiceSpec {
    server_in(guest.dir.path(), id, script)
}

pub fn server_in(dir: &std::path::Path, id: &str, script: &str) -> ServiceSpec {
    let me = std::process::Command::new("/usr/bin/id").arg("-un").output().unwrap().stdout;
    ServiceSpec {
        id: ServiceId(id.to_owned()),
        program: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        user: String::from_utf8(me).unwrap().trim().to_owned(),
        log_file: dir.join(format!("{id}.log")),
        open_files: 1024,
    }
}

pub async fn until(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a process lives no more.
pub async fn dies(pid: u32) {
    until("the process dies", || !lives(pid)).await;
}

pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Processes whose parent we are, dead ones not collected included.
pub fn now_children() -> Vec<String> {
    let me = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok());
    stats
        .filter(|stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&me))
        })
        .collect()
}
