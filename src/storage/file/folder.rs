//! Folders and files below the root, by descriptors: no link is followed, so nothing is read or written outside it.

use crate::storage::retry::random;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Mode of our folders.
const FOLDER: Mode = Mode::RWXU;
/// What stands between the name of an object and the random end of the name of its unfinished file.
const UNFINISHED: &str = ".part-";

/// A folder that is open.
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens the root itself, the only path that may lead over links.
    pub(super) fn root(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map(Self)
    }

    pub(super) fn make_root(path: &Path) -> Result<()> {
        rustix::fs::mkdir(path, FOLDER)
    }

    /// Opens a folder in this one.
    pub(super) fn folder(&self, name: &str) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name, flags, Mode::empty()).map(Self)
    }

    /// Opens a folder in this one and makes it if it is not there.
    pub(super) fn make(&self, name: &str) -> Result<Self> {
        match rustix::fs::mkdirat(&self.0, name, FOLDER) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        self.folder(name)
    }

    /// Opens a regular file for reading.
    pub(super) fn open(&self, name: &str) -> Result<(File, Stat)> {
        // Without NONBLOCK a pipe that somebody put there would hang us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        match is_file(&stat) {
            true => Ok((File::from(file), stat)),
            false => Err(Errno::ISDIR),
        }
    }

    /// Makes the unfinished file of an object, and answers its name.
    pub(super) fn unfinished(&self, name: &str) -> Result<(File, String)> {
        let name = format!(".{name}{UNFINISHED}{:016x}", random());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((File::from(file), name))
    }

    /// Gives the unfinished file its name, for good, or takes it away again.
    pub(super) fn finish(&self, unfinished: &str, name: &str) -> Result<()> {
        rustix::fs::renameat(&self.0, unfinished, &self.0, name)?;
        let done = self.sync();
        if done.is_err() {
            let _ = rustix::fs::renameat(&self.0, name, &self.0, unfinished);
        }
        done
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty())
    }

    /// What is there under the name itself.
    pub(super) fn stat(&self, name: &str) -> Result<Stat> {
        rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Device and number of the folder itself.
    pub(super) fn identity(&self) -> Result<(u64, u64)> {
        rustix::fs::fstat(&self.0).map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// Names in it, without `.` and `..`, as far as they are text.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Makes what was done in it last.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(self.0.as_fd())
    }
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Whether a name is that of an unfinished file of ours.
pub(super) fn is_unfinished(name: &str) -> bool {
    let end = name.strip_prefix('.').and_then(|rest| rest.rsplit_once(UNFINISHED));
    end.is_some_and(|(name, end)| !name.is_empty() && end.len() == 16 && end.bytes().all(|b| b.is_ascii_hexdigit()))
}
