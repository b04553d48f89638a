//! Uploads into a folder: each part at its offset in an unfinished file, which gets its name when all of it is on the disk.

use super::FileStore;
use super::folder::Folder;
use crate::storage::{Meta, ObjectName, PartsDigest, Receipt, StorageError, StorageErrorKind, Store, Upload};
use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;

/// Bytes a second that a disk writes at least.
const SLOWEST: u64 = 4 << 20;

pub(super) struct FileUpload {
    pub(super) store: FileStore,
    pub(super) name: ObjectName,
    pub(super) digest: Arc<PartsDigest>,
    pub(super) open: Arc<Open>,
}

/// The unfinished file. Dropped, it is removed.
pub(super) struct Open {
    pub(super) folder: Folder,
    pub(super) file: File,
    /// Name of the unfinished file.
    unfinished: String,
    /// Whether it has got its own name, or is removed. Locked while either is done: who gave up waiting for a disk that hangs must
    /// not find the object there when the disk comes back.
    over: Mutex<bool>,
}

impl Open {
    pub(super) fn new(folder: Folder, name: &str) -> rustix::io::Result<Self> {
        let (file, unfinished) = folder.unfinished(name)?;
        Ok(Self {
            folder,
            file,
            unfinished,
            over: Mutex::new(false),
        })
    }

    /// Everything to the disk, then the name.
    pub(super) fn finish(&self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if *over {
            return Err(io::Error::other("the upload was given up"));
        }
        self.folder.finish(&self.unfinished, name)?;
        *over = true;
        Ok(())
    }

    /// Removes it, unless it has its name.
    pub(super) fn remove(&self) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *over, true)
            && let Err(error) = self.folder.remove(&self.unfinished)
        {
            warn!(file = self.unfinished, %error, "unfinished backup could not be removed; sweep will do it");
        }
    }

    /// Whether nothing is left to remove. A lock that is taken belongs to somebody who sees to it.
    fn is_over(&self) -> bool {
        self.over.try_lock().map_or(true, |over| *over)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A folder on a dead mount must not hold up the runtime, hence the other thread.
impl Drop for FileUpload {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.open.is_over(), tokio::runtime::Handle::try_current()) {
            let open = self.open.clone();
            runtime.spawn_blocking(move || open.remove());
        }
    }
}

#[async_trait]
impl Upload for FileUpload {
    fn part_bytes(&self, _index: u32) -> usize {
        self.store.inner.part_bytes
    }

    async fn part(&self, index: u32, body: Bytes) -> Result<(), StorageError> {
        let size = self.store.inner.part_bytes;
        let place = self.store.location(&self.name);
        if body.len() > size {
            let what = format!("a part has {} bytes, at most {size} are expected", body.len());
            return Err(StorageError::invalid("write a part of", place, what));
        }
        let (open, digest) = (self.open.clone(), self.digest.clone());
        self.store
            .blocking("write a part of", place, move |doing, place| {
                let at = u64::from(index) * size as u64;
                let written = open.file.write_all_at(&body, at);
                written.map_err(|error| StorageError::io(doing, place, error))?;
                // Begins to write it out, so that the end has little left to wait for. It is advice: errors do not matter.
                let _ = rustix::fs::fadvise(&open.file, at, NonZeroU64::new(body.len() as u64), Advice::DontNeed);
                digest.add(index, &body);
                Ok(())
            })
            .await
    }

    async fn finish(&self, _meta: &Meta) -> Result<Receipt, StorageError> {
        let place = self.store.location(&self.name);
        let bytes = self.digest.whole(|_| self.store.inner.part_bytes);
        let bytes = bytes.map_err(|what| StorageError::invalid("finish", &place, what))?;
        let (store, open, name) = (self.store.clone(), self.open.clone(), self.name.clone());
        // What is not on the disk yet is written now.
        let limit = self.store.inner.limit + Duration::from_secs(bytes / SLOWEST);
        let done = self.store.blocking_for(limit, "finish", place.clone(), move |doing, place| {
            let io = |error| StorageError::io(doing, place, error);
            let found = open.file.metadata().map_err(io)?.len();
            if found != bytes {
                let what = format!("{bytes} bytes were written, the file has {found}");
                return Err(StorageError::new(StorageErrorKind::Corrupt, doing, place, what));
            }
            // The folder that is open may be another one than the path leads to by now: unmounted, or mounted over.
            let (there, _) = store.inner.parent(&name, doing)?;
            if there.identity().ok() != open.folder.identity().ok() {
                let what = "the folder is not the one any more that the upload began in";
                return Err(StorageError::new(StorageErrorKind::Unreachable, doing, place, what));
            }
            let (_, last) = super::split(&name);
            open.finish(last).map_err(io)
        });
        if let Err(error) = done.await {
            self.abort().await;
            return Err(error);
        }
        Ok(Receipt {
            location: place,
            bytes,
            checksum: self.digest.hex(),
        })
    }

    async fn abort(&self) {
        let open = self.open.clone();
        let removed = self.store.blocking("abort", self.store.location(&self.name), move |_, _| {
            open.remove();
            Ok(())
        });
        if let Err(error) = removed.await {
            warn!(error = %error, "upload could not be aborted");
        }
    }
}
