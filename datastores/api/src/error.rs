//! The one error type that crosses the driver boundary.

use std::error::Error as StdError;

/// What a caller may do about an error; the agent maps each kind to a remote exception class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The engine or this version of it cannot do this.
    NotSupported,
    /// An argument is wrong: a name, a host, a value. Nothing was changed.
    Invalid,
    /// The named user or other object does not exist.
    NotFound,
    /// The named database does not exist.
    DatabaseNotFound,
    /// The object exists already with other properties.
    Exists,
    /// The name is reserved for the engine or the agent.
    Reserved,
    /// The server does not answer (stopped, starting, hung, unreachable).
    Unavailable,
    /// The data directory or configuration is not what it must be (another engine's data, a newer version, not empty).
    WrongData,
    /// No space, or a quota, on the volume.
    NoSpace,
    /// A limit of time was reached; what was done so far is safe to repeat.
    Timeout,
    /// The engine refused or failed in another way.
    Failed,
}

impl ErrorKind {
    /// All kinds, for tables and for tests that walk them.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::NotSupported,
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::DatabaseNotFound,
        ErrorKind::Exists,
        ErrorKind::Reserved,
        ErrorKind::Unavailable,
        ErrorKind::WrongData,
        ErrorKind::NoSpace,
        ErrorKind::Timeout,
        ErrorKind::Failed,
    ];
}

/// An error with its causes in one line. A cause that the text before it repeats is left out.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// An error of a driver. Its text names what was being done and never holds a secret; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct DriverError {
    kind: ErrorKind,
    text: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl DriverError {
    /// An error with no further cause. `text` is a sentence without a full stop: "could not create user 'a'@'%': ...".
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    /// An error that was caused by another one. `text` does not repeat the cause.
    pub fn caused(kind: ErrorKind, text: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: Some(source.into()),
        }
    }

    /// What a caller may do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
