//! What is on a device. Only "nothing" in two independent ways counts as blank: the prober finds no signature (file system,
//! partition table, volume manager, encryption, RAID), and both ends of the device are zero.

use crate::host::{HostError, as_blocking, exec};
use datastore_api::{Cmd, ExecError};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much of either end must be zero.
const ENDS: u64 = 1 << 20;
/// How long a device may take to be opened and read.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// A file system on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// The kernel's name of it.
    pub kind: String,
    /// Its identity, if it has one.
    pub uuid: Option<String>,
}

impl Filesystem {
    /// Whether it is of the ext family.
    #[must_use]
    pub fn is_ext(&self) -> bool {
        matches!(self.kind.as_str(), "ext2" | "ext3" | "ext4")
    }

    /// Whether we mount it. One of another kind than configured is mounted as what it is: it holds somebody's data.
    #[must_use]
    pub fn can_be_mounted(&self) -> bool {
        self.is_ext() || self.kind == "xfs"
    }
}

/// What is on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Blank,
    /// No signature, but not zero either.
    Data,
    /// A file system on the whole device.
    Filesystem(Filesystem),
    /// Something else, for people: a partition table, a member of a volume group, an encrypted container.
    Other(String),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("nothing"),
            Self::Data => f.write_str("data of an unknown kind"),
            Self::Filesystem(found) => write!(f, "a file system of kind {}", found.kind),
            Self::Other(found) => f.write_str(found),
        }
    }
}

/// A block device that is there.
#[derive(Debug, Clone)]
pub(super) struct Device {
    /// Its path without links.
    pub path: PathBuf,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Size in bytes.
    pub size: u64,
}

impl Device {
    /// Waits until the device is there and readable.
    pub(super) async fn wait(path: &Path, tries: u32) -> Result<Self, HostError> {
        let mut left = tries.max(1);
        loop {
            left -= 1;
            match Self::open(path).await {
                Err(HostError::Path { .. }) if left > 0 => tokio::time::sleep(Duration::from_secs(1)).await,
                other => return other,
            }
        }
    }

    async fn open(path: &Path) -> Result<Self, HostError> {
        let path = path.to_path_buf();
        if !path.is_absolute() {
            return Err(HostError::Unfit {
                path,
                problem: "is not an absolute path".to_owned(),
            });
        }
        within(path.clone(), move || {
            let real = path.canonicalize().map_err(HostError::path("find device", &path))?;
            let meta = fs::metadata(&real).map_err(HostError::path("look at", &real))?;
            if !meta.file_type().is_block_device() {
                return Err(HostError::Unfit {
                    path: real,
                    problem: "is not a block device".to_owned(),
                });
            }
            let mut file = File::open(&real).map_err(HostError::path("open", &real))?;
            let size = file.seek(SeekFrom::End(0)).map_err(HostError::path("measure", &real))?;
            if size == 0 {
                // A device without its medium yet.
                return Err(HostError::path("use", &real)(io::Error::other("the device has no size")));
            }
            let number = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            Ok(Self {
                path: real,
                number,
                size,
            })
        })
        .await
    }

    /// Its path as an argument.
    pub(super) fn text(&self) -> Result<String, HostError> {
        let odd = || self.unfit("has a path that is not UTF-8".to_owned());
        self.path.to_str().map(str::to_owned).ok_or_else(odd)
    }

    /// An error about this device.
    pub(super) fn unfit(&self, problem: String) -> HostError {
        HostError::Unfit {
            path: self.path.clone(),
            problem,
        }
    }

    /// What tells this device from another, as far as the kernel knows.
    pub(super) fn identity(&self) -> String {
        let (major, minor) = self.number;
        let about = |name: &str| fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{name}")).unwrap_or_default();
        let known = [about("serial"), about("wwid"), about("loop/backing_file")].map(|text| text.trim().to_owned());
        format!("{} {} {}", self.path.display(), self.size, known.join(" "))
    }

    /// Reads at an offset; fewer bytes at the device's end.
    pub(super) async fn read(&self, from: u64, bytes: u64) -> Result<Vec<u8>, HostError> {
        let path = self.path.clone();
        within(path.clone(), move || {
            let read = || {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(from))?;
                let mut buffer = Vec::new();
                file.take(bytes).read_to_end(&mut buffer).map(|_| buffer)
            };
            read().map_err(HostError::path("read", &path))
        })
        .await
    }

    async fn ends_are_zero(&self) -> Result<bool, HostError> {
        for from in [0, self.size.saturating_sub(ENDS)] {
            if self.read(from, ENDS).await?.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn within<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    let late = HostError::Late {
        what: format!("{} did not answer", path.display()),
        limit: READ_LIMIT,
    };
    tokio::time::timeout(READ_LIMIT, as_blocking(work)).await.unwrap_or(Err(late))
}

/// Looks what is on a device.
pub(super) async fn content(device: &Device) -> Result<Content, HostError> {
    // The cache of devices is not asked (`-p`): it may tell of yesterday.
    let cmd = Cmd::new("/sbin/blkid").arg("-p").arg("-o").arg("udev").arg(device.text()?);
    match exec::run(cmd, None).await {
        Ok(output) => Ok(parse(&String::from_utf8_lossy(&output.stdout))),
        // Also its answer for a device that it cannot open: hence the second look, whose errors are told.
        Err(ExecError::Exit { code: Some(2), .. }) => Ok(if device.ends_are_zero().await? {
            Content::Blank
        } else {
            Content::Data
        }),
        Err(ExecError::Exit { code: Some(8), .. }) => Ok(Content::Other("signatures of several kinds".to_owned())),
        Err(error) => Err(HostError::Program {
            doing: "probe",
            path: device.path.clone(),
            source: Box::new(error),
        }),
    }
}

fn parse(text: &str) -> Content {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    if let Some(table) = value("ID_PART_TABLE_TYPE") {
        return Content::Other(format!("a partition table ({table})"));
    }
    match (value("ID_FS_USAGE").as_deref(), value("ID_FS_TYPE")) {
        (Some("filesystem"), Some(kind)) => Content::Filesystem(Filesystem {
            kind,
            uuid: value("ID_FS_UUID"),
        }),
        (_, Some(kind)) => Content::Other(kind),
        // Something was found, or the prober would have said so by its exit code.
        (_, None) => Content::Other("something unknown to us".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_system_on_the_whole_device_is_one() {
        let ext = "ID_FS_UUID=6e1b\nID_FS_UUID_ENC=6e1b\nID_FS_TYPE=ext4\nID_FS_USAGE=filesystem\n";
        let found = Filesystem {
            kind: "ext4".to_owned(),
            uuid: Some("6e1b".to_owned()),
        };
        assert_eq!(parse(ext), Content::Filesystem(found));
        let cases = [
            ("ID_PART_TABLE_UUID=1\nID_PART_TABLE_TYPE=gpt\n", "a partition table (gpt)"),
            ("ID_FS_TYPE=LVM2_member\nID_FS_USAGE=raid\n", "LVM2_member"),
            ("ID_FS_TYPE=crypto_LUKS\nID_FS_USAGE=crypto\n", "crypto_LUKS"),
            (
                "ID_FS_TYPE=ext4\nID_FS_USAGE=filesystem\nID_PART_TABLE_TYPE=dos\n",
                "a partition table (dos)",
            ),
            ("", "something unknown to us"),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text), Content::Other(wanted.to_owned()), "{text}");
        }
    }
}
