//! Programs whose caller holds their pipes, real ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use datastore_api::{Cmd, EnvVar, ExecError, Host, Pipes, Running, Secret};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use trove_guestagent::host::{Machine, Settings, SupervisorKind};

fn machine(dir: &Path) -> Machine {
    let settings = Settings {
        run_dir: dir.join("run"),
        state_dir: dir.join("state"),
        supervisor: SupervisorKind::Supervised,
    };
    Machine::new(settings).expect("folders can be made")
}

fn shell(script: &str) -> Cmd {
    Cmd::new("/bin/sh").arg("-c").arg(script)
}

async fn spawn(cmd: Cmd, pipes: Pipes) -> Running {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path()).spawn(cmd, pipes).await.unwrap()
}

/// Whether any process has this word in its environment.
fn alive(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("environ"))
            .is_ok_and(|environ| environ.windows(word.len()).any(|window| window == word.as_bytes()))
    })
}

async fn gone(word: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while alive(word) {
        assert!(Instant::now() < until, "a process of {word} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn gigabytes_pass_in_bounded_memory() {
    let mut running = spawn(shell("head -c 1073741824 /dev/zero; echo done >&2"), Pipes::Stdout).await;
    let start = Instant::now();
    let mut output = tokio::io::BufReader::with_capacity(256 << 10, running.stdout.take().unwrap());
    let bytes = tokio::io::copy_buf(&mut output, &mut sink()).await.unwrap();
    let output = running.wait().await.unwrap();
    println!("1 GiB out of a program in {:?}", start.elapsed());
    assert_eq!((bytes, output.stderr_tail.as_str()), (1 << 30, "done"));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "{peak} kB");
}

#[tokio::test]
async fn both_pipes_work_at_once_and_shutdown_is_the_end_of_input() {
    let mut running = spawn(Cmd::new("/bin/cat"), Pipes::Both).await;
    let (mut stdin, mut stdout) = (running.stdin.take().unwrap(), running.stdout.take().unwrap());
    let writing = async {
        for _ in 0..64 {
            stdin.write_all(&[7; 1 << 20]).await.unwrap();
        }
        stdin.shutdown().await.unwrap();
        assert!(stdin.write_all(b"x").await.is_err(), "it is closed");
    };
    let mut nothing = sink();
    let (bytes, ()) = tokio::join!(copy(&mut stdout, &mut nothing), writing);
    assert_eq!(bytes.unwrap(), 64 << 20);
    running.wait().await.unwrap();
}

#[tokio::test]
async fn a_program_that_fails_after_its_output_is_known_by_its_end() {
    let mut running = spawn(shell("echo half; echo 'the disk broke' >&2; exit 3"), Pipes::Stdout).await;
    let mut text = String::new();
    running.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "half\n");
    match running.wait().await.unwrap_err() {
        ExecError::Exit { code, stderr_tail, .. } => assert_eq!((code, stderr_tail.as_str()), (Some(3), "the disk broke")),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_program_that_ends_before_its_input_breaks_the_pipe() {
    let mut running = spawn(shell("head -c 1 > /dev/null; echo enough >&2; exit 1"), Pipes::Stdin).await;
    let error = loop {
        if let Err(error) = running.stdin.as_mut().unwrap().write_all(&[0; 65536]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(running.wait().await.unwrap_err().to_string().contains("enough"));
}

#[tokio::test]
async fn without_progress_it_is_stopped_and_with_some_it_is_not() {
    let still = shell("echo begun; while :; do echo words >&2; sleep 0.05; done").deadline(Duration::from_millis(800));
    let mut running = spawn(still, Pipes::Stdout).await;
    let mut text = String::new();
    running.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "begun\n");
    let error = running.wait().await.unwrap_err();
    assert!(matches!(error, ExecError::Stalled { .. }), "{error}");

    // Longer than its limit, but something moves: first its output, then, without a pipe, its words.
    let slow = "for i in 1 2 3 4 5; do echo out; sleep 0.3; done; exec >&-; for i in 1 2 3 4 5; do echo err >&2; sleep 0.3; done";
    let mut running = spawn(shell(slow).deadline(Duration::from_millis(1200)), Pipes::Stdout).await;
    copy(running.stdout.as_mut().unwrap(), &mut sink()).await.unwrap();
    running.wait().await.unwrap();
}

#[tokio::test]
async fn dropped_it_is_killed_with_all_it_started() {
    for pipes in [Pipes::Stdin, Pipes::Stdout, Pipes::Both] {
        let word = format!("host-stream-drop-{}-{pipes:?}", std::process::id());
        let mut cmd = shell("sleep 300 & sleep 300");
        cmd.env.push(EnvVar {
            name: "HOST_TEST".into(),
            value: Secret::from(word.clone()),
        });
        let running = spawn(cmd, pipes).await;
        assert!(alive(&word));
        drop(running);
        gone(&word).await;
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let spawned = machine(dir.path()).spawn(Cmd::new("/no/such/program"), Pipes::Both).await;
    match spawned.unwrap_err() {
        ExecError::Start { program, .. } => assert_eq!(program, Path::new("/no/such/program")),
        other => panic!("{other}"),
    }
}
