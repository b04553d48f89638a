//! What goes in and out of the bus.

use serde_json::{Map, Value};
use std::fmt;
use std::time::{Duration, Instant};

/// `major.minor` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RpcVersion {
    /// Major part.
    pub major: u16,
    /// Minor part.
    pub minor: u16,
}

/// Where the answer of a call goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplyTo {
    /// `_msg_id`, echoed in the reply.
    pub msg_id: String,
    /// `_reply_q`, the routing key on the default exchange.
    pub queue: String,
}

/// One decoded and decrypted request. `Debug` leaves out arguments and context, which may hold passwords and tokens.
#[derive(Clone)]
pub struct Request {
    /// `_unique_id`; a fresh one if the sender gave none.
    pub unique_id: String,
    /// Method name as sent.
    pub method: String,
    /// Version the method is asked for; 1.0 if absent.
    pub version: RpcVersion,
    /// Arguments in the clear.
    pub args: Map<String, Value>,
    /// Context in the clear, keys without `_context_`.
    pub context: Map<String, Value>,
    /// Where the answer goes; `None` for a cast.
    pub reply: Option<ReplyTo>,
    /// Keep-alive interval the caller asked for (`_timeout` / 2); the bus sends them itself until the answer.
    pub keep_alive: Option<Duration>,
    /// After this nobody waits for the answer (AMQP `expiration`, counted from receipt).
    pub deadline: Option<Instant>,
}

/// A failure as the caller will rebuild it (contract section 2.5).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Exception class.
    pub class: String,
    /// Python module of the class.
    pub module: String,
    /// Text; shown to the end user, so never a secret.
    pub message: String,
}

/// The answer of a call. `Debug` leaves out the result, which may hold a password.
#[derive(Clone)]
pub enum Answer {
    /// The result, in the clear; the bus encrypts it.
    Result(Value),
    /// A failure; never encrypted.
    Failure(Failure),
}

/// A message to the conductor (or another topic), without reply. `Debug` leaves out arguments and context.
#[derive(Clone)]
pub struct Cast {
    /// Method.
    pub method: &'static str,
    /// Arguments in the clear.
    pub args: Map<String, Value>,
    /// Context in the clear.
    pub context: Map<String, Value>,
    /// While it waits in the outbox, a newer one with the same key takes its place (heartbeats).
    pub collapse: Option<&'static str>,
}

/// What the connection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusState {
    /// Not connected; the text says why, without secrets.
    Down(String),
    /// Connected and proven to consume.
    Up {
        /// `host:port` of the broker.
        broker: String,
    },
}

/// A message seen by `conductor watch`.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Method.
    pub method: String,
    /// Guest it came from, where that is on the wire in the clear or could be decrypted.
    pub guest: Option<String>,
    /// Arguments, decrypted if the key is known.
    pub args: Map<String, Value>,
    /// Whether the values were encrypted and we have no key for them.
    pub sealed: bool,
}

/// What can go wrong on the bus. Texts hold no credentials.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Not connected and the outbox is full.
    #[error("the outbox is full ({limit} messages wait for the broker)")]
    OutboxFull {
        /// Its limit.
        limit: usize,
    },
    /// The reply queue did not exist for as long as we retried; the caller is gone.
    #[error("reply queue {queue} does not exist")]
    CallerGone {
        /// Its name.
        queue: String,
    },
    /// No queue takes what is sent to this guest.
    #[error("there is no queue {queue}: the guest is not there")]
    NoGuest {
        /// The queue it would have.
        queue: String,
    },
    /// The bus is shutting down.
    #[error("the bus is shut down")]
    Closed,
    /// The broker refused or the connection failed.
    #[error("could not {doing}")]
    Amqp {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The peer answered a call with a failure.
    #[error("{}: {}", .0.class, .0.message)]
    Remote(Failure),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// A message could not be encoded or decoded; the text names the part.
    #[error("{0}")]
    Message(String),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("unique_id", &self.unique_id)
            .field("args", &names(&self.args))
            .field("reply", &self.reply)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Result(_) => f.write_str("Result(..)"),
            Answer::Failure(failure) => f.debug_tuple("Failure").field(failure).finish(),
        }
    }
}

impl fmt::Debug for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cast")
            .field("method", &self.method)
            .field("args", &names(&self.args))
            .finish_non_exhaustive()
    }
}

fn names(map: &Map<String, Value>) -> Vec<&str> {
    map.keys().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_printed_for_debugging_holds_no_secret() {
        let secret = "Sq7secret9vQ";
        let map = || {
            Map::from_iter([
                ("root_password".to_owned(), json!(secret)),
                ("auth_token".to_owned(), json!(secret)),
            ])
        };
        let request = Request {
            unique_id: "1".into(),
            method: "prepare".into(),
            version: RpcVersion { major: 1, minor: 0 },
            args: map(),
            context: map(),
            reply: None,
            keep_alive: None,
            deadline: None,
        };
        let cast = Cast {
            method: "notify_end",
            args: map(),
            context: map(),
            collapse: None,
        };
        let printed = format!("{request:?} {cast:?} {:?}", Answer::Result(json!({"_password": secret})));
        assert!(printed.contains("root_password") && !printed.contains(secret), "{printed}");
    }
}
