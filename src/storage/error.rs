//! How a storage fails.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Display;
use std::io;
use std::sync::Arc;

/// What went wrong, for those who decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// There is no such object, container, bucket or folder.
    NotFound,
    /// The store does not know us, or does not allow it.
    Refused,
    /// The store did not answer, or not in time.
    Unreachable,
    /// The store is full, or our quota is used up.
    NoSpace,
    /// The store has other bytes than were sent, or fewer than it says.
    Corrupt,
    /// What was asked for can never work: a wrong name, place or setting.
    Invalid,
    /// Anything else.
    Failed,
}

/// Why a storage did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("could not {doing} {place}: {what}")]
pub struct StorageError {
    /// What others match on.
    pub kind: StorageErrorKind,
    /// What was being done, as a verb phrase: "write part 3 of".
    pub doing: Cow<'static, str>,
    /// The object or place, without secrets.
    pub place: String,
    /// What is wrong, in words; the cause is not repeated.
    pub what: Cow<'static, str>,
    /// The cause.
    #[source]
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StorageError {
    /// An error without a cause below it.
    pub fn new(
        kind: StorageErrorKind,
        doing: impl Into<Cow<'static, str>>,
        place: impl Display,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            doing: doing.into(),
            place: place.to_string(),
            what: what.into(),
            source: None,
        }
    }

    /// What was asked for can never work.
    pub fn invalid(doing: impl Into<Cow<'static, str>>, place: impl Display, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StorageErrorKind::Invalid, doing, place, what)
    }

    /// An error of the operating system.
    pub fn io(doing: impl Into<Cow<'static, str>>, place: impl Display, source: impl Into<io::Error>) -> Self {
        use StorageErrorKind::{Failed, Invalid, NoSpace, NotFound, Refused, Unreachable};
        let source = source.into();
        let wrong = (Invalid, "it is something else than it must be; links are not followed");
        let (kind, what) = match source.kind() {
            _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => wrong,
            io::ErrorKind::NotFound => (NotFound, "it is not there"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (Refused, "not allowed"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (NoSpace, "no space left"),
            io::ErrorKind::FileTooLarge => (NoSpace, "the file system takes no file that large"),
            io::ErrorKind::TimedOut
            | io::ErrorKind::StaleNetworkFileHandle
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NotConnected
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset => (Unreachable, "it does not answer"),
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => wrong,
            _ => (Failed, "the system reports an error"),
        };
        Self::new(kind, doing, place, what).because(source)
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Whether the same may work a moment later: tried again inside the stores, never by their callers.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StorageErrorKind::Unreachable | StorageErrorKind::Failed)
    }

    /// As the error of a body.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let kind = match self.kind {
            StorageErrorKind::NotFound => io::ErrorKind::NotFound,
            StorageErrorKind::Refused => io::ErrorKind::PermissionDenied,
            StorageErrorKind::Unreachable => io::ErrorKind::TimedOut,
            StorageErrorKind::NoSpace => io::ErrorKind::StorageFull,
            StorageErrorKind::Corrupt => io::ErrorKind::InvalidData,
            StorageErrorKind::Invalid => io::ErrorKind::InvalidInput,
            StorageErrorKind::Failed => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_done_and_keeps_its_cause() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = StorageError::io("write part 3 of", "file:///srv/a", full);
        assert_eq!(error.kind, StorageErrorKind::NoSpace);
        assert_eq!(error.to_string(), "could not write part 3 of file:///srv/a: no space left");
        assert!(error.source().is_some() && !error.is_transient());
        assert_eq!(error.into_io().kind(), io::ErrorKind::StorageFull);
    }
}
