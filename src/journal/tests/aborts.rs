//! The named abort points: the process ends there, and the journal holds what it must.

use super::crash::{DIR, this_test_binary};
use super::*;
use std::path::Path;
use std::process::Stdio;

/// The child: one operation from its arrival to its answer.
#[tokio::test]
#[ignore = "the child of the abort test"]
async fn child_that_aborts() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let journal = Journal::open(Path::new(&dir), None).unwrap();
    journal.accept(call("a", "restart")).await.unwrap();
    journal.step_done(&id("a"), "stop").await.unwrap();
    journal.finish(&id("a"), &Outcome::Done(Value::Null)).await.unwrap();
    journal.answered(&id("a")).await.unwrap();
}

#[tokio::test]
async fn the_process_ends_at_each_named_point_and_nowhere_else() {
    let mut held = Vec::new();
    for step in ["accept", "stop", "finish", "answered"] {
        for when in ["before", "after"] {
            let dir = tempfile::tempdir().unwrap();
            let status = this_test_binary("journal::tests::aborts::child_that_aborts", dir.path())
                .env("TROVE_GUESTAGENT_ABORT_AT", format!("restart/{step}/{when}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            assert!(!status.success(), "restart/{step}/{when} was not reached");
            let journal = Journal::open(dir.path(), None).unwrap();
            assert!(!journal.opened_damaged());
            let found = journal.find(&id("a")).await.unwrap();
            held.push(found.map(|r| (r.steps.len(), r.outcome.is_some(), r.answered)));
        }
    }
    let (accepted, stopped) = (Some((0, false, false)), Some((1, false, false)));
    let (finished, closed) = (Some((1, true, false)), Some((1, true, true)));
    assert_eq!(held, [None, accepted, accepted, stopped, stopped, finished, finished, closed]);
    assert_eq!(FAILPOINT_STEPS, ["accept", "finish", "answered"]);
}
