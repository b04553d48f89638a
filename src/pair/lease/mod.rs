//! The lease: until when a source may let clients in, and from when on a replica may take over. Arithmetic only: no clock, no I/O.
//!
//! A source that wants to serve asks [`Ping`]s; each echo, of the replica or of the witness, lets its door stand open until *the moment
//! that ping was sent* plus the lease. The replica counts from the moment the last ping *arrived*, which is later, and waits longer
//! ([`Terms::surely_over`]), so the door has closed before it promotes, whatever was lost, late, stopped or restarted.
//!
//! ```text
//! source    sent ──────────── lease ────────────┤ door closed
//! replica      └─> arrived ──── lease + 5 % + margin ────────┤ may promote
//! ```
//!
//! What must hold outside of this room for it to be true:
//! - A moment is a host's own monotonic time, since any fixed point. Clocks of two hosts may run apart by 4 %.
//! - The door is set to [`SourceLease::remaining`] at once after each call, and before the next ping is sent.
//! - An agent that could promote listens on its link, on every address its peer knows: a refused connection is taken as proof
//!   that it does not run. It listens before it may promote and until after it can no longer.
//! - An attempt to promote lives in one process. After a restart it begins anew, from an unarmed [`ReplicaWatch`].

mod replica;
mod source;
#[cfg(test)]
mod tests;
mod witness;

pub use replica::{Heard, ReplicaWatch, Step};
pub use source::{Ping, SourceLease};
pub use witness::{Denied, Grants, Kept};

use std::time::Duration;

/// A host's monotonic time, since any point that stays the same while the process lives.
pub type Moment = Duration;

/// What all three agree upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long an echo is good for.
    pub lease: Duration,
    /// What others wait on top, for the time between a decision and its effect.
    pub margin: Duration,
}

/// How much faster than a source's clock another's may run, percent.
const DRIFT: u32 = 5;

impl Terms {
    /// With the usual margin of 100 ms.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            margin: Duration::from_millis(100),
        }
    }

    /// After this time, on anybody's clock, a lease that was given is over.
    #[must_use]
    pub fn surely_over(&self) -> Duration {
        self.stretched(self.lease)
    }

    /// After this time, on anybody's clock, `time` has passed for a source.
    fn stretched(&self, time: Duration) -> Duration {
        time + time * DRIFT / 100 + self.margin
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::new(Duration::from_millis(1500))
    }
}
