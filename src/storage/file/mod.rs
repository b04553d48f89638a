//! Backups in a folder: a disk of its own, or a mount of NFS.
//!
//! ```text
//! <root>/<name>                      an object
//! <root>/.<name>.part-<16 hex>       an upload under way, or what a crash left of one
//! ```
//!
//! An object has its name only after its bytes are on the disk (fsync of the file, rename, fsync of the folder). Everything is
//! opened by descriptors below the root and no link is followed. The root is made only if its parent is there, and nothing works
//! while a file system on the way to it is missing ([`mount`]). Facts beside objects are dropped. Files have mode 0600.

mod folder;
mod list;
mod mount;
mod upload;

#[cfg(test)]
mod tests;

use super::{
    Access, Body, Meta, ObjectName, PartsDigest, Place, Receipt, Settings, Stat, StorageError, StorageErrorKind, Store, Upload,
    body,
};
use async_trait::async_trait;
use bytes::Bytes;
use datastore_api::Change;
use folder::Folder;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use upload::{FileUpload, Open};

/// A folder of backups. Clones are handles of the same one.
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    part_bytes: usize,
    limit: Duration,
    own_mount: bool,
}

/// Opens the store `file:///path`.
pub(super) fn open(settings: &Settings, place: &Place, _access: &Access) -> Result<Arc<dyn Store>, StorageError> {
    if !place.rest.starts_with('/') {
        return Err(StorageError::invalid("open", place, "expected file:///path"));
    }
    let inner = Inner {
        root: PathBuf::from(&place.rest),
        part_bytes: settings.part_bytes,
        limit: settings.limit,
        own_mount: settings.folder_mounted,
    };
    Ok(Arc::new(FileStore { inner: Arc::new(inner) }))
}

/// The folders of a name, and its last segment.
fn split(name: &ObjectName) -> (Vec<&str>, &str) {
    let mut folders: Vec<&str> = name.as_str().split('/').collect();
    let last = folders.pop().unwrap_or_default();
    (folders, last)
}

impl Inner {
    fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// The root, which is there and on the file system it should be on, or an error that says why not.
    fn root(&self, doing: &'static str) -> Result<Folder, StorageError> {
        if let Some(what) = mount::problem(&self.root, self.own_mount) {
            return Err(StorageError::new(StorageErrorKind::Unreachable, doing, self.url(), what));
        }
        match Folder::root(&self.root) {
            Ok(folder) => Ok(folder),
            Err(Errno::NOENT) => {
                let what = "the folder is not there; is its file system mounted?";
                Err(StorageError::new(StorageErrorKind::Unreachable, doing, self.url(), what)
                    .because(std::io::Error::from(Errno::NOENT)))
            }
            Err(error) => Err(StorageError::io(doing, self.url(), error)),
        }
    }

    /// The folder an object lies in, and the last segment of its name.
    fn parent<'a>(&self, name: &'a ObjectName, doing: &'static str) -> Result<(Folder, &'a str), StorageError> {
        self.walk(name, doing, Folder::folder)
    }

    fn walk<'a>(
        &self,
        name: &'a ObjectName,
        doing: &'static str,
        step: fn(&Folder, &str) -> rustix::io::Result<Folder>,
    ) -> Result<(Folder, &'a str), StorageError> {
        let (folders, last) = split(name);
        let mut at = self.root(doing)?;
        for folder in folders {
            at = step(&at, folder).map_err(|error| StorageError::io(doing, format!("{}/{name}", self.url()), error))?;
        }
        Ok((at, last))
    }

    /// Makes the unfinished file of an object, with the folders on its way.
    fn unfinished(&self, name: &ObjectName, doing: &'static str) -> Result<Open, StorageError> {
        let (folder, last) = self.walk(name, doing, Folder::make)?;
        Open::new(folder, last).map_err(|error| StorageError::io(doing, format!("{}/{name}", self.url()), error))
    }
}

fn modified(stat: &rustix::fs::Stat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn told(name: ObjectName, stat: &rustix::fs::Stat) -> Stat {
    Stat {
        name,
        bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: modified(stat),
        checksum: None,
        meta: BTreeMap::new(),
    }
}

impl FileStore {
    /// Runs what waits for the disk, for at most the limit: a mount whose server is gone may hang for ever. The thread that
    /// hangs is lost until the server is back; the caller is not.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        place: String,
        work: impl FnOnce(&'static str, &str) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.blocking_for(self.inner.limit, doing, place, work).await
    }

    async fn blocking_for<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        place: String,
        work: impl FnOnce(&'static str, &str) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let named = place.clone();
        let task = tokio::task::spawn_blocking(move || work(doing, &named));
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(StorageError::new(StorageErrorKind::Failed, doing, place, "the work broke off").because(error)),
            Err(_) => {
                let what = format!("the file system did not answer within {limit:?}");
                Err(StorageError::new(StorageErrorKind::Unreachable, doing, place, what))
            }
        }
    }

    async fn read(&self, name: &ObjectName, offset: u64) -> Result<(Stat, Body), StorageError> {
        let (inner, name, place) = (self.inner.clone(), name.clone(), self.location(name));
        let (file, stat) = self
            .blocking("read", place.clone(), move |doing, place| {
                let io = |error: std::io::Error| StorageError::io(doing, place, error);
                let (folder, last) = inner.parent(&name, doing)?;
                let (mut file, stat) = folder.open(last).map_err(|error| io(error.into()))?;
                let stat = told(name.clone(), &stat);
                if offset > stat.bytes {
                    let what = format!("byte {offset} was asked for, it has {}", stat.bytes);
                    return Err(StorageError::invalid(doing, place, what));
                }
                file.seek(SeekFrom::Start(offset)).map_err(io)?;
                Ok((file, stat))
            })
            .await?;
        let body = body::exact(tokio::fs::File::from_std(file), stat.bytes - offset, self.inner.limit, place);
        Ok((stat, body))
    }
}

#[async_trait]
impl Store for FileStore {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn place(&self) -> String {
        self.inner.url()
    }

    async fn check(&self) -> Result<(), StorageError> {
        let inner = self.inner.clone();
        self.blocking("use", self.place(), move |doing, place| {
            let io = |error: Errno| StorageError::io(doing, place, error);
            if let Some(what) = mount::problem(&inner.root, inner.own_mount) {
                return Err(StorageError::new(StorageErrorKind::Unreachable, doing, place, what));
            }
            // Only the last folder is made: above it may be a mount point that is missing too.
            match Folder::make_root(&inner.root) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => {
                    let what = "the folder above it is not there; is its file system mounted?";
                    return Err(StorageError::new(StorageErrorKind::Unreachable, doing, place, what));
                }
                // It may be there on a file system that is read-only or not ours to make folders in.
                Err(error) => drop(Folder::root(&inner.root).map_err(|_| io(error))?),
            }
            let probe = Open::new(inner.root(doing)?, "check").map_err(io)?;
            let written = (&probe.file).write_all(&[0; 4096]).and_then(|()| probe.file.sync_all());
            written.map_err(|error| StorageError::io(doing, place, error))
        })
        .await
    }

    async fn begin(&self, name: &ObjectName, _expected: Option<u64>) -> Result<Box<dyn Upload>, StorageError> {
        let (inner, named) = (self.inner.clone(), name.clone());
        let open = self.blocking("begin", self.location(name), move |doing, _| inner.unfinished(&named, doing));
        Ok(Box::new(FileUpload {
            open: Arc::new(open.await?),
            store: self.clone(),
            name: name.clone(),
            digest: Arc::default(),
        }))
    }

    async fn put(&self, name: &ObjectName, body: Bytes, _meta: &Meta) -> Result<Receipt, StorageError> {
        let (inner, named) = (self.inner.clone(), name.clone());
        let open = self.blocking("write", self.location(name), move |doing, _| inner.unfinished(&named, doing));
        let open = Arc::new(open.await?);
        let (named, writing) = (name.clone(), open.clone());
        let written = self.blocking("write", self.location(name), move |doing, place| {
            let written = (&writing.file)
                .write_all(&body)
                .and_then(|()| writing.finish(split(&named).1));
            written.map_err(|error| StorageError::io(doing, place, error))?;
            Ok(Receipt {
                location: place.to_owned(),
                bytes: body.len() as u64,
                checksum: PartsDigest::of(&body),
            })
        });
        let written = written.await;
        if written.is_err() {
            // It may still be under way, on a disk that hangs.
            tokio::task::spawn_blocking(move || open.remove());
        }
        written
    }

    async fn get(&self, name: &ObjectName) -> Result<(Stat, Body), StorageError> {
        self.read(name, 0).await
    }

    async fn get_from(&self, name: &ObjectName, offset: u64) -> Result<Body, StorageError> {
        self.read(name, offset).await.map(|(_, body)| body)
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<Stat>, StorageError> {
        let (inner, name) = (self.inner.clone(), name.clone());
        self.blocking("look at", self.location(&name), move |doing, place| {
            let found = inner
                .parent(&name, doing)
                .and_then(|(folder, last)| folder.stat(last).map_err(|error| StorageError::io(doing, place, error)));
            match found {
                Ok(stat) if folder::is_file(&stat) => Ok(Some(told(name.clone(), &stat))),
                Ok(_) => Ok(None),
                Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Stat>, StorageError> {
        let (inner, prefix) = (self.inner.clone(), prefix.to_owned());
        self.blocking("list", self.place(), move |doing, place| {
            list::objects(inner.root(doing)?, &prefix).map_err(|error| StorageError::io(doing, place, error))
        })
        .await
    }

    async fn delete(&self, name: &ObjectName) -> Result<Change, StorageError> {
        let (inner, name) = (self.inner.clone(), name.clone());
        self.blocking("delete", self.location(&name), move |doing, place| {
            let gone = inner.parent(&name, doing).and_then(|(folder, last)| {
                let removed = folder.remove(last).and_then(|()| folder.sync());
                removed.map_err(|error| StorageError::io(doing, place, error))
            });
            match gone {
                Ok(()) => Ok(Change::Done),
                Err(error) if error.kind == StorageErrorKind::NotFound => Ok(Change::Unchanged),
                Err(error) => Err(error),
            }
        })
        .await
    }

    fn location(&self, name: &ObjectName) -> String {
        format!("{}/{name}", self.inner.url())
    }

    fn name_at(&self, location: &str) -> Option<ObjectName> {
        let name = location.strip_prefix(&self.inner.url())?.strip_prefix('/')?;
        ObjectName::new(name).ok()
    }

    async fn sweep(&self, older: Duration) -> Result<u64, StorageError> {
        let inner = self.inner.clone();
        self.blocking("sweep", self.place(), move |doing, place| {
            list::sweep(inner.root(doing)?, older).map_err(|error| StorageError::io(doing, place, error))
        })
        .await
    }
}
