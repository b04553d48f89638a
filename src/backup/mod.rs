//! Backups: a database's own stream, packed, sealed, counted and stored so that what is called complete can be restored.
//!
//! Owns: the pipeline from a driver's stream to a storage and back, the manifest, the keys, and what is built on them (jobs, restore,
//! verification, catalogue, schedule, retention, the continuous log). Uses: `storage` for where things lie, the driver's traits,
//! `conductor`, `instance`, `journal`, `host`. Never does: speak AMQP, start a process, know one storage from another.
//!
//! ```text
//!  driver ──plain──► pack (zstd, seal, digests) ──parts──► storage      the blob  <id>.<extension>
//!     └──── its end: Ok(facts) ────────────────────────────┐
//!                        every part confirmed ─► whole confirmed ─► manifest <id>.json, last
//! ```
//!
//! A backup exists if its manifest does. Anything that fails before takes the blob away again.

mod chain;
mod error;
mod id;
mod jobs;
pub mod keys;
mod list;
pub mod log;
mod manifest;
pub mod pipeline;
mod point;
mod restore;
mod service;
mod settings;
pub mod upstream;
mod verify;

pub use chain::{Chain, Link};
pub use error::BackupError;
pub use id::BackupId;
pub use jobs::{Held, Order, ParentOf, Wanted};
pub use list::{Listing, Unreadable};
pub use manifest::{
    Compression, Digest, Encryption, Format, Kind, MANIFEST_VERSION, Manifest, ManifestError, Method, Parent, Parts, Scheme,
    Verified,
};
pub use point::{Way, moment, shown};
pub use restore::Done;
pub use service::{Service, summary};
pub use settings::{Second, Settings, VerifyPolicy};
