//! The open journal: the file with its index and keys, reading, and recovery after an I/O error.

use super::entry::{Head, fact_name, open_fact, open_outcome, open_request};
use super::file::{self, FACTS, Fault, HEADS, IDS, OUTCOMES, REQUESTS};
use super::index::Index;
use super::record::{JournalError, OpId, Outcome, Record};
use super::seal::Keys;
use datastore_api::Secret;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};
use serde_json::Value;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use zeroize::Zeroizing;

/// From this size on a part must leave [`SPARE`] bytes on the disk.
const LARGE: usize = 64 << 10;
const SPARE: u64 = 1 << 20;

/// What handles may look at without asking the writer.
#[derive(Debug, Default)]
pub(super) struct Shared {
    damaged: AtomicBool,
    unfinished: AtomicUsize,
}

impl Shared {
    pub(super) fn damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    pub(super) fn depth(&self) -> usize {
        self.unfinished.load(Ordering::Acquire)
    }
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Fail {
    /// It is refused; the file is well.
    Denied(JournalError),
    /// The file is not well: it must be opened again.
    Fault(Fault),
}

impl From<JournalError> for Fail {
    fn from(error: JournalError) -> Self {
        Fail::Denied(error)
    }
}

impl<E: Into<Fault>> From<E> for Fail {
    fn from(error: E) -> Self {
        Fail::Fault(error.into())
    }
}

/// What a write needs beside the tables.
pub(super) struct Site {
    pub(super) keys: Keys,
    dir: PathBuf,
}

impl Site {
    /// Refuses a large part that would not fit, before it fills the disk with half of itself: the space it took would be
    /// missing for the small ones, which must get through.
    pub(super) fn check_space(&self, size: usize) -> Result<(), Fail> {
        if size < LARGE {
            return Ok(());
        }
        let available = rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if available >= 2 * size as u64 + SPARE {
            return Ok(());
        }
        let text = format!("{size} bytes do not fit, {available} are left on the disk");
        let (doing, source) = ("a large entry", io::Error::new(io::ErrorKind::StorageFull, text).into());
        Err(JournalError::Write { doing, source }.into())
    }
}

/// The journal behind the writer thread.
pub(super) struct Store {
    path: PathBuf,
    pub(super) site: Site,
    pub(super) index: Index,
    db: Option<Database>,
    shared: Arc<Shared>,
    /// Held as long as we live: also while the file itself is closed to be opened again.
    _lock: File,
}

impl Store {
    pub(super) fn open(dir: &Path, instance_key: Option<&Secret>, shared: Arc<Shared>) -> Result<Self, JournalError> {
        let path = dir.join("journal.redb");
        let fail = |source: io::Error| JournalError::Open {
            path: path.clone(),
            source: source.into(),
        };
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("journal.lock"))
            .map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy { path }),
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        let keys = Keys::load(dir, instance_key)?;
        let mut store = Self {
            path: path.clone(),
            site: Site {
                keys,
                dir: dir.to_owned(),
            },
            index: Index::default(),
            db: None,
            shared,
            _lock: lock,
        };
        match store.ready() {
            Ok(_) => Ok(store),
            Err(Fault::Busy) => Err(JournalError::Busy { path }),
            Err(Fault::Format(found)) => Err(JournalError::Format {
                path,
                found,
                known: "1".to_owned(),
            }),
            Err(fault) => Err(JournalError::Open {
                path,
                source: fault.cause(),
            }),
        }
    }

    /// The open file; opens it again if it was given up.
    pub(super) fn ready(&mut self) -> Result<&Database, Fault> {
        let db = match self.db.take() {
            Some(db) => db,
            None => {
                let (db, index, damaged) = file::open(&self.path)?;
                self.index = index;
                self.publish();
                if damaged {
                    self.shared.damaged.store(true, Ordering::Release);
                }
                db
            }
        };
        Ok(self.db.insert(db))
    }

    /// Gives the file up after a fault: the store refuses all work after an I/O error until it is opened again.
    pub(super) fn give_up(&mut self) {
        let db = self.db.take();
        // Closing may stumble over what made us give up.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }

    /// Tells the handles what changed.
    pub(super) fn publish(&self) {
        self.shared.unfinished.store(self.index.unfinished().len(), Ordering::Release);
    }

    fn read(&self) -> Result<Tables, Fail> {
        let db = self
            .db
            .as_ref()
            .ok_or_else(|| Fail::Fault(Fault::Io(io::Error::other("it is not open"))))?;
        Ok(Tables(db.begin_read()?))
    }

    pub(super) fn unfinished(&self) -> Result<Vec<Record>, Fail> {
        self.records(&self.index.unfinished().numbers())
    }

    pub(super) fn unanswered(&self) -> Result<Vec<Record>, Fail> {
        self.records(&self.index.unanswered().numbers())
    }

    pub(super) fn recent(&self, n: usize) -> Result<Vec<Record>, Fail> {
        let tables = self.read()?;
        let mut newest = Vec::new();
        for row in tables.0.open_table(HEADS)?.iter()?.rev().take(n) {
            newest.push(row?.0.value());
        }
        self.records(&newest)
    }

    pub(super) fn find(&self, id: &OpId) -> Result<Option<Record>, Fail> {
        let tables = self.read()?;
        let Some(number) = tables.0.open_table(IDS)?.get(id.0.as_str())?.map(|n| n.value()) else {
            return Ok(None);
        };
        let (record, whole) = tables.record(&self.site.keys, number)?;
        if whole {
            Ok(Some(record))
        } else {
            Err(JournalError::Sealed { id: id.0.clone() }.into())
        }
    }

    pub(super) fn fact(&self, key: &str) -> Result<Option<Vec<u8>>, Fail> {
        Ok(self.read()?.0.open_table(FACTS)?.get(key)?.map(|v| v.value().to_vec()))
    }

    pub(super) fn sealed_fact(&self, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Fail> {
        let Some(sealed) = self.fact(key)? else {
            return Ok(None);
        };
        let lost = || JournalError::Sealed { id: fact_name(key) };
        Ok(Some(open_fact(&self.site.keys, key, &sealed).ok_or_else(lost)?))
    }

    fn records(&self, numbers: &[u64]) -> Result<Vec<Record>, Fail> {
        let tables = self.read()?;
        numbers
            .iter()
            .map(|number| tables.record(&self.site.keys, *number).map(|(record, _)| record))
            .collect()
    }
}

struct Tables(ReadTransaction);

impl Tables {
    /// The record, and whether all of its sealed parts could be opened.
    fn record(&self, keys: &Keys, number: u64) -> Result<(Record, bool), Fail> {
        let head = self.0.open_table(HEADS)?.get(number)?;
        let head = read_head(number, head.as_ref().map(|v| v.value()))?;
        let finished = head.finished;
        let mut record = head.bare();
        let mut whole = true;
        if let Some(sealed) = self.0.open_table(REQUESTS)?.get(number)? {
            match open_request(keys, &record.id.0, sealed.value()) {
                Some((args, context)) => (record.args, record.context) = (args, context),
                None => whole = false,
            }
        }
        if finished {
            let sealed = self.0.open_table(OUTCOMES)?.get(number)?;
            let opened = sealed.and_then(|sealed| open_outcome(keys, &record.id.0, sealed.value()));
            whole &= opened.is_some();
            record.outcome = Some(opened.unwrap_or(Outcome::Failed(Value::Null)));
        }
        Ok((record, whole))
    }
}

/// The head of an entry that the index knows.
pub(super) fn read_head(number: u64, bytes: Option<&[u8]>) -> Result<Head, Fail> {
    let damaged = |text: String| Fail::Fault(Fault::Damaged(format!("entry {number}: {text}")));
    let bytes = bytes.ok_or_else(|| damaged("its head is missing".to_owned()))?;
    Head::read(bytes).map_err(|e| damaged(e.to_string()))
}
