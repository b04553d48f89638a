//! Whether the file system of the root is there. Where it is not, the folder below the mount point looks like an empty store,
//! and backups written there would fill the root file system and vanish at the next mount.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which mount point on the way to `root` is listed in `fstab` and not mounted, by the text of both files.
pub(super) fn missing(root: &Path, fstab: &str, mountinfo: &str) -> Option<PathBuf> {
    let mounted: Vec<PathBuf> = mountinfo.lines().filter_map(|line| field(line, 4)).collect();
    let wanted = fstab.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    wanted
        .filter_map(|line| field(line, 1))
        .find(|point| point.is_absolute() && root.starts_with(point) && !mounted.contains(point))
}

/// What is wrong with the file systems on the way to `root`. `own` asks for another file system than that of `/`.
pub(super) fn problem(root: &Path, own: bool) -> Option<String> {
    // Links on the way are followed here, since mount points are listed without them.
    let real = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let fstab = fs::read_to_string("/etc/fstab").unwrap_or_default();
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mountinfo.is_empty()
        && let Some(point) = missing(&real, &fstab, &mountinfo)
    {
        return Some(format!("{} is listed in /etc/fstab and not mounted", point.display()));
    }
    // The folder itself may have to be made yet.
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let here = device(&real).or_else(|| device(real.parent()?));
    (own && here == device(Path::new("/"))).then(|| "it is on the file system of /, and backup_folder_mounted is set".to_owned())
}

/// A field of such a line, as a path; blanks in it are written `\040`.
fn field(line: &str, index: usize) -> Option<PathBuf> {
    let text = line.split_whitespace().nth(index)?;
    let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    let trimmed = text.trim_end_matches('/');
    Some(PathBuf::from(if trimmed.is_empty() && text.starts_with('/') {
        "/"
    } else {
        trimmed
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSTAB: &str =
        "# a comment /srv\n\nUUID=1 / ext4 defaults 0 1\nnas:/x /srv/back\\040ups/ nfs rw 0 0\n/dev/sda2 none swap sw 0 0\n";
    const ROOT: &str = "22 1 254:0 / / rw - ext4 /dev/vda rw\n";

    #[test]
    fn a_mount_point_that_is_not_mounted_is_found_on_the_way() {
        let of = |root: &str, mounted: &str| missing(Path::new(root), FSTAB, &format!("{ROOT}{mounted}"));
        let point = Some(PathBuf::from("/srv/back ups"));
        assert_eq!(of("/srv/back ups", ""), point);
        assert_eq!(of("/srv/back ups/guest/a", ""), point);
        assert_eq!(
            of("/srv/back ups/a", "33 22 0:50 / /srv/back\\040ups rw - nfs nas:/x rw\n"),
            None
        );
        assert_eq!(of("/srv/back upset", ""), None);
        assert_eq!(of("/srv", ""), None);
    }

    #[test]
    fn a_folder_on_the_root_file_system_is_none_of_its_own() {
        assert_eq!(problem(Path::new("/"), false), None);
        assert!(problem(Path::new("/"), true).is_some());
        assert!(problem(Path::new("/not-there"), true).is_some());
        assert_eq!(problem(Path::new("/proc/self"), true), None);
    }
}
