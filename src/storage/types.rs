//! What a store tells of its objects.

use super::ObjectName;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::SystemTime;
use tokio::io::AsyncRead;

/// Facts beside an object: lower-case keys with `_`, short values. A store without such facts drops them; the manifest of a
/// backup is the truth.
pub type Meta = BTreeMap<String, String>;

/// Bytes of an object. What breaks in the middle is an error, never an early end.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name.
    pub name: ObjectName,
    /// Length.
    pub bytes: u64,
    /// When it was finished, by the store's clock.
    pub modified: Option<SystemTime>,
    /// The store's own checksum (the ETag of S3 and Swift), lower case without quotes.
    pub checksum: Option<String>,
    /// Facts beside it.
    pub meta: Meta,
}

/// Proof that the store has an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// URL of it.
    pub location: String,
    /// Length.
    pub bytes: u64,
    /// 32 lower-case hex digits, for the control plane, whose database has room for no more. In Swift: the ETag, which is upstream's
    /// definition. Elsewhere: [`PartsDigest`](super::PartsDigest).
    pub checksum: String,
}
