//! The thread that reads a blob: digest of what comes, opening, decompression, digest of what comes out.

use super::CHUNK;
use super::cipher::Opener;
use super::cut::{Back, Empty};
use crate::backup::{Compression, Method};
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use std::io::{self, Write};
use tokio::sync::mpsc;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// The most memory unpacking may ask for, whatever a manifest says: binary logarithm of bytes.
pub(super) const MAX_WINDOW_LOG: u32 = 27;
/// Bytes given to gzip at once: it makes at most some thousand times as many of them.
const GZIP_STEP: usize = 1 << 10;

/// What the blob must be.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) compression: Compression,
    pub(super) plain_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) plain_digest: crate::backup::Digest,
    pub(super) stored_digest: crate::backup::Digest,
}

/// What comes out.
pub(super) enum Plain {
    Bytes(Bytes),
    /// All of it was as it must be.
    Good,
}

/// Damage, in words.
fn wrong(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// The thread's work. `BrokenPipe`: nobody reads any more, or nobody fetches.
pub(super) fn run(
    mut input: mpsc::Receiver<Option<Bytes>>,
    back: &Back,
    wanted: Wanted,
    mut opener: Option<Opener>,
    out: &mut Outlet,
) -> io::Result<()> {
    let mut digest = blake3::Hasher::new();
    let mut stored = 0u64;
    let mut loosener = Loosener::new(wanted.compression)?;
    loop {
        match input.blocking_recv() {
            Some(Some(bytes)) => {
                digest.update(&bytes);
                stored += bytes.len() as u64;
                match &mut opener {
                    Some(opener) => opener.push(&bytes, |opened| loosener.push(opened, out))?,
                    None => loosener.push(&bytes, out)?,
                }
                back.put(bytes);
            }
            Some(None) => break,
            None => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
    if stored != wanted.stored_bytes {
        return Err(wrong(format!(
            "it has {stored} bytes, its manifest says {}",
            wanted.stored_bytes
        )));
    }
    if let Some(opener) = opener {
        opener.finish(|opened| loosener.push(opened, out))?;
    }
    loosener.finish(out)?;
    if crate::backup::Digest::from(digest.finalize()) != wanted.stored_digest {
        return Err(wrong("its digest is not the one in its manifest"));
    }
    out.finish()
}

/// Where plain bytes go. Counts them, and takes their digest.
pub(super) struct Outlet {
    wanted: Wanted,
    chunk: Option<BytesMut>,
    empty: Empty,
    out: mpsc::Sender<Plain>,
    digest: blake3::Hasher,
    bytes: u64,
}

impl Outlet {
    pub(super) fn new(wanted: Wanted, empty: Empty, out: mpsc::Sender<Plain>) -> Self {
        Self {
            wanted,
            chunk: None,
            empty,
            out,
            digest: blake3::Hasher::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.wanted.plain_bytes {
            return Err(wrong(format!(
                "it unpacks to more than the {} bytes of its manifest",
                self.wanted.plain_bytes
            )));
        }
        self.digest.update(bytes);
        while !bytes.is_empty() {
            let chunk = match &mut self.chunk {
                Some(chunk) => chunk,
                none => {
                    let mut chunk = self.empty.blocking_recv().ok_or(io::ErrorKind::BrokenPipe)?;
                    chunk.reserve(CHUNK);
                    none.insert(chunk)
                }
            };
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(now);
            bytes = rest;
            if chunk.len() == CHUNK {
                self.hand_on()?;
            }
        }
        Ok(())
    }

    fn hand_on(&mut self) -> io::Result<()> {
        match self.chunk.take() {
            Some(chunk) => self.send(Plain::Bytes(chunk.freeze())),
            None => Ok(()),
        }
    }

    fn send(&self, what: Plain) -> io::Result<()> {
        self.out.blocking_send(what).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.bytes != self.wanted.plain_bytes {
            let text = format!(
                "it unpacks to {} bytes, its manifest says {}",
                self.bytes, self.wanted.plain_bytes
            );
            return Err(wrong(text));
        }
        if crate::backup::Digest::from(self.digest.finalize()) != self.wanted.plain_digest {
            return Err(wrong("the digest of what it unpacks to is not the one in its manifest"));
        }
        self.hand_on()?;
        self.send(Plain::Good)
    }
}

/// A decompressor.
enum Loosener {
    Zstd {
        decoder: Decoder<'static>,
        buffer: Box<[u8]>,
        ended: bool,
    },
    Gzip(MultiGzDecoder<Vec<u8>>),
    None,
}

impl Loosener {
    fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression.method {
            Method::Zstd => {
                let mut decoder = Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(compression.window_log))?;
                Self::Zstd {
                    decoder,
                    buffer: vec![0; CHUNK].into_boxed_slice(),
                    ended: false,
                }
            }
            Method::Gzip => Self::Gzip(MultiGzDecoder::new(Vec::new())),
            Method::None => Self::None,
        })
    }

    fn push(&mut self, packed: &[u8], out: &mut Outlet) -> io::Result<()> {
        match self {
            // Nothing at all would begin another frame.
            Self::Zstd { .. } if packed.is_empty() => Ok(()),
            Self::Zstd { decoder, buffer, ended } => {
                let mut input = InBuffer::around(packed);
                loop {
                    if *ended && input.pos() < packed.len() {
                        return Err(wrong("something follows its end"));
                    }
                    let mut output = OutBuffer::around(&mut buffer[..]);
                    let left = decoder
                        .run(&mut input, &mut output)
                        .map_err(|e| wrong(format!("zstd: {e}")))?;
                    let (made, room) = (output.pos(), output.pos() < output.capacity());
                    out.push(&buffer[..made])?;
                    *ended = left == 0;
                    if input.pos() == packed.len() && (room || *ended) {
                        return Ok(());
                    }
                }
            }
            Self::Gzip(decoder) => {
                for step in packed.chunks(GZIP_STEP) {
                    decoder.write_all(step).map_err(|e| wrong(format!("gzip: {e}")))?;
                    out.push(decoder.get_ref())?;
                    decoder.get_mut().clear();
                }
                Ok(())
            }
            Self::None => out.push(packed),
        }
    }

    fn finish(self, out: &mut Outlet) -> io::Result<()> {
        match self {
            Self::Zstd { ended: true, .. } | Self::None => Ok(()),
            Self::Zstd { .. } => Err(wrong("it ends in the middle")),
            Self::Gzip(decoder) => {
                let rest = decoder.finish().map_err(|e| wrong(format!("gzip: {e}")))?;
                out.push(&rest)
            }
        }
    }
}
