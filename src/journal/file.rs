//! The file: its tables and format, how it is opened, and what is done with a damaged one.

use super::entry::Head;
use super::index::{Index, Place};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, backends::FileBackend};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{error, warn};

/// Heads of the entries by number.
pub(super) const HEADS: TableDefinition<u64, &[u8]> = TableDefinition::new("heads");
/// Sealed arguments and context by number; gone when the entry is closed.
pub(super) const REQUESTS: TableDefinition<u64, &[u8]> = TableDefinition::new("requests");
/// Sealed outcomes by number.
pub(super) const OUTCOMES: TableDefinition<u64, &[u8]> = TableDefinition::new("outcomes");
/// Number of each id.
pub(super) const IDS: TableDefinition<&str, u64> = TableDefinition::new("ids");
/// Small facts.
pub(super) const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Format that we write, and newest that we know.
const FORMAT: u64 = 1;
/// Oldest format whose reader understands what we write. New fields and tables do not raise it: readers keep what they do
/// not know. So a release can go back to the one before it.
const READABLE_FROM: u64 = 1;
/// Page cache; the whole agent must idle below 10 MiB.
const CACHE: usize = 256 << 10;
/// How many damaged files are kept.
const KEEP_DAMAGED: usize = 3;
/// A file larger than this is made smaller when it is opened, bytes.
const COMPACT_ABOVE: u64 = 48 << 20;
const PAGE: u64 = 4096;

/// What is wrong with the file. Texts hold no content of it.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another process has it.
    Busy,
    /// A version that we do not know wrote it.
    Format(u32),
    /// Its content is not what was written.
    Damaged(String),
    /// It cannot be read or written at present.
    Io(io::Error),
}

impl Fault {
    /// The cause for an error of ours.
    pub(super) fn cause(&self) -> Box<dyn std::error::Error + Send + Sync> {
        match self {
            Fault::Busy => "another process has it open".into(),
            Fault::Format(found) => format!("it has format {found}").into(),
            Fault::Damaged(text) => format!("it is damaged: {text}").into(),
            Fault::Io(e) => Box::new(io::Error::new(e.kind(), e.to_string())),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Fault::Busy,
            redb::Error::Io(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Fault::Damaged(e.to_string())
            }
            redb::Error::Io(e) => Fault::Io(e),
            redb::Error::UpgradeRequired(version) => Fault::Format(version.into()),
            e @ (redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_)) => Fault::Damaged(e.to_string()),
            e => Fault::Io(io::Error::other(e.to_string())),
        }
    }
}

/// Opens the file, which is made if it is not there, verifies all of it, and reads the index. Damaged ones are moved aside;
/// the flag tells so.
pub(super) fn open(path: &Path) -> Result<(Database, Index, bool), Fault> {
    match verified(path) {
        Err(Fault::Damaged(_)) if is_blank(path).unwrap_or(false) => {
            warn!(path = %path.display(), "the making of the journal was interrupted, starting again");
            fs::remove_file(path).map_err(Fault::Io)?;
            verified(path).map(|(db, index)| (db, index, false))
        }
        Err(Fault::Damaged(reason)) => {
            let aside = move_aside(path).map_err(Fault::Io)?;
            error!(
                path = %path.display(), moved_to = %aside.display(), reason,
                "the journal is damaged; starting a fresh one, what ran before is not known"
            );
            verified(path).map(|(db, index)| (db, index, true))
        }
        other => other.map(|(db, index)| (db, index, false)),
    }
}

/// A damaged file must not take the process down: the store panics on some kinds of damage.
fn verified(path: &Path) -> Result<(Database, Index), Fault> {
    catch_unwind(AssertUnwindSafe(|| open_and_load(path)))
        .unwrap_or_else(|_| Err(Fault::Damaged("the store could not make sense of it".to_owned())))
}

fn open_and_load(path: &Path) -> Result<(Database, Index), Fault> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Fault::Io)?;
    let length = file.metadata().map_err(Fault::Io)?.len();
    let mut db = Database::builder()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(length > 0)
        .create_with_backend(FileBackend::new(file)?)?;
    check_format(&db)?;
    if length > COMPACT_ABOVE
        && let Err(e) = db.compact()
    {
        warn!(error = %e, "the journal's file could not be made smaller");
    }
    let index = load_index(&db)?;
    Ok((db, index))
}

fn check_format(db: &Database) -> Result<(), Fault> {
    let found = match db.begin_read()?.open_table(META) {
        Ok(meta) => {
            let value = |key| -> Result<Option<u64>, Fault> { Ok(meta.get(key)?.map(|v| v.value())) };
            value("format")?.map(|format| (format, value("readable_from")))
        }
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(e) => return Err(e.into()),
    };
    if let Some((format, readable_from)) = found {
        let known = format <= FORMAT || readable_from?.is_some_and(|from| from <= FORMAT);
        return if known {
            Ok(())
        } else {
            Err(Fault::Format(u32::try_from(format).unwrap_or(u32::MAX)))
        };
    }
    let transaction = db.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("readable_from", READABLE_FROM)?;
        // All tables exist from here on, so that reading need not care.
        transaction.open_table(HEADS)?;
        transaction.open_table(REQUESTS)?;
        transaction.open_table(OUTCOMES)?;
        transaction.open_table(IDS)?;
        transaction.open_table(FACTS)?;
    }
    transaction.commit()?;
    Ok(())
}

fn load_index(db: &Database) -> Result<Index, Fault> {
    let mut index = Index::default();
    let heads = db.begin_read()?.open_table(HEADS)?;
    for row in heads.iter()? {
        let (number, bytes) = row?;
        let head = Head::read(bytes.value()).map_err(|e| Fault::Damaged(format!("entry {}: {e}", number.value())))?;
        let place = match (head.finished, head.answered) {
            (false, _) => Place::Unfinished,
            (true, false) => Place::Unanswered,
            (true, true) => Place::Closed,
        };
        index.set(number.value(), place, head.bytes());
    }
    Ok(index)
}

/// Whether the process died while it made the file: no magic number yet, and nothing behind the first page.
fn is_blank(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut start = [0u8; 9];
    if file.read_exact(&mut start).is_err() || start != [0u8; 9] {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(PAGE))?;
    let mut rest = Vec::new();
    file.take(COMPACT_ABOVE).read_to_end(&mut rest)?;
    Ok(rest.iter().all(|byte| *byte == 0))
}

fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{name}.damaged-");
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    kept.sort();
    for old in kept.iter().rev().skip(KEEP_DAMAGED - 1) {
        fs::remove_file(old)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let aside = dir.join(format!("{prefix}{now:013}"));
    fs::rename(path, &aside)?;
    File::open(dir)?.sync_all()?;
    Ok(aside)
}
