//! The control plane's requests: parse, admit, act, answer. The use-cases live here.
//!
//! Owns: the table of methods ([`table`]), dispatch, the mapping of errors to remote failures, the local socket's server.
//! Uses: `conductor`, `instance`, `journal`, `bus`, `host`, `link`, `datastore-api`. Never does: AMQP, SQL.
//!
//! ```text
//!  Delivery ─► lookup ─► version, arguments ─┬─ Query ─► run ─► answer ─► ack
//!                                            └─ Change ─► journal ─► ack ─► turn ─► gate ─► run ─► journal ─► answer
//! ```

pub mod args;
mod bring_up;
mod change;
mod copies;
mod ctx;
mod dispatch;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod local;
mod method;
mod methods;
mod op;
mod resume;
mod role;
mod shapes;
pub mod table;

pub use copies::Copies;
pub use ctx::{Ctx, Settings, stored_phase};
pub use dispatch::Dispatcher;
pub use failure::{ErrorClass, RpcError};
pub use method::{Entry, Kind as MethodKind, Mode, Origin as MethodOrigin};
pub use methods::{prepare_replica_steps, prepare_steps, was_ready};
pub use op::Op;
pub use table::METHODS;
