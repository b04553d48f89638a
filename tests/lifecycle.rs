//! The life of an instance, in this process with the sim datastore.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod common;

use common::GuestBuilder;
use serde_json::{Value, json};
use trove_guestagent::instance::Phase;

fn prepare_args() -> Value {
    json!({"packages": "", "databases": [{"_name": "shop"}], "memory_mb": 512,
        "users": [{"_name": "bob", "_password": "pw", "_databases": [{"_name": "shop"}]}], "ds_version": null})
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_reports_building_then_healthy_and_makes_what_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    guest.call("prepare", prepare_args()).await.unwrap();
    assert_eq!(guest.ctx.publisher.now().phase, Phase::Ready);
    assert_eq!(guest.statuses(), ["building", "healthy"]);
    let users = guest.call("list_users", json!({})).await.unwrap();
    assert_eq!(users[0][0]["_name"], "bob");
    assert_eq!(users[0][0]["_password"], Value::Null);
    assert!(dir.path().join("markers/.guestagent.prepare.end").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_fails_the_instance_loudly_and_a_second_prepare_may_mend_it() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).option("fail_step", "start").build().await;
    let error = guest.call("prepare", prepare_args()).await.unwrap_err();
    assert!(error.starts_with("TroveError"), "{error}");
    assert_eq!(guest.statuses(), ["building", "failed to spawn"]);
    let error = guest
        .call("create_database", json!({"databases": [{"_name": "x"}]}))
        .await
        .unwrap_err();
    assert!(error.contains("preparing the instance failed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_instance_refuses_to_be_prepared_again_and_stays_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    guest.call("prepare", prepare_args()).await.unwrap();
    let error = guest.call("prepare", prepare_args()).await.unwrap_err();
    assert!(error.contains("already prepared"), "{error}");
    assert_eq!(guest.ctx.publisher.now().phase, Phase::Ready);
    assert_eq!(guest.statuses().last().unwrap(), "healthy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_prepare_does_not_leave_the_instance_in_build() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    let error = guest
        .call(
            "prepare",
            json!({"packages": "", "databases": 7, "memory_mb": 1, "users": []}),
        )
        .await
        .unwrap_err();
    assert_eq!(
        error,
        "TypeError: Manager.prepare() argument 'databases' has a wrong type or value"
    );
    assert_eq!(guest.statuses(), ["failed to spawn"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_answered_from_the_journal_and_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    guest.call("prepare", prepare_args()).await.unwrap();
    let first = guest.ask("same", "enable_root", json!({})).await.unwrap();
    let again = guest.ask("same", "enable_root", json!({})).await.unwrap();
    assert_eq!(first, again, "a second run would have made another password");
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_calls_answer_while_prepare_runs() {
    let dir = tempfile::tempdir().unwrap();
    let guest = std::sync::Arc::new(GuestBuilder::new(dir.path()).option("slow_ms", "300").build().await);
    let preparing = {
        let guest = guest.clone();
        tokio::spawn(async move { guest.call("prepare", prepare_args()).await })
    };
    let mut answered = 0;
    while !preparing.is_finished() {
        guest.call("rpc_ping", json!({})).await.unwrap();
        answered += 1;
        tokio::task::yield_now().await;
    }
    preparing.await.unwrap().unwrap();
    assert!(answered > 10, "only {answered} pings were answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_expired_in_the_queue_waits_no_longer() {
    use std::time::{Duration, Instant};
    use trove_guestagent::bus::{Request, RpcVersion};
    let dir = tempfile::tempdir().unwrap();
    let guest = std::sync::Arc::new(GuestBuilder::new(dir.path()).option("slow_ms", "200").build().await);
    let preparing = {
        let guest = guest.clone();
        tokio::spawn(async move { guest.call("prepare", prepare_args()).await })
    };
    while guest.ctx.publisher.now().operation.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = guest.dispatcher.local(Request {
        unique_id: "late".to_owned(),
        method: "restart".to_owned(),
        version: RpcVersion { major: 1, minor: 0 },
        args: serde_json::Map::new(),
        context: serde_json::Map::new(),
        reply: None,
        keep_alive: None,
        deadline: Instant::now().checked_add(Duration::from_millis(50)),
    });
    preparing.await.unwrap().unwrap();
    let _ = late.await;
    let limit = Instant::now() + Duration::from_secs(10);
    while guest.ctx.publisher.now().waiting != 0 {
        assert!(Instant::now() < limit, "nothing is in the queue, and one is said to wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_says_so_in_upstreams_words() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    let error = guest.call("guest_log_list", json!({})).await.unwrap_err();
    assert_eq!(
        error,
        "DatastoreOperationNotSupported: The 'guest_log_list' operation is not supported for the 'sim' datastore."
    );
    let error = guest.call("no_such", json!({})).await.unwrap_err();
    assert_eq!(error, "NoSuchMethod: Endpoint does not support RPC method no_such");
    let error = guest.call("restart", json!({"unknown": 1})).await.unwrap_err();
    assert_eq!(
        error,
        "TypeError: Manager.restart() got an unexpected keyword argument 'unknown'"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_on_an_instance_that_was_never_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    let error = guest.call("restart", json!({})).await.unwrap_err();
    assert!(error.contains("not prepared yet"), "{error}");
    guest.call("stop_db", json!({})).await.unwrap();
    assert!(guest.statuses().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_be_made_fails_instead_of_waiting_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    let asked = json!({"backup_info": {"id": "0c2a6c1e"}});
    let context = json!({"user": "u", "tenant": "t"}).as_object().cloned().unwrap();
    guest.send_with("request-1", "create_backup", asked, context).await.unwrap();
    let reports = guest.reports.lock().unwrap();
    let report = reports.iter().find(|cast| cast.method == "update_backup").unwrap();
    assert_eq!(report.args["backup_id"], "0c2a6c1e");
    assert_eq!(report.args["state"], "FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_has_requests_in_the_order_of_their_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    let wanted: Vec<String> = (0..100).map(|n| format!("request-{n}")).collect();
    let answers: Vec<_> = wanted.iter().map(|id| guest.send(id, "stop_db", json!({}))).collect();
    for answer in answers {
        answer.await.unwrap();
    }
    let mut found: Vec<String> = guest
        .ctx
        .journal
        .recent(100)
        .await
        .unwrap()
        .into_iter()
        .map(|r| r.id.0)
        .collect();
    found.reverse();
    assert_eq!(found, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_folder_than_the_configured_one_is_mounted_or_unmounted() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestBuilder::new(dir.path()).build().await;
    for method in ["mount_volume", "unmount_volume", "resize_fs"] {
        let error = guest.call(method, json!({"mount_point": "/proc"})).await.unwrap_err();
        assert!(
            error.starts_with("BadRequest: mount point /proc is not the configured one"),
            "{error}"
        );
    }
}
