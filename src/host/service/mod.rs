//! Long-running servers, under one of two supervisors that behave the same.
//!
//! Owns: starting, watching, restarting, stopping. Uses: `files`, `users`. Never does: know what server it is.
//!
//! ```text
//!              start_service                    dies
//!   Stopped ─────────────────► Running ────────────────► Restarting ──(too often)──► Failed
//!      ▲                        │  ▲                        │  back-off                │ back-off
//!      └──────stop_service──────┘  └────────────────────────┴──────────────────────────┘
//! ```

pub(super) mod process;
mod record;
mod spawn;
mod supervised;
mod task;

pub(super) use supervised::Supervised;
