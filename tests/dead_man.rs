//! The guardian acts when whoever started it is gone, when its time is over, and when it is told to end; once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![expect(clippy::disallowed_methods, reason = "the test plays the agent, and dies as it does")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn guardian(limit_ms: u32, file: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trove-guestagent"));
    let command = command
        .arg("dead-man")
        .arg(limit_ms.to_string())
        .arg("/usr/bin/touch")
        .arg(file);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

fn acts(file: &Path) {
    let end = Instant::now() + Duration::from_secs(30);
    while !file.exists() {
        assert!(Instant::now() < end, "{} was not touched", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_acts_when_its_agent_is_gone_late_or_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (gone, late, told) = (
        folder.path().join("gone"),
        folder.path().join("late"),
        folder.path().join("told"),
    );
    let mut first = guardian(60_000, &gone);
    let mut second = guardian(300, &late);
    let mut third = guardian(60_000, &told);
    acts(&late);
    std::thread::sleep(Duration::from_millis(700));
    assert!(!gone.exists() && !told.exists(), "it did not wait");
    // A killed agent: its end of the pipe closes.
    drop(first.stdin.take());
    acts(&gone);
    let kill = Command::new("/bin/kill").arg(third.id().to_string()).status().unwrap();
    assert!(kill.success());
    acts(&told);
    for child in [&mut first, &mut second, &mut third] {
        assert!(child.wait().unwrap().success());
    }
}
