//! The pair's key: 32 random bytes that both agents, and nobody else but their witness, know.

use aws_lc_rs::{constant_time, hkdf, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datastore_api::{ExposeSecret, Secret};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;

/// Text that is no key. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pair's key must be 32 bytes in Base64")]
pub struct KeyError;

/// A key. Clones share the one copy, which is wiped with the last of them.
#[derive(Clone)]
pub struct PairKey(Arc<Inner>);

struct Inner {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    id: KeyId,
}

/// Tells keys apart without telling a key: derived from it, one way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl PairKey {
    /// A new random key.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rand::fill(bytes.as_mut_slice()).expect("the random generator of the system works");
        Self::new(bytes)
    }

    /// From its text: 32 bytes in Base64; blanks around it do not matter.
    pub fn from_base64(text: &Secret) -> Result<Self, KeyError> {
        let decoded = Zeroizing::new(STANDARD.decode(text.expose_secret().trim()).map_err(|_| KeyError)?);
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        if decoded.len() != KEY_LEN {
            return Err(KeyError);
        }
        bytes.copy_from_slice(&decoded);
        Ok(Self::new(bytes))
    }

    /// As text, for the peer and for a file.
    #[must_use]
    pub fn to_base64(&self) -> Secret {
        Secret::from(STANDARD.encode(self.0.bytes.as_slice()))
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.0.id
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes.as_slice()
    }

    fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let mut wide = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"trove-guestagent link")
            .extract(bytes.as_slice())
            .expand(&[b"name of the key"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut wide))
            .expect("32 bytes are no more than HKDF gives");
        let mut id = [0; 8];
        id.copy_from_slice(&wide[..8]);
        Self(Arc::new(Inner { bytes, id: KeyId(id) }))
    }
}

impl PartialEq for PairKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.bytes(), other.bytes()).is_ok()
    }
}

impl Eq for PairKey {}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKey({})", self.0.id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
