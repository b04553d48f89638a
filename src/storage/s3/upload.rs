//! An upload in parts.

use super::S3Store;
use crate::storage::{Meta, ObjectName, PartPlan, PartsDigest, Receipt, Retry, StorageError, StorageErrorKind, Store, Upload};
use async_trait::async_trait;
use bytes::Bytes;
use md5::{Digest, Md5};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, PutPayload};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;

/// How long giving up may take.
const ABORT: Duration = Duration::from_secs(30);

pub(super) struct S3Upload {
    name: ObjectName,
    plan: PartPlan,
    digest: PartsDigest,
    /// What the store answered to each part.
    parts: Mutex<BTreeMap<u32, PartId>>,
    open: Arc<Open>,
}

/// The upload as the store knows it.
struct Open {
    store: S3Store,
    path: Path,
    place: String,
    id: MultipartId,
    over: AtomicBool,
}

impl Open {
    async fn abort(&self) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        let s3 = &self.store.inner.s3;
        let attempt = || async {
            let done = s3.abort_multipart(&self.path, &self.id).await;
            done.map_err(|error| super::error::of("abort", &self.place, error))
        };
        match Retry::new(ABORT).run("abort", &self.place, attempt).await {
            Err(error) if error.kind != StorageErrorKind::NotFound => {
                warn!(error = %error, "upload could not be aborted; sweep will do it");
            }
            _ => {}
        }
    }
}

impl S3Upload {
    pub(super) fn new(store: S3Store, name: ObjectName, path: Path, id: MultipartId, plan: PartPlan) -> Self {
        let open = Open {
            place: store.location(&name),
            store,
            path,
            id,
            over: AtomicBool::new(false),
        };
        Self {
            name,
            plan,
            digest: PartsDigest::default(),
            parts: Mutex::default(),
            open: Arc::new(open),
        }
    }

    fn parts(&self) -> BTreeMap<u32, PartId> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn complete(&self, bytes: u64) -> Result<(), StorageError> {
        let open = &self.open;
        let parts: Vec<PartId> = self.parts().into_values().collect();
        let wanted = tag(&parts);
        let attempt = || async {
            let done = open
                .store
                .inner
                .s3
                .complete_multipart(&open.path, &open.id, parts.clone())
                .await;
            done.map_err(|error| super::error::of("finish", &open.place, error))
        };
        let limit = Retry::new(open.store.inner.limit);
        let done = limit.run("finish", &open.place, attempt).await;
        let found = open.store.head(&self.name).await?;
        let there = found.as_ref().map(|meta| (meta.size, meta.e_tag.as_deref().map(plain)));
        match (done, there) {
            (Ok(made), Some((size, tag))) => {
                let same = made.e_tag.as_deref().map(plain) == tag;
                if size == bytes || !same {
                    // Another tag: somebody replaced it meanwhile, after ours was whole.
                    return Ok(());
                }
                // What is there is ours and not what was sent.
                let _ = open.store.delete(&self.name).await;
                let what = format!("{bytes} bytes were sent, the store has {size}");
                Err(StorageError::new(StorageErrorKind::Corrupt, "finish", &open.place, what))
            }
            (Ok(_), None) => {
                let what = "the store confirmed it and does not have it";
                Err(StorageError::new(StorageErrorKind::Corrupt, "finish", &open.place, what))
            }
            // The answer to an earlier try was lost, and the upload is no more because it is the object now.
            (Err(_), Some((size, tag))) if size == bytes && tag.is_some() && tag == wanted => Ok(()),
            (Err(error), _) => Err(error),
        }
    }
}

/// An ETag without its quotes.
fn plain(tag: &str) -> String {
    tag.trim_matches('"').to_lowercase()
}

/// The ETag that S3 gives to an object of these parts; `None` if the store's tags are of another form.
fn tag(parts: &[PartId]) -> Option<String> {
    let mut md5 = Md5::new();
    for part in parts {
        let part: [u8; 16] = hex::decode(plain(&part.content_id)).ok()?.try_into().ok()?;
        md5.update(part);
    }
    Some(format!("{}-{}", hex::encode(md5.finalize()), parts.len()))
}

#[async_trait]
impl Upload for S3Upload {
    fn part_bytes(&self, index: u32) -> usize {
        self.plan.part_bytes(index)
    }

    async fn part(&self, index: u32, body: Bytes) -> Result<(), StorageError> {
        let (open, most) = (&self.open, self.part_bytes(index));
        if body.len() > most {
            let what = format!("a part has {} bytes, at most {most} are expected", body.len());
            return Err(StorageError::invalid("write a part of", &open.place, what));
        }
        if index >= PartPlan::MOST {
            let what = "S3 takes 10,000 parts and no more";
            return Err(StorageError::new(
                StorageErrorKind::NoSpace,
                "write a part of",
                &open.place,
                what,
            ));
        }
        self.digest.add(index, &body);
        let s3 = &open.store.inner.s3;
        let payload = || PutPayload::from_bytes(body.clone());
        let sent = open.store.tried("write a part of", &open.place, || {
            s3.put_part(&open.path, &open.id, index as usize, payload())
        });
        let part = sent.await?;
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(index, part);
        Ok(())
    }

    async fn finish(&self, meta: &Meta) -> Result<Receipt, StorageError> {
        let open = &self.open;
        if open.over.load(Ordering::Acquire) {
            return Err(StorageError::invalid("finish", &open.place, "the upload is over"));
        }
        let bytes = self.digest.whole(|index| self.part_bytes(index));
        let done = match bytes {
            Err(what) => Err(StorageError::invalid("finish", &open.place, what)),
            // S3 makes no object of no parts.
            Ok(0) => {
                open.abort().await;
                let empty = open.store.put(&self.name, Bytes::new(), meta).await;
                return empty.map(|receipt| Receipt {
                    checksum: self.digest.hex(),
                    ..receipt
                });
            }
            Ok(bytes) => self.complete(bytes).await.map(|()| bytes),
        };
        match done {
            Ok(bytes) => {
                open.over.store(true, Ordering::Release);
                Ok(Receipt {
                    location: open.place.clone(),
                    bytes,
                    checksum: self.digest.hex(),
                })
            }
            Err(error) => {
                open.abort().await;
                Err(error)
            }
        }
    }

    async fn abort(&self) {
        self.open.abort().await;
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.open.over.load(Ordering::Acquire), tokio::runtime::Handle::try_current()) {
            let open = self.open.clone();
            runtime.spawn(async move { open.abort().await });
        }
    }
}
