//! What of a guest's log is in the store.

use super::segment::{self, Header, LONGEST, Named, folder, header_end};
use crate::backup::BackupError;
use crate::backup::keys::Keys;
use crate::storage::{StorageErrorKind, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncReadExt;

/// Headers that are read at once.
const AT_ONCE: usize = 16;
/// How much of an object is read for its header at first.
const FIRST: u64 = 16 << 10;

/// Reads logs in a store. Headers that were read once are kept: an object never changes under its name.
pub struct Shelf {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Arc<Keys>,
    known: Mutex<HashMap<String, Arc<Header>>>,
}

/// An object of the log with its header.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub named: Named,
    pub header: Arc<Header>,
}

/// Objects that follow one another without a hole.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub guest: String,
    pub pieces: Vec<Piece>,
}

impl Shelf {
    /// A shelf in this store. `keys`: those that its objects may be sealed with.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: Arc<Keys>) -> Self {
        Self {
            store,
            keys,
            known: Mutex::default(),
        }
    }

    /// Guests that have a log here.
    pub async fn guests(&self) -> Result<Vec<String>, BackupError> {
        let objects = self.store.list("log/").await?;
        let guest = |name: &str| Some(name.strip_prefix("log/")?.split_once('/')?.0.to_owned());
        let mut guests: Vec<String> = objects.iter().filter_map(|object| guest(object.name.as_str())).collect();
        guests.dedup();
        Ok(guests)
    }

    /// The names of a guest's objects in the order of the log.
    pub(super) async fn names(&self, guest: &str) -> Result<Vec<Named>, BackupError> {
        let objects = self.store.list(&folder(guest)).await?;
        let mut names: Vec<Named> = objects
            .iter()
            .filter_map(|object| Named::parse(guest, &object.name))
            .collect();
        names.sort_by(|a, b| a.order().cmp(&b.order()));
        Ok(names)
    }

    /// A guest's log in chains, oldest first. An object that lies inside another one (it was joined and not removed yet) is left out.
    pub(super) async fn chains(&self, guest: &str) -> Result<Vec<Chain>, BackupError> {
        let mut names = self.names(guest).await?;
        let mut covered: Option<(u64, String, u64)> = None;
        names.retain(|named| {
            let is_inside = covered
                .as_ref()
                .is_some_and(|(timeline, file, to)| (*timeline, file) == (named.timeline, &named.file) && named.to <= *to);
            if !is_inside {
                covered = Some((named.timeline, named.file.clone(), named.to));
            }
            !is_inside
        });
        let pieces: Vec<Option<Piece>> = stream::iter(names)
            .map(|named| self.piece(named))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut chains: Vec<Chain> = Vec::new();
        for piece in pieces.into_iter().flatten() {
            match chains.last_mut() {
                Some(chain) if chain.pieces.last().is_some_and(|last| follows(last, &piece)) => chain.pieces.push(piece),
                _ => chains.push(Chain {
                    guest: guest.to_owned(),
                    pieces: vec![piece],
                }),
            }
        }
        Ok(chains)
    }

    async fn piece(&self, named: Named) -> Result<Option<Piece>, BackupError> {
        match self.header(&named).await {
            Ok(header) => Ok(Some(Piece { named, header })),
            // Joined to others since the list was made.
            Err(BackupError::Storage(error)) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The header of an object.
    pub(super) async fn header(&self, named: &Named) -> Result<Arc<Header>, BackupError> {
        let name = named.name.as_str();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(header) = known {
            return Ok(header);
        }
        let (_, mut body) = self.store.get(&named.name).await?;
        let failed = |source: io::Error| BackupError::Pack {
            doing: "read a piece of the log",
            source,
        };
        let mut bytes = Vec::new();
        (&mut body).take(FIRST).read_to_end(&mut bytes).await.map_err(failed)?;
        let end = header_end(&bytes).unwrap_or_default().min(LONGEST);
        if let Some(more) = end.checked_sub(bytes.len()) {
            (&mut body).take(more as u64).read_to_end(&mut bytes).await.map_err(failed)?;
        }
        let header = Arc::new(segment::header(named, &bytes, &self.keys)?);
        self.remember(named, &header);
        Ok(header)
    }

    pub(super) fn remember(&self, named: &Named, header: &Arc<Header>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(named.name.to_string(), Arc::clone(header));
    }

    pub(super) fn forget(&self, named: &Named) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(named.name.as_str());
    }

    /// An object with its bytes.
    pub(super) async fn read(&self, named: &Named) -> Result<(Header, Vec<u8>), BackupError> {
        let (stat, mut body) = self.store.get(&named.name).await?;
        let mut object = Vec::with_capacity(usize::try_from(stat.bytes).unwrap_or_default().min(64 << 20));
        let read = body.read_to_end(&mut object).await;
        read.map_err(|source| BackupError::Pack {
            doing: "read a piece of the log",
            source,
        })?;
        let (named, keys) = (named.clone(), Arc::clone(&self.keys));
        computed(move || segment::decode(&named, &object, &keys)).await
    }
}

/// Runs what computes where that does not hold up others.
pub(super) async fn computed<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let done = tokio::task::spawn_blocking(what).await;
    done.map_err(|error| BackupError::Pack {
        doing: "compute",
        source: io::Error::other(error),
    })?
}

fn follows(last: &Piece, next: &Piece) -> bool {
    let (a, b) = (&last.header.stretch, &next.header.stretch);
    let in_file = a.file == b.file && a.to == b.from;
    let next_file =
        a.file != b.file && b.from == FIRST_BYTE && !a.ends_inside && a.after.iter().all(|mark| b.before.contains(mark));
    last.named.timeline == next.named.timeline && (in_file || next_file)
}

/// Where a log file's events begin.
const FIRST_BYTE: u64 = 4;
