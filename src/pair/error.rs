//! Why a verb of the pair was not done.

use super::memory::MemoryError;
use crate::instance::role::Refused;
use crate::link::{LinkError, LinkErrorKind};
use crate::vip::{AddressProblem, VipError};
use datastore_api::{DriverError, ErrorKind};

/// What others match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairErrorKind {
    /// An argument is wrong; nothing was changed.
    Invalid,
    /// The state does not allow it; nothing was changed.
    Refused,
    /// The engine cannot do it.
    NotSupported,
    /// The other guest, the server or the network did not do its part.
    Failed,
}

/// Why a verb of the pair was not done.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// An argument.
    #[error("{0}")]
    Invalid(String),
    /// The state.
    #[error("{0}")]
    Refused(String),
    /// The role machine.
    #[error(transparent)]
    Role(#[from] Refused),
    /// No replication in this driver.
    #[error("this datastore cannot replicate")]
    NotSupported,
    /// The database.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The other guest.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The address.
    #[error(transparent)]
    Vip(#[from] VipError),
    /// An address that cannot be a VIP.
    #[error(transparent)]
    Address(#[from] AddressProblem),
    /// The memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl PairError {
    /// What others match on.
    #[must_use]
    pub fn kind(&self) -> PairErrorKind {
        match self {
            Self::Invalid(_) | Self::Address(_) => PairErrorKind::Invalid,
            Self::Refused(_) | Self::Role(_) | Self::Memory(MemoryError::Refused(_)) => PairErrorKind::Refused,
            Self::NotSupported => PairErrorKind::NotSupported,
            Self::Driver(error) if matches!(error.kind(), ErrorKind::Invalid) => PairErrorKind::Invalid,
            Self::Link(error) if error.kind() == LinkErrorKind::WrongKey => PairErrorKind::Refused,
            _ => PairErrorKind::Failed,
        }
    }
}
