//! The data volume: found, formatted when (and only when) it is blank, mounted, grown.
//!
//! Owns: block devices, file systems on them, mounts, `/etc/fstab`. Uses: `exec`, `files`, `figures`. Never does: shrink,
//! format over anything, mount a device twice, unmount by force.

mod fstab;
mod mounts;
mod probe;
mod resize;

pub use probe::{Content, Filesystem};

use super::error::HostError;
use super::{FilesystemStats, as_blocking, exec, files, filesystem_stats};
use datastore_api::{Change, Cmd, ExecError, FileMode};
use mounts::Mounts;
use probe::Device;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long the kernel may take to mount or unmount; an unmount writes what is not on disk yet.
const MOUNT_LIMIT: Duration = Duration::from_secs(120);
/// How long a check of a file system may take: long, for it must not be cut short.
const CHECK_LIMIT: Duration = Duration::from_secs(3600);
/// Upstream's default options of mkfs, meant for ext; `mkfs.xfs` understands something else by them.
const EXT_DEFAULTS: &str = "-m 5";

/// A kind of file system that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsType {
    /// ext3.
    Ext3,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FsType {
    /// The kernel's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FsType {
    type Err = HostError;

    fn from_str(name: &str) -> Result<Self, HostError> {
        [Self::Ext3, Self::Ext4, Self::Xfs]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| HostError::Invalid(format!("{name:?} is not one of ext3, ext4, xfs")))
    }
}

/// Settings of the data volume; the control plane's options of the same names.
#[derive(Debug, Clone)]
pub struct VolumeSettings {
    /// What a blank device is formatted with (`volume_fstype`).
    pub fs_type: FsType,
    /// Options of mkfs, split at blanks (`format_options`).
    pub format_options: String,
    /// How long formatting may take (`volume_format_timeout`).
    pub format_limit: Duration,
    /// Mount options (`mount_options`).
    pub mount_options: String,
    /// How often, a second apart, a missing device is looked for (`num_tries`).
    pub num_tries: u32,
    /// The table of mounts at boot, `/etc/fstab` but for tests.
    pub fstab: PathBuf,
    /// Folder of what must outlast a crash: which device was being formatted.
    pub state_dir: PathBuf,
}

impl VolumeSettings {
    /// The control plane's defaults.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            fs_type: FsType::Ext4,
            format_options: EXT_DEFAULTS.to_owned(),
            format_limit: Duration::from_secs(120),
            mount_options: "defaults,noatime".to_owned(),
            num_tries: 3,
            fstab: PathBuf::from("/etc/fstab"),
            state_dir: state_dir.into(),
        }
    }
}

/// The data volume's verbs. Each may be repeated. Whoever calls them takes care that only one runs at a time.
#[derive(Debug, Clone)]
pub struct Volumes {
    settings: VolumeSettings,
}

impl Volumes {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(settings: VolumeSettings) -> Self {
        Self { settings }
    }

    /// Waits for the device and looks what is on it.
    ///
    /// # Errors
    /// [`HostError::Path`] if the device does not appear or cannot be read, [`HostError::Unfit`] if it is no block device,
    /// [`HostError::Program`] if it cannot be probed.
    pub async fn probe(&self, device: &Path) -> Result<Content, HostError> {
        let device = Device::wait(device, self.settings.num_tries).await?;
        probe::content(&device).await
    }

    /// Makes the device ready to mount: formats it if it is blank, checks and repairs what a crash left if it has a file
    /// system, and leaves it alone if it is mounted. `known_blank`: somebody who must know says that whatever is on the
    /// device without being recognised is rubbish.
    ///
    /// # Errors
    /// Those of [`Volumes::probe`]; [`HostError::Unfit`] names what is on a device that is not blank;
    /// [`HostError::Program`] if formatting or checking failed.
    pub async fn prepare_device(&self, device: &Path, known_blank: bool) -> Result<Change, HostError> {
        let device = Device::wait(device, self.settings.num_tries).await?;
        if !mounts().await?.of_device(device.number).is_empty() {
            return Ok(Change::Unchanged);
        }
        let marker = self.settings.state_dir.join("formatting");
        let unfinished = self.was_being_formatted(&marker, &device).await;
        match probe::content(&device).await? {
            Content::Filesystem(found) if found.can_be_mounted() => {
                remove(&marker).await?;
                self.check(&device, &found).await?;
                Ok(Change::Unchanged)
            }
            Content::Filesystem(found) => Err(device.unfit(format!("holds a file system of kind {}", found.kind))),
            Content::Other(found) => Err(device.unfit(format!("is not blank, it holds {found}; it is not formatted"))),
            Content::Data if !known_blank && !unfinished => {
                let problem = "is not blank, it holds data of an unknown kind; it is not formatted";
                Err(device.unfit(problem.to_owned()))
            }
            Content::Data | Content::Blank => {
                // If we die while mkfs works, the device is neither blank nor anything: this remembers that it was blank.
                write(&marker, device.identity().into_bytes()).await?;
                self.format(&device).await?;
                remove(&marker).await?;
                Ok(Change::Done)
            }
        }
    }

    async fn was_being_formatted(&self, marker: &Path, device: &Device) -> bool {
        let (marker, identity) = (marker.to_path_buf(), device.identity());
        as_blocking(move || Ok(fs::read(marker).is_ok_and(|bytes| bytes == identity.as_bytes())))
            .await
            .unwrap_or(false)
    }

    async fn format(&self, device: &Device) -> Result<(), HostError> {
        let kind = self.settings.fs_type;
        let options = match (kind, self.settings.format_options.trim()) {
            (FsType::Xfs, EXT_DEFAULTS) => "",
            (_, options) => options,
        };
        let mut cmd = Cmd::new(format!("/sbin/mkfs.{kind}"))
            .deadline(self.settings.format_limit)
            .arg("-q");
        cmd.args.extend(options.split_ascii_whitespace().map(str::to_owned));
        cmd.args.push(device.text()?);
        program("format", &device.path, cmd).await?;
        tracing::info!(device = %device.path.display(), kind = kind.name(), "volume formatted");
        Ok(())
    }

    async fn check(&self, device: &Device, found: &Filesystem) -> Result<(), HostError> {
        if !found.is_ext() {
            // XFS repairs itself when it is mounted.
            return Ok(());
        }
        let cmd = Cmd::new("/sbin/e2fsck").arg("-p").arg(device.text()?).deadline(CHECK_LIMIT);
        e2fsck(device, cmd).await
    }

    /// Mounts the device; the mount point is made if it is not there. With `at_boot` the table of mounts names it too.
    ///
    /// # Errors
    /// Those of [`Volumes::probe`]; [`HostError::Unfit`] if there is nothing to mount, the device is mounted elsewhere, or
    /// something else is mounted there; [`HostError::Path`] if the kernel refuses; [`HostError::Late`].
    pub async fn mount(&self, device: &Path, mount_point: &Path, at_boot: bool) -> Result<Change, HostError> {
        let device = Device::wait(device, self.settings.num_tries).await?;
        let at = prepare_mount_point(mount_point).await?;
        let table = mounts().await?;
        let filesystem = probe::content(&device).await?;
        let Content::Filesystem(found) = filesystem else {
            return Err(device.unfit(format!("cannot be mounted, it holds {filesystem}")));
        };
        let mut change = Change::Unchanged;
        if table.at(&at) != Some(device.number) {
            if let Some(elsewhere) = table.of_device(device.number).first() {
                return Err(device.unfit(format!(
                    "is mounted at {} already, not at {}",
                    elsewhere.display(),
                    at.display()
                )));
            }
            if table.at(&at).is_some() {
                let problem = format!("another device than {} is mounted there", device.path.display());
                return Err(HostError::Unfit { path: at, problem });
            }
            let (from, to) = (device.path.clone(), at.clone());
            let (kind, options) = (found.kind.clone(), self.settings.mount_options.clone());
            in_time("mount", &at, move || mounts::mount(&from, &to, &kind, &options)).await?;
            if mounts().await?.at(&at) != Some(device.number) {
                return Err(HostError::Unfit {
                    path: at,
                    problem: "was mounted and is not there".to_owned(),
                });
            }
            tracing::info!(device = %device.path.display(), mount_point = %at.display(), "volume mounted");
            change = Change::Done;
        }
        if at_boot {
            let entry = fstab::Entry::new(&device.path, &found, mount_point, &self.settings.mount_options);
            let table = self.settings.fstab.clone();
            change = change.or(as_blocking(move || fstab::write(&table, &entry)).await?);
        }
        Ok(change)
    }

    /// Unmounts what is mounted there; nothing there is `Unchanged`. The table of mounts is left as it is.
    ///
    /// # Errors
    /// [`HostError::Unfit`] names the processes that use it, [`HostError::Path`] if the kernel refuses otherwise,
    /// [`HostError::Late`].
    pub async fn unmount(&self, mount_point: &Path) -> Result<Change, HostError> {
        let given = mount_point.to_path_buf();
        let Some(at) = as_blocking(move || Ok(given.canonicalize().ok())).await? else {
            return Ok(Change::Unchanged);
        };
        if mounts().await?.at(&at).is_none() {
            return Ok(Change::Unchanged);
        }
        let from = at.clone();
        in_time("unmount", &at, move || mounts::unmount(&from)).await?;
        tracing::info!(mount_point = %at.display(), "volume unmounted");
        Ok(Change::Done)
    }

    /// Size and use of the file system that `path` lies on.
    ///
    /// # Errors
    /// Those of [`filesystem_stats`].
    pub async fn stats(&self, path: &Path) -> Result<FilesystemStats, HostError> {
        filesystem_stats(path).await
    }
}

/// Runs e2fsck; "errors were corrected" is a success.
async fn e2fsck(device: &Device, cmd: Cmd) -> Result<(), HostError> {
    match exec::run(cmd, None).await {
        Ok(_) => Ok(()),
        Err(ExecError::Exit { code: Some(1 | 2), .. }) => {
            tracing::warn!(device = %device.path.display(), "file system repaired");
            Ok(())
        }
        Err(error) => Err(HostError::Program {
            doing: "check",
            path: device.path.clone(),
            source: Box::new(error),
        }),
    }
}

/// Runs a tool. It is not ended with us: cutting off one that moves data could cost the data. The next agent's tools and the
/// kernel refuse a device that is still being worked on.
async fn program(doing: &'static str, path: &Path, cmd: Cmd) -> Result<(), HostError> {
    let failed = |error| HostError::Program {
        doing,
        path: path.to_path_buf(),
        source: Box::new(error),
    };
    exec::run(cmd, None).await.map(|_| ()).map_err(failed)
}

async fn mounts() -> Result<Mounts, HostError> {
    as_blocking(Mounts::read).await
}

/// Makes the mount point if needed, and answers its true path.
async fn prepare_mount_point(path: &Path) -> Result<PathBuf, HostError> {
    if !path.is_absolute() {
        return Err(HostError::Unfit {
            path: path.to_path_buf(),
            problem: "is not an absolute path".to_owned(),
        });
    }
    let path = path.to_path_buf();
    as_blocking(move || {
        fs::create_dir_all(&path).map_err(HostError::path("create", &path))?;
        path.canonicalize().map_err(HostError::path("resolve", &path))
    })
    .await
}

/// Work that the kernel may hold up: its thread is left behind when it takes too long.
async fn in_time(
    what: &'static str,
    path: &Path,
    work: impl FnOnce() -> Result<(), HostError> + Send + 'static,
) -> Result<(), HostError> {
    let late = HostError::Late {
        what: format!("the kernel did not {what} {}", path.display()),
        limit: MOUNT_LIMIT,
    };
    tokio::time::timeout(MOUNT_LIMIT, as_blocking(work))
        .await
        .unwrap_or(Err(late))
}

async fn write(path: &Path, bytes: Vec<u8>) -> Result<(), HostError> {
    let path = path.to_path_buf();
    as_blocking(move || {
        let mode = FileMode {
            mode: 0o600,
            owner: None,
        };
        files::write_atomic(&path, &bytes, &mode)
            .map(|_| ())
            .map_err(HostError::path("write", &path))
    })
    .await
}

async fn remove(path: &Path) -> Result<(), HostError> {
    let path = path.to_path_buf();
    as_blocking(move || files::remove(&path).map(|_| ()).map_err(HostError::path("remove", &path))).await
}
