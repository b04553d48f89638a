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
    /// Most parts that are with the storage at once, beside the one that is being filled. Fewer if they are long: all of them together
    /// take 20 MiB of memory, or two parts.
    pub parts_in_flight: usize,
    /// Most bytes a second taken from the database, `None` for no limit.
    pub rate: Option<u64>,
    /// Give way to the database.
    pub adaptive: Option<Adaptive>,
    /// Cipher, if there is a key; `None` for the faster one on this machine.
    pub scheme: Option<Scheme>,
    /// Before a backup is called complete, its blob is read back and proved as for a restore: what a storage that lies has made of it is
    /// found then, and not when it is needed.
    pub read_back: bool,
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
            read_back: false,
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

/// Makes way for everybody else: of this thread, and of those it starts. Not being allowed to is no reason to fail.
fn be_nice() {
    if rustix::process::getpriority_process(None).is_ok_and(|now| now < NICE) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}
