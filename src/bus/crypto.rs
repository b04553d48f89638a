//! The payload encryption of the control plane: AES-256-CBC with PKCS#7 over the JSON text of a value, in Base64.
//!
//! Strict on what comes in: Base64, block size, padding and the JSON inside must all be right. What fails is not told, so
//! that a sender learns nothing from it. There is no authentication in this scheme; it is what the control plane speaks.

use super::json;
use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datastore_api::{ExposeSecret, Secret};
use md5::{Digest, Md5};
use serde_json::Value;
use std::sync::Arc;

const BLOCK: usize = 16;

/// A value that does not decrypt. Says nothing about why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value does not decrypt with this instance's key")]
pub struct CipherError;

/// A key ready for use.
#[derive(Clone)]
pub struct Cipher {
    keys: Arc<(PaddedBlockEncryptingKey, PaddedBlockDecryptingKey)>,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    /// From the key text of the configuration. The AES key is the 32 ASCII digits of its MD5.
    #[must_use]
    pub fn new(key: &Secret) -> Self {
        let mut digits = [0u8; 32];
        hex::encode_to_slice(Md5::digest(key.expose_secret().as_bytes()), &mut digits).expect("16 bytes make 32 digits");
        let unbound = || UnboundCipherKey::new(&AES_256, &digits).expect("the key is 32 bytes");
        let encrypt = PaddedBlockEncryptingKey::cbc_pkcs7(unbound()).expect("AES has CBC");
        let decrypt = PaddedBlockDecryptingKey::cbc_pkcs7(unbound()).expect("AES has CBC");
        zeroize::Zeroize::zeroize(&mut digits);
        Self {
            keys: Arc::new((encrypt, decrypt)),
        }
    }

    /// Encrypts a value.
    pub fn seal(&self, value: &impl serde::Serialize) -> Result<String, serde_json::Error> {
        self.seal_text(json::to_text(value)?).map_err(serde::ser::Error::custom)
    }

    /// Encrypts text as it is.
    pub(super) fn seal_text(&self, text: String) -> Result<String, CipherError> {
        let mut iv = [0u8; BLOCK];
        aws_lc_rs::rand::fill(&mut iv).map_err(|_| CipherError)?;
        self.seal_with(iv, text)
    }

    fn seal_with(&self, iv: [u8; BLOCK], text: String) -> Result<String, CipherError> {
        let mut sealed = text.into_bytes();
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.keys.0.less_safe_encrypt(&mut sealed, context).map_err(|_| CipherError)?;
        sealed.splice(0..0, iv);
        Ok(STANDARD.encode(sealed))
    }

    /// Decrypts a value.
    pub fn open(&self, sealed: &str) -> Result<Value, CipherError> {
        let mut bytes = STANDARD.decode(sealed).map_err(|_| CipherError)?;
        let (iv, body) = bytes.split_first_chunk_mut::<BLOCK>().ok_or(CipherError)?;
        if body.is_empty() || body.len() % BLOCK != 0 {
            return Err(CipherError);
        }
        let context = DecryptionContext::Iv128(FixedLength::from(*iv));
        let text = self.keys.1.decrypt(body, context).map_err(|_| CipherError)?;
        json::guard(text).map_err(|_| CipherError)?;
        serde_json::from_slice(text).map_err(|_| CipherError)
    }
}

#[cfg(test)]
#[path = "crypto_tests.rs"]
mod tests;
