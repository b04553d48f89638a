//! What lies in the folder.

use super::folder::{self, Folder};
use super::{modified, told};
use crate::storage::{ObjectName, Stat};
use rustix::io::{Errno, Result};
use std::time::{Duration, SystemTime};

/// Calls `each` for what is in `folder` and below it, with the path from the root. What vanishes meanwhile is left out; links
/// are not followed.
fn walk(folder: &Folder, path: &str, each: &mut dyn FnMut(&Folder, &str, String, &rustix::fs::Stat) -> Result<()>) -> Result<()> {
    for name in folder.names()? {
        let stat = match folder.stat(&name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        let inner = format!("{path}{name}");
        if !folder::is_folder(&stat) {
            each(folder, &name, inner, &stat)?;
            continue;
        }
        // A folder that no object can lie in (`.snapshot`, `lost+found`) is somebody else's.
        if ObjectName::new(inner.as_str()).is_ok() {
            match folder.folder(&name) {
                Ok(below) => walk(&below, &format!("{inner}/"), each)?,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// All objects whose name begins with `prefix`, sorted.
pub(super) fn objects(root: Folder, prefix: &str) -> Result<Vec<Stat>> {
    let mut found = Vec::new();
    walk(&root, "", &mut |_, _, path, stat| {
        if path.starts_with(prefix)
            && folder::is_file(stat)
            && let Ok(name) = ObjectName::new(path)
        {
            found.push(told(name, stat));
        }
        Ok(())
    })?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Removes unfinished files that nobody wrote to for `older`.
pub(super) fn sweep(root: Folder, older: Duration) -> Result<u64> {
    let (mut removed, now) = (0, SystemTime::now());
    walk(&root, "", &mut |folder, name, _, stat| {
        let age = modified(stat)
            .and_then(|then| now.duration_since(then).ok())
            .unwrap_or_default();
        if folder::is_file(stat) && folder::is_unfinished(name) && age >= older {
            match folder.remove(name) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    Ok(removed)
}
