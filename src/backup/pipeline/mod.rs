//! From a driver's stream to a storage, and back.
//!
//! ```text
//!  send   driver ─► chunks ─► [thread: digest, zstd, seal, digest, cut] ─► parts in flight ─► Upload
//!  open   Store ─► read-ahead, reconnects ─► [thread: digest, open, zstd, digest] ─► chunks ─► reader
//! ```
//!
//! Each arrow is bounded, so memory is bounded by [`PipelineSettings`] and not by the size of the database, and the slowest stage sets
//! the pace of all. What computes runs in threads of its own, at low priority.

pub(super) mod cipher;
mod cut;
mod open;
mod pack;
mod pressure;
mod progress;
mod send;
mod source;
mod take;
#[cfg(test)]
mod tests;
mod throttle;
mod unpack;

pub use open::{Opened, ReadSettings, Verdict, open};
pub use pressure::{Adaptive, Probe};
pub use progress::Progress;
pub use send::{Plan, Sent, send};
pub use source::{Bytewise, DriverSource, Source};
pub use take::{Draft, take};

use super::{Compression, Format, Method, Scheme};

/// Bytes of plain stream that are handed on at once.
const CHUNK: usize = 256 << 10;
/// Priority (nice) of the threads that compute.
const NICE: i32 = 10;

/// How a stream is packed and sent.
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// Level of zstd (1 to 19) or, in upstream's format, of gzip (1 to 9; more means 9).
    pub level: i32,
    /// Threads that compress; 0 compresses in the thread that does the rest.
    pub threads: u32,
    /// Parts that are with the storage at once, beside the one that is being filled.
    pub parts_in_flight: usize,
    /// Most bytes a second taken from the database, `None` for no limit.
    pub rate: Option<u64>,
    /// Give way to the database.
    pub adaptive: Option<Adaptive>,
    /// Cipher, if there is a key; `None` for the faster one on this machine.
    pub scheme: Option<Scheme>,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Self {
            level: 3,
            threads: cores.min(2),
            parts_in_flight: 2,
            rate: None,
            adaptive: None,
            scheme: None,
        }
    }
}

impl PipelineSettings {
    /// What the manifest says of the packing.
    fn compression(&self, format: Format) -> Compression {
        match format {
            Format::Native => Compression {
                method: Method::Zstd,
                level: self.level.clamp(1, 19),
                window_log: pack::WINDOW_LOG,
            },
            Format::Upstream => Compression {
                method: Method::Gzip,
                level: self.level.clamp(1, 9),
                window_log: 0,
            },
        }
    }
}

/// Ending of a blob's name: the driver's own ([`datastore_api::Backups::extension`]) and what was done to it.
#[must_use]
pub fn extension(plain: &str, format: Format, sealed: bool) -> String {
    match (format, sealed) {
        (Format::Upstream, _) => format!("{plain}.gz"),
        (Format::Native, false) => format!("{plain}.zst"),
        (Format::Native, true) => format!("{plain}.zst.sealed"),
    }
}
