//! Random operations beside a plain model in memory.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
enum Action {
    Accept(u8, bool),
    Step(u8, u8),
    Finish(u8, bool),
    Answered(u8),
    Put(u8, u8),
    NextSent(u32),
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..12u8, any::<bool>()).prop_map(|(n, call)| Action::Accept(n, call)),
        4 => (0..12u8, 0..4u8).prop_map(|(n, s)| Action::Step(n, s)),
        3 => (0..12u8, any::<bool>()).prop_map(|(n, ok)| Action::Finish(n, ok)),
        3 => (0..12u8).prop_map(Action::Answered),
        1 => (0..3u8, any::<u8>()).prop_map(|(k, v)| Action::Put(k, v)),
        1 => (0..100u32).prop_map(Action::NextSent),
        1 => Just(Action::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    entries: Vec<Record>,
    facts: HashMap<String, Vec<u8>>,
    sent: f64,
}

impl Model {
    fn entry(&mut self, id: &OpId) -> Option<&mut Record> {
        self.entries.iter_mut().find(|e| e.id == *id)
    }

    fn close(entry: &mut Record) {
        entry.answered = true;
        (entry.args, entry.context) = (Value::Null, Value::Null);
    }

    fn pick(&self, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.entries.iter().filter(|e| wanted(e)).cloned().collect()
    }
}

async fn play(actions: Vec<Action>) {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), None).unwrap();
    let mut model = Model::default();
    for action in actions {
        match action {
            Action::Accept(n, is_call) => {
                let name = format!("op{n}");
                let offered = if is_call { call(&name, "m") } else { record(&name, "m") };
                let wanted = match model.entry(&offered.id) {
                    None => Admission::New,
                    Some(entry) => entry.outcome.clone().map_or(Admission::Running, Admission::Finished),
                };
                assert_eq!(journal.accept(offered.clone()).await.unwrap(), wanted);
                if wanted == Admission::New {
                    model.entries.push(offered);
                }
            }
            Action::Step(n, s) => {
                let (id, step) = (id(&format!("op{n}")), format!("step{s}"));
                let got = journal.step_done(&id, &step).await;
                let entry = model.entry(&id);
                assert_eq!(got.is_ok(), entry.is_some());
                if let Some(entry) = entry.filter(|e| e.outcome.is_none() && !e.steps.contains(&step)) {
                    entry.steps.push(step);
                }
            }
            Action::Finish(n, ok) => {
                let id = id(&format!("op{n}"));
                let outcome = if ok {
                    Outcome::Done(json!([n]))
                } else {
                    Outcome::Failed(json!({"class": n}))
                };
                let got = journal.finish(&id, &outcome).await;
                let entry = model.entry(&id);
                assert_eq!(got.is_ok(), entry.is_some());
                if let Some(entry) = entry.filter(|e| e.outcome.is_none()) {
                    entry.outcome = Some(outcome);
                    if entry.reply.is_null() {
                        Model::close(entry);
                    }
                }
            }
            Action::Answered(n) => {
                let id = id(&format!("op{n}"));
                let got = journal.answered(&id).await;
                let entry = model.entry(&id);
                assert_eq!(got.is_ok(), entry.is_some());
                match entry {
                    Some(entry) if entry.outcome.is_some() => Model::close(entry),
                    Some(entry) => entry.reply = Value::Null,
                    None => {}
                }
            }
            Action::Put(k, v) => {
                journal.put(&format!("k{k}"), vec![v]).await.unwrap();
                model.facts.insert(format!("k{k}"), vec![v]);
            }
            Action::NextSent(now) => {
                let sent = journal.next_sent(f64::from(now)).await.unwrap();
                assert!(sent > model.sent);
                model.sent = sent;
            }
            Action::Reopen => {
                drop(journal);
                journal = Journal::open(dir.path(), None).unwrap();
            }
        }
        assert_eq!(journal.depth(), model.pick(|e| e.outcome.is_none()).len());
    }
    assert_eq!(journal.unfinished().await.unwrap(), model.pick(|e| e.outcome.is_none()));
    assert_eq!(
        journal.unanswered().await.unwrap(),
        model.pick(|e| e.outcome.is_some() && !e.answered)
    );
    let mut all = journal.recent(100).await.unwrap();
    all.reverse();
    assert_eq!(all, model.entries);
    for (key, value) in model.facts {
        assert_eq!(journal.get(&key).await.unwrap(), Some(value));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_journal_does_what_the_model_does(actions in proptest::collection::vec(action(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(actions));
    }
}
