use super::*;
use datastore_api::Secret;
use proptest::prelude::*;
use serde_json::json;

fn request(value: Value) -> Request {
    match decode(&value.to_string(), None, None).unwrap() {
        Decoded::Request(request) => request,
        Decoded::Refused(refused) => panic!("{refused:?}"),
    }
}

fn refused(value: Value, cipher: Option<&Cipher>) -> Refused {
    match decode(&value.to_string(), cipher, None).unwrap() {
        Decoded::Refused(refused) => refused,
        Decoded::Request(request) => panic!("{request:?}"),
    }
}

#[test]
fn a_call_and_a_cast() {
    let call = request(json!({
        "method": "m", "args": {"a": null}, "version": "1.3", "_msg_id": "1", "_reply_q": "q", "_timeout": 30,
        "_unique_id": "u", "_context_user": "x", "_context_traceparent": "t", "extra": [1],
    }));
    assert_eq!(call.method, "m");
    assert_eq!(call.version, RpcVersion { major: 1, minor: 3 });
    assert_eq!(Value::Object(call.args), json!({"a": null}));
    assert_eq!(Value::Object(call.context), json!({"user": "x", "traceparent": "t"}));
    assert_eq!(call.unique_id, "u");
    assert_eq!(call.keep_alive, Some(Duration::from_secs(15)));
    assert_eq!(call.reply.unwrap().queue, "q");
    let cast = request(json!({"method": "m", "_timeout": 30}));
    assert_eq!((cast.version, cast.args.len()), (RpcVersion { major: 1, minor: 0 }, 0));
    assert!(cast.reply.is_none() && cast.keep_alive.is_none() && cast.unique_id.is_empty());
}

#[test]
fn odd_timeouts_ask_for_nothing() {
    for timeout in [
        json!(null),
        json!(0),
        json!(1),
        json!(-5),
        json!("30"),
        json!(1e30),
        json!(u64::MAX),
    ] {
        let call = request(json!({"method": "m", "_msg_id": "1", "_reply_q": "q", "_timeout": timeout}));
        assert_eq!(call.keep_alive, None);
    }
}

#[test]
fn wrong_types_are_refused_with_a_failure() {
    for message in [
        json!({}),
        json!({"method": 1}),
        json!({"method": ""}),
        json!({"method": "m".repeat(300)}),
        json!({"method": "m", "args": []}),
        json!({"method": "m", "args": "x"}),
        json!({"method": "m", "version": 1.0}),
        json!({"method": "m", "version": "one"}),
        json!({"method": "m", "version": "1.+2"}),
        json!({"method": "m", "version": "1.99999999"}),
    ] {
        let mut message = message;
        message["_msg_id"] = "1".into();
        message["_reply_q"] = "q".into();
        let refused = refused(message, None);
        assert_eq!(refused.failure.class, "BadRequest");
        assert!(refused.reply.is_some());
    }
    let namespace = refused(json!({"method": "m", "namespace": "x", "version": "1.1"}), None);
    assert_eq!(
        namespace.failure.message,
        "Endpoint does not support RPC version 1.1. Attempted method: m"
    );
}

#[test]
fn unusable_reply_addresses_are_unreadable() {
    for (id, queue) in [
        (json!("1"), json!(null)),
        (json!(1), json!("q")),
        (json!("1"), json!("q".repeat(256))),
        (json!(""), json!("q")),
        (json!("1"), json!("")),
        (json!({}), json!([])),
    ] {
        let message = json!({"method": "m", "_msg_id": id, "_reply_q": queue}).to_string();
        assert!(
            matches!(decode(&message, None, None), Err(Unreadable::ReplyAddress)),
            "{message}"
        );
    }
}

#[test]
fn encrypted_messages_open_and_plain_ones_are_refused() {
    let cipher = Cipher::new(&Secret::from("secret".to_owned()));
    let other = Cipher::new(&Secret::from("other".to_owned()));
    let context = cipher.seal(&json!({"user": "x"})).unwrap();
    let arg = cipher.seal(&json!([1, "two"])).unwrap();
    let good = json!({"method": "m", "args": {"a": arg}, "_context_context": context});
    let Decoded::Request(opened) = decode(&good.to_string(), Some(&cipher), None).unwrap() else {
        panic!("refused");
    };
    assert_eq!(Value::Object(opened.args), json!({"a": [1, "two"]}));
    assert_eq!(Value::Object(opened.context), json!({"user": "x"}));
    let sealed_scalar = cipher.seal(&json!("no object")).unwrap();
    for bad in [
        json!({"method": "m", "args": {"a": "plain"}, "_context_context": context}),
        json!({"method": "m", "args": {"a": null}, "_context_context": context}),
        json!({"method": "m", "args": {"a": 5}, "_context_context": context}),
        json!({"method": "m", "args": {}, "_context_context": "noise"}),
        json!({"method": "m", "args": {}, "_context_context": {"user": "x"}}),
        json!({"method": "m", "args": {}, "_context_context": sealed_scalar}),
        json!({"method": "m", "args": {}, "_context_context": other.seal(&json!({})).unwrap()}),
    ] {
        let failure = refused(bad, Some(&cipher)).failure;
        assert_eq!(failure.message, "The request is not encrypted with this instance's key");
    }
    let plain = refused(json!({"method": "m", "_context_user": "x"}), Some(&cipher)).failure;
    assert_eq!((plain.class.as_str(), plain.module.as_str()), ("KeyError", "builtins"));
}

proptest! {
    #[test]
    fn noise_never_panics(text in any::<String>(), value in any::<i64>()) {
        let cipher = Cipher::new(&Secret::from("secret".to_owned()));
        let _ = decode(&text, Some(&cipher), None);
        let _ = decode(&json!({"method": text, "args": {"a": value}, "version": text}).to_string(), Some(&cipher), None);
    }
}
