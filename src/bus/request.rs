//! The inner message of a request: which keys it has, whether their types are right, and its values in the clear.

use super::crypto::{Cipher, CipherError};
use super::envelope::Unreadable;
use super::{Failure, ReplyTo, Request, RpcVersion};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::time::{Duration, Instant};

/// Longest routing key AMQP can carry, and longest id we keep.
const MAX_NAME: usize = 255;
/// Shortest call-monitor interval for which keep-alives are sent, seconds.
const MIN_MONITOR: u64 = 2;

/// A request that is refused with a failure, before anybody sees it.
#[derive(Debug)]
pub struct Refused {
    /// Its `_unique_id`, if it has one.
    pub unique_id: Option<String>,
    /// Method name, for the log; empty if it has none.
    pub method: String,
    /// Where the failure goes; `None` for a cast.
    pub reply: Option<ReplyTo>,
    /// What the caller is told.
    pub failure: Failure,
}

/// What became of an inner message.
#[derive(Debug)]
pub enum Decoded {
    /// A request in the clear. Its `unique_id` is empty if the sender gave none.
    Request(Request),
    /// Refused.
    Refused(Refused),
}

/// The keys of an inner message as they came; the last of a repeated key counts, as in Python.
#[derive(Default)]
struct Wire {
    method: Value,
    args: Value,
    version: Value,
    namespace: Value,
    unique_id: Value,
    msg_id: Value,
    reply_q: Value,
    timeout: Value,
    context: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Wire;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire, A::Error> {
                let mut wire = Wire::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "method" => wire.method = map.next_value()?,
                        "args" => wire.args = map.next_value()?,
                        "version" => wire.version = map.next_value()?,
                        "namespace" => wire.namespace = map.next_value()?,
                        "_unique_id" => wire.unique_id = map.next_value()?,
                        "_msg_id" => wire.msg_id = map.next_value()?,
                        "_reply_q" => wire.reply_q = map.next_value()?,
                        "_timeout" => wire.timeout = map.next_value()?,
                        other => match other.strip_prefix("_context_") {
                            Some(name) => {
                                wire.context.insert(name.to_owned(), map.next_value()?);
                            }
                            None => {
                                map.next_value::<IgnoredAny>()?;
                            }
                        },
                    }
                }
                Ok(wire)
            }
        }
        from.deserialize_map(Keys)
    }
}

/// Decodes an inner message. `deadline` comes from the AMQP properties.
pub fn decode(inner: &str, cipher: Option<&Cipher>, deadline: Option<Instant>) -> Result<Decoded, Unreadable> {
    let part = "its message";
    let wire: Wire = serde_json::from_str(inner).map_err(|source| Unreadable::Json { part, source })?;
    let unique_id = match &wire.unique_id {
        Value::String(id) if !id.is_empty() && id.len() <= MAX_NAME => Some(id.clone()),
        _ => None,
    };
    let reply = reply_to(&wire)?;
    let method = match &wire.method {
        Value::String(name) => name.chars().take(MAX_NAME).collect(),
        _ => String::new(),
    };
    let keep_alive = match wire.timeout.as_u64() {
        // Somebody waits for a sign every N seconds; more than a year is nobody.
        Some(seconds @ MIN_MONITOR..=31_536_000) => Some(Duration::from_secs(seconds) / 2),
        _ => None,
    };
    match body(wire, cipher) {
        Ok((version, args, context)) => Ok(Decoded::Request(Request {
            unique_id: unique_id.unwrap_or_default(),
            method,
            version,
            args,
            context,
            keep_alive: keep_alive.filter(|_| reply.is_some()),
            reply,
            deadline,
        })),
        Err(failure) => Ok(Decoded::Refused(Refused {
            unique_id,
            method,
            reply,
            failure,
        })),
    }
}

fn reply_to(wire: &Wire) -> Result<Option<ReplyTo>, Unreadable> {
    match (&wire.msg_id, &wire.reply_q) {
        (Value::Null, _) => Ok(None),
        (Value::String(msg_id), Value::String(queue))
            if !msg_id.is_empty() && msg_id.len() <= MAX_NAME && !queue.is_empty() && queue.len() <= MAX_NAME =>
        {
            Ok(Some(ReplyTo {
                msg_id: msg_id.clone(),
                queue: queue.clone(),
            }))
        }
        _ => Err(Unreadable::ReplyAddress),
    }
}

type Body = (RpcVersion, Map<String, Value>, Map<String, Value>);

fn body(wire: Wire, cipher: Option<&Cipher>) -> Result<Body, Failure> {
    let Value::String(method) = &wire.method else {
        return Err(malformed("The request has no method name"));
    };
    if method.is_empty() || method.len() > MAX_NAME {
        return Err(malformed("The request's method name is empty or too long"));
    }
    let asked = match &wire.version {
        Value::Null => "1.0",
        Value::String(text) => text.as_str(),
        _ => return Err(malformed("The request's RPC version is not a string")),
    };
    let version = version(asked).ok_or_else(|| malformed("The request's RPC version is not MAJOR.MINOR"))?;
    if !wire.namespace.is_null() {
        return Err(Failure {
            class: "UnsupportedVersion".into(),
            module: "oslo_messaging.rpc.dispatcher".into(),
            message: format!("Endpoint does not support RPC version {asked}. Attempted method: {method}"),
        });
    }
    let mut args = match wire.args {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err(malformed("The request's arguments are not an object")),
    };
    let mut context = wire.context;
    if let Some(cipher) = cipher {
        for value in args.values_mut() {
            *value = unseal(cipher, value).map_err(|_| undecipherable())?;
        }
        let sealed = context.get("context").ok_or_else(no_context)?;
        context = match unseal(cipher, sealed) {
            Ok(Value::Object(map)) => map,
            _ => return Err(undecipherable()),
        };
    }
    Ok((version, args, context))
}

fn unseal(cipher: &Cipher, value: &Value) -> Result<Value, CipherError> {
    cipher.open(value.as_str().ok_or(CipherError)?)
}

fn version(text: &str) -> Option<RpcVersion> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    Some(RpcVersion {
        major: number(major)?,
        minor: number(minor)?,
    })
}

fn malformed(message: &str) -> Failure {
    Failure {
        class: "BadRequest".into(),
        module: "trove.common.exception".into(),
        message: message.into(),
    }
}

/// The one text for everything that fails in decryption, so that it cannot be used to probe the key.
fn undecipherable() -> Failure {
    malformed("The request is not encrypted with this instance's key")
}

/// What the control plane's own agent answers to a plain context where a key is set.
fn no_context() -> Failure {
    Failure {
        class: "KeyError".into(),
        module: "builtins".into(),
        message: "'context'".into(),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
