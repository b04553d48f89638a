//! Whole trees. Each entry is reached through the descriptor of its folder and never through a link, so that whoever owns the
//! tree cannot turn us to files outside of it.

use super::{folder_of, ids};
use crate::host::error::at;
use datastore_api::{Change, Owner};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, openat, statat, unlinkat};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Deepest tree that is walked (each level holds a descriptor).
const DEEPEST: usize = 200;

/// Gives a tree to a user.
pub(in crate::host) fn chown_tree(path: &Path, owner: &Owner) -> io::Result<Change> {
    let (uid, gid) = ids(Some(owner))?.unwrap_or_default();
    let wanted = (Uid::from_raw(uid), Gid::from_raw(gid));
    let folder = folder_of(path)?;
    let parent = File::open(folder).map_err(at("open", folder))?;
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    own(parent.as_fd(), &name, path, wanted, 0)
}

fn own(parent: BorrowedFd<'_>, name: &Path, shown: &Path, wanted: (Uid, Gid), depth: usize) -> io::Result<Change> {
    let stat = look(parent, name, shown)?;
    let mut change = Change::Unchanged;
    if (stat.st_uid, stat.st_gid) != (wanted.0.as_raw(), wanted.1.as_raw()) {
        chownat(parent, name, Some(wanted.0), Some(wanted.1), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| at("set the owner of", shown)(error.into()))?;
        change = Change::Done;
    }
    if is_folder(&stat) {
        let (folder, names) = enter(parent, name, shown, depth)?;
        for name in names {
            match own(folder.as_fd(), &name, &shown.join(&name), wanted, depth + 1) {
                Ok(inner) => change = change.or(inner),
                // A running server removes files of its own.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(change)
}

/// Removes everything inside a folder. Another file system inside is an error that names it: nothing of it is touched.
pub(in crate::host) fn clear_dir(path: &Path) -> io::Result<Change> {
    let folder = folder_of(path)?;
    let parent = match File::open(folder) {
        Ok(parent) => parent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Change::Unchanged),
        Err(error) => return Err(at("open", folder)(error)),
    };
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    match enter(parent.as_fd(), &name, path, 0) {
        Ok((inside, names)) => {
            let device = rustix::fs::fstat(&inside)
                .map_err(|error| at("look at", path)(error.into()))?
                .st_dev;
            let change = empty(&inside, &names, path, device, 0)?;
            File::from(inside).sync_all().map_err(at("write", path))?;
            Ok(change)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

fn empty(folder: &OwnedFd, names: &[PathBuf], shown: &Path, device: u64, depth: usize) -> io::Result<Change> {
    for name in names {
        let shown = shown.join(name);
        let stat = match look(folder.as_fd(), name, &shown) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if stat.st_dev != device {
            return Err(at("remove", &shown)(io::Error::new(
                io::ErrorKind::CrossesDevices,
                "another file system is mounted there",
            )));
        }
        let mut flags = AtFlags::empty();
        if is_folder(&stat) {
            let (inside, names) = enter(folder.as_fd(), name, &shown, depth + 1)?;
            empty(&inside, &names, &shown, device, depth + 1)?;
            flags = AtFlags::REMOVEDIR;
        }
        unlinkat(folder, name, flags).map_err(|error| at("remove", &shown)(error.into()))?;
    }
    Ok(if names.is_empty() { Change::Unchanged } else { Change::Done })
}

fn look(parent: BorrowedFd<'_>, name: &Path, shown: &Path) -> io::Result<Stat> {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| at("look at", shown)(error.into()))
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Opens a folder and lists it. The names are read first: a folder that changes while it is listed may show entries twice.
fn enter(parent: BorrowedFd<'_>, name: &Path, shown: &Path, depth: usize) -> io::Result<(OwnedFd, Vec<PathBuf>)> {
    if depth >= DEEPEST {
        return Err(at("enter", shown)(io::Error::other("the tree is too deep")));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(parent, name, flags, Mode::empty()).map_err(|error| at("open", shown)(error.into()))?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&folder).map_err(|error| at("list", shown)(error.into()))? {
        let entry = entry.map_err(|error| at("list", shown)(error.into()))?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            names.push(PathBuf::from(OsStr::from_bytes(bytes)));
        }
    }
    Ok((folder, names))
}
