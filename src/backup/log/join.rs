//! Small objects become larger ones: one a second would be 86,400 a day.

use super::segment::{Began, Draft, Header, Named, encode};
use super::shelf::{Piece, Shelf, computed};
use crate::backup::BackupError;
use crate::backup::manifest::Digest;
use crate::storage::Meta;
use datastore_api::{Datastore, Stretch};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// An object with fewer bytes of log than this is small.
const SMALL: u64 = 1 << 20;
/// So many small objects at the end of the log are joined.
const MANY: usize = 64;
/// Most bytes of log that are joined at once: they are in memory.
const MOST: u64 = 16 << 20;

/// Joins what was shipped, one job at a time, beside the shipping.
pub(super) struct Joiner {
    shelf: Arc<Shelf>,
    datastore: Arc<dyn Datastore>,
    level: i32,
    /// Objects of the file that is still written.
    tail: Vec<Piece>,
    /// Objects of the file before, while a job joins some of them.
    closing: Option<Vec<Piece>>,
    /// Groups of finished files.
    closed: VecDeque<Vec<Piece>>,
    job: Option<Job>,
}

struct Job {
    /// Where its objects are in the tail; `None`: they are a finished file's.
    tail: Option<(usize, usize)>,
    task: JoinHandle<Result<Piece, BackupError>>,
}

impl Joiner {
    /// Nothing is done before [`Self::work`].
    pub fn new(shelf: Arc<Shelf>, datastore: Arc<dyn Datastore>, level: i32) -> Self {
        Self {
            shelf,
            datastore,
            level,
            tail: Vec::new(),
            closing: None,
            closed: VecDeque::new(),
            job: None,
        }
    }

    /// An object was shipped.
    pub fn add(&mut self, piece: Piece) {
        let is_next_file = self
            .tail
            .last()
            .is_some_and(|last| (last.named.timeline, &last.named.file) != (piece.named.timeline, &piece.named.file));
        if is_next_file {
            let tail = std::mem::take(&mut self.tail);
            let has_job = self.job.as_ref().is_some_and(|job| job.tail.is_some()) && self.closing.is_none();
            match has_job {
                true => self.closing = Some(tail),
                false => self.closed.extend(groups(tail)),
            }
        }
        self.tail.push(piece);
    }

    /// Takes what a job has done, and begins the next one.
    pub async fn work(&mut self) {
        if self.job.as_ref().is_some_and(|job| job.task.is_finished()) {
            self.settle().await;
        }
        if self.job.is_some() {
            return;
        }
        if let Some(group) = self.closed.pop_front() {
            self.begin(None, group);
        } else if let Some((from, to)) = small_end(&self.tail) {
            let group = self.tail[from..to].to_vec();
            self.begin(Some((from, to)), group);
        }
    }

    fn begin(&mut self, tail: Option<(usize, usize)>, group: Vec<Piece>) {
        let (shelf, datastore, level) = (Arc::clone(&self.shelf), Arc::clone(&self.datastore), self.level);
        let task = tokio::spawn(async move { join(&shelf, datastore.as_ref(), level, &group).await });
        self.job = Some(Job { tail, task });
    }

    /// Takes what the finished job did. One that failed left the small objects; they are joined another time or stay.
    async fn settle(&mut self) {
        let Some(Job { tail, task }) = self.job.take() else { return };
        match task.await {
            Ok(Ok(piece)) => {
                if let Some((from, to)) = tail {
                    self.closing.as_mut().unwrap_or(&mut self.tail).splice(from..to, [piece]);
                }
            }
            Ok(Err(error)) => tracing::warn!(
                error = datastore_api::chain(&error),
                "pieces of the log could not be joined: they stay as they are"
            ),
            Err(_) => {}
        }
        if tail.is_some()
            && let Some(closing) = self.closing.take()
        {
            self.closed.extend(groups(closing));
        }
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        if let Some(job) = &self.job {
            job.task.abort();
        }
    }
}

/// The small objects at the end, if they are many.
fn small_end(tail: &[Piece]) -> Option<(usize, usize)> {
    let sizes = tail.iter().rev().map(|piece| piece.named.to - piece.named.from);
    let small = sizes.take_while(|bytes| *bytes < SMALL).count();
    if small < MANY {
        return None;
    }
    let from = tail.len() - small;
    let mut bytes = 0;
    let fits = tail[from..].iter().take_while(|piece| {
        bytes += piece.named.to - piece.named.from;
        bytes <= MOST
    });
    let to = from + fits.count();
    (to - from > 1).then_some((from, to))
}

/// What of a finished file is worth to be joined.
fn groups(pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    let mut bytes = 0;
    for piece in pieces {
        let more = piece.named.to - piece.named.from;
        match groups.last_mut() {
            Some(group) if bytes + more <= MOST => {
                bytes += more;
                group.push(piece);
            }
            _ => {
                bytes = more;
                groups.push(vec![piece]);
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

async fn join(shelf: &Shelf, datastore: &dyn Datastore, level: i32, group: &[Piece]) -> Result<Piece, BackupError> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Err(BackupError::Invalid("there is nothing to join".into()));
    };
    let mut stretch: Option<Stretch> = None;
    let mut bytes = Vec::new();
    for piece in group {
        let more = match from_server(datastore, &piece.header).await {
            Some(bytes) => bytes,
            None => shelf.read(&piece.named).await?.1,
        };
        bytes.extend(more);
        stretch = Some(match stretch.take() {
            Some(before) => before.and(&piece.header.stretch),
            None => piece.header.stretch.clone(),
        });
    }
    let stretch = stretch.unwrap_or_default();
    let draft = Owned {
        guest: first.header.guest.clone(),
        timeline: first.header.timeline,
        began: first.header.began.clone(),
        stretch,
        read_at: last.header.read_at,
        next: last.header.next.clone(),
    };
    let joined = put(shelf, draft, bytes, level).await?;
    // Before this, both forms are there, and readers take the larger one.
    for piece in group {
        shelf.store.delete(&piece.named.name).await?;
        shelf.forget(&piece.named);
    }
    Ok(joined)
}

/// The bytes of an object from the server's own file, if they are still the ones that were shipped.
async fn from_server(datastore: &dyn Datastore, header: &Header) -> Option<Vec<u8>> {
    let Stretch { file, from, to, .. } = &header.stretch;
    let bytes = datastore.logs()?.bytes(file, *from, *to).await.ok().flatten()?;
    (Digest::from(blake3::hash(&bytes)) == header.digest).then_some(bytes)
}

/// A draft of an object that may be made in another thread.
pub(super) struct Owned {
    pub guest: String,
    pub timeline: u64,
    pub began: Began,
    pub stretch: Stretch,
    pub read_at: u64,
    pub next: datastore_api::LogCursor,
}

/// Makes an object and puts it into the store.
pub(super) async fn put(shelf: &Shelf, draft: Owned, bytes: Vec<u8>, level: i32) -> Result<Piece, BackupError> {
    let named = Named::of(&draft.guest, draft.timeline, &draft.stretch)?;
    let keys = Arc::clone(&shelf.keys);
    let (header, object) = computed(move || {
        let draft = Draft {
            guest: &draft.guest,
            timeline: draft.timeline,
            began: &draft.began,
            stretch: &draft.stretch,
            read_at: draft.read_at,
            next: &draft.next,
        };
        encode(draft, &bytes, level, keys.newest())
    })
    .await?;
    shelf.store.put(&named.name, object, &Meta::new()).await?;
    let header = Arc::new(header);
    shelf.remember(&named, &header);
    Ok(Piece { named, header })
}
