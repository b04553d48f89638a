//! Files and folders: replaced in one step, on disk when the call returns, every error naming its path.

use super::error::{as_io, at};
use super::users;
use datastore_api::{Change, FileMode, Owner};
use rustix::fs::OFlags;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

mod tree;

pub(super) use tree::{chown_tree, clear_dir};

/// Files of ours and configuration files are small; more than this is a mistake that must not fill the memory.
const LARGEST: u64 = 64 << 20;

/// Replaces a file in one step.
pub(super) fn write_atomic(path: &Path, bytes: &[u8], mode: &FileMode) -> io::Result<Change> {
    let folder = folder_of(path)?;
    let owner = ids(mode.owner.as_ref())?;
    if is_already(path, bytes, mode.mode, owner) {
        return Ok(Change::Unchanged);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut new = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.chars().take(64).collect::<String>()))
        .suffix(".new")
        .tempfile_in(folder)
        .map_err(at("create a file beside", path))?;
    // Owner before mode: a change of owner clears bits. Both before the name: nobody ever sees it half done.
    if let Some((uid, gid)) = owner {
        fchown(new.as_file(), Some(uid), Some(gid)).map_err(at("set the owner of", path))?;
    }
    new.as_file()
        .set_permissions(Permissions::from_mode(mode.mode))
        .map_err(at("set the mode of", path))?;
    new.write_all(bytes).map_err(at("write", path))?;
    new.as_file().sync_all().map_err(at("write", path))?;
    new.persist(path).map_err(|error| at("replace", path)(error.error))?;
    sync_folder(folder)?;
    Ok(Change::Done)
}

/// Whether the file is there as wanted. Any doubt is a no: then it is written.
fn is_already(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> bool {
    let Ok(Some((file, meta))) = open_regular(path, true) else {
        return false;
    };
    let same_owner = match owner {
        Some(owner) => (meta.uid(), meta.gid()) == owner,
        None => meta.uid() == rustix::process::geteuid().as_raw(),
    };
    if !same_owner || meta.permissions().mode() & 0o7777 != mode || meta.len() != bytes.len() as u64 {
        return false;
    }
    let mut present = Vec::with_capacity(bytes.len());
    file.take(bytes.len() as u64 + 1).read_to_end(&mut present).is_ok() && present == bytes
}

/// Opens a regular file without being held up by anything else of that name.
fn open_regular(path: &Path, own_name_only: bool) -> io::Result<Option<(File, fs::Metadata)>> {
    let follow = if own_name_only { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY | follow).bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(Some((file, meta)))
}

/// Reads a whole file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some((file, meta)) = open_regular(path, false).map_err(at("read", path))? else {
        return Ok(None);
    };
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(LARGEST)).unwrap_or(0));
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(at("read", path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(at("read", path)(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 64 MiB",
        )));
    }
    Ok(Some(bytes))
}

/// The last bytes of a file, at most `limit`.
pub(super) fn read_tail(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let Some((mut file, meta)) = open_regular(path, false).map_err(at("read", path))? else {
        return Ok(None);
    };
    let limit = limit as u64;
    file.seek(SeekFrom::Start(meta.len().saturating_sub(limit)))
        .map_err(at("read", path))?;
    let mut bytes = Vec::new();
    // It may grow meanwhile: what is asked for is enough.
    file.take(limit).read_to_end(&mut bytes).map_err(at("read", path))?;
    Ok(Some(bytes))
}

/// The bytes of a file from `offset` on, at most `limit`.
pub(super) fn read_range(path: &Path, offset: u64, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let Some((mut file, _)) = open_regular(path, false).map_err(at("read", path))? else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(offset)).map_err(at("read", path))?;
    let mut bytes = Vec::new();
    file.take(limit as u64).read_to_end(&mut bytes).map_err(at("read", path))?;
    Ok(Some(bytes))
}

/// Adds to the end of a file that is there.
pub(super) fn append(path: &Path, bytes: &[u8]) -> io::Result<u64> {
    let append = || {
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut file = OpenOptions::new().append(true).custom_flags(nofollow).open(path)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        Ok(file.metadata()?.len())
    };
    append().map_err(at("add to", path))
}

/// Removes a file, for good when this returns.
pub(super) fn remove(path: &Path) -> io::Result<Change> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)?).map(|()| Change::Done),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::Unchanged),
        Err(error) => Err(at("remove", path)(error)),
    }
}

/// Gives a file or folder another name, for good when this returns; nothing may have that name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (old, new) = (folder_of(from)?, folder_of(to)?);
    rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE)
        .map_err(|error| at("rename", from)(error.into()))?;
    sync_folder(new)?;
    if old == new { Ok(()) } else { sync_folder(old) }
}

/// Removes a folder with everything in it.
pub(super) fn remove_tree(path: &Path) -> io::Result<Change> {
    clear_dir(path)?;
    match fs::remove_dir(path) {
        Ok(()) => sync_folder(folder_of(path)?).map(|()| Change::Done),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::Unchanged),
        Err(error) => Err(at("remove", path)(error)),
    }
}

/// Makes a folder with its parents; mode and owner are set on the last one, also if it was there.
pub(super) fn make_dir(path: &Path, mode: &FileMode) -> io::Result<Change> {
    let owner = ids(mode.owner.as_ref())?;
    let mut change = Change::Unchanged;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(at("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            change = Change::Done;
            sync_folder(folder_of(path)?)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("create", path)(error)),
    }
    // Through its descriptor, and not through a link: what is changed is the folder that was checked.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::DIRECTORY).bits()).unwrap_or(0);
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(at("open", path))?;
    let meta = folder.metadata().map_err(at("look at", path))?;
    if let Some((uid, gid)) = owner.filter(|owner| (meta.uid(), meta.gid()) != *owner) {
        fchown(&folder, Some(uid), Some(gid)).map_err(at("set the owner of", path))?;
        change = Change::Done;
    }
    if meta.permissions().mode() & 0o7777 != mode.mode {
        folder
            .set_permissions(Permissions::from_mode(mode.mode))
            .map_err(at("set the mode of", path))?;
        change = Change::Done;
    }
    Ok(change)
}

/// Names of the entries of a folder, sorted. One that is not UTF-8 is an error that shows it.
pub(super) fn list_dir(path: &Path) -> io::Result<Option<Vec<String>>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(at("list", path))?.file_name();
        let odd = |name: std::ffi::OsString| io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is not UTF-8"));
        names.push(name.into_string().map_err(|name| at("list", path)(odd(name)))?);
    }
    names.sort_unstable();
    Ok(Some(names))
}

fn ids(owner: Option<&Owner>) -> io::Result<Option<(u32, u32)>> {
    owner
        .map(|owner| users::lookup(&owner.user).map(|user| (user.uid, user.gid)))
        .transpose()
        .map_err(as_io)
}

fn folder_of(path: &Path) -> io::Result<&Path> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(_)) if path.is_absolute() => Ok(folder),
        _ => Err(at("use", path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not an absolute path with a name",
        ))),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at("write", folder))
}

#[cfg(test)]
mod tests;
