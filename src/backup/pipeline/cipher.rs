//! Sealing a stream in chunks: the STREAM construction of `aead-stream` over the ciphers of the TLS library, which are written in
//! assembly and as fast in a build for size as in one for speed.
//!
//! Each chunk is bound to its place, to the backup and to this format; the last one says that it is. So a chunk that is changed, missing,
//! moved or of another backup is found, and so is an end that comes early.

use crate::backup::keys::{CHUNK, Derived};
use crate::backup::{BackupId, Scheme};
use aead_stream::aead::array::Array;
use aead_stream::aead::consts::{U12, U16};
use aead_stream::aead::inout::InOutBuf;
use aead_stream::aead::{self, AeadCore, AeadInOut, TagPosition};
use aead_stream::{DecryptorBE32, EncryptorBE32};
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::io;

/// Bytes a sealed chunk is longer than its text.
pub(in crate::backup) const TAG: usize = 16;

/// The library's cipher in the form the construction wants.
struct Cipher(LessSafeKey);

impl AeadCore for Cipher {
    type NonceSize = U12;
    type TagSize = U16;
    const TAG_POSITION: TagPosition = TagPosition::Postfix;
}

impl AeadInOut for Cipher {
    fn encrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        aad: &[u8],
        mut buffer: InOutBuf<'_, '_, u8>,
    ) -> aead::Result<aead::Tag<Self>> {
        let nonce = Nonce::assume_unique_for_key((*nonce).into());
        let text = in_place(&mut buffer);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        let tag = tag.map_err(|_| aead::Error)?;
        Array::try_from(tag.as_ref()).map_err(|_| aead::Error)
    }

    fn decrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        aad: &[u8],
        mut buffer: InOutBuf<'_, '_, u8>,
        tag: &aead::Tag<Self>,
    ) -> aead::Result<()> {
        let nonce = Nonce::assume_unique_for_key((*nonce).into());
        let text = in_place(&mut buffer);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text);
        opened.map(|_| ()).map_err(|_| aead::Error)
    }
}

/// The text where the library works on it. Ours always is there already.
fn in_place<'a>(buffer: &'a mut InOutBuf<'_, '_, u8>) -> &'a mut [u8] {
    if !std::ptr::eq(buffer.get_in().as_ptr(), buffer.get_out().as_ptr()) {
        let text = buffer.get_in().to_vec();
        buffer.get_out().copy_from_slice(&text);
    }
    buffer.get_out()
}

fn cipher(scheme: Scheme, with: &Derived) -> io::Result<Cipher> {
    let algorithm = match scheme {
        Scheme::Aes256Gcm => &AES_256_GCM,
        Scheme::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    let key = UnboundKey::new(algorithm, with.key.as_slice()).map_err(|_| io::Error::other("the cipher refused the key"))?;
    Ok(Cipher(LessSafeKey::new(key)))
}

fn bound_to(id: &BackupId, scheme: Scheme) -> Vec<u8> {
    format!("trove-guestagent blob 1, {}, {CHUNK}, {id}", scheme.word()).into_bytes()
}

/// The faster cipher on this machine.
#[must_use]
pub(in crate::backup) fn faster() -> Scheme {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    if has_aes {
        Scheme::Aes256Gcm
    } else {
        Scheme::ChaCha20Poly1305
    }
}

/// Seals.
pub(in crate::backup) struct Sealer {
    stream: EncryptorBE32<Cipher>,
    aad: Vec<u8>,
    chunk: Vec<u8>,
}

impl Sealer {
    pub(in crate::backup) fn new(id: &BackupId, scheme: Scheme, with: &Derived) -> io::Result<Self> {
        Ok(Self {
            stream: EncryptorBE32::from_aead(cipher(scheme, with)?, &Array::from(with.prefix)),
            aad: bound_to(id, scheme),
            chunk: Vec::with_capacity(CHUNK + TAG),
        })
    }

    /// Seals what makes whole chunks, and keeps the rest: only what has something behind it is not the last.
    pub(in crate::backup) fn push(&mut self, mut text: &[u8], mut out: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while !text.is_empty() {
            if self.chunk.len() == CHUNK {
                self.stream
                    .encrypt_next_in_place(&self.aad, &mut self.chunk)
                    .map_err(|_| io::Error::other("the cipher refused: the stream is too long"))?;
                out(&self.chunk)?;
                self.chunk.clear();
            }
            let (now, rest) = text.split_at(text.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            text = rest;
        }
        Ok(())
    }

    /// Seals the rest as the last chunk.
    pub(in crate::backup) fn finish(mut self, mut out: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.stream
            .encrypt_last_in_place(&self.aad, &mut self.chunk)
            .map_err(|_| io::Error::other("the cipher refused"))?;
        out(&self.chunk)
    }
}

/// Opens.
pub(in crate::backup) struct Opener {
    stream: DecryptorBE32<Cipher>,
    aad: Vec<u8>,
    chunk: Vec<u8>,
    opened: u64,
}

impl Opener {
    pub(in crate::backup) fn new(id: &BackupId, scheme: Scheme, with: &Derived) -> io::Result<Self> {
        Ok(Self {
            stream: DecryptorBE32::from_aead(cipher(scheme, with)?, &Array::from(with.prefix)),
            aad: bound_to(id, scheme),
            chunk: Vec::with_capacity(CHUNK + TAG),
            opened: 0,
        })
    }

    /// Opens the chunks that have something behind them.
    pub(in crate::backup) fn push(&mut self, mut sealed: &[u8], mut out: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while !sealed.is_empty() {
            if self.chunk.len() == CHUNK + TAG {
                let opened = self.stream.decrypt_next_in_place(&self.aad, &mut self.chunk);
                opened.map_err(|_| broken(self.opened))?;
                self.opened += 1;
                out(&self.chunk)?;
                self.chunk.clear();
            }
            let (now, rest) = sealed.split_at(sealed.len().min(CHUNK + TAG - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            sealed = rest;
        }
        Ok(())
    }

    /// Opens the last chunk, which must say that it is.
    pub(in crate::backup) fn finish(mut self, mut out: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let opened = self.stream.decrypt_last_in_place(&self.aad, &mut self.chunk);
        opened.map_err(|_| broken(self.opened))?;
        out(&self.chunk)
    }
}

fn broken(chunk: u64) -> io::Error {
    let text = format!(
        "the sealed chunk {chunk} was changed, is of another backup, is not in its place or is not the last one it should be"
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}
