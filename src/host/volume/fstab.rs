//! `/etc/fstab`: one proper line for the data volume, everything else as it was.

use super::mounts::unescape;
use super::probe::Filesystem;
use crate::host::{HostError, files};
use datastore_api::{Change, FileMode};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The line of one mount.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    mount_point: PathBuf,
    line: String,
}

impl Entry {
    /// By the file system's identity where it has one: device names change with the order of attaching. `nofail`: a guest
    /// without its volume must boot, or the agent cannot tell that the volume is missing.
    pub(super) fn new(device: &Path, found: &Filesystem, mount_point: &Path, options: &str) -> Self {
        let source = found
            .uuid
            .as_ref()
            .map_or_else(|| escape(device.as_os_str().as_bytes()), |uuid| format!("UUID={uuid}"));
        let mut options: Vec<&str> = options
            .split(',')
            .map(str::trim)
            .filter(|option| !option.is_empty())
            .collect();
        if options.is_empty() {
            options.push("defaults");
        }
        if !options.contains(&"nofail") {
            options.push("nofail");
        }
        // The order in which file systems are checked at boot; XFS is not.
        let pass = if found.is_ext() { 2 } else { 0 };
        let at = escape(mount_point.as_os_str().as_bytes());
        let line = format!(
            "{source} {at} {} {} 0 {pass}",
            found.kind,
            escape(options.join(",").as_bytes())
        );
        Self {
            mount_point: mount_point.to_path_buf(),
            line,
        }
    }
}

/// Writes the entry into the table: in the place of an older one of the same mount point, else at the end.
pub(super) fn write(table: &Path, entry: &Entry) -> Result<Change, HostError> {
    let (before, mode) = match fs::read(table) {
        Ok(bytes) => {
            let mode = fs::metadata(table)
                .map_err(HostError::path("look at", table))?
                .permissions()
                .mode()
                & 0o7777;
            (bytes, mode)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), 0o644),
        Err(error) => return Err(HostError::path("read", table)(error)),
    };
    let after = with_entry(&before, entry);
    if after == before {
        return Ok(Change::Unchanged);
    }
    files::write_atomic(table, &after, &FileMode { mode, owner: None }).map_err(HostError::path("write", table))
}

fn with_entry(before: &[u8], entry: &Entry) -> Vec<u8> {
    let mut after = Vec::with_capacity(before.len() + entry.line.len() + 1);
    let mut written = false;
    for line in before.split_inclusive(|&byte| byte == b'\n') {
        if !is_for(line, &entry.mount_point) {
            after.extend_from_slice(line);
        } else if !written {
            after.extend_from_slice(entry.line.as_bytes());
            after.push(b'\n');
            written = true;
        }
    }
    if !written {
        if after.last().is_some_and(|&byte| byte != b'\n') {
            after.push(b'\n');
        }
        after.extend_from_slice(entry.line.as_bytes());
        after.push(b'\n');
    }
    after
}

fn is_for(line: &[u8], mount_point: &Path) -> bool {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let is_comment = fields.next().is_none_or(|first| first.starts_with(b"#"));
    !is_comment
        && fields
            .next()
            .is_some_and(|at| unescape(at) == mount_point.as_os_str().as_bytes())
}

fn escape(field: &[u8]) -> String {
    let escaped = field.iter().flat_map(|&byte| match byte {
        b' ' | b'\t' | b'\n' | b'\r' | b'\\' | b'#' | 0x80.. => format!("\\{byte:03o}").into_bytes(),
        _ => vec![byte],
    });
    // Only ASCII is left.
    escaped.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mount_point: &str) -> Entry {
        let found = Filesystem {
            kind: "ext4".to_owned(),
            uuid: Some("6e1b".to_owned()),
        };
        Entry::new(Path::new("/dev/vdb"), &found, Path::new(mount_point), "defaults,noatime")
    }

    const LINE: &str = "UUID=6e1b /var/lib/mysql ext4 defaults,noatime,nofail 0 2\n";

    #[test]
    fn a_line_is_added_whole_also_after_one_that_has_no_end() {
        let at = entry("/var/lib/mysql");
        assert_eq!(with_entry(b"", &at), LINE.as_bytes());
        let after = with_entry(b"# x\n/dev/vda1 / ext4 defaults 0 1", &at);
        assert_eq!(
            String::from_utf8(after.clone()).unwrap(),
            format!("# x\n/dev/vda1 / ext4 defaults 0 1\n{LINE}")
        );
        assert_eq!(with_entry(&after, &at), after);
    }

    #[test]
    fn an_older_line_of_the_mount_point_is_replaced() {
        let old = "/dev/vdb\t/var/lib/mysql\text4\tdefaults,noatime\t0\t0\n#/dev/vdb /var/lib/mysql\n/dev/vdc /var/lib/mysql xfs x 0 0\n";
        let after = with_entry(old.as_bytes(), &entry("/var/lib/mysql"));
        assert_eq!(String::from_utf8(after).unwrap(), format!("{LINE}#/dev/vdb /var/lib/mysql\n"));
    }

    #[test]
    fn odd_characters_are_written_so_that_they_are_read_again() {
        let odd = "/mnt/a b\t#ü\\040\n";
        let at = entry(odd);
        assert_eq!(
            at.line,
            "UUID=6e1b /mnt/a\\040b\\011\\043\\303\\274\\134040\\012 ext4 defaults,noatime,nofail 0 2"
        );
        let after = with_entry(b"", &at);
        assert!(is_for(after.strip_suffix(b"\n").unwrap(), Path::new(odd)));
        assert_eq!(with_entry(&after, &at), after);
    }
}
