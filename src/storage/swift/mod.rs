//! Backups in OpenStack Swift, in upstream's layout: its taskmanager deletes ours, its restore code reads those in its format.
//!
//! Owns: the client of one container, finding account and token, the layout of large objects. Uses: nothing of ours but the
//! traits of `storage`. Never does: follow redirections, or show a token.
//!
//! The token is the user's, and may expire during a long backup: then the error says so. It is renewed only where we have the
//! means: from Keystone, or by credentials of our own.

mod auth;
mod body;
mod client;
mod layout;
mod pieces;
#[cfg(test)]
mod tests;
mod upload;

use super::retry::random;
use super::{
    Access, Body, Meta, ObjectName, Place, Receipt, Retry, Settings, Stat, StorageError, StorageErrorKind, Store, Upload,
};
use async_trait::async_trait;
use auth::Auth;
use bytes::Bytes;
use client::{Ask, StoreClient};
use datastore_api::Change;
use layout::Plan;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;
use upload::{SwiftUpload, put_bytes};

/// How long a server may be silent before a request is tried again.
const WAIT: Duration = Duration::from_secs(90);
/// Longest value of a fact beside an object that every Swift takes, bytes.
const META_VALUE: usize = 256;

/// One container.
pub struct Swift {
    client: Arc<StoreClient>,
    part_bytes: usize,
}

/// Opens a container. The account is the one that request and settings tell; a URL in `place` tells only the container, unless
/// nobody else tells the account: a token goes nowhere else.
///
/// # Errors
/// `Invalid` for a URL or a container that cannot be; `Refused` if there is neither a token nor credentials.
pub fn open(settings: &Settings, place: &Place, access: &Access) -> Result<Arc<dyn Store>, StorageError> {
    Ok(Arc::new(Swift::new(settings, place, access)?))
}

impl Swift {
    fn new(settings: &Settings, place: &Place, access: &Access) -> Result<Self, StorageError> {
        let default = access.swift_container.as_ref().unwrap_or(&settings.swift.container);
        let (account, container) = match place.rest.rsplit_once('/') {
            Some((account, container)) if account.contains("://") => (Some(account), container),
            None if !place.rest.is_empty() => (None, place.rest.as_str()),
            None => (None, default.as_str()),
            Some(_) => return Err(StorageError::invalid("open", place, "a container has no '/' in its name")),
        };
        if container.is_empty() || container.len() > 256 || container.contains('/') || [".", ".."].contains(&container) {
            return Err(StorageError::invalid(
                "open",
                place,
                "expected the name of a container, at most 256 bytes",
            ));
        }
        let auth = Auth::find(&settings.swift, account, access)?;
        let wait = WAIT.min(settings.limit / 2).max(Duration::from_millis(100));
        let retry = Retry::new(settings.limit);
        Ok(Self {
            client: Arc::new(StoreClient::new(&settings.swift, auth, container.to_owned(), wait, retry)?),
            part_bytes: settings.part_bytes.max(1),
        })
    }

    async fn stat_now(&self, name: &ObjectName) -> Result<Option<Stat>, StorageError> {
        match self.client.send("look at", &Ask::new(Method::HEAD, name.as_str())).await {
            Ok(answer) => Ok(Some(body::stat_of(name, &answer))),
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The facts beside an object as headers, or what is wrong with one.
fn object_headers(meta: &Meta) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (key, value) in meta {
        let name = format!("x-object-meta-{}", key.replace('_', "-"));
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{key:?} cannot be the key of a fact beside an object"))?;
        if value.len() > META_VALUE {
            return Err(format!("the fact {key:?} beside it is longer than {META_VALUE} bytes"));
        }
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("the fact {key:?} beside it has control characters"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

#[async_trait]
impl Store for Swift {
    fn kind(&self) -> &'static str {
        "swift"
    }

    fn place(&self) -> String {
        self.client.url()
    }

    async fn check(&self) -> Result<(), StorageError> {
        match self.client.send("open", &Ask::new(Method::HEAD, "")).await {
            Ok(_) => {}
            Err(error) if error.kind == StorageErrorKind::NotFound => {
                self.client.send("make", &Ask::new(Method::PUT, "")).await?;
            }
            Err(error) => return Err(error),
        }
        // Who may look may not be allowed to write.
        let probe = format!(".probe-{:016x}", random());
        put_bytes(&self.client, &Ask::new(Method::PUT, &probe), Bytes::from_static(b"x")).await?;
        pieces::remove(&self.client, &probe).await?;
        Ok(())
    }

    async fn begin(&self, name: &ObjectName, _expected: Option<u64>) -> Result<Box<dyn Upload>, StorageError> {
        self.client.send("open", &Ask::new(Method::HEAD, "")).await?;
        let limits = self.client.limits().await?;
        let replaces = self.stat_now(name).await?.is_some();
        let base = layout::base(name.as_str(), replaces, random());
        // What a broken upload of the same backup left must not end up in this one's large object.
        if let Some(stem) = layout::upstream_stem(name.as_str()).filter(|stem| *stem == base) {
            let left = pieces::list(&self.client, &format!("{stem}_")).await?;
            pieces::remove_all(&self.client, left.into_iter().map(|piece| piece.name).collect()).await?;
        }
        let plan = Plan::new(limits, self.part_bytes);
        let upload = SwiftUpload::new(self.client.clone(), name.clone(), base, plan, self.part_bytes);
        Ok(Box::new(upload))
    }

    async fn put(&self, name: &ObjectName, body: Bytes, meta: &Meta) -> Result<Receipt, StorageError> {
        let mut ask = Ask::new(Method::PUT, name.as_str());
        ask.headers =
            object_headers(meta).map_err(|what| StorageError::invalid("write", self.client.place(name.as_str()), what))?;
        let before = pieces::of(&self.client, name.as_str()).await?;
        let bytes = body.len() as u64;
        let checksum = put_bytes(&self.client, &ask, body).await?;
        pieces::remove_all(&self.client, before).await?;
        Ok(Receipt {
            location: self.location(name),
            bytes,
            checksum,
        })
    }

    async fn get(&self, name: &ObjectName) -> Result<(Stat, Body), StorageError> {
        body::open(&self.client, name).await
    }

    async fn get_from(&self, name: &ObjectName, offset: u64) -> Result<Body, StorageError> {
        body::open_from(&self.client, name, offset).await
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<Stat>, StorageError> {
        self.stat_now(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Stat>, StorageError> {
        let mut found = Vec::new();
        for object in pieces::list(&self.client, prefix).await? {
            if layout::base_of_piece(&object.name).is_some() {
                continue;
            }
            // Others may keep things here under names that we do not use.
            let Ok(name) = ObjectName::new(object.name.clone()) else {
                continue;
            };
            // A dynamic large object is listed as empty.
            if object.bytes == 0 {
                found.extend(self.stat_now(&name).await?);
                continue;
            }
            let quoted = object.slo_etag.as_ref().unwrap_or(&object.hash);
            found.push(Stat {
                checksum: Some(quoted.trim_matches('"').to_ascii_lowercase()),
                modified: object.modified(),
                bytes: object.bytes,
                meta: Meta::new(),
                name,
            });
        }
        Ok(found)
    }

    async fn delete(&self, name: &ObjectName) -> Result<Change, StorageError> {
        pieces::delete(&self.client, name.as_str()).await
    }

    fn location(&self, name: &ObjectName) -> String {
        self.client.place(name.as_str())
    }

    fn name_at(&self, location: &str) -> Option<ObjectName> {
        if let Some(rest) = location.strip_prefix(&format!("{}/", self.client.url())) {
            return ObjectName::new(rest).ok();
        }
        // As upstream: the last two parts count, whatever the account's URL was when this was written.
        let mut parts = location.rsplitn(3, '/');
        let (name, container, account) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = container == self.client.container && account.starts_with("http");
        ours.then(|| ObjectName::new(name).ok()).flatten()
    }

    async fn sweep(&self, older: Duration) -> Result<u64, StorageError> {
        pieces::sweep(&self.client, older).await
    }
}
