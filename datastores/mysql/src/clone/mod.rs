//! A copy of a running server, streamed from one guest to another: no store between, no second copy on a disk.
//!
//! Owns: the stream's form (one line of ours, then the tool's own). Uses: the engine's backup tool, the marker. Never does: encrypt, authenticate, or know where the stream comes from; that the stream ended as the sender meant it
//! is its caller's to know. A stream that was cut is found all the same: what the tool writes last is missing then.
//!
//! ```text
//! send     account, option file ── backup tool | stream ──────────────────► position (of its log)
//! receive  header ── mark ── stop ── clear ── unpack ── apply the redo log ── own accounts ── start, read-only ── unmark ──► position
//! ```

mod header;
mod receive;
mod send;
