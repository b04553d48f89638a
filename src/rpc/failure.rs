//! Errors of the use-cases, and what the caller is told about them (contract sections 2.5, 2.6, 5.9).

use crate::bus::Failure;
use crate::instance::gate::Denied;
use datastore_api::{DriverError, ErrorKind, chain};
use std::error::Error as StdError;

/// Longest text of a failure, bytes.
const LONGEST: usize = 4000;

/// Remote exception classes we answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The general failure.
    Trove,
    /// Not built, or the engine cannot.
    NotSupported,
    /// Volume operations.
    Guest,
    /// An argument's value is wrong.
    BadRequest,
    /// An object does not exist.
    NotFound,
    /// A database does not exist.
    DatabaseNotFound,
    /// The other side replicates in a way this one does not.
    OtherStrategy,
    /// The source's data do not fit on this volume.
    NoSpaceForReplica,
    /// Where a copy of the source's data ends cannot be told.
    UnknownPosition,
    /// The volume could not be held still, or was not long enough.
    BackupCreation,
    /// No such method.
    NoSuchMethod,
    /// A version of the interface we do not have.
    UnsupportedVersion,
    /// An argument is unknown, missing or of a wrong type.
    Type,
}

impl ErrorClass {
    /// All classes, for tests that walk them.
    pub const ALL: [ErrorClass; 13] = [
        ErrorClass::Trove,
        ErrorClass::NotSupported,
        ErrorClass::Guest,
        ErrorClass::BadRequest,
        ErrorClass::NotFound,
        ErrorClass::DatabaseNotFound,
        ErrorClass::OtherStrategy,
        ErrorClass::NoSpaceForReplica,
        ErrorClass::UnknownPosition,
        ErrorClass::BackupCreation,
        ErrorClass::NoSuchMethod,
        ErrorClass::UnsupportedVersion,
        ErrorClass::Type,
    ];

    /// Class and Python module on the wire.
    #[must_use]
    pub fn wire(self) -> (&'static str, &'static str) {
        const TROVE: &str = "trove.common.exception";
        const DISPATCHER: &str = "oslo_messaging.rpc.dispatcher";
        match self {
            ErrorClass::Trove => ("TroveError", TROVE),
            ErrorClass::NotSupported => ("DatastoreOperationNotSupported", TROVE),
            ErrorClass::Guest => ("GuestError", TROVE),
            ErrorClass::BadRequest => ("BadRequest", TROVE),
            ErrorClass::NotFound => ("NotFound", TROVE),
            ErrorClass::DatabaseNotFound => ("DatabaseNotFound", TROVE),
            ErrorClass::OtherStrategy => ("IncompatibleReplicationStrategy", TROVE),
            ErrorClass::NoSpaceForReplica => ("InsufficientSpaceForReplica", TROVE),
            ErrorClass::UnknownPosition => ("UnableToDetermineLastMasterGTID", TROVE),
            ErrorClass::BackupCreation => ("BackupCreationError", TROVE),
            ErrorClass::NoSuchMethod => ("NoSuchMethod", DISPATCHER),
            ErrorClass::UnsupportedVersion => ("UnsupportedVersion", DISPATCHER),
            ErrorClass::Type => ("TypeError", "builtins"),
        }
    }

    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotSupported => ErrorClass::NotSupported,
            ErrorKind::Invalid | ErrorKind::Reserved | ErrorKind::Exists => ErrorClass::BadRequest,
            ErrorKind::NotFound => ErrorClass::NotFound,
            ErrorKind::DatabaseNotFound => ErrorClass::DatabaseNotFound,
            ErrorKind::Unavailable | ErrorKind::WrongData | ErrorKind::NoSpace => ErrorClass::Trove,
            ErrorKind::Timeout | ErrorKind::Failed => ErrorClass::Trove,
        }
    }
}

/// Why a request failed. The text is shown to the end user: it never holds a secret.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct RpcError {
    class: ErrorClass,
    text: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl RpcError {
    /// An error with no further cause.
    pub fn new(class: ErrorClass, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
            source: None,
        }
    }

    /// An error with a cause; `text` does not repeat it.
    pub fn caused(class: ErrorClass, text: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            class,
            text: text.into(),
            source: Some(source.into()),
        }
    }

    /// An error whose text is another error's, with that one's causes.
    pub fn caused_by(class: ErrorClass, text: impl Into<String>, error: &(dyn StdError + 'static)) -> Self {
        Self {
            class,
            text: text.into(),
            source: error.source().map(|cause| chain(cause).into()),
        }
    }

    /// Upstream's own words for what a datastore cannot do.
    #[must_use]
    pub fn not_supported(operation: &str, manager: &str) -> Self {
        let text = format!("The '{operation}' operation is not supported for the '{manager}' datastore.");
        Self::new(ErrorClass::NotSupported, text)
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The whole chain of causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// The failure on the wire.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (class, module) = self.class.wire();
        Failure {
            class: class.to_owned(),
            module: module.to_owned(),
            message: shown(&self.chain()),
        }
    }
}

impl From<DriverError> for RpcError {
    fn from(error: DriverError) -> Self {
        let class = ErrorClass::of(error.kind());
        Self::caused_by(class, error.to_string(), &error)
    }
}

impl From<Denied> for RpcError {
    fn from(denied: Denied) -> Self {
        Self::new(ErrorClass::Trove, denied.to_string())
    }
}

/// What a caller is shown: it may hold what the caller sent, so nothing of it controls a terminal or fills a table's column.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LONGEST));
    for c in text.chars() {
        if shown.len() >= LONGEST {
            shown.push('…');
            break;
        }
        match c.is_control() {
            true => shown.extend(c.escape_debug()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_error_has_a_class_that_upstream_can_rebuild() {
        for kind in ErrorKind::ALL {
            let error = RpcError::from(DriverError::caused(kind, "could not do it", "the disk is full"));
            let failure = error.failure();
            assert_eq!(failure.module, "trove.common.exception");
            assert_eq!(failure.message, "could not do it: the disk is full");
        }
    }

    #[test]
    fn a_caller_is_shown_no_control_characters_and_no_flood() {
        let error = RpcError::new(ErrorClass::NoSuchMethod, format!("no \n\u{1b}[31m{}", "x".repeat(1 << 20)));
        let message = error.failure().message;
        assert!(message.starts_with("no \\n\\u{1b}[31mxxx"), "{}", &message[..40]);
        assert!(message.len() < LONGEST + 8 && message.ends_with('…'));
    }

    #[test]
    fn classes_are_distinct_on_the_wire() {
        let names: std::collections::HashSet<_> = ErrorClass::ALL.iter().map(|c| c.wire()).collect();
        assert_eq!(names.len(), ErrorClass::ALL.len());
    }
}
