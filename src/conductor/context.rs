//! Contexts and notifications as they go back to the control plane (contract sections 2.4 and 7.5).

use serde_json::{Map, Value};

const NOTIFICATION: &str = "trove_notification";
/// Tracing data: not ours to pass on, and unknown to the oldest conductors.
const DROPPED: [&str; 3] = ["trace_info", "traceparent", "tracestate"];

/// A context of our own: nothing but a fresh request id.
pub(super) fn fresh() -> Map<String, Value> {
    Map::from_iter([("request_id".to_owned(), Value::from(request_id()))])
}

/// The context that came, to be sent back; never with a key that did not come. `notification`, if given, takes the place of
/// the one that came.
pub(super) fn echo(context: &Map<String, Value>, notification: Option<&Map<String, Value>>) -> Map<String, Value> {
    let mut echoed = context.clone();
    for key in DROPPED {
        echoed.remove(key);
    }
    if let (Some(notification), Some(slot)) = (notification, echoed.get_mut(NOTIFICATION)) {
        *slot = Value::Object(notification.clone());
    }
    echoed
}

/// The notification of a request whose end the guest has to tell: there is one, and it is not the caller's own affair (in
/// calls the API or the taskmanager tells the end itself).
pub(super) fn notification(context: &Map<String, Value>) -> Option<Map<String, Value>> {
    let notification = context.get(NOTIFICATION)?.as_object()?;
    let server_type = notification.get("server_type").and_then(Value::as_str);
    if matches!(server_type, Some("api" | "taskmanager")) {
        return None;
    }
    Some(notification.clone())
}

/// `req-` and a random UUID.
fn request_id() -> String {
    let mut bytes = [0u8; 16];
    // Without random numbers an id that is always the same: it is only for people who read logs.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    format!(
        "req-{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
