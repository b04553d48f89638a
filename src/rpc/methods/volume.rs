//! The data volume (contract section 5.5).

use crate::host::{self, HostError};
use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, optional};
use crate::rpc::method::{Method, Mode};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::path::PathBuf;

/// `get_filesystem_stats` (contract section 6.8): of the datastore's mount point, whatever path is asked for.
pub struct GetFilesystemStats;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct StatsArgs {
    #[serde(default, rename = "fs_path")]
    _fs_path: Option<IgnoredAny>,
}

impl Method for GetFilesystemStats {
    const NAME: &'static str = "get_filesystem_stats";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[optional("fs_path")];
    type Args = StatsArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, _args: StatsArgs) -> Result<Value, RpcError> {
        let path = &ctx.settings.mount_point;
        let stats = host::filesystem_stats(path).await.map_err(|error| {
            RpcError::caused(
                ErrorClass::Guest,
                format!("could not look at the file system of {}", path.display()),
                error,
            )
        })?;
        Ok(json!({
            "block_size": stats.block_size,
            "total_blocks": stats.total_blocks,
            "free_blocks": stats.free_blocks,
            "avail_blocks": stats.avail_blocks,
            "total": stats.total(),
            "free": stats.free_bytes(),
            "used": stats.used(),
            "mgr_extra_info": {},
        }))
    }
}

/// Arguments of the volume methods, of every era.
#[derive(Debug, Deserialize)]
pub struct VolumeArgs {
    #[serde(default)]
    device_path: Option<String>,
    #[serde(default)]
    mount_point: Option<String>,
    #[serde(default)]
    write_to_fstab: Option<bool>,
    #[serde(default)]
    online: Option<bool>,
}

impl VolumeArgs {
    /// Device, given or the configured one, and mount point: no other than the configured one, for a stray request must not
    /// mount over `/etc` or take `/proc` away.
    fn paths(&self, ctx: &Ctx) -> Result<(PathBuf, PathBuf), RpcError> {
        let device = self.device_path.as_deref().filter(|given| !given.is_empty());
        let device = device.map_or_else(|| ctx.settings.device_path.clone(), PathBuf::from);
        ctx.settings.check_mount_point(self.mount_point.as_deref())?;
        Ok((device, ctx.settings.mount_point.clone()))
    }
}

/// `mount_volume`.
pub struct MountVolume;

impl Method for MountVolume {
    const NAME: &'static str = "mount_volume";
    const MODE: Mode = Mode::Change(OpKind::Volume);
    const ARGS: &'static [Arg] = &[optional("device_path"), optional("mount_point"), optional("write_to_fstab")];
    type Args = VolumeArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: VolumeArgs) -> Result<(), RpcError> {
        let (device, mount_point) = args.paths(ctx)?;
        let fstab = args.write_to_fstab.unwrap_or(false);
        ctx.volumes.mount(&device, &mount_point, fstab).await.map_err(guest_error)?;
        Ok(())
    }
}

/// `unmount_volume`: one that is not mounted is fine.
pub struct UnmountVolume;

impl Method for UnmountVolume {
    const NAME: &'static str = "unmount_volume";
    const MODE: Mode = Mode::Change(OpKind::Volume);
    const ARGS: &'static [Arg] = &[optional("device_path"), optional("mount_point")];
    type Args = VolumeArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: VolumeArgs) -> Result<(), RpcError> {
        let (_, mount_point) = args.paths(ctx)?;
        ctx.volumes.unmount(&mount_point).await.map_err(guest_error)?;
        Ok(())
    }
}

/// `resize_fs`: grows the file system to its device.
pub struct ResizeFs;

impl Method for ResizeFs {
    const NAME: &'static str = "resize_fs";
    const MODE: Mode = Mode::Change(OpKind::Volume);
    const ARGS: &'static [Arg] = &[optional("device_path"), optional("mount_point"), optional("online")];
    type Args = VolumeArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: VolumeArgs) -> Result<(), RpcError> {
        let (device, mount_point) = args.paths(ctx)?;
        ctx.volumes
            .resize(&device, &mount_point, args.online.unwrap_or(false))
            .await
            .map_err(guest_error)?;
        Ok(())
    }
}

/// Sees to it that the data volume is there: waits for the device, formats it if it is blank, mounts it for this and the
/// next boot.
pub async fn ensure(ctx: &Ctx, device: Option<&str>) -> Result<(), RpcError> {
    let device = device.map_or_else(|| ctx.settings.device_path.clone(), PathBuf::from);
    let mount_point = &ctx.settings.mount_point;
    ctx.volumes.prepare_device(&device, false).await.map_err(guest_error)?;
    ctx.volumes.mount(&device, mount_point, true).await.map_err(guest_error)?;
    Ok(())
}

fn guest_error(error: HostError) -> RpcError {
    let text = error.to_string();
    RpcError::caused_by(ErrorClass::Guest, text, &error)
}
