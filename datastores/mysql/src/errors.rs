//! Errors of the server, of programs and of files, as kinds of the driver's error.

use datastore_api::{DriverError, ErrorKind, ExecError, ServiceError};
use mysql_async::Error as SqlError;
use std::io;
use std::path::Path;

/// Numbers of the server's errors that mean more than "failed" (the server's own error list).
const KINDS: &[(u16, ErrorKind)] = &[
    (1007, ErrorKind::Exists),           // database exists
    (1008, ErrorKind::DatabaseNotFound), // database does not exist
    (1021, ErrorKind::NoSpace),          // disk full
    (1040, ErrorKind::Unavailable),      // too many connections
    (1049, ErrorKind::DatabaseNotFound), // unknown database
    (1053, ErrorKind::Unavailable),      // shutdown in progress
    (1064, ErrorKind::Failed),           // syntax: ours to get right
    (1102, ErrorKind::Invalid),          // incorrect database name
    (1115, ErrorKind::Invalid),          // unknown character set
    (1133, ErrorKind::NotFound),         // no matching user
    (1141, ErrorKind::NotFound),         // no such grant
    (1193, ErrorKind::Invalid),          // unknown system variable
    (1205, ErrorKind::Timeout),          // lock wait timeout
    (1228, ErrorKind::Invalid),          // session variable
    (1231, ErrorKind::Invalid),          // variable cannot have this value
    (1232, ErrorKind::Invalid),          // argument type of variable
    (1238, ErrorKind::Invalid),          // read-only variable
    (1253, ErrorKind::Invalid),          // collation does not fit character set
    (1273, ErrorKind::Invalid),          // unknown collation
    (1470, ErrorKind::Invalid),          // string too long for a user or host
    (1941, ErrorKind::Invalid),          // cannot parse a GTID list
    (1969, ErrorKind::Timeout),          // statement time exceeded
    (3024, ErrorKind::Timeout),          // the same, elsewhere in the family
];

/// The kind of an error of the SQL client.
pub(crate) fn kind(error: &SqlError) -> ErrorKind {
    match error {
        SqlError::Server(server) => KINDS
            .iter()
            .find(|(code, _)| *code == server.code)
            .map_or(ErrorKind::Failed, |(_, kind)| *kind),
        SqlError::Io(_) => ErrorKind::Unavailable,
        SqlError::Driver(mysql_async::DriverError::ConnectionClosed) => ErrorKind::Unavailable,
        _ => ErrorKind::Failed,
    }
}

/// The server's number of an error.
pub(crate) fn code(error: &SqlError) -> Option<u16> {
    match error {
        SqlError::Server(server) => Some(server.code),
        _ => None,
    }
}

/// An error of the SQL client while doing something.
pub(crate) fn sql(doing: &str, error: SqlError) -> DriverError {
    DriverError::caused(kind(&error), format!("could not {doing}"), error)
}

/// An error of a file: `could not {verb} {path}`.
pub(crate) fn file(verb: &str, path: &Path, error: io::Error) -> DriverError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Failed,
    };
    DriverError::caused(kind, format!("could not {verb} {}", path.display()), error)
}

/// An error of a program while doing something.
pub(crate) fn program(doing: &str, error: ExecError) -> DriverError {
    let kind = match &error {
        ExecError::Deadline { .. } | ExecError::Stalled { .. } => ErrorKind::Timeout,
        ExecError::Exit { stderr_tail, .. } if is_full(stderr_tail) => ErrorKind::NoSpace,
        _ => ErrorKind::Failed,
    };
    DriverError::caused(kind, format!("could not {doing}"), error)
}

/// An error of the service's supervisor.
pub(crate) fn service(doing: &str, error: ServiceError) -> DriverError {
    DriverError::caused(ErrorKind::Failed, format!("could not {doing}"), error)
}

/// Whether a program's or server's words say that the volume is full.
pub(crate) fn is_full(words: &str) -> bool {
    [
        "No space left on device",
        "Errcode: 28",
        "error: 28",
        "failed with error 28",
        "Disk quota exceeded",
    ]
    .iter()
    .any(|sign| words.contains(sign))
}

/// An `Invalid` error.
pub(crate) fn invalid(text: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Invalid, text)
}
