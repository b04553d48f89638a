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

mod settings;
mod types;

pub use settings::{Broker, QueueType, Settings, TlsSettings};
pub use types::{Answer, BusError, BusState, Cast, Failure, Observed, ReplyTo, Request, RpcVersion};
