//! Servers under the agent's own supervision, real processes.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says where"
)]

#[path = "host_service/common.rs"]
mod common;

use common::{Guest, dies, now_children, server, until};
use datastore_api::{Change, Host, ServiceId, ServiceState};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_server_starts_once_and_stops_in_order() {
    let guest = Guest::new();
    let host = guest.machine();
    let spec = server(
        &guest,
        "web",
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
    );
    assert_eq!(host.service_state(&spec.id).await.unwrap(), ServiceState::Stopped);
    assert_eq!(host.start_service(&spec).await.unwrap(), Change::Done);
    let pid = guest.running(&host, &spec.id).await;
    assert_eq!(host.start_service(&spec).await.unwrap(), Change::Unchanged);
    assert_eq!(guest.running(&host, &spec.id).await, pid);
    until("the server writes", || guest.log("web").contains("up")).await;
    assert_eq!(host.stop_service(&spec.id, LIMIT).await.unwrap(), Change::Done);
    assert_eq!(host.service_state(&spec.id).await.unwrap(), ServiceState::Stopped);
    assert_eq!(host.stop_service(&spec.id, LIMIT).await.unwrap(), Change::Unchanged);
    assert!(guest.log("web").ends_with("bye\n"), "{}", guest.log("web"));
    assert_eq!(now_children(), Vec::<String>::new());
}

#[tokio::test]
async fn a_real_server_answers_and_its_limit_is_raised() {
    let guest = Guest::new();
    let host = guest.machine();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut spec = server(&guest, "http", "");
    spec.program = "/usr/bin/python3".into();
    let folder = guest.dir.path().display().to_string();
    spec.args = [
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        &folder,
        &port.to_string(),
    ]
    .map(String::from)
    .to_vec();
    spec.open_files = 4321;
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("SKIPPED: /usr/bin/python3 is not here");
        return;
    }
    let before = std::fs::read_to_string("/proc/self/limits").unwrap();
    host.start_service(&spec).await.unwrap();
    let pid = guest.running(&host, &spec.id).await;
    until("the port answers", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft >= 4321, "{line}");
    let soft_of = |text: &str| {
        text.lines()
            .find(|l| l.starts_with("Max open files"))
            .unwrap()
            .split_whitespace()
            .nth(3)
            .map(String::from)
    };
    assert_eq!(
        soft_of(&before),
        soft_of(&std::fs::read_to_string("/proc/self/limits").unwrap())
    );
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let group: u32 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(2)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(group, pid, "a process group of its own");
    host.stop_service(&spec.id, LIMIT).await.unwrap();
    until("the port is closed", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_comes_back_and_the_change_is_seen() {
    let guest = Guest::new();
    let host = guest.machine();
    let spec = server(&guest, "db", "exec sleep 300");
    host.start_service(&spec).await.unwrap();
    let first = guest.running(&host, &spec.id).await;
    let seen = ServiceState::Running { pid: first };
    kill(first, Signal::KILL);
    tokio::time::timeout(LIMIT, host.service_changed(&spec.id, &seen))
        .await
        .expect("the death is seen");
    let state = host.service_state(&spec.id).await.unwrap();
    assert!(
        matches!(&state, ServiceState::Restarting { last_exit } if last_exit == "signal 9"),
        "{state:?}"
    );
    tokio::time::timeout(LIMIT, host.service_changed(&spec.id, &state))
        .await
        .expect("the restart is seen");
    assert_ne!(guest.running(&host, &spec.id).await, first);
    host.stop_service(&spec.id, LIMIT).await.unwrap();
    assert_eq!(now_children(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_killed_server_leaves_is_killed_before_the_next_starts() {
    let guest = Guest::new();
    let host = guest.machine();
    let spec = server(&guest, "db", "setsid sleep 300 & echo left $!; exec sleep 301");
    host.start_service(&spec).await.unwrap();
    let first = guest.running(&host, &spec.id).await;
    until("it tells", || guest.log("db").contains("left")).await;
    let left: u32 = guest.log("db").trim().rsplit(' ').next().unwrap().parse().unwrap();
    kill(first, Signal::KILL);
    host.service_changed(&spec.id, &ServiceState::Running { pid: first }).await;
    dies(left).await;
    guest.running(&host, &spec.id).await;
    host.stop_service(&spec.id, LIMIT).await.unwrap();
    assert!(guest.processes("db").is_empty());
}

#[tokio::test]
async fn one_that_keeps_dying_fails_and_is_still_tried() {
    let guest = Guest::new();
    let host = guest.machine();
    // Dies until the file is there.
    let gate = guest.dir.path().join("gate");
    let spec = server(
        &guest,
        "bad",
        &format!("echo try; test -e '{}' && exec sleep 300; exit 7", gate.display()),
    );
    host.start_service(&spec).await.unwrap();
    let mut state = host.service_state(&spec.id).await.unwrap();
    let wanted = ServiceState::Failed {
        last_exit: "exit code 7".to_owned(),
    };
    let wait = async {
        while state != wanted {
            host.service_changed(&spec.id, &state).await;
            state = host.service_state(&spec.id).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("fails");
    assert!(guest.log("bad").lines().count() >= 6);
    std::fs::write(&gate, "").unwrap();
    // An explicit start does not wait for the pause to end.
    assert_eq!(host.start_service(&spec).await.unwrap(), Change::Done);
    guest.running(&host, &spec.id).await;
    host.stop_service(&spec.id, LIMIT).await.unwrap();
}

#[tokio::test]
async fn one_that_ignores_the_order_is_killed() {
    let guest = Guest::new();
    let host = guest.machine();
    let spec = server(&guest, "deaf", "trap '' TERM; echo up; while :; do sleep 0.1; done");
    host.start_service(&spec).await.unwrap();
    until("it is deaf", || guest.log("deaf").contains("up")).await;
    assert_eq!(
        host.stop_service(&spec.id, Duration::from_millis(300)).await.unwrap(),
        Change::Done
    );
    assert!(guest.processes("deaf").is_empty());
}

#[tokio::test]
async fn a_new_specification_waits_for_the_next_start() {
    let guest = Guest::new();
    let host = guest.machine();
    let old = server(&guest, "db", "exec sleep 300");
    let new = server(&guest, "db", "exec sleep 301");
    host.start_service(&old).await.unwrap();
    let pid = guest.running(&host, &old.id).await;
    assert_eq!(host.start_service(&new).await.unwrap(), Change::Done);
    assert_eq!(host.start_service(&new).await.unwrap(), Change::Unchanged);
    assert_eq!(guest.running(&host, &old.id).await, pid);
    kill(pid, Signal::KILL);
    host.service_changed(&old.id, &ServiceState::Running { pid }).await;
    let pid = guest.running(&host, &old.id).await;
    until("the new one runs", || {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x00301"))
    })
    .await;
    host.stop_service(&old.id, LIMIT).await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_is_an_error_with_its_cause() {
    let guest = Guest::new();
    let host = guest.machine();
    let mut spec = server(&guest, "none", "");
    spec.program = "/no/such/server".into();
    let error = host.start_service(&spec).await.unwrap_err();
    assert_eq!(error.to_string(), "could not start service none");
    assert_eq!(error.source.to_string(), "could not start /no/such/server");
    assert!(matches!(
        host.service_state(&spec.id).await.unwrap(),
        ServiceState::Failed { .. }
    ));
    let mut spec = server(&guest, "none", "");
    spec.user = "no-such-user".into();
    assert!(
        host.start_service(&spec)
            .await
            .unwrap_err()
            .source
            .to_string()
            .contains("no-such-user")
    );
    for id in ["", "../x", "a/b", ".hidden", "a b", "-x"] {
        spec.id = ServiceId(id.to_owned());
        assert!(host.start_service(&spec).await.is_err(), "{id:?}");
    }
    assert_eq!(
        host.stop_service(&ServiceId("never".into()), LIMIT).await.unwrap(),
        Change::Unchanged
    );
}

#[tokio::test]
async fn two_agents_do_not_supervise_one_folder() {
    let guest = Guest::new();
    let first = guest.machine();
    let spec = server(&guest, "db", "exec sleep 300");
    first.adopt().await.unwrap();
    first.start_service(&spec).await.unwrap();
    let second = guest.machine();
    let error = second.start_service(&spec).await.unwrap_err();
    assert!(error.source.to_string().contains("another agent holds"), "{}", error.source);
    first.stop_service(&spec.id, LIMIT).await.unwrap();
}
