//! Programs that run to their end, real ones.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says where"
)]

use datastore_api::{Cmd, EnvVar, ExecError, Host, Secret};
use std::path::Path;
use std::time::{Duration, Instant};
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

async fn run(cmd: Cmd) -> Result<datastore_api::Output, ExecError> {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path()).run(cmd).await
}

/// Whether any process has this word in its environment.
fn alive(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("environ"))
            .is_ok_and(|environ| environ.windows(word.len()).any(|window| window == word.as_bytes()))
    })
}

fn marked(cmd: Cmd, word: &str) -> Cmd {
    let mut cmd = cmd;
    cmd.env.push(EnvVar {
        name: "HOST_TEST".to_owned(),
        value: Secret::from(word.to_owned()),
    });
    cmd
}

async fn gone(word: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while alive(word) {
        assert!(Instant::now() < until, "a process of {word} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes whose parent we are, dead ones not collected included.
fn children() -> Vec<String> {
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

#[tokio::test]
async fn output_input_and_environment_pass() {
    let mut cmd = shell("cat; echo \"$SECRET $PATH $LANG $HOME\"; echo warned >&2");
    cmd.stdin = Some(Secret::from("in\0put\n".to_owned()));
    cmd.env.push(EnvVar {
        name: "SECRET".to_owned(),
        value: Secret::from("s3".to_owned()),
    });
    let out = run(cmd).await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.starts_with("in\0put\ns3 /usr/local/sbin:") && text.ends_with(" C.UTF-8 \n"),
        "{text:?}"
    );
    assert_eq!(out.stderr_tail, "warned");
    assert_eq!(children(), Vec::<String>::new());
}

#[tokio::test]
async fn code_and_signal_are_told_apart() {
    match run(shell("echo why >&2; exit 3")).await.unwrap_err() {
        ExecError::Exit {
            code,
            status,
            stderr_tail,
            ..
        } => {
            assert_eq!((code, status.as_str(), stderr_tail.as_str()), (Some(3), "exit code 3", "why"));
        }
        other => panic!("{other}"),
    }
    match run(shell("kill -9 $$")).await.unwrap_err() {
        ExecError::Exit { code, status, .. } => assert_eq!((code, status.as_str()), (None, "signal 9")),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_cannot_start_is_named() {
    let error = run(Cmd::new("/no/such/program")).await.unwrap_err();
    assert_eq!(error.to_string(), "could not start /no/such/program");
    let error = run(Cmd::new("true")).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "true is not an absolute path");
    let error = run(Cmd::new("/bin/true").user("no-such-user")).await.unwrap_err();
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("no-such-user")
    );
}

#[tokio::test]
async fn the_whole_group_dies_at_the_deadline() {
    let cmd = marked(
        shell("echo begun >&2; sleep 300 & (trap '' TERM; sleep 301) & sleep 302"),
        "word-deadline",
    );
    let begun = Instant::now();
    match run(cmd.deadline(Duration::from_millis(500))).await.unwrap_err() {
        ExecError::Deadline { limit, stderr_tail, .. } => {
            assert_eq!((limit, stderr_tail.as_str()), (Duration::from_millis(500), "begun"));
        }
        other => panic!("{other}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    gone("word-deadline").await;
    assert_eq!(children(), Vec::<String>::new());
}

#[tokio::test]
async fn the_whole_group_dies_with_its_caller() {
    let cmd = marked(shell("sleep 300 & sleep 301"), "word-caller");
    let running = tokio::spawn(run(cmd));
    let until = Instant::now() + Duration::from_secs(10);
    while !alive("word-caller") {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.abort();
    gone("word-caller").await;
    let until = Instant::now() + Duration::from_secs(10);
    while !children().is_empty() {
        assert!(Instant::now() < until, "{:?}", children());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_stays_behind_a_program_that_ends() {
    let cmd = marked(shell("sleep 300 & echo done"), "word-behind");
    assert_eq!(run(cmd).await.unwrap().stdout, b"done\n");
    gone("word-behind").await;
}

#[tokio::test]
async fn output_without_end_is_cut_and_does_not_block() {
    let out = run(shell(
        "head -c 3000000 /dev/zero; head -c 100000 /dev/zero | tr '\\0' e >&2; echo tail >&2",
    ))
    .await
    .unwrap();
    assert_eq!(out.stdout.len(), 1 << 20);
    assert!(
        out.stderr_tail.len() <= 8 << 10 && out.stderr_tail.ends_with("eeetail"),
        "{}",
        out.stderr_tail.len()
    );
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_block() {
    let mut cmd = Cmd::new("/bin/true");
    cmd.stdin = Some(Secret::from("x".repeat(1 << 20)));
    run(cmd).await.unwrap();
}

#[tokio::test]
async fn another_user_runs_it_with_all_its_groups() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can run programs as others");
        return;
    }
    let out = run(Cmd::new("/usr/bin/id").user("nobody")).await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("uid=65534(nobody)") && !text.contains("root"), "{text}");
    // A user with further groups, if this machine has one.
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let member = groups.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let user = fields
            .get(3)?
            .split(',')
            .next()
            .filter(|user| !user.is_empty() && *user != "root")?;
        Some((fields[0].to_owned(), user.to_owned()))
    });
    let Some((group, user)) = member else {
        println!("SKIPPED: no user of this machine has a further group");
        return;
    };
    let out = run(Cmd::new("/usr/bin/id").arg("-nG").user(user.as_str())).await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.split_whitespace().any(|name| name == group) && !text.contains("root"),
        "{user} is in {text}, wanted {group}"
    );
}

#[tokio::test]
async fn the_state_folder_and_the_supervisors_lock_are_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("var/lib");
    let machine = machine(&base);
    machine.adopt().await.unwrap();
    machine
        .service_state(&datastore_api::ServiceId("none".to_owned()))
        .await
        .unwrap();
    let mode = |path: &str| std::fs::metadata(base.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("state"), 0o700);
    assert_eq!(mode("run/supervisor.lock"), 0o600);
    assert_eq!(mode(".") & 0o055, 0o055, "the database's user passes through what is above");
}
