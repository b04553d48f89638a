//! A child process is killed in the middle of its writes; what it was told is written must be there.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(super) const DIR: &str = "TROVE_TEST_JOURNAL_DIR";
const FROM: &str = "TROVE_TEST_JOURNAL_FROM";

/// The child: eight writers that say on standard output what the journal confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the crash test"]
async fn child_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let mut from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    let journal = Journal::open(&PathBuf::from(dir), None).unwrap();
    assert!(!journal.opened_damaged());
    say("ready");
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        from += 1_000_000;
        let journal = journal.clone();
        writers.spawn(async move {
            for n in from.. {
                let name = format!("{n}");
                journal.accept(call(&name, "m")).await.unwrap();
                say(&format!("accepted {name}"));
                journal.step_done(&id(&name), "one").await.unwrap();
                say(&format!("step {name}"));
                if n % 3 == 0 {
                    journal.finish(&id(&name), &Outcome::Done(json!(n))).await.unwrap();
                    say(&format!("finished {name}"));
                }
                if n % 6 == 0 {
                    journal.answered(&id(&name)).await.unwrap();
                }
                if n % 5 == 0 {
                    say(&format!("sent {}", journal.next_sent(0.0).await.unwrap()));
                }
            }
        });
    }
    writers.join_next().await;
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "@{line}");
    let _ = out.flush();
}

#[expect(clippy::disallowed_methods, reason = "the test starts itself again, to be killed")]
pub(super) fn this_test_binary(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIR, dir);
    command
}

fn start_child(dir: &Path, from: u64) -> std::process::Child {
    this_test_binary("journal::tests::crash::child_that_is_killed", dir)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn nothing_confirmed_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut last_sent = 0.0;
    let mut seen = 0;
    for round in 0..20u64 {
        let mut child = start_child(dir.path(), round * 100_000_000);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The first rounds are killed while the file is made, the later ones after some hundred writes.
        let kill_after = if round < 4 { 0 } else { 5 + (round * 37) % 150 };
        if round < 4 {
            std::thread::sleep(Duration::from_micros(4000 + round * 3000));
        }
        let mut confirmed = Vec::new();
        while confirmed.len() < kill_after as usize {
            let line = lines.next().expect("the child lives until it is killed").unwrap();
            if let Some(at) = line.find('@') {
                confirmed.push(line[at + 1..].to_owned());
            }
        }
        child.kill().unwrap();
        confirmed.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|l| l.strip_prefix('@').map(str::to_owned)),
        );
        child.wait().unwrap();

        let journal = Journal::open(dir.path(), None).unwrap();
        assert!(!journal.opened_damaged(), "round {round}");
        for line in confirmed {
            let Some((what, value)) = line.split_once(' ') else { continue };
            seen += 1;
            if what == "sent" {
                // A line may be cut by the kill: a shorter number is smaller.
                let sent: f64 = value.parse().unwrap();
                assert!(journal.next_sent(0.0).await.unwrap() > sent);
                last_sent = f64::max(last_sent, sent);
                continue;
            }
            let found = journal.find(&id(value)).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("round {round}: {line} is lost"));
            match what {
                "step" => assert_eq!(found.steps, ["one"], "round {round}: {line}"),
                "finished" => assert_eq!(found.outcome, Some(Outcome::Done(json!(value.parse::<u64>().unwrap())))),
                _ => {}
            }
        }
        // Keep the rounds apart: finish what is left.
        for record in journal.unfinished().await.unwrap() {
            journal.finish(&record.id, &Outcome::Failed(Value::Null)).await.unwrap();
            journal.answered(&record.id).await.unwrap();
        }
    }
    assert!(seen > 500, "only {seen} confirmations were checked");
    let journal = Journal::open(dir.path(), None).unwrap();
    assert!(journal.next_sent(0.0).await.unwrap() > last_sent);
}
