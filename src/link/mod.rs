//! The channel between the two agents of a pair, and between an agent and a witness.
//!
//! Owns: TCP between agents, mutual authentication by the pair's key, sealed frames, questions and answers, byte streams. Uses:
//! nothing of ours but the drivers' `Secret`. Never does: know a verb, decide anything, reconnect.
//!
//! ```text
//! client                                server
//! magic, kind, nonce          ->
//!                             <-        magic, status, nonce
//! proof of the key            ->                                  nothing is allocated or decided before this is right
//!                             <-        verdict, proof of the key
//! sealed frames               <->       sealed frames             AES-256-GCM, a key and a counter for each direction
//! ```
//!
//! How a channel fails is knowledge: [`LinkErrorKind::Refused`] is the peer's kernel saying that no agent runs there, and
//! [`LinkErrorKind::Silent`] says nothing at all about the peer. What decides about a promotion must not mix them up.

mod channel;
mod error;
mod key;
mod listen;
mod seal;
mod serve;
mod shake;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

pub use channel::Link;
pub use error::{LinkError, LinkErrorKind};
pub use key::{KeyError, KeyId, PairKey};
pub use listen::{Handler, KeyLookup, Listener, Peer};
pub use stream::Stream;

use std::net::IpAddr;
use std::time::Duration;

/// Largest question or answer, bytes of JSON; also the largest sealed frame but for its head.
pub const MAX_BODY: usize = 256 * 1024;

/// How long things may take, and where connections come from.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For TCP and the handshake together.
    pub connect: Duration,
    /// How long the peer's kernel may leave our bytes unacknowledged before a channel for questions is broken.
    pub unacknowledged: Duration,
    /// The same for a byte stream, whose receiver may have to wait for its disk.
    pub stream_unacknowledged: Duration,
    /// How long a read or a write of a byte stream may make no progress.
    pub stream_idle: Duration,
    /// Source address of our connections; else the kernel chooses.
    pub bind_from: Option<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            unacknowledged: Duration::from_secs(2),
            stream_unacknowledged: Duration::from_secs(30),
            stream_idle: Duration::from_secs(300),
            bind_from: None,
        }
    }
}
