//! The data volume on real loop devices.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test that cannot go on says where"
)]

use datastore_api::Change;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use trove_guestagent::host::{Content, FsType, HostError, VolumeSettings, Volumes};

const MIB: u64 = 1 << 20;

/// A file behind a loop device; all of its mounts and itself go with it.
struct Disk {
    dir: tempfile::TempDir,
    device: PathBuf,
}

impl Disk {
    /// `None`, with the reason printed, where loop devices cannot be made.
    fn new(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(mib * MIB).unwrap();
        let made = Command::new("/sbin/losetup").args(["--find", "--show"]).arg(&file).output();
        match made {
            Ok(made) if made.status.success() => {
                let device = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
                Some(Self { dir, device })
            }
            other => {
                println!("SKIPPED: no loop device can be made here: {other:?}");
                None
            }
        }
    }

    fn settings(&self) -> VolumeSettings {
        let mut settings = VolumeSettings::new(self.dir.path());
        settings.fstab = self.path("fstab");
        settings
    }

    fn volumes(&self) -> Volumes {
        Volumes::new(self.settings())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let device = File::options().write(true).open(&self.device).unwrap();
        device.write_all_at(bytes, at).unwrap();
        device.sync_all().unwrap();
    }

    /// Makes the disk so large, and the kernel know it.
    fn grow(&self, mib: u64) {
        File::options()
            .write(true)
            .open(self.path("disk"))
            .unwrap()
            .set_len(mib * MIB)
            .unwrap();
        tool("/sbin/losetup", &["-c", self.device.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for name in ["data", "other", "a b\t#ü"] {
            let _ = Command::new("/bin/umount").arg(self.path(name)).output();
        }
        let _ = Command::new("/sbin/losetup").arg("-d").arg(&self.device).output();
    }
}

fn tool(program: &str, args: &[&str]) {
    let end = Command::new(program).args(args).output().unwrap();
    assert!(
        end.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&end.stderr)
    );
}

fn has(program: &str) -> bool {
    let there = Path::new(program).exists();
    if !there {
        println!("SKIPPED: {program} is not here");
    }
    there
}

const CAP_SYS_RESOURCE: u32 = 24;

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> number & 1 == 1
}

fn text(error: &HostError) -> String {
    error.to_string()
}

#[tokio::test]
async fn a_blank_device_is_formatted_once_and_mounted_once() {
    let Some(disk) = Disk::new(64) else { return };
    let volumes = disk.volumes();
    let at = disk.path("a b\t#ü");
    fs::write(disk.path("fstab"), "/dev/vda1 / ext4 defaults 0 1").unwrap();
    assert_eq!(volumes.probe(&disk.device).await.unwrap(), Content::Blank);
    assert!(text(&volumes.mount(&disk.device, &at, true).await.unwrap_err()).contains("it holds nothing"));
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Done);
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Unchanged);
    assert_eq!(volumes.mount(&disk.device, &at, true).await.unwrap(), Change::Done);
    assert_eq!(volumes.mount(&disk.device, &at, true).await.unwrap(), Change::Unchanged);
    fs::write(at.join("file"), "kept").unwrap();
    let Content::Filesystem(found) = volumes.probe(&disk.device).await.unwrap() else {
        panic!("no file system")
    };
    assert_eq!(found.kind, "ext4");
    let line = format!(
        "UUID={} {}/a\\040b\\011\\043\\303\\274 ext4 defaults,noatime,nofail 0 2\n",
        found.uuid.unwrap(),
        disk.dir.path().display()
    );
    assert_eq!(
        fs::read_to_string(disk.path("fstab")).unwrap(),
        format!("/dev/vda1 / ext4 defaults 0 1\n{line}")
    );
    let options = fs::read_to_string("/proc/mounts").unwrap();
    let device = disk.device.to_str().unwrap();
    let options = options.lines().find(|line| line.starts_with(device)).unwrap();
    assert!(options.contains("noatime"), "{options}");
    // Mounted: not even looked at by fsck.
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Unchanged);
    let stats = volumes.stats(&at).await.unwrap();
    assert!(
        stats.total_bytes() > 40 * MIB && stats.total_bytes() < 64 * MIB && stats.used() > 0.0,
        "{stats:?}"
    );
    assert_eq!(volumes.unmount(&at).await.unwrap(), Change::Done);
    assert_eq!(volumes.unmount(&at).await.unwrap(), Change::Unchanged);
    assert_eq!(volumes.unmount(&disk.path("none")).await.unwrap(), Change::Unchanged);
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Unchanged);
    volumes.mount(&disk.device, &at, false).await.unwrap();
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "kept");
}

#[tokio::test]
async fn whatever_is_on_a_device_is_never_formatted_over() {
    let Some(disk) = Disk::new(16) else { return };
    let volumes = disk.volumes();
    let device = disk.device.to_str().unwrap().to_owned();
    let refused = async |what: &str| {
        let error = text(&volumes.prepare_device(&disk.device, false).await.unwrap_err());
        assert!(error.starts_with(&device) && error.contains(what), "{what}: {error}");
    };
    for at in [512, 5000, MIB - 1, 15 * MIB, 16 * MIB - 1] {
        disk.write(at, b"x");
        refused("data of an unknown kind").await;
        disk.write(at, b"\0");
    }
    disk.write(0, b"LUKS\xba\xbe\x00\x01");
    disk.write(168, b"01234567-89ab-cdef-0123-456789abcdef");
    refused("crypto_LUKS").await;
    // Not even if somebody says it is rubbish: it was recognised.
    assert!(volumes.prepare_device(&disk.device, true).await.is_err());
    disk.write(0, &[0; 512]);
    assert_eq!(volumes.probe(&disk.device).await.unwrap(), Content::Blank);
    if has("/sbin/mkswap") {
        tool("/sbin/mkswap", &[&device]);
        refused("swap").await;
        disk.write(0, &[0; 8192]);
    }
    if has("/sbin/sfdisk") {
        let done = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("echo 'label: gpt' | /sbin/sfdisk --quiet {device}"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        refused("a partition table (gpt)").await;
        disk.write(0, &[0; 65536]);
        // The copy at the end alone.
        refused("").await;
    }
}

#[tokio::test]
async fn rubbish_is_formatted_only_when_somebody_knows_it_is() {
    let Some(disk) = Disk::new(16) else { return };
    let volumes = disk.volumes();
    disk.write(4000, b"rubbish");
    assert!(volumes.prepare_device(&disk.device, false).await.is_err());
    assert_eq!(volumes.prepare_device(&disk.device, true).await.unwrap(), Change::Done);
    assert!(matches!(volumes.probe(&disk.device).await.unwrap(), Content::Filesystem(_)));
}

#[tokio::test]
async fn a_crash_while_formatting_is_made_good() {
    let Some(disk) = Disk::new(16) else { return };
    let mut settings = disk.settings();
    // mkfs is stopped at once: the device was blank, and it is on record that it was.
    settings.format_limit = std::time::Duration::ZERO;
    assert!(Volumes::new(settings).prepare_device(&disk.device, false).await.is_err());
    assert!(disk.path("formatting").exists());
    disk.write(5000, b"half a file system");
    let volumes = disk.volumes();
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Done);
    assert!(!disk.path("formatting").exists());
}

#[tokio::test]
async fn another_file_system_than_wanted_is_mounted_as_it_is() {
    let Some(disk) = Disk::new(320) else { return };
    if !has("/sbin/mkfs.xfs") {
        return;
    }
    let mut settings = disk.settings();
    settings.fs_type = FsType::Xfs;
    let volumes = Volumes::new(settings);
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Done);
    let volumes = disk.volumes();
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Unchanged);
    let at = disk.path("data");
    volumes.mount(&disk.device, &at, true).await.unwrap();
    assert!(
        fs::read_to_string(disk.path("fstab"))
            .unwrap()
            .ends_with("/data xfs defaults,noatime,nofail 0 0\n")
    );
}

#[tokio::test]
async fn a_busy_volume_stays_and_its_user_is_named() {
    let Some(disk) = Disk::new(16) else { return };
    let volumes = disk.volumes();
    let at = disk.path("data");
    volumes.prepare_device(&disk.device, false).await.unwrap();
    volumes.mount(&disk.device, &at, false).await.unwrap();
    let mut user = Command::new("/bin/sleep").arg("300").current_dir(&at).spawn().unwrap();
    let error = text(&volumes.unmount(&at).await.unwrap_err());
    assert!(error.contains(&format!("sleep (process {})", user.id())), "{error}");
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(volumes.unmount(&at).await.unwrap(), Change::Done);
}

#[tokio::test]
async fn a_device_is_mounted_in_one_place_and_a_place_has_one_device() {
    let (Some(disk), Some(second)) = (Disk::new(16), Disk::new(16)) else {
        return;
    };
    let volumes = disk.volumes();
    volumes.prepare_device(&disk.device, false).await.unwrap();
    volumes.prepare_device(&second.device, false).await.unwrap();
    volumes.mount(&disk.device, &disk.path("data"), false).await.unwrap();
    let error = text(&volumes.mount(&disk.device, &disk.path("other"), false).await.unwrap_err());
    assert!(error.contains("is mounted at") && error.contains("/data already"), "{error}");
    let error = text(&volumes.mount(&second.device, &disk.path("data"), false).await.unwrap_err());
    assert!(error.contains("/data: another device than"), "{error}");
    // By another name of the same place and of the same device.
    std::os::unix::fs::symlink(disk.path("data"), disk.path("link")).unwrap();
    std::os::unix::fs::symlink(&disk.device, disk.path("by-id")).unwrap();
    assert_eq!(
        volumes.mount(&disk.path("by-id"), &disk.path("link"), false).await.unwrap(),
        Change::Unchanged
    );
    assert!(volumes.resize(&disk.device, &disk.path("other"), true).await.is_err());
}

#[tokio::test]
async fn ext4_grows_online_and_offline_and_never_shrinks() {
    let Some(disk) = Disk::new(32) else { return };
    let volumes = disk.volumes();
    let at = disk.path("data");
    assert!(text(&volumes.resize(&disk.device, &at, false).await.unwrap_err()).contains("it holds nothing"));
    volumes.prepare_device(&disk.device, false).await.unwrap();
    volumes.mount(&disk.device, &at, false).await.unwrap();
    fs::write(at.join("file"), "kept").unwrap();
    let small = volumes.stats(&at).await.unwrap().total_bytes();
    assert_eq!(volumes.resize(&disk.device, &at, true).await.unwrap(), Change::Unchanged);
    disk.grow(64);
    match volumes.resize(&disk.device, &at, true).await {
        Ok(change) => assert_eq!(change, Change::Done),
        Err(error) if !has_capability(CAP_SYS_RESOURCE) => {
            println!("SKIPPED online growing, the kernel wants CAP_SYS_RESOURCE for it: {error}");
            assert_eq!(volumes.resize(&disk.device, &at, false).await.unwrap(), Change::Done);
            volumes.mount(&disk.device, &at, false).await.unwrap();
        }
        Err(error) => panic!("{error:?}"),
    }
    let middle = volumes.stats(&at).await.unwrap().total_bytes();
    assert!(middle > small + 24 * MIB, "{small} {middle}");
    disk.grow(96);
    // Offline though mounted: it is unmounted, and left so.
    assert_eq!(volumes.resize(&disk.device, &at, false).await.unwrap(), Change::Done);
    assert_eq!(volumes.unmount(&at).await.unwrap(), Change::Unchanged);
    assert_eq!(volumes.resize(&disk.device, &at, false).await.unwrap(), Change::Unchanged);
    volumes.mount(&disk.device, &at, false).await.unwrap();
    assert!(volumes.stats(&at).await.unwrap().total_bytes() > middle + 24 * MIB);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "kept");
    volumes.unmount(&at).await.unwrap();
    disk.grow(80);
    let error = text(&volumes.resize(&disk.device, &at, false).await.unwrap_err());
    assert!(error.contains("it is not shrunk"), "{error}");
}

#[tokio::test]
async fn xfs_grows_online_and_offline() {
    if !has("/sbin/mkfs.xfs") {
        return;
    }
    let Some(disk) = Disk::new(320) else { return };
    let mut settings = disk.settings();
    settings.fs_type = FsType::Xfs;
    let volumes = Volumes::new(settings);
    let at = disk.path("data");
    volumes.prepare_device(&disk.device, false).await.unwrap();
    volumes.mount(&disk.device, &at, false).await.unwrap();
    let small = volumes.stats(&at).await.unwrap().total_bytes();
    assert_eq!(volumes.resize(&disk.device, &at, true).await.unwrap(), Change::Unchanged);
    disk.grow(400);
    assert_eq!(volumes.resize(&disk.device, &at, true).await.unwrap(), Change::Done);
    let middle = volumes.stats(&at).await.unwrap().total_bytes();
    assert!(middle > small + 60 * MIB, "{small} {middle}");
    disk.grow(480);
    assert_eq!(volumes.resize(&disk.device, &at, false).await.unwrap(), Change::Done);
    assert_eq!(volumes.unmount(&at).await.unwrap(), Change::Unchanged);
    volumes.mount(&disk.device, &at, false).await.unwrap();
    assert!(volumes.stats(&at).await.unwrap().total_bytes() > middle + 60 * MIB);
    volumes.unmount(&at).await.unwrap();
    disk.grow(330);
    let error = text(&volumes.resize(&disk.device, &at, false).await.unwrap_err());
    assert!(error.contains("it is not shrunk"), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_is_repaired_before_mounting() {
    if !has("/sbin/debugfs") {
        return;
    }
    let Some(disk) = Disk::new(16) else { return };
    let volumes = disk.volumes();
    volumes.prepare_device(&disk.device, false).await.unwrap();
    let device = disk.device.to_str().unwrap();
    tool("/sbin/debugfs", &["-w", "-R", "set_super_value free_inodes_count 3", device]);
    tool("/sbin/debugfs", &["-w", "-R", "set_super_value state 0", device]);
    assert_eq!(volumes.prepare_device(&disk.device, false).await.unwrap(), Change::Unchanged);
    volumes.mount(&disk.device, &disk.path("data"), false).await.unwrap();
}

#[tokio::test]
async fn a_device_is_waited_for_and_must_be_one() {
    let Some(disk) = Disk::new(16) else { return };
    let volumes = disk.volumes();
    let late = disk.path("late");
    let (appears, device) = (late.clone(), disk.device.clone());
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        std::os::unix::fs::symlink(device, appears).unwrap();
    });
    assert_eq!(volumes.probe(&late).await.unwrap(), Content::Blank);
    let error = text(&volumes.probe(&disk.path("disk")).await.unwrap_err());
    assert!(error.ends_with("/disk: is not a block device"), "{error}");
    let mut settings = disk.settings();
    settings.num_tries = 1;
    let error = text(
        &Volumes::new(settings)
            .probe(Path::new("/dev/no such device"))
            .await
            .unwrap_err(),
    );
    assert_eq!(error, "could not find device /dev/no such device");
    assert!(volumes.probe(Path::new("dev/sda")).await.is_err());
}
