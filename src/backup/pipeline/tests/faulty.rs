//! A store that fails on order, in front of a real one.

use crate::storage::{Body, Meta, ObjectName, Receipt, Stat, StorageError, StorageErrorKind, Store, Upload};
use async_trait::async_trait;
use bytes::Bytes;
use datastore_api::Change;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// What goes wrong.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    /// From this part on every call fails so.
    pub(super) gone_after: Option<(u32, StorageErrorKind)>,
    /// The part is taken and thrown away.
    pub(super) loses: Option<u32>,
    /// The bytes of the one are stored as the other, and the other way round.
    pub(super) swaps: Option<(u32, u32)>,
    /// The second is stored with the bytes of the first.
    pub(super) repeats: Option<(u32, u32)>,
    /// A bit of this part changes on its way.
    pub(super) flips: Option<u32>,
    /// The part arrives without its last byte.
    pub(super) shortens: Option<u32>,
    /// The whole cannot be made.
    pub(super) no_finish: Option<StorageErrorKind>,
    /// The store says it has one byte less.
    pub(super) finishes_short: bool,
    /// Small objects cannot be written.
    pub(super) no_put: Option<StorageErrorKind>,
    /// Reads break after so many bytes, so many times.
    pub(super) breaks: Option<(u64, u32)>,
    /// A read ends there as if it were the end, always.
    pub(super) ends_at: Option<u64>,
    /// A bit of the byte at this offset changes on its way back.
    pub(super) flips_back: Option<u64>,
    /// No more than this many bytes by one call.
    pub(super) sips: Option<usize>,
    /// After so many bytes nothing comes any more.
    pub(super) hangs_at: Option<u64>,
}

pub(super) struct Faulty {
    pub(super) inner: Arc<dyn Store>,
    pub(super) faults: Faults,
    broken: AtomicU32,
}

pub(super) fn faulty(inner: Arc<dyn Store>, faults: Faults) -> Arc<dyn Store> {
    let broken = AtomicU32::new(0);
    Arc::new(Faulty { inner, faults, broken })
}

fn error(kind: StorageErrorKind, doing: &'static str) -> StorageError {
    StorageError::new(kind, doing, "the store", "it was told to fail")
}

#[async_trait]
impl Store for Faulty {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn place(&self) -> String {
        self.inner.place()
    }
    async fn check(&self) -> Result<(), StorageError> {
        self.inner.check().await
    }
    async fn begin(&self, name: &ObjectName, expected: Option<u64>) -> Result<Box<dyn Upload>, StorageError> {
        let inner = self.inner.begin(name, expected).await?;
        let faults = self.faults;
        Ok(Box::new(FaultyUpload {
            inner,
            faults,
            held: tokio::sync::Mutex::default(),
        }))
    }
    async fn put(&self, name: &ObjectName, body: Bytes, meta: &Meta) -> Result<Receipt, StorageError> {
        match self.faults.no_put {
            Some(kind) => Err(error(kind, "put")),
            None => self.inner.put(name, body, meta).await,
        }
    }
    async fn get(&self, name: &ObjectName) -> Result<(Stat, Body), StorageError> {
        self.inner.get(name).await
    }
    async fn get_from(&self, name: &ObjectName, offset: u64) -> Result<Body, StorageError> {
        let mut body = self.inner.get_from(name, offset).await?;
        if let Some(end) = self.faults.ends_at {
            body = Box::pin(body.take(end.saturating_sub(offset)));
        }
        let breaks = self.faults.breaks.filter(|(_, times)| {
            let so_far = self.broken.fetch_add(1, Ordering::Relaxed);
            so_far < *times
        });
        Ok(Box::pin(FaultyBody {
            body,
            at: offset,
            breaks_in: breaks.map(|(bytes, _)| bytes),
            faults: self.faults,
        }))
    }
    async fn stat(&self, name: &ObjectName) -> Result<Option<Stat>, StorageError> {
        self.inner.stat(name).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Stat>, StorageError> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<Change, StorageError> {
        self.inner.delete(name).await
    }
    fn location(&self, name: &ObjectName) -> String {
        self.inner.location(name)
    }
    fn name_at(&self, location: &str) -> Option<ObjectName> {
        self.inner.name_at(location)
    }
    async fn sweep(&self, older: Duration) -> Result<u64, StorageError> {
        self.inner.sweep(older).await
    }
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    faults: Faults,
    /// Parts that wait for the one they are confused with.
    held: tokio::sync::Mutex<Option<Bytes>>,
}

#[async_trait]
impl Upload for FaultyUpload {
    fn part_bytes(&self, index: u32) -> usize {
        self.inner.part_bytes(index)
    }

    async fn part(&self, index: u32, body: Bytes) -> Result<(), StorageError> {
        let faults = &self.faults;
        if let Some((_, kind)) = faults.gone_after.filter(|(from, _)| index >= *from) {
            return Err(error(kind, "write part of"));
        }
        if faults.loses == Some(index) {
            return Ok(());
        }
        if let Some((one, other)) = faults.swaps
            && (index == one || index == other)
        {
            let mut held = self.held.lock().await;
            return match held.take() {
                None => {
                    *held = Some(body);
                    Ok(())
                }
                Some(first) => {
                    self.inner.part(one, body).await?;
                    self.inner.part(other, first).await
                }
            };
        }
        if let Some((one, other)) = faults.repeats {
            let mut held = self.held.lock().await;
            if index == one {
                *held = Some(body.clone());
            } else if index == other
                && let Some(first) = held.take()
            {
                return self.inner.part(other, first).await;
            }
        }
        let mut bytes = body.to_vec();
        if faults.flips == Some(index) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }
        if faults.shortens == Some(index) {
            bytes.pop();
        }
        self.inner.part(index, bytes.into()).await
    }

    async fn finish(&self, meta: &Meta) -> Result<Receipt, StorageError> {
        if let Some(kind) = self.faults.no_finish {
            return Err(error(kind, "finish"));
        }
        let mut receipt = self.inner.finish(meta).await?;
        if self.faults.finishes_short {
            receipt.bytes -= 1;
        }
        Ok(receipt)
    }

    async fn abort(&self) {
        self.inner.abort().await;
    }
}

struct FaultyBody {
    body: Body,
    at: u64,
    breaks_in: Option<u64>,
    faults: Faults,
}

impl AsyncRead for FaultyBody {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.faults.hangs_at.is_some_and(|at| this.at >= at) {
            return Poll::Pending;
        }
        if this.breaks_in == Some(0) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = [
            this.breaks_in,
            this.faults.sips.map(|n| n as u64),
            this.faults.hangs_at.map(|at| at - this.at),
        ];
        let most = most.into_iter().flatten().min().unwrap_or(u64::MAX);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = vec![0; most];
        let mut part = ReadBuf::new(&mut part);
        std::task::ready!(this.body.as_mut().poll_read(cx, &mut part))?;
        let got = part.filled_mut();
        if let Some(place) = this.faults.flips_back.and_then(|offset| offset.checked_sub(this.at))
            && let Some(byte) = got.get_mut(place as usize)
        {
            *byte ^= 1;
        }
        this.at += got.len() as u64;
        if let Some(left) = &mut this.breaks_in {
            *left -= got.len() as u64;
        }
        buf.put_slice(got);
        Poll::Ready(Ok(()))
    }
}
