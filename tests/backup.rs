//! Backups and restores as jobs, in this process with the sim datastore and a folder as the store.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod common;

use common::{Guest, GuestBuilder};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;
use trove_guestagent::backup::Second;
use trove_guestagent::bus::Answer;

const ID: &str = "0c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d22";
const OTHER: &str = "1c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d22";

fn prepare_args() -> Value {
    json!({"packages": "", "databases": [{"_name": "shop"}], "memory_mb": 512, "users": [], "ds_version": null})
}

async fn prepared(builder: GuestBuilder) -> Guest {
    let guest = builder.build().await;
    guest.call("prepare", prepare_args()).await.unwrap();
    guest
}

/// What the control plane sends.
fn info(id: &str) -> Value {
    json!({"id": id, "name": "daily", "instance_id": "guest", "backup_type": null, "checksum": null, "parent": null,
        "datastore": "sim", "datastore_version": "1.0"})
}

fn context() -> Map<String, Value> {
    let notification = json!({"notification_classname": "trove.common.notification.DBaaSBackupCreate", "server_type": "taskmanager1",
        "backup_id": ID});
    Map::from_iter([
        ("request_id".to_owned(), json!("req-1")),
        ("trove_notification".to_owned(), notification),
    ])
}

/// Hands in a backup as the control plane does and waits for its end.
async fn create(guest: &Guest, request: &str, info: Value) -> Answer {
    let sent = guest.send_with(request, "create_backup", json!({"backup_info": info}), context());
    tokio::time::timeout(Duration::from_secs(30), sent).await.unwrap().unwrap()
}

/// What was told of a row: its states in their order.
fn states(guest: &Guest, id: &str) -> Vec<String> {
    let reports = guest.reports.lock().unwrap();
    let rows = reports
        .iter()
        .filter(|cast| cast.method == "update_backup" && cast.args["backup_id"] == id);
    let mut states: Vec<_> = rows.map(|cast| cast.args["state"].as_str().unwrap().to_owned()).collect();
    states.dedup();
    states
}

fn methods(guest: &Guest) -> Vec<&'static str> {
    let reports = guest.reports.lock().unwrap();
    let mut methods: Vec<_> = reports
        .iter()
        .map(|cast| cast.method)
        .filter(|method| *method != "heartbeat")
        .collect();
    methods.dedup();
    methods
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("store")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

async fn until(what: &str, mut good: impl FnMut() -> bool) {
    for _ in 0..600 {
        if good() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not within 15 s: {what}");
}

async fn names(guest: &Guest) -> Vec<String> {
    let databases = guest.call("list_databases", json!({})).await.unwrap();
    let names = databases[0].as_array().unwrap().iter();
    names.map(|database| database["_name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_told_from_its_beginning_to_its_end_and_brings_the_data_back() {
    let dir = tempfile::tempdir().unwrap();
    let guest = prepared(GuestBuilder::new(dir.path()).option("backup_bytes", "20000000")).await;
    assert!(matches!(create(&guest, "a", info(ID)).await, Answer::Result(_)));
    assert_eq!(states(&guest, ID), ["BUILDING", "COMPLETED"]);
    assert_eq!(methods(&guest), ["update_backup", "notify_end"]);
    {
        let reports = guest.reports.lock().unwrap();
        let row = &reports.iter().rfind(|cast| cast.method == "update_backup").unwrap().args;
        assert_eq!(
            (row["instance_id"].as_str(), row["backup_type"].as_str()),
            (Some("guest"), Some("full"))
        );
        assert!(
            row["location"].as_str().unwrap().ends_with(&format!("{ID}.sim.zst")),
            "{row:?}"
        );
        assert_eq!(row["checksum"].as_str().unwrap().len(), 32);
        assert!(row["size"].is_f64() && row["success"] == true);
    }
    assert_eq!(files(dir.path()), [format!("{ID}.json"), format!("{ID}.sim.zst")]);
    // An increment, then both come back in the place of what was done since.
    let mut next = info(OTHER);
    next["trove_guestagent"] = json!({"parent": "last"});
    guest
        .call("create_database", json!({"databases": [{"_name": "later"}]}))
        .await
        .unwrap();
    assert!(matches!(create(&guest, "b", next).await, Answer::Result(_)));
    guest
        .call("delete_database", json!({"database": {"_name": "shop"}}))
        .await
        .unwrap();
    guest
        .call("delete_database", json!({"database": {"_name": "later"}}))
        .await
        .unwrap();
    guest.call("restore_backup", json!({"id": OTHER})).await.unwrap();
    assert_eq!(names(&guest).await, ["later", "shop"]);
    guest.call("restore_backup", json!({"id": ID})).await.unwrap();
    assert_eq!(names(&guest).await, ["shop"]);
    let verified = guest.call("verify_backup", json!({"id": OTHER})).await.unwrap();
    assert_eq!(verified["verified"]["good"], true, "{verified}");
    let status = guest.call("get_backup_status", json!({})).await.unwrap();
    assert!(
        status["running"].is_null() && status["ended"].as_array().unwrap().len() >= 4,
        "{status}"
    );
    // A new guest begins with it.
    let fresh = tempfile::tempdir().unwrap();
    let second = GuestBuilder::new(fresh.path()).build().await;
    let location = format!("file://{}/store/{OTHER}.sim.zst", dir.path().display());
    let mut args = prepare_args();
    args["databases"] = json!([]);
    args["backup_info"] =
        json!({"id": OTHER, "instance_id": "guest", "location": location, "type": "incremental", "checksum": null});
    second.call("prepare", args).await.unwrap();
    assert_eq!(names(&second).await, ["later", "shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_in_failed_with_its_reason_and_leaves_nothing() {
    for (at, (fault, said)) in [("fail", "tool"), ("truncate", "early"), ("swallow", "bytes")]
        .into_iter()
        .enumerate()
    {
        let dir = tempfile::tempdir().unwrap();
        let builder = GuestBuilder::new(dir.path())
            .option("backup_bytes", "3000000")
            .option("backup_fault", fault);
        let guest = prepared(builder.option("backup_fault_at", "1000000")).await;
        let Answer::Failure(failure) = create(&guest, "a", info(ID)).await else {
            panic!("{fault}: no failure")
        };
        assert!(
            failure.message.starts_with(&format!("Failed to create backup {ID}, error: ")),
            "{}",
            failure.message
        );
        assert_eq!(
            states(&guest, ID),
            ["BUILDING", "FAILED"],
            "{fault} ({at}, {said}): {}",
            failure.message
        );
        assert_eq!(methods(&guest), ["update_backup", "notify_exc_info"]);
        assert!(files(dir.path()).is_empty(), "{fault}: {:?}", files(dir.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_fail_their_rows_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let guest = prepared(GuestBuilder::new(dir.path())).await;
    let with = |key: &str, value: Value| {
        let mut info = info(ID);
        info[key] = value;
        info
    };
    for (at, (bad, said)) in [
        (info("../../etc/passwd"), "UUID"),
        (with("storage_driver", json!("tape")), "storage_driver \"tape\" is unknown"),
        (with("storage_driver", json!("s3")), "configured for file://"),
        (with("storage_driver", json!("cinder")), "cinder"),
        (with("parent", json!({"location": null})), "parent.location is missing"),
        (with("parent", json!({"location": "file:///nowhere/x.sim.zst"})), "UUID"),
        (
            with(
                "parent",
                json!({"location": format!("file://{}/store/{OTHER}.sim.zst", dir.path().display())}),
            ),
            "there is no backup",
        ),
        (with("trove_guestagent", json!({"format": "zip"})), "format"),
        (with("trove_guestagent", json!({"key_id": "k"})), "key"),
        (with("trove_guestagent", json!({"storage": "file://here"})), "absolute"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = bad["id"].as_str().unwrap().to_owned();
        guest.reports.lock().unwrap().clear();
        let Answer::Failure(failure) = create(&guest, &format!("bad-{at}"), bad).await else {
            panic!("{said}: no failure")
        };
        assert!(failure.message.contains(said), "{said}: {}", failure.message);
        assert_eq!(states(&guest, &id).last().map(String::as_str), Some("FAILED"), "{said}");
    }
    // One of another type never gets so far.
    let sent = guest.send_with(
        "bad",
        "create_backup",
        json!({"backup_info": {"id": ID, "parent": 7}}),
        context(),
    );
    assert!(matches!(sent.await.unwrap(), Answer::Failure(_)));
    assert_eq!(states(&guest, ID).last().map(String::as_str), Some("FAILED"));
    assert!(files(dir.path()).is_empty());
    for (method, args, said) in [
        ("restore_backup", json!({}), "neither id nor location"),
        ("restore_backup", json!({"id": OTHER}), "there is no backup"),
        ("restore_backup", json!({"id": "x"}), "UUID"),
        ("verify_backup", json!({"id": OTHER}), "there is no backup"),
        ("cancel_backup", json!({}), "no such backup is running"),
    ] {
        let error = guest.call(method, args).await.unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    assert_eq!(names(&guest).await, ["shop"], "and nothing was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_holds_nobody_up_and_gives_way_to_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let guest = prepared(
        GuestBuilder::new(dir.path())
            .option("backup_bytes", "3000000")
            .option("backup_fault", "hang"),
    )
    .await;
    let first = guest.send_with("a", "create_backup", json!({"backup_info": info(ID)}), context());
    let second = guest.send_with("b", "create_backup", json!({"backup_info": info(OTHER)}), context());
    until("the first runs", || states(&guest, ID) == ["BUILDING"]).await;
    // Databases, roles and questions do not wait.
    guest
        .call("create_database", json!({"databases": [{"_name": "beside"}]}))
        .await
        .unwrap();
    guest.call("make_read_only", json!({"read_only": true})).await.unwrap();
    guest.call("make_read_only", json!({"read_only": false})).await.unwrap();
    let status = guest.call("get_backup_status", json!({})).await.unwrap();
    assert_eq!(status["running"]["id"], ID, "{status}");
    assert!(states(&guest, OTHER).is_empty(), "the second one waits");
    // Cancelled, it is failed and says why; the next one has its turn.
    guest.call("cancel_backup", json!({"id": ID})).await.unwrap();
    let Answer::Failure(failure) = first.await.unwrap() else {
        panic!("no failure")
    };
    assert!(failure.message.ends_with("it was cancelled"), "{}", failure.message);
    until("the second runs", || states(&guest, OTHER) == ["BUILDING"]).await;
    guest.call("stop_db", json!({})).await.unwrap();
    let Answer::Failure(failure) = second.await.unwrap() else {
        panic!("no failure")
    };
    assert!(failure.message.contains("stop_db was asked for"), "{}", failure.message);
    assert_eq!(states(&guest, OTHER), ["BUILDING", "FAILED"]);
    assert!(files(dir.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_is_refused_if_that_is_wanted_and_the_same_one_twice_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let builder = GuestBuilder::new(dir.path()).second(Second::Refuse);
    let guest = prepared(builder.option("backup_bytes", "3000000").option("backup_fault", "hang")).await;
    let first = guest.send_with("a", "create_backup", json!({"backup_info": info(ID)}), context());
    until("the first runs", || states(&guest, ID) == ["BUILDING"]).await;
    let Answer::Failure(failure) = create(&guest, "b", info(OTHER)).await else {
        panic!("no failure")
    };
    assert!(failure.message.contains("another backup is running"), "{}", failure.message);
    assert_eq!(states(&guest, OTHER), ["FAILED"]);
    let _again = guest.send_with("a", "create_backup", json!({"backup_info": info(ID)}), context());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(states(&guest, ID), ["BUILDING"], "the same request, delivered twice");
    guest.call("cancel_backup", json!({})).await.unwrap();
    assert!(matches!(first.await.unwrap(), Answer::Failure(_)));
    assert_eq!(states(&guest, ID), ["BUILDING", "FAILED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cut_off_is_failed_at_the_next_start_and_not_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || {
        GuestBuilder::new(dir.path())
            .option("backup_bytes", "3000000")
            .option("backup_fault", "hang")
    };
    let guest = prepared(builder()).await;
    let _lost = guest.send_with("a", "create_backup", json!({"backup_info": info(ID)}), context());
    let _later = guest.send_with("b", "create_backup", json!({"backup_info": info(OTHER)}), context());
    until("the first runs", || states(&guest, ID) == ["BUILDING"]).await;
    // What a SIGKILL leaves is the journal; here a copy of it, because this process has the file open.
    let second = tempfile::tempdir().unwrap();
    copy(dir.path(), second.path());
    let again = GuestBuilder::new(second.path())
        .phase(trove_guestagent::instance::Phase::Ready)
        .build()
        .await;
    again.dispatcher.resume().await.unwrap();
    until("the first is failed", || states(&again, ID) == ["FAILED"]).await;
    until("the one that waited is made", || {
        states(&again, OTHER) == ["BUILDING", "COMPLETED"]
    })
    .await;
    let status = again.call("get_backup_status", json!({"id": ID})).await.unwrap();
    assert_eq!(status["ended"][0]["error"], "the agent ended while it ran", "{status}");
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => {
                std::fs::create_dir_all(&target).unwrap();
                copy(&entry.path(), &target);
            }
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), target).unwrap()),
            _ => {}
        }
    }
}
