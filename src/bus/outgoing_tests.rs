use super::*;
use crate::bus::request::{Decoded, decode};
use datastore_api::Secret;

fn to() -> ReplyTo {
    ReplyTo {
        msg_id: "m1".into(),
        queue: "q".into(),
    }
}

/// The body with the random unique id blanked.
fn text(body: Vec<u8>) -> String {
    let text = String::from_utf8(body).unwrap();
    let at = text.find("_unique_id\\\": \\\"").unwrap() + 16;
    format!("{}U{}", &text[..at], &text[at + 32..])
}

fn inner(body: &[u8]) -> Value {
    let outer: Value = serde_json::from_slice(body).unwrap();
    serde_json::from_str(outer["oslo.message"].as_str().unwrap()).unwrap()
}

#[test]
fn answers_have_upstreams_very_text() {
    let wanted = r#"{"oslo.version": "2.0", "oslo.message": "{\"result\": true, \"failure\": null, \"ending\": true, \"_msg_id\": \"m1\", \"_unique_id\": \"U\"}"}"#;
    assert_eq!(text(answer(&to(), &Answer::Result(json!(true)), None).unwrap()), wanted);
    let failure = Failure {
        class: "TroveError".into(),
        module: "trove.common.exception".into(),
        message: "Failed".into(),
    };
    let body = inner(&answer(&to(), &Answer::Failure(failure), None).unwrap());
    assert_eq!(body["result"], Value::Null);
    let wanted = r#"{"class": "TroveError", "module": "trove.common.exception", "message": "Failed", "tb": [], "args": ["Failed"], "kwargs": {}}"#;
    assert_eq!(body["failure"], wanted);
    let alive = inner(&keep_alive(&to()).unwrap());
    assert_eq!((&alive["ending"], &alive["failure"]), (&json!(false), &Value::Null));
}

#[test]
fn results_are_sealed_and_failures_are_not() {
    let cipher = Cipher::new(&Secret::from("secret".to_owned()));
    let body = inner(&answer(&to(), &Answer::Result(Value::Null), Some(&cipher)).unwrap());
    assert_eq!(cipher.open(body["result"].as_str().unwrap()).unwrap(), Value::Null);
    let failure = Failure {
        class: "C".into(),
        module: "m".into(),
        message: "open".into(),
    };
    let body = inner(&answer(&to(), &Answer::Failure(failure), Some(&cipher)).unwrap());
    assert!(body["failure"].as_str().unwrap().contains("open"));
}

#[test]
fn a_cast_to_the_conductor_seals_each_value() {
    let cipher = Cipher::new(&Secret::from("secret".to_owned()));
    let args = json!({"instance_id": "i", "payload": {"service_status": "healthy"}});
    let context = json!({"user": null});
    let out = Outgoing {
        method: "heartbeat",
        version: RpcVersion { major: 1, minor: 0 },
        args: args.as_object().unwrap(),
        context: context.as_object().unwrap(),
        reply: None,
    };
    let body = inner(&request(&out, &Seal::ToConductor(&cipher, "guest-1")).unwrap());
    let sealed: Value = serde_json::from_str(body["args"]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(sealed["csz-instance-id"], "guest-1");
    assert_eq!(cipher.open(sealed["entity"].as_str().unwrap()).unwrap(), args["payload"]);
    assert_eq!(body["_context_csz-instance-id"], "guest-1");
    assert_eq!(cipher.open(body["_context_context"].as_str().unwrap()).unwrap(), context);
    assert!(body.get("_msg_id").is_none() && body.get("_context_user").is_none());
    let clear = inner(&request(&out, &Seal::Clear).unwrap());
    assert_eq!((&clear["args"], &clear["_context_user"]), (&args, &Value::Null));
}

#[test]
fn what_the_client_sends_the_guest_reads() {
    let cipher = Cipher::new(&Secret::from("secret".to_owned()));
    let args = json!({"a": [1, "ü"]});
    let context = json!({"user": "x"});
    let out = Outgoing {
        method: "m",
        version: RpcVersion { major: 1, minor: 2 },
        args: args.as_object().unwrap(),
        context: context.as_object().unwrap(),
        reply: Some(&to()),
    };
    for (seal, key) in [(Seal::Clear, None), (Seal::ToGuest(&cipher), Some(&cipher))] {
        let body = request(&out, &seal).unwrap();
        let opened = envelope::open(body, &envelope::Properties::default(), 10_000).unwrap();
        let Decoded::Request(got) = decode(&opened, key, None).unwrap() else {
            panic!("refused");
        };
        assert_eq!(
            (Value::Object(got.args), Value::Object(got.context)),
            (args.clone(), context.clone())
        );
        assert_eq!((got.version.minor, got.reply), (2, Some(to())));
        assert_eq!(got.unique_id.len(), 32);
    }
}
