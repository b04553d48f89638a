//! The client of the control plane's conductor: heartbeats, root reports, notifications.
//!
//! Owns: what is reported and when. Uses: `instance` (the view), `journal` (the clock of `sent`), `bus`. Never does: decide
//! what the instance's state is.
