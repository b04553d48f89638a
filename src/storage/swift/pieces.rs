//! What lies in the container: lists, the pieces of large objects, deleting, and what broken uploads left.

use super::body::http_time;
use super::client::{Ask, StoreClient, header, read_body};
use super::layout;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind::{Corrupt, NotFound};
use datastore_api::Change;
use futures_util::{StreamExt, TryStreamExt, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

/// Requests at once when many objects are deleted.
const AT_ONCE: usize = 8;
/// Names asked for at once. A server may answer fewer.
const PAGE: usize = 10_000;
/// Bytes of a page, at most: names are up to 1,024 bytes long.
const PAGE_BYTES: usize = 32 << 20;
/// Manifests within manifests; Swift itself stops at ten.
const DEPTH: u32 = 10;

/// A line of a container's list.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Listed {
    pub name: String,
    pub bytes: u64,
    pub hash: String,
    /// ETag of a static large object, quoted.
    #[serde(default)]
    pub slo_etag: Option<String>,
    /// UTC, without a zone.
    pub last_modified: String,
}

impl Listed {
    pub(super) fn modified(&self) -> Option<SystemTime> {
        let time = chrono::NaiveDateTime::parse_from_str(&self.last_modified, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
        Some(time.and_utc().into())
    }
}

/// Everything whose name begins with `prefix`, in the order of names.
pub(super) async fn list(client: &StoreClient, prefix: &str) -> Result<Vec<Listed>, StorageError> {
    let mut all: Vec<Listed> = Vec::new();
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    loop {
        let marker = all.last().map_or("", |last| &last.name);
        let query = format!("format=json&limit={PAGE}&prefix={}&marker={}", encode(prefix), encode(marker));
        let page: Vec<Listed> = json(client, &Ask::new(Method::GET, "").query(query)).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

async fn json<T: serde::de::DeserializeOwned>(client: &StoreClient, ask: &Ask) -> Result<T, StorageError> {
    let place = client.place(&ask.name);
    client
        .retry
        .run("list", &place, || async {
            let answer = client.once("list", ask).await?;
            let body = read_body(answer, PAGE_BYTES, client.wait)
                .await
                .map_err(|e| client.broken("list", &place, e))?;
            if body.is_empty() {
                return serde_json::from_slice(b"[]").map_err(|e| client.broken("list", &place, std::io::Error::from(e)));
            }
            serde_json::from_slice(&body).map_err(|e| {
                StorageError::new(Corrupt, "list", &place, "the server's answer is not what Swift answers").because(e)
            })
        })
        .await
}

/// A line of a manifest as Swift shows it.
#[derive(Debug, Deserialize)]
struct Line {
    name: String,
    #[serde(default)]
    sub_slo: bool,
}

/// Names of all pieces of an object in this container, of groups as well. None for a plain object, or if there is none.
pub(super) async fn of(client: &StoreClient, name: &str) -> Result<Vec<String>, StorageError> {
    let (mut found, mut todo) = (Vec::new(), vec![(name.to_owned(), 0)]);
    while let Some((name, depth)) = todo.pop() {
        let answer = match client.send("look at", &Ask::new(Method::HEAD, &name)).await {
            Err(error) if error.kind == NotFound => continue,
            other => other?,
        };
        if header(&answer, "x-static-large-object").is_some() {
            let ask = Ask::new(Method::GET, &name).query("multipart-manifest=get");
            let lines: Vec<Line> = match json(client, &ask).await {
                Err(error) if error.kind == NotFound => continue,
                other => other?,
            };
            for line in lines {
                let Some(piece) = line.name.strip_prefix(&format!("/{}/", client.container)) else {
                    continue;
                };
                if line.sub_slo && depth < DEPTH {
                    todo.push((piece.to_owned(), depth + 1));
                }
                found.push(piece.to_owned());
            }
        } else if let Some(prefix) = header(&answer, "x-object-manifest").and_then(|to| dynamic(client, &name, to)) {
            let listed = list(client, &prefix).await?;
            found.extend(
                listed
                    .into_iter()
                    .map(|piece| piece.name)
                    .filter(|piece| layout::base_of_piece(piece).is_some()),
            );
        }
    }
    Ok(found)
}

/// The prefix of a dynamic large object's segments, if they are upstream's and so belong to nobody else.
fn dynamic(client: &StoreClient, name: &str, to: &str) -> Option<String> {
    let to = percent_encoding::percent_decode_str(to).decode_utf8().ok()?;
    let (container, prefix) = to.split_once('/')?;
    let stem = layout::upstream_stem(name)?;
    (container == client.container && prefix == format!("{stem}_")).then(|| prefix.to_owned())
}

/// Deletes one object, not what it refers to. Whether it was there.
pub(super) async fn remove(client: &StoreClient, name: &str) -> Result<bool, StorageError> {
    match client.send("delete", &Ask::new(Method::DELETE, name)).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes objects. How many were there.
pub(super) async fn remove_all(client: &StoreClient, names: Vec<String>) -> Result<u64, StorageError> {
    let removals = stream::iter(names).map(|name| async move { remove(client, &name).await });
    removals
        .buffer_unordered(AT_ONCE)
        .try_fold(0, |count, there| async move { Ok(count + u64::from(there)) })
        .await
}

/// Deletes an object, then its pieces: so nothing that looks whole lacks a piece.
pub(super) async fn delete(client: &StoreClient, name: &str) -> Result<Change, StorageError> {
    let pieces = of(client, name).await?;
    let there = remove(client, name).await?;
    remove_all(client, pieces).await?;
    Ok(if there { Change::Done } else { Change::Unchanged })
}

/// Deletes pieces that no object refers to, of uploads that had no new piece for `older`.
pub(super) async fn sweep(client: &StoreClient, older: Duration) -> Result<u64, StorageError> {
    let answer = client.send("look at", &Ask::new(Method::HEAD, "")).await?;
    // Its clock, not ours. It tells whole seconds.
    let now = header(&answer, "date").and_then(http_time).unwrap_or_else(SystemTime::now) + Duration::from_secs(1);
    let Some(limit) = now.checked_sub(older) else { return Ok(0) };
    let (mut uploads, mut owners) = (BTreeMap::<String, Vec<Listed>>::new(), BTreeMap::<String, Vec<String>>::new());
    for object in list(client, "").await? {
        if let Some(base) = layout::base_of_piece(&object.name) {
            let base = base.to_owned();
            uploads.entry(base).or_default().push(object);
        } else if let Some(stem) = layout::upstream_stem(&object.name) {
            owners.entry(stem.to_owned()).or_default().push(object.name);
        }
    }
    let mut removed = 0;
    for (base, pieces) in uploads {
        if pieces.iter().any(|piece| piece.modified().is_none_or(|at| at > limit)) {
            continue;
        }
        let named = layout::owner_of_hidden(&base).map(|owner| vec![owner.to_owned()]);
        let mut used = HashSet::new();
        for owner in named.or_else(|| owners.get(&base).cloned()).unwrap_or_default() {
            used.extend(of(client, &owner).await?);
        }
        let names = pieces.into_iter().map(|piece| piece.name).filter(|name| !used.contains(name));
        removed += remove_all(client, names.collect()).await?;
    }
    Ok(removed)
}
