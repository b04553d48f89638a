//! The instance: its life-cycle phase, who may change it, whose turn it is, and what the rest of the house sees of it.
//!
//! Owns: [`gate`] (pure admission), [`role`] (pure: who may write and who holds the address), [`turn`] (one change at a time), [`view`] (the published state), [`pulse`] (looks at the
//! database's health). Uses: `datastore-api`. Never does: talk to the bus.
//!
//! ```text
//!            prepare            end of prepare
//!   New ───────────► Preparing ───────────────► Ready
//!                      │  ▲                        │ restart, stop, …: stays Ready; health tells
//!                fail  ▼  │ prepare again
//!                    Failed
//! ```

pub mod gate;
pub mod pulse;
pub mod role;
pub mod turn;
pub mod view;

pub use view::{Operation, Phase, View};
