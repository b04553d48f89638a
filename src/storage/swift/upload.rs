//! Sending a large object: parts at once, each tried again; then the manifest; then a look whether it is what was sent.

use super::client::{Ask, StoreClient, etag, header};
use super::layout::{self, Entry, Plan, Seat};
use super::{object_headers, pieces};
use crate::storage::{Meta, ObjectName, Receipt, StorageError, StorageErrorKind, Upload};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

/// So often the same bytes arrive damaged before that is the end.
const DAMAGED: u32 = 3;
/// A manifest's segments are all looked at before the answer; bytes are copied, or 10,000 pieces deleted.
pub(super) const LONG: Duration = Duration::from_secs(900);
/// Giving up must end.
const ABORT: Duration = Duration::from_secs(50);

/// What is confirmed of one segment.
#[derive(Debug)]
enum Segment {
    /// It has its final form.
    Done(Entry),
    /// The parts of a group that are there.
    Group(BTreeMap<u32, Entry>),
}

#[derive(Debug, Default)]
struct Sent {
    segments: BTreeMap<u32, Segment>,
    /// A first part that is shorter than a part: the only one, so it waits to become the object itself.
    only: Option<Bytes>,
    parts: u32,
    /// Parts shorter than they must be; only the last one may.
    short: Option<u32>,
}

/// An upload under way.
pub(super) struct SwiftUpload {
    client: Arc<StoreClient>,
    name: ObjectName,
    base: String,
    plan: Plan,
    part_bytes: usize,
    sent: Mutex<Sent>,
    /// Copying within the Swift takes its disks: one at a time.
    joining: Semaphore,
}

impl SwiftUpload {
    pub(super) fn new(client: Arc<StoreClient>, name: ObjectName, base: String, plan: Plan, part_bytes: usize) -> Self {
        Self {
            client,
            name,
            base,
            plan,
            part_bytes,
            sent: Mutex::default(),
            joining: Semaphore::new(1),
        }
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invalid(&self, what: String) -> StorageError {
        StorageError::invalid("write", self.client.place(self.name.as_str()), what)
    }

    /// Notes a part, and answers the group's parts if it is complete now.
    fn note(&self, seat: Seat, entry: Entry) -> Option<Vec<Entry>> {
        let mut sent = self.sent();
        let Some(member) = seat.member else {
            sent.segments.insert(seat.segment, Segment::Done(entry));
            return None;
        };
        let group = sent
            .segments
            .entry(seat.segment)
            .or_insert_with(|| Segment::Group(BTreeMap::new()));
        let Segment::Group(members) = group else { return None };
        members.insert(member, entry);
        (members.len() == self.plan.group as usize).then(|| members.values().cloned().collect())
    }

    /// Makes one segment of a group's parts.
    async fn close(&self, segment: u32, members: Vec<Entry>) -> Result<(), StorageError> {
        let name = layout::segment(&self.base, Seat { segment, member: None });
        let group = put_manifest(&self.client, &name, &members, &Ask::new(Method::PUT, &name)).await?;
        let done = if self.plan.is_joined(segment) {
            self.join(&group, &members).await?
        } else {
            group
        };
        self.sent().segments.insert(segment, Segment::Done(done));
        Ok(())
    }

    /// Has the group copied into one plain object of the same name, and removes its parts. A Swift that does not copy leaves
    /// the group as it is: that reads the same, but upstream's way of deleting ends at 10,000 pieces.
    async fn join(&self, group: &Entry, members: &[Entry]) -> Result<Entry, StorageError> {
        let _one = self.joining.acquire().await;
        let source = self.client.copy_source(&group.name);
        let ask = Ask::new(Method::PUT, &group.name).header("x-copy-from", &source).wait(LONG);
        let copied = match self.client.send("join", &ask).await {
            Ok(_) => self.client.send("join", &Ask::new(Method::HEAD, &group.name)).await,
            Err(error) => Err(error),
        };
        let plain = |answer: &reqwest::Response| header(answer, "x-static-large-object").is_none();
        match copied {
            Ok(answer) if plain(&answer) && header(&answer, "content-length") == Some(&group.bytes.to_string()) => {
                for member in members {
                    // What stays is found by a sweep.
                    let _ = pieces::remove(&self.client, &member.name).await;
                }
                info!(object = group.name, "parts were joined");
                Ok(Entry {
                    etag: etag(&answer).unwrap_or_default(),
                    ..group.clone()
                })
            }
            Ok(answer) if plain(&answer) => {
                let what = "the copy is not as long as what was copied";
                Err(StorageError::new(
                    StorageErrorKind::Corrupt,
                    "join",
                    self.client.place(&group.name),
                    what,
                ))
            }
            Ok(_) => Ok(group.clone()),
            Err(error) => {
                warn!(object = group.name, %error, "parts are not joined; upstream may not be able to delete this backup");
                Ok(group.clone())
            }
        }
    }

    /// All segments in order, if nothing is missing.
    async fn complete(&self) -> Result<Vec<Entry>, StorageError> {
        let open: Vec<(u32, Vec<Entry>)> = {
            let sent = self.sent();
            if sent.short.is_some_and(|short| short + 1 != sent.parts) {
                return Err(self.invalid("a part before the last one is short".to_owned()));
            }
            let mut there = 0;
            for segment in sent.segments.values() {
                there += match segment {
                    Segment::Done(_) => 0,
                    Segment::Group(members) => members.len(),
                };
            }
            let full = sent
                .segments
                .iter()
                .filter(|(_, segment)| matches!(segment, Segment::Done(_)));
            let counted = full.map(|(segment, _)| self.plan.parts_in(*segment, sent.parts)).sum::<u32>();
            if counted as usize + there != sent.parts as usize {
                return Err(self.invalid(format!("not all of its {} parts were sent", sent.parts)));
            }
            let groups = sent.segments.iter().filter_map(|(segment, state)| match state {
                Segment::Group(members) => Some((*segment, members.values().cloned().collect())),
                Segment::Done(_) => None,
            });
            groups.collect()
        };
        for (segment, members) in open {
            self.close(segment, members).await?;
        }
        let sent = self.sent();
        let done = sent.segments.values().filter_map(|segment| match segment {
            Segment::Done(entry) => Some(entry.clone()),
            Segment::Group(_) => None,
        });
        Ok(done.collect())
    }

    async fn make(&self, meta: &Meta) -> Result<(u64, String), StorageError> {
        let name = self.name.as_str();
        let headers = object_headers(meta).map_err(|what| self.invalid(what))?;
        let mut ask = Ask::new(Method::PUT, name);
        ask.headers = headers;
        let only = {
            let sent = self.sent();
            match sent.parts {
                0 => Some(Bytes::new()),
                1 => sent.only.clone(),
                _ => None,
            }
        };
        if let Some(body) = only {
            let etag = put_bytes(&self.client, &ask, body.clone()).await?;
            return Ok((body.len() as u64, etag));
        }
        let entries = self.complete().await?;
        let [first] = &entries[..] else {
            let made = put_manifest(&self.client, name, &entries, &ask).await?;
            return Ok((made.bytes, made.etag));
        };
        // One segment: the object itself, as upstream leaves it.
        let source = self.client.copy_source(&first.name);
        let copy = ask.header("x-copy-from", &source).wait(LONG);
        self.client.send("write", &copy).await?;
        let _ = pieces::remove(&self.client, &first.name).await;
        Ok((first.bytes, first.etag.clone()))
    }
}

#[async_trait]
impl Upload for SwiftUpload {
    fn part_bytes(&self, _index: u32) -> usize {
        self.part_bytes
    }

    async fn part(&self, index: u32, body: Bytes) -> Result<(), StorageError> {
        if body.len() > self.part_bytes {
            return Err(self.invalid(format!("part {index} is longer than {} bytes", self.part_bytes)));
        }
        if index >= self.plan.most() {
            return Err(self.invalid(format!("it has more than {} parts", self.plan.most())));
        }
        let short = body.len() < self.part_bytes;
        if body.is_empty() && index > 0 {
            // Swift takes no empty segment.
            return Ok(());
        }
        {
            let mut sent = self.sent();
            sent.parts = sent.parts.max(index + 1);
            if short {
                sent.short = Some(sent.short.map_or(index, |other| other.min(index)));
                if index == 0 {
                    sent.only = Some(body);
                    return Ok(());
                }
            }
        }
        let seat = self.plan.seat(index);
        let name = layout::segment(&self.base, seat);
        let bytes = body.len() as u64;
        let etag = put_bytes(&self.client, &Ask::new(Method::PUT, &name), body).await?;
        match self.note(seat, Entry { name, etag, bytes }) {
            Some(members) => self.close(seat.segment, members).await,
            None => Ok(()),
        }
    }

    async fn finish(&self, meta: &Meta) -> Result<Receipt, StorageError> {
        let _alone = self.client.finishing.lock().await;
        let before = pieces::of(&self.client, self.name.as_str()).await?;
        let (bytes, checksum) = self.make(meta).await?;
        let answer = self
            .client
            .send("look at", &Ask::new(Method::HEAD, self.name.as_str()))
            .await?;
        if etag(&answer).as_ref() != Some(&checksum) || header(&answer, "content-length") != Some(&bytes.to_string()) {
            let what = "the storage has something else than was sent";
            let place = self.client.place(self.name.as_str());
            return Err(StorageError::new(StorageErrorKind::Corrupt, "write", place, what));
        }
        for old in before {
            if layout::base_of_piece(&old) != Some(&self.base) {
                let _ = pieces::remove(&self.client, &old).await;
            }
        }
        Ok(Receipt {
            location: self.client.place(self.name.as_str()),
            bytes,
            checksum,
        })
    }

    async fn abort(&self) {
        let found = async {
            let found = pieces::list(&self.client, &self.base).await?;
            let ours = found
                .into_iter()
                .filter(|piece| layout::base_of_piece(&piece.name) == Some(&self.base));
            let names: Vec<_> = ours.map(|piece| piece.name).collect();
            pieces::remove_all(&self.client, names).await
        };
        match timeout(ABORT, found).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "pieces of an upload that was given up stay until they are swept"),
            Err(_) => warn!(object = %self.name, "pieces of an upload that was given up stay until they are swept"),
        }
    }
}

/// Writes bytes and answers their ETag: the Swift compares it with what arrived, and we with what it answers.
pub(super) async fn put_bytes(client: &StoreClient, ask: &Ask, body: Bytes) -> Result<String, StorageError> {
    let hashed = body.clone();
    let wanted = match body.len() {
        ..65_536 => layout::md5_of(&body),
        // Some ten milliseconds: not on a thread that serves others.
        _ => tokio::task::spawn_blocking(move || layout::md5_of(&hashed))
            .await
            .unwrap_or_else(|_| layout::md5_of(&body)),
    };
    let ask = ask.clone().header("etag", &wanted).body(body);
    let mut damaged = 0;
    loop {
        match client.send("write", &ask).await {
            Ok(answer) if etag(&answer).as_ref() == Some(&wanted) => return Ok(wanted),
            Err(error) if error.kind != StorageErrorKind::Corrupt => return Err(error),
            other => {
                damaged += 1;
                let what = "other bytes arrived than were sent";
                let error = other
                    .err()
                    .unwrap_or_else(|| StorageError::new(StorageErrorKind::Corrupt, "write", client.place(&ask.name), what));
                if damaged >= DAMAGED {
                    return Err(error);
                }
                warn!(%error, "a part is sent again");
            }
        }
    }
}

/// Writes a manifest of segments that are there. The Swift compares ETag and length of each with the manifest.
async fn put_manifest(client: &StoreClient, name: &str, entries: &[Entry], ask: &Ask) -> Result<Entry, StorageError> {
    let body = layout::manifest(&client.container, entries);
    let ask = ask.clone().query("multipart-manifest=put").body(body).wait(LONG);
    client.send("write", &ask).await.map_err(|error| match error.kind {
        // It looks at each segment, and says no if one is not there or is another.
        StorageErrorKind::Invalid => StorageError {
            kind: StorageErrorKind::Corrupt,
            ..error
        },
        _ => error,
    })?;
    Ok(Entry {
        name: name.to_owned(),
        etag: layout::etag_of(entries),
        bytes: entries.iter().map(|entry| entry.bytes).sum(),
    })
}
