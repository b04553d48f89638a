//! How a link fails.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What went wrong, for those who decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkErrorKind {
    /// The peer's kernel refused the connection: nobody listens there, so no agent runs there.
    Refused,
    /// No answer in time, or no way there. The peer may be dead, hung, cut off, or well.
    Silent,
    /// The two do not have the same key.
    WrongKey,
    /// An agent runs there, and belongs to no pair.
    NoPair,
    /// There was a connection, and it ended or carried what it must not.
    Broken,
    /// The peer answered the question with an error.
    Told,
    /// The question is larger than [`MAX_BODY`](super::MAX_BODY); nothing was sent.
    TooLarge,
    /// An address of ours cannot be listened on.
    Bind,
}

/// Why there is no link, or no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// Connection refused by the peer's kernel.
    #[error("no agent listens on {peer}: the connection was refused")]
    Refused {
        /// Where.
        peer: SocketAddr,
    },
    /// A limit passed.
    #[error("{peer} did not {doing} within {} ms", .limit.as_millis())]
    Silent {
        /// Where.
        peer: SocketAddr,
        /// What it did not do.
        doing: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The kernel knows no way to the peer, or gave up.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// Where.
        peer: SocketAddr,
        /// What the kernel said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The keys differ.
    #[error("{peer} has another pair key than we have")]
    WrongKey {
        /// Where.
        peer: SocketAddr,
    },
    /// The peer's agent has no key.
    #[error("the agent on {peer} belongs to no pair yet")]
    NoPair {
        /// Where.
        peer: SocketAddr,
    },
    /// The connection ended.
    #[error("the link with {peer} broke: could not {doing}")]
    Broken {
        /// Where.
        peer: SocketAddr,
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// The peer's own words.
    #[error("{peer} answered: {message}")]
    Told {
        /// Where.
        peer: SocketAddr,
        /// The words.
        message: String,
    },
    /// A question too large to send.
    #[error("the question for {peer} has {size} bytes, more than {}", super::MAX_BODY)]
    TooLarge {
        /// Where.
        peer: SocketAddr,
        /// Its size, bytes.
        size: usize,
    },
    /// Our own address.
    #[error("could not listen for the peer on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
}

impl LinkError {
    /// What others match on.
    #[must_use]
    pub fn kind(&self) -> LinkErrorKind {
        match self {
            Self::Refused { .. } => LinkErrorKind::Refused,
            Self::Silent { .. } | Self::Unreachable { .. } => LinkErrorKind::Silent,
            Self::WrongKey { .. } => LinkErrorKind::WrongKey,
            Self::NoPair { .. } => LinkErrorKind::NoPair,
            Self::Broken { .. } => LinkErrorKind::Broken,
            Self::Told { .. } => LinkErrorKind::Told,
            Self::TooLarge { .. } => LinkErrorKind::TooLarge,
            Self::Bind { .. } => LinkErrorKind::Bind,
        }
    }

    pub(super) fn broken(peer: SocketAddr, doing: &'static str, source: io::Error) -> Self {
        Self::Broken {
            peer,
            doing,
            source: Arc::new(source),
        }
    }
}
