//! Backups in a store that speaks S3: Amazon's, Ceph, MinIO, R2, or Swift by its s3api.
//!
//! Owns: paths of the form `bucket/prefix/name`, uploads in parts ([`upload`]), and what unfinished uploads leave ([`leftovers`]).
//! Uses: `object_store` for signatures and the wire, over a client of ours: one TLS stack, a limit for every wait, and each
//! request once, since the retries are ours. Never does: make a bucket.
//!
//! Every body is signed, so the store refuses one that was changed on its way, also over plain HTTP. Facts beside objects are
//! dropped: S3 wants them before the upload begins, and they are known at its end.

mod credentials;
mod error;
mod leftovers;
mod upload;

#[cfg(test)]
mod tests;

use super::{
    Access, Body, Meta, ObjectName, PartPlan, PartsDigest, Place, Receipt, Retry, Settings, Stat, StorageError, StorageErrorKind,
    Store, Upload, body, retry,
};
use async_trait::async_trait;
use bytes::Bytes;
use datastore_api::{Change, ExposeSecret};
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::io::StreamReader;
use upload::S3Upload;

/// Least length of a part that is not the last.
const LEAST_PART: usize = 5 << 20;
/// Limit of a connection's beginning.
const CONNECT: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unconfirmed by the peer's kernel.
const UNCONFIRMED: Duration = Duration::from_secs(60);

/// A bucket, or what is below a prefix in it. Clones are handles of the same one.
#[derive(Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

struct Inner {
    s3: AmazonS3,
    http: reqwest::Client,
    bucket: String,
    /// Before every name: empty, or with a slash at its end.
    prefix: String,
    part_bytes: usize,
    limit: Duration,
}

/// Gives `object_store` our client.
#[derive(Debug)]
struct Ours(reqwest::Client);

impl HttpConnector for Ours {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// Opens the store `s3://bucket/prefix`.
pub(super) fn open(settings: &Settings, place: &Place, _access: &Access) -> Result<Arc<dyn Store>, StorageError> {
    S3Store::open(settings, place).map(|store| Arc::new(store) as Arc<dyn Store>)
}

impl S3Store {
    fn open(settings: &Settings, place: &Place) -> Result<Self, StorageError> {
        let invalid = |what: &'static str| StorageError::invalid("open", place, what);
        let (bucket, prefix) = place.rest.split_once('/').unwrap_or((&place.rest, ""));
        let fits = bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !fits || !(3..=255).contains(&bucket.len()) || bucket.starts_with('.') {
            return Err(invalid(
                "expected s3://bucket or s3://bucket/prefix, with the name of a bucket",
            ));
        }
        if !prefix.is_empty() {
            ObjectName::new(prefix)?;
        }
        let Some(file) = &settings.s3.credentials else {
            return Err(invalid("backup_s3_credentials is not set"));
        };
        let keys = credentials::read(file)?;
        let http = client(settings, place)?;
        let mut builder = AmazonS3Builder::new()
            .with_region(&settings.s3.region)
            .with_bucket_name(bucket)
            .with_access_key_id(&keys.access)
            .with_secret_access_key(keys.secret.expose_secret())
            .with_virtual_hosted_style_request(false)
            .with_disable_bulk_delete(true)
            .with_disable_tagging(true)
            .with_http_connector(Ours(http.clone()))
            .with_retry(RetryConfig {
                max_retries: 0,
                ..RetryConfig::default()
            });
        if let Some(token) = &keys.token {
            builder = builder.with_token(token.expose_secret());
        }
        if let Some(endpoint) = &settings.s3.endpoint {
            if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
                return Err(invalid("backup_s3_endpoint must begin with https:// or http://"));
            }
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let s3 = builder.build();
        let inner = Inner {
            s3: s3.map_err(|error| invalid("the settings of S3 do not fit together").because(error))?,
            http,
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            part_bytes: settings.part_bytes.max(LEAST_PART),
            limit: settings.limit,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn path(&self, name: &ObjectName) -> Path {
        Path::from(format!("{}{name}", self.inner.prefix))
    }

    /// Runs a request until it works or the limit is over.
    async fn tried<T, F>(
        &self,
        doing: &'static str,
        place: &str,
        mut request: impl FnMut() -> F + Send,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = object_store::Result<T>> + Send,
    {
        let attempt = || {
            let request = request();
            async move { request.await.map_err(|error| error::of(doing, place, error)) }
        };
        Retry::new(self.inner.limit).run(doing, place, attempt).await
    }

    fn told(&self, meta: ObjectMeta) -> Option<Stat> {
        let name = meta.location.as_ref().strip_prefix(&self.inner.prefix)?;
        Some(Stat {
            name: ObjectName::new(name).ok()?,
            bytes: meta.size,
            modified: Some(meta.last_modified.into()),
            checksum: meta.e_tag.map(|tag| tag.trim_matches('"').to_lowercase()),
            meta: BTreeMap::new(),
        })
    }

    async fn read(&self, name: &ObjectName, offset: u64) -> Result<(ObjectMeta, Body), StorageError> {
        let (path, place) = (self.path(name), self.location(name));
        let found: GetResult = self
            .tried("read", &place, || {
                let range = (offset > 0).then_some(GetRange::Offset(offset));
                let options = GetOptions {
                    range,
                    ..GetOptions::default()
                };
                self.inner.s3.get_opts(&path, options)
            })
            .await?;
        let meta = found.meta.clone();
        let left = meta.size.saturating_sub(offset);
        let stream = found.into_stream().map_err(std::io::Error::other);
        Ok((meta, body::exact(StreamReader::new(stream), left, self.inner.limit, place)))
    }

    async fn head(&self, name: &ObjectName) -> Result<Option<ObjectMeta>, StorageError> {
        let (path, place) = (self.path(name), self.location(name));
        match self.tried("look at", &place, || self.inner.s3.head(&path)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Our client: no wait without a limit, no redirect (a signature is for one host).
fn client(settings: &Settings, place: &Place) -> Result<reqwest::Client, StorageError> {
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .tcp_user_timeout(UNCONFIRMED)
        // Of an answer's beginning too, and that comes after the whole part is sent.
        .read_timeout(settings.limit / 2);
    if let Some(file) = &settings.s3.ca_file {
        let read = std::fs::read(file).map_err(|error| StorageError::io("read backup_s3_ca_file", file.display(), error))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&read).map_err(|error| {
            StorageError::invalid("read backup_s3_ca_file", file.display(), "it holds no certificates").because(error)
        })?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| {
        StorageError::new(StorageErrorKind::Failed, "open", place, "the HTTP client cannot be built").because(error)
    })
}

#[async_trait]
impl Store for S3Store {
    fn kind(&self) -> &'static str {
        "s3"
    }

    fn place(&self) -> String {
        let place = format!("s3://{}/{}", self.inner.bucket, self.inner.prefix);
        place.trim_end_matches('/').to_owned()
    }

    /// By beginning an upload and giving it up: unlike an object that is written and deleted it leaves no version behind.
    async fn check(&self) -> Result<(), StorageError> {
        let path = Path::from(format!("{}.check-{:016x}", self.inner.prefix, retry::random()));
        let place = self.place();
        let id = self.tried("use", &place, || self.inner.s3.create_multipart(&path)).await?;
        match self.tried("use", &place, || self.inner.s3.abort_multipart(&path, &id)).await {
            Err(error) if error.kind != StorageErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let options = || PaginatedListOptions {
            max_keys: Some(1),
            ..PaginatedListOptions::default()
        };
        let listed = self.tried("use", &place, || {
            self.inner.s3.list_paginated(Some(&self.inner.prefix), options())
        });
        listed.await.map(drop)
    }

    async fn begin(&self, name: &ObjectName, expected: Option<u64>) -> Result<Box<dyn Upload>, StorageError> {
        let (path, place) = (self.path(name), self.location(name));
        let id = self.tried("begin", &place, || self.inner.s3.create_multipart(&path)).await?;
        let plan = PartPlan::new(self.inner.part_bytes, expected);
        Ok(Box::new(S3Upload::new(self.clone(), name.clone(), path, id, plan)))
    }

    async fn put(&self, name: &ObjectName, body: Bytes, _meta: &Meta) -> Result<Receipt, StorageError> {
        let (path, place) = (self.path(name), self.location(name));
        self.tried("write", &place, || {
            self.inner.s3.put(&path, PutPayload::from_bytes(body.clone()))
        })
        .await?;
        Ok(Receipt {
            location: place,
            bytes: body.len() as u64,
            checksum: PartsDigest::of(&body),
        })
    }

    async fn get(&self, name: &ObjectName) -> Result<(Stat, Body), StorageError> {
        let (meta, body) = self.read(name, 0).await?;
        let stat = self.told(meta).ok_or_else(|| {
            let what = "the store answers with another name";
            StorageError::new(StorageErrorKind::Failed, "read", self.location(name), what)
        })?;
        Ok((stat, body))
    }

    async fn get_from(&self, name: &ObjectName, offset: u64) -> Result<Body, StorageError> {
        let refused = match self.read(name, offset).await {
            Ok((_, body)) => return Ok(body),
            Err(error) if error.kind == StorageErrorKind::Invalid => error,
            Err(error) => return Err(error),
        };
        // Nothing is left of it, or it is shorter: S3 answers both alike.
        match self.head(name).await? {
            Some(meta) if meta.size == offset => Ok(Box::pin(tokio::io::empty())),
            _ => Err(refused),
        }
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<Stat>, StorageError> {
        Ok(self.head(name).await?.and_then(|meta| self.told(meta)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Stat>, StorageError> {
        let (prefix, place) = (format!("{}{prefix}", self.inner.prefix), self.place());
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let options = || PaginatedListOptions {
                page_token: token.clone(),
                ..PaginatedListOptions::default()
            };
            let page = self.tried("list", &place, || self.inner.s3.list_paginated(Some(&prefix), options()));
            let page = page.await?;
            found.extend(page.result.objects.into_iter().filter_map(|meta| self.told(meta)));
            match page.page_token {
                Some(next) if token.as_ref() != Some(&next) => token = Some(next),
                Some(_) => {
                    let what = "the store answers the same page again and again";
                    return Err(StorageError::new(StorageErrorKind::Failed, "list", place, what));
                }
                None => break,
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn delete(&self, name: &ObjectName) -> Result<Change, StorageError> {
        // S3 answers the deletion of nothing like that of something.
        if self.head(name).await?.is_none() {
            return Ok(Change::Unchanged);
        }
        let (path, place) = (self.path(name), self.location(name));
        match self.tried("delete", &place, || self.inner.s3.delete(&path)).await {
            Err(error) if error.kind != StorageErrorKind::NotFound => Err(error),
            _ => Ok(Change::Done),
        }
    }

    fn location(&self, name: &ObjectName) -> String {
        format!("s3://{}/{}{name}", self.inner.bucket, self.inner.prefix)
    }

    fn name_at(&self, location: &str) -> Option<ObjectName> {
        let path = location
            .strip_prefix("s3://")?
            .strip_prefix(&self.inner.bucket)?
            .strip_prefix('/')?;
        ObjectName::new(path.strip_prefix(&self.inner.prefix)?).ok()
    }

    async fn sweep(&self, older: Duration) -> Result<u64, StorageError> {
        leftovers::sweep(self, older).await
    }
}
