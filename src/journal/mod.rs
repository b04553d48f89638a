//! The journal: what was asked, how far it got, how it ended. On disk, fsync'd, crash-safe, bounded.
//!
//! Owns: `journal.redb` and `journal.key` in the state directory. Uses: nothing of ours. Never does: run anything, or hold
//! a secret in the clear (arguments, contexts and outcomes are sealed).

mod record;

pub use record::{Admission, JournalError, OpId, Outcome, Record};
