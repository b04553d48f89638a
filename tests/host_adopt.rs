//! Servers that outlive their agent: found again, watched again, never started twice.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says where"
)]

#[path = "host_service/common.rs"]
mod common;

use common::{Guest, dies, lives, server_in};
use datastore_api::{Change, Host, ServiceId, ServiceState};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Not a test by itself: the agent that the next ones let die. It starts a server and aborts.
#[tokio::test]
async fn helper_agent_that_dies() {
    let Ok(dir) = std::env::var("HOST_TEST_DIR") else { return };
    let dir = std::path::Path::new(&dir);
    let host = common::machine(dir);
    host.adopt().await.unwrap();
    let spec = server_in(dir, "db", "exec sleep 300");
    host.start_service(&spec).await.unwrap();
    let state = host.service_state(&spec.id).await.unwrap();
    assert!(matches!(state, ServiceState::Running { .. }), "{state:?}");
    std::process::abort();
}

/// Lets an agent of its own start the server and die; the server's process id.
fn agent_dies(guest: &Guest) -> u32 {
    let end = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_agent_that_dies", "--nocapture"])
        .env("HOST_TEST_DIR", guest.dir.path())
        .output()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&end.status),
        Some(6),
        "{}",
        String::from_utf8_lossy(&end.stderr)
    );
    let pids = guest.processes("db");
    assert_eq!(pids.len(), 1, "the server outlives its agent");
    pids[0]
}

#[tokio::test]
async fn a_server_outlives_the_agent_and_is_adopted() {
    let guest = Guest::new();
    let pid = agent_dies(&guest);
    let host = guest.machine();
    host.adopt().await.unwrap();
    let spec = server_in(guest.dir.path(), "db", "exec sleep 300");
    assert_eq!(host.service_state(&spec.id).await.unwrap(), ServiceState::Running { pid });
    assert_eq!(host.start_service(&spec).await.unwrap(), Change::Unchanged);
    // It is watched, though it is not our child, and comes back.
    kill(pid, Signal::KILL);
    tokio::time::timeout(LIMIT, host.service_changed(&spec.id, &ServiceState::Running { pid }))
        .await
        .expect("the death is seen");
    let again = guest.running(&host, &spec.id).await;
    assert_eq!(guest.processes("db"), [again]);
    assert_eq!(host.stop_service(&spec.id, LIMIT).await.unwrap(), Change::Done);
    assert!(guest.processes("db").is_empty());
}

#[tokio::test]
async fn a_crash_between_start_and_record_does_not_make_two_servers() {
    let guest = Guest::new();
    let pid = agent_dies(&guest);
    let path = guest.dir.path().join("state/services/db.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["run"]["pid"], pid);
    record["run"] = serde_json::json!({"state": "starting"});
    std::fs::write(&path, record.to_string()).unwrap();
    // No adopt: the first start finds it by itself.
    let host = guest.machine();
    let spec = server_in(guest.dir.path(), "db", "exec sleep 300");
    assert_eq!(host.start_service(&spec).await.unwrap(), Change::Unchanged);
    assert_eq!(host.service_state(&spec.id).await.unwrap(), ServiceState::Running { pid });
    assert_eq!(guest.processes("db"), [pid]);
    record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["run"]["pid"], pid);
    host.stop_service(&spec.id, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_damaged_record_does_not_make_two_servers() {
    let guest = Guest::new();
    let pid = agent_dies(&guest);
    std::fs::write(guest.dir.path().join("state/services/db.json"), "{\"version\": 1, \"wan").unwrap();
    let host = guest.machine();
    host.adopt().await.unwrap();
    let spec = server_in(guest.dir.path(), "db", "exec sleep 300");
    assert_eq!(host.service_state(&spec.id).await.unwrap(), ServiceState::Running { pid });
    assert_eq!(host.start_service(&spec).await.unwrap(), Change::Done);
    assert_eq!(guest.processes("db"), [pid]);
    assert_eq!(host.stop_service(&spec.id, LIMIT).await.unwrap(), Change::Done);
    assert!(!lives(pid));
}

#[tokio::test]
async fn another_process_with_the_same_number_is_not_adopted() {
    let guest = Guest::new();
    let pid = agent_dies(&guest);
    let path = guest.dir.path().join("state/services/db.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // A process of ours that is not the server, under the server's recorded number. It must not begin in the same tick of the kernel's
    // clock (10 ms): number and start are what a process is known by.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let mut other = std::process::Command::new("/bin/sleep").arg("300").spawn().unwrap();
    record["run"]["pid"] = other.id().into();
    std::fs::write(&path, record.to_string()).unwrap();
    kill(pid, Signal::KILL);
    dies(pid).await;
    let host = guest.machine();
    host.adopt().await.unwrap();
    let id = ServiceId("db".into());
    let state = host.service_state(&id).await.unwrap();
    assert!(
        matches!(state, ServiceState::Failed { .. }),
        "wanted, not running, not started by itself: {state:?}"
    );
    assert_eq!(host.stop_service(&id, LIMIT).await.unwrap(), Change::Done);
    assert!(lives(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn after_a_boot_nothing_is_started_by_itself_and_stopped_stays_stopped() {
    let guest = Guest::new();
    let pid = agent_dies(&guest);
    kill(pid, Signal::KILL);
    let path = guest.dir.path().join("state/services/db.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // Number and start time of a living process, but of another boot.
    record["run"]["boot_id"] = "before".into();
    std::fs::write(&path, record.to_string()).unwrap();
    let host = guest.machine();
    host.adopt().await.unwrap();
    let spec = server_in(guest.dir.path(), "db", "exec sleep 300");
    assert!(matches!(
        host.service_state(&spec.id).await.unwrap(),
        ServiceState::Failed { .. }
    ));
    assert!(guest.processes("db").is_empty());
    assert_eq!(host.start_service(&spec).await.unwrap(), Change::Done);
    host.stop_service(&spec.id, LIMIT).await.unwrap();
    drop(host);
    let host = guest.machine();
    host.adopt().await.unwrap();
    assert_eq!(host.service_state(&spec.id).await.unwrap(), ServiceState::Stopped);
}

/// Not a test by itself: an agent that dies while a program of its runs.
#[tokio::test]
async fn helper_agent_that_dies_at_work() {
    let Ok(dir) = std::env::var("HOST_TEST_DIR") else { return };
    let host = common::machine(std::path::Path::new(&dir));
    let script = format!("setsid sleep 300 & sleep 301 & echo x > '{dir}/begun'; sleep 302");
    tokio::spawn(async move { host.run(datastore_api::Cmd::new("/bin/sh").arg("-c").arg(script)).await });
    common::until("it works", || std::path::Path::new(&dir).join("begun").exists()).await;
    std::process::abort();
}

#[tokio::test]
async fn programs_of_a_dead_agent_are_ended_and_those_of_a_living_one_are_not() {
    let guest = Guest::new();
    let end = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_agent_that_dies_at_work", "--nocapture"])
        .env("HOST_TEST_DIR", guest.dir.path())
        .output()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&end.status), Some(6));
    let dead = programs(&guest);
    assert!(dead.len() >= 3, "{dead:?}");
    // A living agent: another process than ours, with a program of the same folder.
    let mut agent = std::process::Command::new("/bin/sleep").arg("300").spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.id())).unwrap();
    let begun = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
    let folder = guest.dir.path().join("state");
    let mut living = std::process::Command::new("/bin/sleep")
        .arg("300")
        .env(
            "TROVE_GUESTAGENT_PROGRAM",
            format!("{}:{begun}:{}", agent.id(), folder.display()),
        )
        .spawn()
        .unwrap();
    guest.machine().adopt().await.unwrap();
    assert_eq!(programs(&guest), [living.id()]);
    for child in [&mut agent, &mut living] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Living programs that agents of this guest started.
fn programs(guest: &Guest) -> Vec<u32> {
    let suffix = format!(":{}", guest.dir.path().join("state").display());
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
            all.split(|&byte| byte == 0)
                .any(|variable| variable.starts_with(b"TROVE_GUESTAGENT_PROGRAM=") && variable.ends_with(suffix.as_bytes()))
        })
    })
    .collect()
}
