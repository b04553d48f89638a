//! The continuous log: shipped as the server writes it, and replayed over a restored backup up to a chosen moment.
//!
//! Owns: the form of the log in the store, its shipping, the window of recovery, the way to a target. Uses: a driver's
//! [`Logs`](datastore_api::Logs) and a [`Store`](crate::storage::Store). Never does: know what is in a log, restore a base.
//!
//! ```text
//! server's files ── Shipper ──► log/<guest>/<timeline>/<file>.<from>-<to>.seg      small ones are joined later
//!                                     │ headers
//!                       Shelf ── history (chains, forks, gaps) ── window · plan ── Replay ──► Restore::replay
//! ```
//!
//! A *timeline* is log without a hole: what cannot be joined for certain (the log was begun anew, transactions were taken back after a
//! crash, files were purged) begins another one. Timelines of one guest and of its peers are joined by their transactions: one goes on
//! where another one was at the same transaction. So a window goes over a failover, and what an old source had beyond the fork is left out.

mod history;
mod join;
mod replay;
mod segment;
mod shelf;
mod ship;
mod status;
mod window;

pub use replay::Replay;
pub use segment::{Began, Header};
pub use shelf::Shelf;
pub use ship::Shipper;
pub use status::{LogState, LogStatus, Settings, WhenFull};
pub use window::{Base, Gap, Plan, Span, Target, Window, plan, window};
