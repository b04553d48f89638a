//! What is known of a backup: the object that is written last and makes the backup exist.
//!
//! ```json
//! {"manifest": { … }, "digest": "BLAKE3 of the bytes of manifest", "mac": "the same under a key of the backup, if it is encrypted"}
//! ```
//!
//! The digest finds accidents, the MAC finds who changed a manifest without having the key.

use super::BackupId;
use super::keys::Keys;
use chrono::{DateTime, Utc};
use datastore_api::EngineFacts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;

/// The version we write, and the newest we read.
pub const MANIFEST_VERSION: u32 = 1;
/// Largest manifest, bytes: more is not one.
pub const MAX_MANIFEST: usize = 4 << 20;

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest, or a damaged one.
    #[error("it is not a manifest: {0}")]
    Form(String),
    /// Something in it was changed, or lost.
    #[error("its digest does not fit, so it is damaged")]
    Digest,
    /// The key of the backup says that somebody else wrote it.
    #[error("it was not written by who has the key {key_id:?}")]
    Mac {
        /// The key.
        key_id: String,
    },
    /// A newer agent wrote it.
    #[error("it has version {found}, and this agent knows version {MANIFEST_VERSION} only")]
    Version {
        /// Its version.
        found: u64,
    },
    /// It is of another backup than the one it is stored as.
    #[error("it is of the backup {found}, not of {wanted}")]
    Id {
        /// What it says.
        found: BackupId,
        /// Under which it is stored.
        wanted: BackupId,
    },
}

/// A backup, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Which backup.
    pub id: BackupId,
    /// Its name, for people.
    #[serde(default)]
    pub name: Option<String>,
    /// The instance it was taken on.
    pub guest: String,
    /// When it was begun.
    pub created: DateTime<Utc>,
    /// When its last byte was confirmed.
    pub finished: DateTime<Utc>,
    /// Full or incremental.
    pub kind: Kind,
    /// What it builds on, if it is incremental.
    #[serde(default)]
    pub parent: Option<Parent>,
    /// What it is of, in the engine's words.
    pub engine: EngineFacts,
    /// Whose format the blob has.
    pub format: Format,
    /// How the stream is packed.
    pub compression: Compression,
    /// How it is sealed, if it is.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// Bytes of the driver's stream.
    pub plain_bytes: u64,
    /// Bytes of the blob.
    pub stored_bytes: u64,
    /// BLAKE3 of the driver's stream.
    pub plain_digest: Digest,
    /// BLAKE3 of the blob.
    pub stored_digest: Digest,
    /// How the blob was sent.
    pub parts: Parts,
    /// Name of the blob's object.
    pub blob: String,
    /// URL of the blob, as the control plane was told.
    pub location: String,
    /// The store's checksum of the blob, as the control plane was told.
    pub checksum: String,
    /// The last time it was restored to see whether it can be.
    #[serde(default)]
    pub verified: Option<Verified>,
    /// Version of the agent that took it.
    pub agent: String,
}

/// Full or incremental; the control plane's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything.
    Full,
    /// What changed since the parent.
    Incremental,
}

impl Kind {
    /// The control plane's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }
}

/// What an increment builds on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its id; `None` if it is a backup that upstream's agent took.
    pub id: Option<BackupId>,
    /// URL of its blob.
    pub location: String,
    /// The store's checksum of its blob.
    pub checksum: String,
}

/// Whose format a blob has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Ours: zstd, perhaps sealed.
    #[default]
    Native,
    /// Upstream's: gzip, never sealed.
    Upstream,
}

/// How a stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// The method.
    pub method: Method,
    /// Its level.
    pub level: i32,
    /// zstd: binary logarithm of the window, which is what unpacking needs as memory. A blob that asks for more is refused.
    #[serde(default)]
    pub window_log: u32,
}

/// A method of packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// One zstd frame.
    Zstd,
    /// One gzip member or several.
    Gzip,
    /// As it came.
    None,
}

/// How a blob is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The construction.
    pub scheme: Scheme,
    /// Name of the key.
    pub key_id: String,
    /// What the backup's own key was derived with, hex of 32 bytes.
    pub salt: String,
    /// By this a wrong key of the right name is found before anything is read, hex.
    pub check: String,
    /// Bytes sealed at once.
    pub chunk_bytes: u32,
}

/// How chunks are sealed: the STREAM construction (32-bit counter, flag on the last chunk) over one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scheme {
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm-stream-be32")]
    Aes256Gcm,
    /// ChaCha20-Poly1305: faster where the processor has no AES.
    #[serde(rename = "chacha20-poly1305-stream-be32")]
    ChaCha20Poly1305,
}

/// How a blob was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Bytes of each but the last.
    pub bytes: u64,
    /// Their number.
    pub count: u32,
}

/// A restore that was made to see whether it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// When.
    pub at: DateTime<Utc>,
    /// Whether it was good.
    pub good: bool,
    /// What was found.
    pub report: serde_json::Value,
}

/// BLAKE3, 32 bytes; as text 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        let decoded = hex::decode_to_slice(&text, &mut bytes);
        // One text for each digest: a changed letter is a changed manifest.
        if decoded.is_err() || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("a digest has 64 hex digits in lower case");
        }
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The object as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    manifest: &'a RawValue,
    digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<Digest>,
}

/// What is read before anything else is believed.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

fn form(error: serde_json::Error) -> ManifestError {
    ManifestError::Form(error.to_string())
}

impl Manifest {
    /// The bytes to store. The key is needed if the backup is encrypted: with it the manifest is signed.
    pub fn encode(&self, keys: &Keys) -> Result<Vec<u8>, super::BackupError> {
        let text = serde_json::to_string_pretty(self).map_err(form)?;
        let manifest = RawValue::from_string(text).map_err(form)?;
        let bytes = manifest.get().as_bytes();
        let mac = match &self.encryption {
            Some(sealed) => Some(keys.find(&sealed.key_id)?.mac(&self.id, bytes)?),
            None => None,
        };
        let envelope = Envelope {
            manifest: &manifest,
            digest: blake3::hash(bytes).into(),
            mac,
        };
        Ok(serde_json::to_vec(&envelope).map_err(form)?)
    }

    /// Reads what was stored under the name of `wanted`: digest, version and id are checked. The MAC is not: this is for lists, made
    /// by who may have no key. Before anything is restored, [`Manifest::decode_signed`].
    pub fn decode(bytes: &[u8], wanted: &BackupId) -> Result<Self, ManifestError> {
        Self::open(bytes, wanted).map(|(manifest, _)| manifest)
    }

    /// Like [`Manifest::decode`], and an encrypted backup's manifest must be signed with the backup's key.
    pub fn decode_signed(bytes: &[u8], wanted: &BackupId, keys: &Keys) -> Result<Self, super::BackupError> {
        let (manifest, envelope) = Self::open(bytes, wanted)?;
        if let Some(sealed) = &manifest.encryption {
            let key = keys.find(&sealed.key_id)?;
            key.check(&manifest.id, sealed)?;
            let signed = key.mac(&manifest.id, envelope.manifest.get().as_bytes())?;
            // Nobody learns a MAC from how long this takes: the answer is about an object in a storage, once per request.
            if envelope.mac != Some(signed) {
                let key_id = sealed.key_id.clone();
                return Err(ManifestError::Mac { key_id }.into());
            }
        }
        Ok(manifest)
    }

    fn open<'a>(bytes: &'a [u8], wanted: &BackupId) -> Result<(Self, Envelope<'a>), ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::Form(format!("it has {} bytes", bytes.len())));
        }
        let envelope: Envelope<'a> = serde_json::from_slice(bytes).map_err(form)?;
        let text = envelope.manifest.get();
        if Digest::from(blake3::hash(text.as_bytes())) != envelope.digest {
            return Err(ManifestError::Digest);
        }
        let Versioned { version: found } = serde_json::from_str(text).map_err(form)?;
        if found != u64::from(MANIFEST_VERSION) {
            return Err(ManifestError::Version { found });
        }
        let manifest: Self = serde_json::from_str(text).map_err(form)?;
        if manifest.id != *wanted {
            return Err(ManifestError::Id {
                found: manifest.id,
                wanted: wanted.clone(),
            });
        }
        Ok((manifest, envelope))
    }
}
