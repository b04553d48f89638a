//! Tests of the journal: behaviour here; crashes, full disks, damage, figures and a model beside it.

#[cfg(feature = "failpoints")]
mod aborts;
mod crash;
mod damage;
mod figures;
mod full;
mod model;

use super::write::later;
use super::*;
use serde_json::{Value, json};

pub(super) fn record(id: &str, method: &str) -> Record {
    Record {
        id: OpId(id.to_owned()),
        method: method.to_owned(),
        args: json!({"users": [{"name": "ann", "password": "s3cret-in-args"}]}),
        context: json!({"auth_token": "s3cret-in-context"}),
        reply: Value::Null,
        accepted: 1_795_330_378.25,
        deadline: None,
        steps: Vec::new(),
        outcome: None,
        answered: false,
    }
}

pub(super) fn call(id: &str, method: &str) -> Record {
    Record {
        reply: json!({"msg_id": id, "queue": "reply_1"}),
        deadline: Some(1_795_330_400.5),
        ..record(id, method)
    }
}

pub(super) fn id(id: &str) -> OpId {
    OpId(id.to_owned())
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| r.id.0.as_str()).collect()
}

#[tokio::test]
async fn an_operation_goes_from_accepted_to_closed_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    {
        let journal = Journal::open(dir.path(), None).unwrap();
        assert_eq!(journal.accept(call("a", "prepare")).await.unwrap(), Admission::New);
        assert_eq!(journal.accept(call("a", "prepare")).await.unwrap(), Admission::Running);
        journal.step_done(&id("a"), "install").await.unwrap();
        journal.step_done(&id("a"), "start").await.unwrap();
        journal.step_done(&id("a"), "install").await.unwrap();
        assert_eq!(journal.depth(), 1);
    }
    let outcome = Outcome::Done(json!({"password": "s3cret-in-outcome"}));
    {
        let journal = Journal::open(dir.path(), None).unwrap();
        let found = journal.unfinished().await.unwrap();
        let wanted = Record {
            steps: vec!["install".to_owned(), "start".to_owned()],
            ..call("a", "prepare")
        };
        assert_eq!(found, [wanted]);
        journal.finish(&id("a"), &outcome).await.unwrap();
        journal.finish(&id("a"), &Outcome::Failed(Value::Null)).await.unwrap();
        assert_eq!(journal.depth(), 0);
        assert_eq!(
            journal.accept(call("a", "prepare")).await.unwrap(),
            Admission::Finished(outcome.clone())
        );
    }
    let journal = Journal::open(dir.path(), None).unwrap();
    let waiting = journal.unanswered().await.unwrap();
    assert_eq!(waiting[0].outcome, Some(outcome.clone()));
    assert_eq!(waiting[0].args, call("a", "prepare").args);
    journal.answered(&id("a")).await.unwrap();
    assert!(journal.unanswered().await.unwrap().is_empty());
    let closed = journal.find(&id("a")).await.unwrap().unwrap();
    assert_eq!(closed.outcome, Some(outcome));
    assert_eq!(closed.args, Value::Null, "the arguments of a closed operation are forgotten");
    assert!(closed.answered && !closed.is_sealed());
}

#[tokio::test]
async fn operations_come_back_in_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    for name in ["z", "m", "a", "q"] {
        journal.accept(record(name, "restart")).await.unwrap();
    }
    journal.finish(&id("m"), &Outcome::Done(Value::Null)).await.unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), None).unwrap();
    journal.accept(record("b", "restart")).await.unwrap();
    assert_eq!(names(&journal.unfinished().await.unwrap()), ["z", "a", "q", "b"]);
    assert_eq!(names(&journal.recent(3).await.unwrap()), ["b", "q", "a"]);
    assert!(
        journal.unanswered().await.unwrap().is_empty(),
        "nobody waits for the answer of a cast"
    );
}

#[tokio::test]
async fn unknown_operations_are_errors_and_facts_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    assert!(matches!(
        journal.step_done(&id("x"), "s").await,
        Err(JournalError::Unknown(_))
    ));
    assert!(matches!(journal.answered(&id("x")).await, Err(JournalError::Unknown(_))));
    assert_eq!(journal.find(&id("x")).await.unwrap(), None);
    assert_eq!(journal.get("phase").await.unwrap(), None);
    journal.put("phase", b"ready".to_vec()).await.unwrap();
    let too_large = journal.put("phase", vec![0; MAX_FACT + 1]).await;
    assert!(matches!(too_large, Err(JournalError::TooLarge { .. })));
    drop(journal);
    let journal = Journal::open(dir.path(), None).unwrap();
    assert_eq!(journal.get("phase").await.unwrap(), Some(b"ready".to_vec()));
}

#[tokio::test]
async fn sent_grows_over_restarts_and_steps_of_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0.0;
    for now in [
        1_795_330_378.028_254_3,
        1_795_330_378.028_254_4,
        5.0,
        f64::NAN,
        f64::INFINITY,
        -1.0,
        1_795_330_379.0,
        1_795_330_379.0,
    ] {
        let journal = Journal::open(dir.path(), None).unwrap();
        let sent = journal.next_sent(now).await.unwrap();
        assert!(sent > last, "{sent} after {last}");
        assert_eq!(sent, (sent * 1e6).round() / 1e6, "whole microseconds");
        last = sent;
    }
    assert_eq!(last, 1_795_330_379.001);
    assert_eq!(later(10.5, 10.0), 10.5);
    assert_eq!(later(10.0, 10.0), 10.001);
}

#[tokio::test]
async fn absurd_requests_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    let mut large = record("large", "prepare");
    large.args = json!({"config_contents": "x".repeat(MAX_PART)});
    assert!(matches!(journal.accept(large).await, Err(JournalError::TooLarge { .. })));
    let mut deep = record("deep", "prepare");
    deep.args = (0..120).fold(json!(1), |inner, _| json!([inner]));
    assert!(matches!(journal.accept(deep).await, Err(JournalError::TooDeep { .. })));
    let long = record(&"i".repeat(70_000), "prepare");
    assert!(matches!(journal.accept(long).await, Err(JournalError::TooLarge { .. })));
    assert!(journal.recent(10).await.unwrap().is_empty());
    let mut fits = record("fits", "prepare");
    fits.args = json!({"config_contents": "x".repeat(4 << 20)});
    assert_eq!(journal.accept(fits.clone()).await.unwrap(), Admission::New);
    assert_eq!(journal.unfinished().await.unwrap()[0].args, fits.args);
}

#[tokio::test]
async fn finished_operations_are_bounded_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..KEEP_FINISHED + 200 {
        let journal = journal.clone();
        tasks.spawn(async move {
            let name = format!("{n:05}");
            journal.accept(record(&name, "create_user")).await.unwrap();
            journal.finish(&id(&name), &Outcome::Done(Value::Null)).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(journal.recent(usize::MAX).await.unwrap().len(), KEEP_FINISHED);
    for n in 0..3 {
        let name = format!("big{n}");
        journal.accept(record(&name, "list")).await.unwrap();
        let outcome = Outcome::Done(json!("y".repeat(3 << 20)));
        journal.finish(&id(&name), &outcome).await.unwrap();
    }
    let left = journal.recent(usize::MAX).await.unwrap();
    assert_eq!(names(&left), ["big2", "big1"], "8 MiB of outcomes at most");
    assert_eq!(journal.accept(record("00000", "create_user")).await.unwrap(), Admission::New);
}

#[tokio::test]
async fn unfinished_operations_are_never_dropped_but_refused_beyond_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    let mut accepted = 0;
    let refused = loop {
        let mut large = record(&format!("{accepted}"), "prepare");
        large.args = json!({"config_contents": "x".repeat(7 << 20)});
        match journal.accept(large).await {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, JournalError::Full { .. }), "{refused}");
    assert_eq!(accepted, 9);
    assert_eq!(journal.depth(), accepted);
}

#[tokio::test]
async fn a_second_opener_is_told_that_it_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let journal = Journal::open(&state, None).unwrap();
    assert!(matches!(Journal::open(&state, None), Err(JournalError::Busy { .. })));
    drop(journal);
    Journal::open(&state, None).unwrap();
    use std::os::unix::fs::PermissionsExt;
    for (path, mode) in [
        (state.clone(), 0o700),
        (state.join("journal.redb"), 0o600),
        (state.join("journal.key"), 0o600),
    ] {
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode,
            "{path:?}"
        );
    }
}
