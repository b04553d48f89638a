//! The thread that makes a blob: digest of what comes, compression, sealing, parts.

use super::cipher::Sealer;
use super::cut::{Back, Cut, Cutter};
use super::throttle::Throttle;
use crate::backup::{Compression, Method};
use bytes::Bytes;
use flate2::write::GzEncoder;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// Window of zstd, binary logarithm: 1 MiB.
pub(super) const WINDOW_LOG: u32 = 20;
/// What one thread of zstd compresses at once. Its buffers are a multiple of it (two threads: five in, up to seven out); half of the
/// window costs neither time nor size here and is the least that zstd takes.
const JOB: u32 = 512 << 10;
/// Bytes taken from the compressor at once.
const OUT: usize = 128 << 10;

/// What comes from the source. No end without [`Piece::End`]: a stream that just stops is not whole.
pub(super) enum Piece {
    Bytes(Bytes),
    /// The source has said that it was all, and good.
    End,
}

/// What was made.
pub(super) struct Packed {
    pub(super) plain_bytes: u64,
    pub(super) plain_digest: blake3::Hash,
    pub(super) cut: Cut,
}

/// What others see of the thread.
#[derive(Default)]
pub(super) struct Seen {
    /// Plain bytes taken.
    pub(super) plain: AtomicU64,
    /// Bytes a second it is held to; 0: not.
    pub(super) held_to: AtomicU64,
}

/// The thread's work. `Ok(None)`: the source went away without an end, nothing was finished.
pub(super) fn run(
    mut input: mpsc::Receiver<Piece>,
    back: &Back,
    mut throttle: Throttle<'_>,
    seen: &Seen,
    (compression, threads): (Compression, u32),
    sealer: Option<Sealer>,
    cutter: Cutter,
) -> io::Result<Option<Packed>> {
    let mut out = Sink { sealer, cutter };
    let mut squeezer = Squeezer::new(compression, threads)?;
    let mut digest = blake3::Hasher::new();
    let mut plain_bytes = 0;
    loop {
        match input.blocking_recv() {
            Some(Piece::Bytes(bytes)) => {
                throttle.take(bytes.len(), || out.cutter.is_given_up());
                digest.update(&bytes);
                squeezer.push(&bytes, &mut out)?;
                plain_bytes += bytes.len() as u64;
                seen.plain.store(plain_bytes, Ordering::Relaxed);
                back.put(bytes);
            }
            Some(Piece::End) => break,
            None => return Ok(None),
        }
    }
    squeezer.finish(&mut out)?;
    Ok(Some(Packed {
        plain_bytes,
        plain_digest: digest.finalize(),
        cut: out.finish()?,
    }))
}

/// Where compressed bytes go.
struct Sink {
    sealer: Option<Sealer>,
    cutter: Cutter,
}

impl Sink {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sealer {
            Some(sealer) => sealer.push(bytes, |sealed| self.cutter.push(sealed)),
            None => self.cutter.push(bytes),
        }
    }

    fn finish(mut self) -> io::Result<Cut> {
        if let Some(sealer) = self.sealer {
            sealer.finish(|sealed| self.cutter.push(sealed))?;
        }
        self.cutter.finish()
    }
}

/// A compressor.
enum Squeezer {
    Zstd(Encoder<'static>, Box<[u8]>),
    Gzip(GzEncoder<Vec<u8>>),
    None,
}

impl Squeezer {
    fn new(compression: Compression, threads: u32) -> io::Result<Self> {
        Ok(match compression.method {
            Method::Zstd => {
                let mut encoder = Encoder::new(compression.level)?;
                encoder.set_parameter(CParameter::WindowLog(compression.window_log))?;
                // We take a digest of our own, of the plain stream and of the blob.
                encoder.set_parameter(CParameter::ChecksumFlag(false))?;
                if threads > 0 {
                    encoder.set_parameter(CParameter::NbWorkers(threads))?;
                    encoder.set_parameter(CParameter::JobSize(JOB))?;
                }
                Self::Zstd(encoder, vec![0; OUT].into_boxed_slice())
            }
            Method::Gzip => {
                let level = flate2::Compression::new(compression.level.clamp(1, 9) as u32);
                Self::Gzip(GzEncoder::new(Vec::with_capacity(OUT), level))
            }
            Method::None => Self::None,
        })
    }

    fn push(&mut self, plain: &[u8], out: &mut Sink) -> io::Result<()> {
        match self {
            Self::Zstd(encoder, buffer) => {
                let mut input = InBuffer::around(plain);
                while input.pos() < plain.len() {
                    let made = step(encoder, buffer, |encoder, output| encoder.run(&mut input, output))?;
                    out.push(&buffer[..made.bytes])?;
                }
                Ok(())
            }
            Self::Gzip(encoder) => {
                encoder.write_all(plain)?;
                out.push(encoder.get_ref())?;
                encoder.get_mut().clear();
                Ok(())
            }
            Self::None => out.push(plain),
        }
    }

    fn finish(self, out: &mut Sink) -> io::Result<()> {
        match self {
            Self::Zstd(mut encoder, mut buffer) => loop {
                let made = step(&mut encoder, &mut buffer, |encoder, output| encoder.finish(output, true))?;
                out.push(&buffer[..made.bytes])?;
                if made.left == 0 {
                    return Ok(());
                }
            },
            Self::Gzip(encoder) => out.push(&encoder.finish()?),
            Self::None => Ok(()),
        }
    }
}

/// What one call of the compressor did.
struct Made {
    bytes: usize,
    left: usize,
}

fn step(
    encoder: &mut Encoder<'static>,
    buffer: &mut [u8],
    act: impl FnOnce(&mut Encoder<'static>, &mut OutBuffer<'_, [u8]>) -> io::Result<usize>,
) -> io::Result<Made> {
    let mut output = OutBuffer::around(buffer);
    let left = act(encoder, &mut output)?;
    Ok(Made {
        bytes: output.pos(),
        left,
    })
}
