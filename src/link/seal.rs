//! Sealed frames: a length, then AES-256-GCM over the content. The nonce is the number of the frame in its direction, so a frame
//! that is repeated, left out, moved or sent back opens with no key.

use super::MAX_BODY;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

/// Bytes of the length before each frame.
pub const HEAD: usize = 4;
/// Bytes that sealing adds at the end.
pub const TAG: usize = 16;
/// Room for our own fields before a body.
pub const FIELDS: usize = 16;
/// Largest content of a frame.
pub const MAX_FRAME: usize = MAX_BODY + FIELDS;

/// Seals one direction.
pub struct Sealer(Counted);

/// Opens one direction.
pub struct Opener(Counted);

struct Counted {
    key: LessSafeKey,
    count: u64,
}

impl Counted {
    fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("the key is 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            count: 0,
        }
    }

    fn nonce(&mut self) -> io::Result<Nonce> {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.count.to_be_bytes());
        self.count = self
            .count
            .checked_add(1)
            .ok_or_else(|| io::Error::other("the link's counter is used up"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

impl Sealer {
    pub(super) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(Counted::new(key))
    }

    /// Seals the frame that begins at `at` in `out`: [`HEAD`] bytes to be filled in, then the content up to the end of `out`.
    pub fn seal(&mut self, out: &mut Vec<u8>, at: usize) -> io::Result<()> {
        let size = out.len().saturating_sub(at + HEAD);
        if out.len() < at + HEAD || size > MAX_FRAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a frame is larger than a frame may be",
            ));
        }
        let head = u32::try_from(size + TAG).expect("a frame is small").to_be_bytes();
        let nonce = self.0.nonce()?;
        let (_, frame) = out.split_at_mut(at);
        let (place, content) = frame.split_at_mut(HEAD);
        place.copy_from_slice(&head);
        let tag = self
            .0
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(head), content)
            .map_err(|_| io::Error::other("the cipher refused"))?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

impl Opener {
    pub(super) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(Counted::new(key))
    }

    /// Opens a frame in place; its content.
    pub fn open<'a>(&mut self, head: [u8; HEAD], body: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let nonce = self.0.nonce()?;
        self.0
            .key
            .open_in_place(nonce, Aad::from(head), body)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a frame was changed, repeated or left out"))
    }
}

/// The bytes that follow this head; an error for what no honest peer sends, before anything is allocated for it.
pub fn length(head: [u8; HEAD]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head) as usize;
    if (TAG..=MAX_FRAME + TAG).contains(&length) {
        return Ok(length);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "a frame is announced with a size no frame has",
    ))
}

/// Reads and opens the next frame into `buffer`; its content.
pub async fn read<'a>(
    from: &mut (impl AsyncRead + Unpin),
    opener: &mut Opener,
    buffer: &'a mut Vec<u8>,
) -> io::Result<&'a mut [u8]> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head).await?;
    buffer.resize(length(head)?, 0);
    from.read_exact(buffer).await?;
    opener.open(head, buffer)
}
