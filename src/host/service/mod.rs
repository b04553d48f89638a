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

#[cfg(feature = "systemd")]
mod dbus;
pub(super) mod process;
mod record;
mod spawn;
mod supervised;
#[cfg(feature = "systemd")]
mod systemd;
mod task;
#[cfg(feature = "systemd")]
mod unit;

pub(super) use supervised::Supervised;
#[cfg(feature = "systemd")]
pub(super) use systemd::Systemd;
