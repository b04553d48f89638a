//! Words, keys, and what is kept.

use super::*;
use crate::link::PairKey;
use serde_json::json;

/// So short that a test can wait until the witness speaks.
fn terms() -> Terms {
    Terms {
        lease: Duration::from_millis(400),
        margin: Duration::from_millis(5),
    }
}

async fn settled(folder: Option<&Path>) -> Witness {
    let witness = Witness::open(terms(), folder).unwrap();
    tokio::time::sleep(terms().surely_over() * 2).await;
    witness
}

async fn ask(witness: &Witness, key: &PairKey, body: Value) -> Value {
    let peer = Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        key: key.id(),
    };
    match witness.request(peer, body).await {
        Ok(answer) => answer,
        Err(error) => json!({"error": error}),
    }
}

#[tokio::test]
async fn it_says_nothing_at_first_then_echoes_promises_and_denies() {
    let key = PairKey::generate();
    let ping = json!({"verb": "ping", "pair": "p", "generation": 3, "seq": 9});
    let fresh = Witness::open(terms(), None).unwrap();
    assert_eq!(ask(&fresh, &key, ping.clone()).await["reason"], "just_started");
    let witness = settled(None).await;
    assert_eq!(ask(&witness, &key, ping.clone()).await, json!({"echo": 9}));
    let fence = json!({"verb": "fence", "pair": "p", "generation": 3, "attempt": 5});
    assert_eq!(ask(&witness, &key, fence.clone()).await["reason"], "source_lives");
    tokio::time::sleep(terms().lease).await;
    let promised = ask(&witness, &key, fence).await;
    assert_eq!((&promised["promised"], &promised["attempt"]), (&json!(3), &json!(5)));
    assert!(promised["granted_ago_ms"].as_u64().unwrap() >= 400, "{promised}");
    let denied = ask(&witness, &key, ping.clone()).await;
    assert_eq!((&denied["reason"], &denied["generation"]), (&json!("promised"), &json!(3)));
    // Whoever has another key has other pairs, whatever they are called.
    assert_eq!(ask(&witness, &PairKey::generate(), ping.clone()).await, json!({"echo": 9}));
    let unfence = json!({"verb": "unfence", "pair": "p", "generation": 3, "attempt": 5});
    assert_eq!(ask(&witness, &key, unfence).await, json!({"unfenced": 5, "standing": null}));
    assert_eq!(ask(&witness, &key, ping).await, json!({"echo": 9}));
}

#[tokio::test]
async fn what_it_does_not_understand_it_refuses_by_name() {
    let witness = settled(None).await;
    let key = PairKey::generate();
    for (body, said) in [
        (json!({"verb": "dance"}), "dance"),
        (json!({"verb": "ping", "pair": "p"}), "generation"),
        (json!({"verb": "ping", "pair": "", "generation": 1, "seq": 1}), "name"),
        (
            json!({"verb": "ping", "pair": "p", "generation": 1, "seq": 1, "lease_ms": 401}),
            "400 ms",
        ),
        (json!([1]), "no question"),
    ] {
        let answer = ask(&witness, &key, body).await;
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
    }
}

#[tokio::test]
async fn a_promise_outlives_the_process_if_there_is_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let key = PairKey::generate();
    let fence = json!({"verb": "fence", "pair": "p", "generation": 3, "attempt": 5});
    let ping = json!({"verb": "ping", "pair": "p", "generation": 3, "seq": 9});
    let first = settled(Some(folder.path())).await;
    assert_eq!(ask(&first, &key, fence).await["granted_ago_ms"], Value::Null);
    drop(first);
    let second = settled(Some(folder.path())).await;
    assert_eq!(ask(&second, &key, ping.clone()).await["reason"], "promised");
    // What it cannot write it does not say.
    fs::remove_dir_all(folder.path()).unwrap();
    let newer = json!({"verb": "ping", "pair": "p", "generation": 4, "seq": 9});
    let answer = ask(&second, &key, newer).await;
    assert!(answer["error"].as_str().unwrap().contains("cannot write"), "{answer}");
    fs::create_dir_all(folder.path()).unwrap();
    fs::write(folder.path().join(FILE), "{").unwrap();
    assert!(Witness::open(terms(), Some(folder.path())).is_err());
}

#[test]
fn every_answer_reads_back_as_itself() {
    for answer in [
        Answer::Echo { echo: 1, hold: Some(2) },
        Answer::newer(7),
        Answer::from(Denied::JustStarted {
            retry: Duration::from_millis(3),
        }),
        Answer::Promised {
            promised: 1,
            attempt: 2,
            granted_ago_ms: None,
        },
        Answer::Unfenced {
            unfenced: 1,
            standing: Some(3),
        },
    ] {
        let value = serde_json::to_value(&answer).unwrap();
        assert_eq!(serde_json::from_value::<Answer>(value.clone()).unwrap(), answer, "{value}");
    }
}
