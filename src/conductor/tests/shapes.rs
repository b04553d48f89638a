//! The messages beside those that upstream sends.

use super::*;

/// Method, arguments and context of a recorded message to the conductor, in the clear.
fn recorded(name: &str) -> (Map<String, Value>, Map<String, Value>) {
    let path = format!("{}/tests/fixtures/wire/clear/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let message = file["messages"][0]["oslo.message"].as_object().unwrap().clone();
    assert_eq!(message["version"], "1.0");
    let context = message
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("_context_")?.to_owned(), value.clone())))
        .collect();
    (message["args"].as_object().unwrap().clone(), context)
}

#[tokio::test]
async fn a_heartbeat_has_upstreams_shape() {
    let (wanted, _) = recorded("conductor_heartbeat");
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    rig.conductor.report_now(Status::Healthy).await;
    let mut cast = rig.next().await;
    assert!(cast.args["sent"].is_f64());
    cast.args["sent"] = wanted["sent"].clone();
    assert_eq!(cast.args, wanted);
    let keys: Vec<_> = cast.context.keys().collect();
    assert_eq!(keys, ["request_id"], "nobody asked for it");
    let id = cast.context["request_id"].as_str().unwrap();
    assert!(id.len() == 40 && id.starts_with("req-"), "{id}");
}

#[tokio::test]
async fn a_root_report_has_upstreams_shape_and_the_user_that_old_conductors_demand() {
    let (mut wanted, context) = recorded("conductor_report_root");
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    rig.conductor.report_root(&context).await;
    let cast = rig.next().await;
    wanted.insert("user".to_owned(), Value::from("root"));
    assert_eq!((cast.method, cast.args, cast.context), ("report_root", wanted, context));
}

#[tokio::test]
async fn ends_have_upstreams_shape() {
    let (wanted, context) = recorded("conductor_notify_end");
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    rig.conductor.notify_end(&context, true).await;
    let cast = rig.next().await;
    assert_eq!(
        (cast.method, cast.args, cast.context),
        ("notify_end", wanted, context.clone())
    );

    // What the taskmanager sends with prepare has no identity yet.
    let mut request = context.clone();
    request["trove_notification"].as_object_mut().unwrap().remove("instance_id");
    rig.conductor.notify_end(&request, false).await;
    let cast = rig.next().await;
    assert!(cast.args["serialized_notification"].get("instance_id").is_none());
    assert_eq!(cast.context, request);
    rig.conductor.notify_end(&request, true).await;
    let cast = rig.next().await;
    assert_eq!(cast.args["serialized_notification"]["instance_id"], GUEST);
    assert_eq!(cast.context, context, "the notification in the context is the same");
}

#[tokio::test]
async fn a_backups_row_has_upstreams_shape_and_only_its_progress_gives_way() {
    let (mut wanted, context) = recorded("conductor_update_backup");
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    let row = BackupRow {
        size: Some(0.25),
        kind: Some("full"),
        checksum: wanted["checksum"].as_str(),
        location: wanted["location"].as_str(),
        ..BackupRow::new(wanted["backup_id"].as_str().unwrap(), BackupState::Completed)
    };
    rig.conductor.update_backup(&context, &row).await;
    let cast = rig.next().await;
    wanted["sent"] = cast.args["sent"].clone();
    wanted["instance_id"] = Value::from(GUEST);
    wanted.insert("success".to_owned(), Value::from(true));
    assert_eq!(
        (cast.method, cast.args, cast.context, cast.collapse),
        ("update_backup", wanted, context.clone(), None)
    );
    let building = BackupRow::new("b1", BackupState::Building);
    rig.conductor.update_backup(&context, &building).await;
    assert_eq!(rig.next().await.collapse, None, "the first one is no progress");
    let progress = BackupRow {
        details: Some(json!({"percent": 12})),
        ..building
    };
    rig.conductor.update_backup(&context, &progress).await;
    let cast = rig.next().await;
    assert!(cast.collapse.is_some() && cast.args["trove_guestagent"]["percent"] == 12);
    // Nobody asked: nobody has a row.
    rig.conductor.update_backup(&Map::new(), &progress).await;
    rig.silence().await;
}

#[tokio::test]
async fn failures_have_upstreams_shape() {
    let (wanted, context) = recorded("conductor_notify_exc_info");
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    let details: Vec<String> = serde_json::from_value(wanted["exception"].clone()).unwrap();
    rig.conductor.notify_exc_info(&context, "it failed", details).await;
    let cast = rig.next().await;
    assert_eq!((cast.method, cast.args, cast.context), ("notify_exc_info", wanted, context));
}

#[tokio::test]
async fn a_failures_text_fits_and_its_details_are_always_a_list() {
    let (_, context) = recorded("conductor_notify_exc_info");
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    rig.conductor.notify_exc_info(&context, &"ü".repeat(300), Vec::new()).await;
    let cast = rig.next().await;
    let message = cast.args["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), 255);
    assert!(message.ends_with('…'));
    assert_eq!(cast.args["exception"].as_array().unwrap().len(), 1);
    rig.conductor.notify_exc_info(&context, "x", vec!["y".repeat(9999); 99]).await;
    let cast = rig.next().await;
    assert!(cast.args["exception"].as_array().unwrap().len() <= 50);
    assert_eq!(cut("four", 4), "four");
    assert_eq!(cut("fives", 4), "fiv…");
}

#[tokio::test]
async fn nobody_is_told_who_did_not_ask() {
    let (_, mut context) = recorded("conductor_notify_end");
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    for server_type in ["api", "taskmanager"] {
        context["trove_notification"]["server_type"] = Value::from(server_type);
        rig.conductor.notify_end(&context, true).await;
        rig.conductor.notify_exc_info(&context, "x", Vec::new()).await;
    }
    for absent in [Value::Null, Value::from("text")] {
        context["trove_notification"] = absent;
        rig.conductor.notify_end(&context, true).await;
    }
    context.remove("trove_notification");
    rig.conductor.notify_exc_info(&context, "x", Vec::new()).await;
    rig.conductor.notify_end(&Map::new(), true).await;
    rig.silence().await;
}

#[tokio::test]
async fn the_context_goes_back_as_it_came_without_tracing() {
    let mut rig = rig(settings(Era::Mitaka), Phase::New);
    let came = json!({"user": "u", "tenant": "t", "trace_info": {"hmac_key": "k"}, "traceparent": "00-1"});
    rig.conductor.report_root(came.as_object().unwrap()).await;
    let cast = rig.next().await;
    assert_eq!(
        Value::Object(cast.context),
        json!({"user": "u", "tenant": "t"}),
        "and no key is invented"
    );
}
