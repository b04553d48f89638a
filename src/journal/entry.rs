//! How an entry lies on disk: a head in the clear, the request and the outcome sealed beside it.

use super::record::{JournalError, OpId, Outcome, Record};
use super::seal::Keys;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io;
use zeroize::Zeroizing;

/// Deepest nesting taken: what is written must be readable again (the JSON reader stops at 128).
const MAX_DEPTH: usize = 100;

/// The part of an entry that is in the clear.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) method: String,
    #[serde(default)]
    pub(super) reply: Value,
    pub(super) accepted: f64,
    #[serde(default)]
    pub(super) deadline: Option<f64>,
    #[serde(default)]
    pub(super) steps: Vec<String>,
    #[serde(default)]
    pub(super) finished: bool,
    #[serde(default)]
    pub(super) answered: bool,
    /// Size of the sealed request and outcome.
    #[serde(default)]
    pub(super) request_bytes: u64,
    #[serde(default)]
    pub(super) outcome_bytes: u64,
    /// What a newer version wrote; kept when we write the head again.
    #[serde(flatten)]
    pub(super) other: Map<String, Value>,
}

impl Head {
    pub(super) fn new(record: &Record, request_bytes: usize) -> Self {
        Self {
            id: record.id.0.clone(),
            method: record.method.clone(),
            reply: record.reply.clone(),
            accepted: record.accepted,
            deadline: record.deadline,
            steps: Vec::new(),
            finished: false,
            answered: false,
            request_bytes: request_bytes as u64,
            outcome_bytes: 0,
            other: Map::new(),
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(super) fn write(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.request_bytes + self.outcome_bytes
    }

    /// The record without its sealed parts.
    pub(super) fn bare(self) -> Record {
        Record {
            id: OpId(self.id),
            method: self.method,
            args: Value::Null,
            context: Value::Null,
            reply: self.reply,
            accepted: self.accepted,
            deadline: self.deadline,
            steps: self.steps,
            outcome: None,
            answered: self.answered,
        }
    }
}

/// Seals arguments and context: the length of the first, then both.
pub(super) fn seal_request(keys: &Keys, record: &Record) -> Result<Vec<u8>, JournalError> {
    check_depth("the request", &record.args)?;
    check_depth("the context", &record.context)?;
    let args = Zeroizing::new(to_json(&record.args)?);
    let context = Zeroizing::new(to_json(&record.context)?);
    let mut plain = Vec::with_capacity(8 + args.len() + context.len() + 16);
    plain.extend_from_slice(&(args.len() as u64).to_le_bytes());
    plain.extend_from_slice(&args);
    plain.extend_from_slice(&context);
    seal(keys, "the request", &format!("{}/request", record.id.0), plain)
}

/// Opens what [`seal_request`] made.
pub(super) fn open_request(keys: &Keys, id: &str, sealed: &[u8]) -> Option<(Value, Value)> {
    let plain = keys.open(&format!("{id}/request"), sealed)?;
    let (length, rest) = plain.split_first_chunk::<8>()?;
    let (args, context) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((serde_json::from_slice(args).ok()?, serde_json::from_slice(context).ok()?))
}

/// Seals an outcome: one letter for its kind, then the value.
pub(super) fn seal_outcome(keys: &Keys, id: &str, outcome: &Outcome) -> Result<Vec<u8>, JournalError> {
    let (kind, value) = match outcome {
        Outcome::Done(value) => (b'd', value),
        Outcome::Failed(value) => (b'f', value),
    };
    check_depth("the outcome", value)?;
    let json = Zeroizing::new(to_json(value)?);
    let mut plain = Vec::with_capacity(1 + json.len() + 16);
    plain.push(kind);
    plain.extend_from_slice(&json);
    seal(keys, "the outcome", &format!("{id}/outcome"), plain)
}

/// Opens what [`seal_outcome`] made.
pub(super) fn open_outcome(keys: &Keys, id: &str, sealed: &[u8]) -> Option<Outcome> {
    let plain = keys.open(&format!("{id}/outcome"), sealed)?;
    let (kind, json) = plain.split_first()?;
    let value = serde_json::from_slice(json).ok()?;
    match kind {
        b'd' => Some(Outcome::Done(value)),
        b'f' => Some(Outcome::Failed(value)),
        _ => None,
    }
}

/// Seals a fact that holds secrets.
pub(super) fn seal_fact(keys: &Keys, key: &str, value: &[u8]) -> Result<Vec<u8>, JournalError> {
    seal(keys, "a sealed fact", &fact_name(key), value.to_vec())
}

/// Opens what [`seal_fact`] made.
pub(super) fn open_fact(keys: &Keys, key: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    keys.open(&fact_name(key), sealed)
}

/// What a fact is called where its seal is meant: in the seal itself and in errors.
pub(super) fn fact_name(key: &str) -> String {
    format!("fact/{key}")
}

fn seal(keys: &Keys, what: &'static str, name: &str, plain: Vec<u8>) -> Result<Vec<u8>, JournalError> {
    if plain.len() > super::MAX_PART {
        return Err(JournalError::TooLarge {
            what,
            size: plain.len(),
            limit: super::MAX_PART,
        });
    }
    keys.seal(name, plain).map_err(|source| JournalError::Write {
        doing: what,
        source: source.into(),
    })
}

fn to_json(value: &Value) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(value).map_err(|source| JournalError::Write {
        doing: "an entry as JSON",
        source: Box::new(io::Error::from(source)),
    })
}

fn check_depth(what: &'static str, value: &Value) -> Result<(), JournalError> {
    let mut level: Vec<&Value> = vec![value];
    for _ in 0..MAX_DEPTH {
        let mut below = Vec::new();
        for value in level {
            match value {
                Value::Array(items) => below.extend(items.iter().filter(|v| v.is_array() || v.is_object())),
                Value::Object(fields) => below.extend(fields.values().filter(|v| v.is_array() || v.is_object())),
                _ => {}
            }
        }
        if below.is_empty() {
            return Ok(());
        }
        level = below;
    }
    Err(JournalError::TooDeep { what, limit: MAX_DEPTH })
}
