//! Growing a file system to the size of its device. It never shrinks.

use super::probe::{self, Content, Device, Filesystem};
use super::{CHECK_LIMIT, Volumes, e2fsck, mounts, prepare_mount_point, program};
use crate::host::{HostError, filesystem_stats};
use datastore_api::{Change, Cmd};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long growing may take.
const GROW_LIMIT: Duration = Duration::from_secs(3600);
/// A volume that was just attached may be mounted by the system a moment later.
const AUTOMATIC_MOUNT: Duration = Duration::from_secs(2);

impl Volumes {
    /// Grows the file system to its device. `online`: while it is mounted; else it is unmounted first if it is mounted, and
    /// left unmounted. XFS grows only while mounted, so for it a mount is made and taken away again where there is none.
    ///
    /// # Errors
    /// Those of [`Volumes::probe`] and [`Volumes::unmount`]; [`HostError::Unfit`] if there is no file system, if it is mounted
    /// elsewhere, or if the device is smaller than it; [`HostError::Program`] if checking or growing failed.
    pub async fn resize(&self, device: &Path, mount_point: &Path, online: bool) -> Result<Change, HostError> {
        let device = Device::wait(device, self.settings.num_tries).await?;
        let at = prepare_mount_point(mount_point).await?;
        let found = match probe::content(&device).await? {
            Content::Filesystem(found) if found.can_be_mounted() => found,
            other => return Err(device.unfit(format!("cannot be grown, it holds {other}"))),
        };
        let mut mounted = is_mounted(&device, &at).await?;
        if !online {
            let until = Instant::now() + AUTOMATIC_MOUNT;
            while !mounted && Instant::now() < until {
                sleep(Duration::from_millis(200)).await;
                mounted = is_mounted(&device, &at).await?;
            }
            if mounted {
                self.unmount(&at).await?;
                mounted = false;
            }
        }
        let before = size_of(&device, &found).await?;
        if before > device.size {
            let problem = format!("has {} bytes, its file system {before}; it is not shrunk", device.size);
            return Err(device.unfit(problem));
        }
        if found.is_ext() {
            self.grow_ext(&device, &found, mounted, before).await
        } else {
            self.grow_xfs(&device, &at, mounted).await
        }
    }

    async fn grow_ext(&self, device: &Device, found: &Filesystem, mounted: bool, before: u64) -> Result<Change, HostError> {
        if !mounted {
            // resize2fs wants a fresh full check.
            let check = Cmd::new("/sbin/e2fsck")
                .arg("-f")
                .arg("-p")
                .arg(device.text()?)
                .deadline(CHECK_LIMIT);
            e2fsck(device, check).await?;
        }
        program(
            "grow",
            &device.path,
            Cmd::new("/sbin/resize2fs").arg(device.text()?).deadline(GROW_LIMIT),
        )
        .await?;
        Ok(changed(before, size_of(device, found).await?))
    }

    async fn grow_xfs(&self, device: &Device, at: &Path, mounted: bool) -> Result<Change, HostError> {
        if !mounted {
            self.mount(&device.path, at, false).await?;
        }
        let grown = async {
            let before = filesystem_stats(at).await?.total_bytes();
            let text = at
                .to_str()
                .ok_or_else(|| device.unfit("is mounted at a path that is not UTF-8".to_owned()))?;
            program(
                "grow",
                at,
                Cmd::new("/usr/sbin/xfs_growfs").arg("-d").arg(text).deadline(GROW_LIMIT),
            )
            .await?;
            Ok(changed(before, filesystem_stats(at).await?.total_bytes()))
        }
        .await;
        if !mounted {
            self.unmount(at).await?;
        }
        grown
    }
}

async fn is_mounted(device: &Device, at: &Path) -> Result<bool, HostError> {
    let table = mounts().await?;
    match table.of_device(device.number).first() {
        None => Ok(false),
        Some(_) if table.at(at) == Some(device.number) => Ok(true),
        Some(elsewhere) => Err(device.unfit(format!("is mounted at {}, not at {}", elsewhere.display(), at.display()))),
    }
}

fn changed(before: u64, after: u64) -> Change {
    if before == after { Change::Unchanged } else { Change::Done }
}

/// Bytes of the file system as its superblock tells.
async fn size_of(device: &Device, found: &Filesystem) -> Result<u64, HostError> {
    let head = device.read(0, 4096).await?;
    let size = if found.is_ext() { ext_size(&head) } else { xfs_size(&head) };
    size.ok_or_else(|| device.unfit("has a superblock that cannot be understood".to_owned()))
}

/// ext2 to ext4: little endian, at 1024; block count at 4 and (with the 64-bit feature) 0x150, log2 of the block size at 24.
fn ext_size(head: &[u8]) -> Option<u64> {
    const INCOMPAT_64BIT: u32 = 0x80;
    let at = |offset: usize| {
        head.get(1024 + offset..1028 + offset)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
    };
    let high = if at(0x60)? & INCOMPAT_64BIT != 0 { at(0x150)? } else { 0 };
    let blocks = u64::from(at(4)?) | u64::from(high) << 32;
    blocks.checked_mul(1024_u64.checked_shl(at(24)?)?)
}

/// XFS: big endian; magic at 0, block size at 4, data blocks at 8.
fn xfs_size(head: &[u8]) -> Option<u64> {
    let block = u32::from_be_bytes(head.get(4..8)?.try_into().ok()?);
    let blocks = u64::from_be_bytes(head.get(8..16)?.try_into().ok()?);
    head.starts_with(b"XFSB").then(|| blocks.checked_mul(u64::from(block)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_the_superblock() {
        let mut ext = vec![0; 4096];
        ext[1028..1032].copy_from_slice(&2_579_955_u32.to_le_bytes());
        ext[1048..1052].copy_from_slice(&2_u32.to_le_bytes());
        assert_eq!(ext_size(&ext), Some(2_579_955 * 4096));
        ext[1024 + 0x60] = 0x80;
        ext[1024 + 0x150] = 1;
        assert_eq!(ext_size(&ext), Some(((1 << 32) + 2_579_955) * 4096));
        ext[1048..1052].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(ext_size(&ext), None);
        assert_eq!(ext_size(&[0; 8]), None);
        let mut xfs = b"XFSB".to_vec();
        xfs.extend(4096_u32.to_be_bytes());
        xfs.extend(77_u64.to_be_bytes());
        assert_eq!(xfs_size(&xfs), Some(77 * 4096));
        assert_eq!(xfs_size(&xfs[1..]), None);
    }
}
