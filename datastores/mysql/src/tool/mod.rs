//! The engine's backup tool: its account, its stream out of a running server, its stream into a folder, the redo log applied there.
//!
//! Owns: the tool's files and accounts, the form of its stream ([`xbstream`]). Uses: the server's sessions, the machine. Never does: know
//! what the stream is for. `clone` and `backup` stand on it.

pub(crate) mod checkpoints;
mod copy;
mod locks;
mod login;
mod unpack;
mod words;
pub(crate) mod xbstream;

pub(crate) use copy::Copying;
pub(crate) use login::{Login, Purpose, Widened, drop_statements};
pub(crate) use unpack::fill;
pub(crate) use words::{check_completed, failed, last_lines};

use std::time::Duration;

/// Bytes moved in one step.
pub(crate) const BUFFER: usize = 256 << 10;
/// How long a stream may stand still: a lock that the tool waits for, or a peer that does not take or give anything.
pub(crate) const IDLE: Duration = Duration::from_secs(300);
/// Limit of a program that reads or writes all of the data once.
pub(crate) const LONG: Duration = Duration::from_secs(6 * 3600);
