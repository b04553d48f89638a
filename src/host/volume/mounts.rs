//! The kernel's table of mounts, and the two calls that change it.

use crate::host::HostError;
use nix::mount::{MntFlags, MsFlags};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// How many users of a busy mount are named.
const NAMED: usize = 5;

/// The mounts of our namespace, in the order they were made.
#[derive(Debug)]
pub(super) struct Mounts(Vec<Mount>);

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: (u32, u32),
    at: PathBuf,
}

impl Mounts {
    pub(super) fn read() -> Result<Self, HostError> {
        const PATH: &str = "/proc/self/mountinfo";
        // Paths in it are bytes.
        let bytes = fs::read(PATH).map_err(HostError::path("read", PATH))?;
        Ok(Self(bytes.split(|&byte| byte == b'\n').filter_map(parse).collect()))
    }

    /// The device whose file system is seen at this path (the last mounted covers the others).
    pub(super) fn at(&self, path: &Path) -> Option<(u32, u32)> {
        self.0.iter().rev().find(|mount| mount.at == path).map(|mount| mount.device)
    }

    /// Where a device is mounted.
    pub(super) fn of_device(&self, device: (u32, u32)) -> Vec<&Path> {
        self.0
            .iter()
            .filter(|mount| mount.device == device)
            .map(|mount| mount.at.as_path())
            .collect()
    }
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let at = fields.nth(1)?;
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        at: PathBuf::from(OsString::from_vec(unescape(at))),
    })
}

/// Undoes `\040` and its like.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let code = octal.map(|digits| digits.iter().fold(0u32, |code, digit| code * 8 + u32::from(digit - b'0')));
        if let Some(code) = code.and_then(|code| u8::try_from(code).ok()) {
            plain.push(code);
            rest = &after[3..];
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

/// Mounts by the kernel's own call.
pub(super) fn mount(device: &Path, at: &Path, kind: &str, options: &str) -> Result<(), HostError> {
    let (flags, rest) = split_options(options);
    let data = (!rest.is_empty()).then_some(rest.as_str());
    nix::mount::mount(Some(device), at, Some(kind), flags, data).map_err(|error| HostError::path("mount", device)(error.into()))
}

/// Unmounts; a busy one stays, and its users are named.
pub(super) fn unmount(at: &Path) -> Result<(), HostError> {
    match nix::mount::umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(nix::Error::EBUSY) => {
            let users = users_of(at);
            let users = if users.is_empty() {
                "unknown".to_owned()
            } else {
                users.join(", ")
            };
            Err(HostError::Unfit {
                path: at.to_path_buf(),
                problem: format!("cannot be unmounted, it is in use by: {users}"),
            })
        }
        Err(error) => Err(HostError::path("unmount", at)(error.into())),
    }
}

/// Processes that have something open there, as far as we may look.
fn users_of(at: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let uses = |process: &Path| {
        let open = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let links = ["cwd", "root", "exe"].into_iter().map(|name| process.join(name)).chain(open);
        links
            .filter_map(|link| fs::read_link(link).ok())
            .any(|target| target.starts_with(at))
    };
    let processes = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    let name = |process: &Path| {
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        format!(
            "{} (process {})",
            comm.trim(),
            process.file_name().unwrap_or_default().to_string_lossy()
        )
    };
    processes
        .map(|entry| entry.path())
        .filter(|path| uses(path))
        .take(NAMED)
        .map(|path| name(&path))
        .collect()
}

/// Splits mount options into what the kernel takes as flags and what it hands to the file system. Those that only the
/// mount program and the boot know (`auto`, `nofail`, `x-…`) are left out.
fn split_options(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut rest = Vec::new();
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let (flag, on) = match option {
            "ro" => (MsFlags::MS_RDONLY, true),
            "rw" => (MsFlags::MS_RDONLY, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "suid" => (MsFlags::MS_NOSUID, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "sync" => (MsFlags::MS_SYNCHRONOUS, true),
            "async" => (MsFlags::MS_SYNCHRONOUS, false),
            "dirsync" => (MsFlags::MS_DIRSYNC, true),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "atime" => (MsFlags::MS_NOATIME, false),
            "nodiratime" => (MsFlags::MS_NODIRATIME, true),
            "diratime" => (MsFlags::MS_NODIRATIME, false),
            "relatime" => (MsFlags::MS_RELATIME, true),
            "norelatime" => (MsFlags::MS_RELATIME, false),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            "lazytime" => (MsFlags::MS_LAZYTIME, true),
            "silent" => (MsFlags::MS_SILENT, true),
            "defaults" | "auto" | "noauto" | "user" | "nouser" | "users" | "owner" | "group" | "nofail" | "_netdev" => continue,
            other if other.starts_with("x-") || other.starts_with("X-") || other.starts_with("comment=") => continue,
            other => {
                rest.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, rest.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_as_the_mount_program_does() {
        let defaults = (MsFlags::MS_NOATIME, String::new());
        assert_eq!(split_options("defaults,noatime"), defaults);
        assert_eq!(
            split_options(" defaults , noatime,,nofail,x-systemd.automount,ro,rw"),
            defaults
        );
        let (flags, data) = split_options("noexec,discard,data=ordered,errors=remount-ro,nosuid");
        assert_eq!(flags, MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID);
        assert_eq!(data, "discard,data=ordered,errors=remount-ro");
    }

    #[test]
    fn the_kernels_table_is_read_with_its_escapes() {
        let line = br"36 35 98:0 /mnt1 /mnt/a\040b\134c\012 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let wanted = Mount {
            device: (98, 0),
            at: PathBuf::from("/mnt/a b\\c\n"),
        };
        assert_eq!(parse(line), Some(wanted));
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"\04\9\777x"), br"\04\9\777x");
        assert!(Mounts::read().expect("it is there").at(Path::new("/proc")).is_some());
    }
}
