//! A copy of a running server, streamed from one guest to another: no store between, no second copy on a disk.
//!
//! Owns: the stream's form (one line of ours, then the tool's own), the account and files of the tool. Uses: the engine's backup tool,
//! the marker. Never does: encrypt, authenticate, or know where the stream comes from; that the stream ended as the sender meant it
//! is its caller's to know. A stream that was cut is found all the same: what the tool writes last is missing then.
//!
//! ```text
//! send     account, option file ── backup tool | stream ──────────────────► position (of its log)
//! receive  header ── mark ── stop ── clear ── unpack ── apply the redo log ── own accounts ── start, read-only ── unmark ──► position
//! ```

mod header;
mod receive;
mod send;
mod tool;

use std::time::Duration;

/// Bytes moved in one step.
const BUFFER: usize = 256 << 10;
/// How long a copy may stand still: a lock that the tool waits for, or a peer that does not take or give anything.
const IDLE: Duration = Duration::from_secs(300);
/// What the tool says when it is through.
const COMPLETED: &str = "completed OK!";
