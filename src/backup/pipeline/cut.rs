//! A fixed number of buffers that go round, and the cutting of a stream into parts with them.

use bytes::{Bytes, BytesMut};
use std::io;
use tokio::sync::mpsc;

/// Buffers on their way back.
#[derive(Clone)]
pub(super) struct Back(mpsc::Sender<BytesMut>);

/// Empty buffers. Who waits for one waits for the slowest.
pub(super) type Empty = mpsc::Receiver<BytesMut>;

/// `count` buffers; the memory comes when they are first filled.
pub(super) fn buffers(count: usize) -> (Back, Empty) {
    let (back, empty) = mpsc::channel(count);
    for _ in 0..count {
        back.try_send(BytesMut::new())
            .expect("there is room for as many as there are");
    }
    (Back(back), empty)
}

impl Back {
    /// A buffer comes back; if somebody still holds its bytes, a new one takes its place.
    pub(super) fn put(&self, used: Bytes) {
        let mut buffer = used.try_into_mut().unwrap_or_default();
        buffer.clear();
        // Fails only if nobody wants buffers any more.
        let _ = self.0.try_send(buffer);
    }
}

/// What was cut.
pub(super) struct Cut {
    pub(super) bytes: u64,
    pub(super) digest: blake3::Hash,
    pub(super) parts: u32,
}

/// Cuts a stream into parts and takes its digest.
pub(super) struct Cutter {
    sizes: Box<dyn Fn(u32) -> usize + Send>,
    part: Option<BytesMut>,
    empty: Empty,
    full: mpsc::Sender<Bytes>,
    digest: blake3::Hasher,
    bytes: u64,
    parts: u32,
}

impl Cutter {
    /// `sizes` says how long the part of an index must be. `full` must have room for as many parts as there are buffers.
    pub(super) fn new(sizes: Box<dyn Fn(u32) -> usize + Send>, empty: Empty, full: mpsc::Sender<Bytes>) -> Self {
        Self {
            sizes,
            part: None,
            empty,
            full,
            digest: blake3::Hasher::new(),
            bytes: 0,
            parts: 0,
        }
    }

    /// Whether nobody uploads any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.full.is_closed()
    }

    /// Takes bytes. Waits for an empty buffer; `BrokenPipe` if nobody uploads any more.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let size = (self.sizes)(self.parts).max(1);
            let part = match &mut self.part {
                Some(part) => part,
                none => {
                    let mut part = self.empty.blocking_recv().ok_or(io::ErrorKind::BrokenPipe)?;
                    part.reserve(size);
                    none.insert(part)
                }
            };
            let (now, rest) = bytes.split_at(bytes.len().min(size - part.len()));
            part.extend_from_slice(now);
            bytes = rest;
            if part.len() == size {
                self.cut()?;
            }
        }
        Ok(())
    }

    /// The end: the last part, which may be shorter.
    pub(super) fn finish(mut self) -> io::Result<Cut> {
        self.cut()?;
        Ok(Cut {
            bytes: self.bytes,
            digest: self.digest.finalize(),
            parts: self.parts,
        })
    }

    fn cut(&mut self) -> io::Result<()> {
        if let Some(part) = self.part.take() {
            self.parts = self.parts.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
            self.full
                .blocking_send(part.freeze())
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    }
}
