//! Which file systemd starts in the cgroup of a service before the service itself.
//!
//! The second tier lets it prepare, so it has to be that file and no other of its name. An
//! upgrade of systemd replaces it: it is looked up again and again.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aya::maps::{Array, MapData};
use enforcer_common::cfg;

use super::{Result, io_error, map_error};

/// Bits of the minor number in a device as the kernel has it (`MINORBITS`, linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

/// Tells the programs which file it is; none when there is none.
pub(super) fn tell(settings: &mut Array<MapData, u64>, path: &Path) -> Result<()> {
    let (inode, device) = find(path).map_err(io_error("looking up", path))?.unwrap_or_default();
    let get = |settings: &Array<MapData, u64>, index| settings.get(&index, 0).map_err(map_error("CFG"));
    if get(settings, cfg::EXECUTOR_INODE)? == inode && get(settings, cfg::EXECUTOR_DEVICE)? == device {
        return Ok(());
    }
    // In between there is none: never a number of one file with the device of another.
    let order = [(cfg::EXECUTOR_INODE, 0), (cfg::EXECUTOR_DEVICE, device), (cfg::EXECUTOR_INODE, inode)];
    for (index, value) in order {
        settings.set(index, value, 0).map_err(map_error("CFG"))?;
    }
    Ok(())
}

/// Inode and device. The device is that of the mount, as the kernel has it for the file
/// system: what stat(2) says of a file on btrfs is another.
fn find(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let file = match File::options().read(true).custom_flags(libc::O_PATH).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let inode = file.metadata()?.ino();
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let device = mount.and_then(|mount| device_of(&mounts, mount.trim()));
    let device = device.ok_or_else(|| io::Error::other("its mount is not in /proc/self/mountinfo"))?;
    Ok(Some((inode, device)))
}

fn device_of(mountinfo: &str, mount: &str) -> Option<u64> {
    let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(mount))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some(major.parse::<u64>().ok()? << MINOR_BITS | minor.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_that_of_the_mount() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
                      2 1 8:2 / / rw - ext4 /dev/sda2 rw\n";
        assert_eq!(device_of(mounts, "2"), Some(0x80_0002));
        assert_eq!(device_of(mounts, "22"), Some(20));
        assert_eq!(device_of(mounts, "3"), None);
    }

    #[test]
    fn a_file_is_found_and_what_is_not_there_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = find(file.path()).unwrap().unwrap();
        assert_eq!(found.0, file.as_file().metadata().unwrap().ino());
        assert_eq!(find(&file.path().join("x")).unwrap(), None);
        assert_eq!(find(Path::new("/nonexistent")).unwrap(), None);
    }
}
