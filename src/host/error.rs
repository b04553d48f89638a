//! The room's own error; the driver API's types (`ExecError`, `ServiceError`, `io::Error`) are used where the trait wants them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What this room could not do, beside what the [`datastore_api::Host`] trait answers.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file, folder or device could not be used.
    #[error("could not {doing} {path}")]
    Path {
        /// open, write, remove.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of ours is not what we wrote.
    #[error("could not understand {path}: {problem}")]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such user in `/etc/passwd`.
    #[error("there is no user {0} in /etc/passwd")]
    NoUser(String),
    /// An argument can never work; says which and why.
    #[error("{0}")]
    Invalid(String),
    /// Another agent supervises the services of this folder.
    #[error("another agent holds {path}")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A process could not be looked at, signalled or waited for.
    #[error("could not {doing} process {pid}")]
    Process {
        /// watch, signal, read.
        doing: &'static str,
        /// Which.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("could not start {program}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something did not happen in time.
    #[error("{what} within {limit:?}")]
    Late {
        /// What did not happen, as a sentence: "the process did not end".
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// A device or mount point is not as it must be, and is left as it is.
    #[error("{path}: {problem}")]
    Unfit {
        /// Device or mount point.
        path: PathBuf,
        /// What is wrong, and what was found.
        problem: String,
    },
    /// A program failed.
    #[error("could not {doing} {path}")]
    Program {
        /// format, check, grow.
        doing: &'static str,
        /// Device or mount point.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<datastore_api::ExecError>,
    },
    /// The machine's figures could not be read.
    #[error("could not read the machine's {what}")]
    Figures {
        /// memory, processors.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// systemd refused, or could not be asked.
    #[error("could not {doing} by way of systemd")]
    Systemd {
        /// start the unit, read its state.
        doing: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HostError {
    /// A [`HostError::Path`], for `map_err`.
    pub(super) fn path(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { doing, path, source }
    }
}

/// Puts the path into an I/O error and keeps its kind, so that "no space left" tells where.
pub(super) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_path_buf();
    move |source| io::Error::new(source.kind(), HostError::Path { doing, path, source })
}

/// The same for a [`HostError`] that must travel as an I/O error.
pub(super) fn as_io(error: HostError) -> io::Error {
    let kind = match &error {
        HostError::Path { source, .. } | HostError::Process { source, .. } | HostError::Start { source, .. } => source.kind(),
        HostError::NoUser(_) => io::ErrorKind::NotFound,
        HostError::Invalid(_) => io::ErrorKind::InvalidInput,
        HostError::Corrupt { .. } => io::ErrorKind::InvalidData,
        HostError::Locked { .. } => io::ErrorKind::WouldBlock,
        HostError::Late { .. } => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
