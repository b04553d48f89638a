//! What we send: answers, keep-alives, requests and casts as bodies, and the AMQP properties all of them carry.

use super::crypto::Cipher;
use super::{Answer, Failure, ReplyTo, RpcVersion, envelope, json};
use lapin::BasicProperties;
use lapin::types::FieldTable;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// 32 random hexadecimal digits, as every id on this bus.
pub fn fresh_id() -> String {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the random generator of the system works");
    hex::encode(bytes)
}

/// Properties of every message.
pub fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(0)
        .with_headers(FieldTable::default())
}

/// Properties of a call: the broker drops it when nobody takes it in time.
pub fn call_properties(limit: Duration) -> BasicProperties {
    properties().with_expiration(limit.as_millis().to_string().into())
}

#[derive(Serialize)]
struct Reply<'a> {
    result: Value,
    failure: Option<String>,
    ending: bool,
    #[serde(rename = "_msg_id")]
    msg_id: &'a str,
    #[serde(rename = "_unique_id")]
    unique_id: &'a str,
}

/// The body of an answer.
pub fn answer(to: &ReplyTo, answer: &Answer, cipher: Option<&Cipher>) -> Result<Vec<u8>, serde_json::Error> {
    let (result, failure) = match (answer, cipher) {
        (Answer::Result(value), Some(cipher)) => (Value::String(cipher.seal(value)?), None),
        (Answer::Result(value), None) => (value.clone(), None),
        (Answer::Failure(failure), _) => (Value::Null, Some(failure_text(failure)?)),
    };
    reply(to, result, failure, true)
}

/// The body of a sign that the method still runs.
pub fn keep_alive(to: &ReplyTo) -> Result<Vec<u8>, serde_json::Error> {
    reply(to, Value::Null, None, false)
}

fn reply(to: &ReplyTo, result: Value, failure: Option<String>, ending: bool) -> Result<Vec<u8>, serde_json::Error> {
    envelope::wrap(&json::to_text(&Reply {
        result,
        failure,
        ending,
        msg_id: &to.msg_id,
        unique_id: &fresh_id(),
    })?)
}

#[derive(Serialize)]
struct FailureText<'a> {
    class: &'a str,
    module: &'a str,
    message: &'a str,
    tb: [&'a str; 0],
    args: [&'a str; 1],
    kwargs: Map<String, Value>,
}

fn failure_text(failure: &Failure) -> Result<String, serde_json::Error> {
    json::to_text(&FailureText {
        class: &failure.class,
        module: &failure.module,
        message: &failure.message,
        tb: [],
        args: [&failure.message],
        kwargs: Map::new(),
    })
}

/// A request to be encoded.
pub struct Outgoing<'a> {
    /// Method name.
    pub method: &'a str,
    /// Version asked for.
    pub version: RpcVersion,
    /// Arguments in the clear.
    pub args: &'a Map<String, Value>,
    /// Context in the clear.
    pub context: &'a Map<String, Value>,
    /// For a call, where the answer goes.
    pub reply: Option<&'a ReplyTo>,
}

/// How values are sealed.
pub enum Seal<'a> {
    /// Not at all.
    Clear,
    /// As the control plane does towards a guest.
    ToGuest(&'a Cipher),
    /// As a guest does towards the conductor: each value names the instance, by which the conductor finds the key.
    ToConductor(&'a Cipher, &'a str),
}

/// The body of a request. Upstream's order of keys.
pub fn request(out: &Outgoing<'_>, seal: &Seal<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut args = Map::new();
    for (name, value) in out.args {
        let sealed = match seal {
            Seal::Clear => value.clone(),
            Seal::ToGuest(cipher) => Value::String(cipher.seal(value)?),
            Seal::ToConductor(cipher, instance) => {
                let entity = cipher.seal(value)?;
                Value::String(format!(
                    "{{\"entity\": \"{entity}\", \"csz-instance-id\": {}}}",
                    json::to_text(*instance)?
                ))
            }
        };
        args.insert(name.clone(), sealed);
    }
    let mut inner = format!(
        "{{\"method\": {}, \"args\": {}, \"version\": \"{}.{}\"",
        json::to_text(out.method)?,
        json::to_text(&args)?,
        out.version.major,
        out.version.minor
    );
    let mut add = |key: &str, value: &Value| -> Result<(), serde_json::Error> {
        inner += &format!(", {}: {}", json::to_text(key)?, json::to_text(value)?);
        Ok(())
    };
    if let Some(reply) = out.reply {
        add("_msg_id", &json!(reply.msg_id))?;
        add("_reply_q", &json!(reply.queue))?;
        add("_timeout", &Value::Null)?;
    }
    add("_unique_id", &json!(fresh_id()))?;
    match seal {
        Seal::Clear => {
            for (key, value) in out.context {
                add(&format!("_context_{key}"), value)?;
            }
        }
        Seal::ToGuest(cipher) => add("_context_context", &json!(cipher.seal(out.context)?))?,
        Seal::ToConductor(cipher, instance) => {
            add("_context_context", &json!(cipher.seal(out.context)?))?;
            add("_context_csz-instance-id", &json!(instance))?;
        }
    }
    inner.push('}');
    envelope::wrap(&inner)
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
