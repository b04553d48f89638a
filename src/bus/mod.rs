//! The message bus: AMQP 0-9-1 and the oslo.messaging envelope.
//!
//! Owns: connections, declares, consuming, publishing with confirms, the outbox, de-duplication, payload encryption, the
//! client side for the command line. Uses: nothing of ours. Never does: know a method's name or meaning.
//!
//! ```text
//!  broker ──delivery──► consume ─► envelope ─► crypto ─► Delivery ──mpsc──► rpc
//!  broker ◄──confirm─── publish ◄─ outbox ◄──────────── Bus::answer / Bus::cast
//! ```
//!
//! A delivery is acknowledged by whoever handles it ([`Ack::ack`]), after it is safe. When the connection is lost every
//! delivery not acknowledged comes again; a repeat of one that is still being handled takes the place of the older
//! delivery (its [`Ack`] then acknowledges the newer), a repeat of one already acknowledged is acknowledged and dropped.
//!
//! Only `guestagent.<id>` is declared and consumed. Upstream also declares a second queue and a fan-out pair, to which
//! nobody publishes; each would cost a consumer per guest, so they are left out.
//!
//! Logging: the client crate (targets `lapin…`) logs each broker refusal as an error although we handle it, a returned
//! reply with its whole body as a warning, and bodies when tracing. An application filters `lapin` out entirely; what
//! matters is logged from here.

mod client;
mod connect;
mod consume;
mod crypto;
mod declare;
mod envelope;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handle;
mod hub;
mod json;
mod ledger;
mod outbox;
mod outgoing;
mod publish;
mod request;
mod selfping;
mod settings;
mod sieve;
mod supervise;
mod tls;
mod types;
pub mod url;
mod watch;

pub use client::Client;
pub use handle::{Bus, Delivery};
pub use ledger::Ack;
pub use settings::{Broker, QueueType, Settings, TlsSettings};
pub use types::{Answer, BusError, BusState, Cast, Failure, Observed, ReplyTo, Request, RpcVersion};
pub use watch::watch;
