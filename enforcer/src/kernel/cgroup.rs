//! Where cgroup2 is, and a cgroup's id and level.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use enforcer_common::MAX_LEVEL;

use super::{KernelError, Result, io_error};
use crate::net::sys::unescape;

/// The mount point of cgroup2, which may stand beside cgroup v1.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(io_error("reading", path))?;
    find_cgroup2(&text).ok_or(KernelError::NoCgroup2)
}

/// The id by which programs know a cgroup: its inode.
pub fn cgroup_id(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(io_error("looking at the cgroup", path))?.ino())
}

/// How deep a cgroup stands below the root, which is level 0.
pub(super) fn level(mount: &Path, path: &Path) -> Result<u32> {
    let path = path.canonicalize().map_err(io_error("resolving", path))?;
    let below = path
        .strip_prefix(mount)
        .map_err(|_| KernelError::NotACgroup { path: path.clone(), mount: mount.to_owned() })?;
    let level = u32::try_from(below.components().count()).unwrap_or(u32::MAX);
    if level > MAX_LEVEL {
        return Err(KernelError::TooDeep { path, level });
    }
    Ok(level)
}

/// Whether `inner` is `outer` or stands below it.
pub(super) fn holds(outer: &Path, inner: &Path) -> Result<bool> {
    let outer = outer.canonicalize().map_err(io_error("resolving", outer))?;
    let inner = inner.canonicalize().map_err(io_error("resolving", inner))?;
    Ok(inner.starts_with(outer))
}

/// Levels are counted from the real root: in a cgroup namespace they come out
/// too small, and a tag at the wrong level is one that no program finds.
pub(super) fn require_initial_namespace() -> Result<()> {
    /// `PROC_CGROUP_INIT_INO` of linux/proc_ns.h.
    const INITIAL: u64 = 0xefff_fffb;
    if cgroup_id(Path::new("/proc/self/ns/cgroup"))? == INITIAL {
        Ok(())
    } else {
        Err(KernelError::CgroupNamespace)
    }
}

/// The cgroup of a process: the line of `/proc/PID/cgroup` whose hierarchy is 0.
pub(super) fn of_process(mount: &Path, pid: u32) -> Result<Option<PathBuf>> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(None);
        }
        read => read.map_err(io_error("reading", &path))?,
    };
    let below = text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(KernelError::NoCgroup2)?;
    Ok(Some(mount.join(below)))
}

/// The mount of the whole hierarchy, in the text of a mountinfo. Fields: id, parent, device, root, mount point, options, any number of tags, `-`, type, source.
pub fn find_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if right.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        // A bind mount of some cgroup below is not the hierarchy.
        if left.next()? != "/" {
            return None;
        }
        Some(PathBuf::from(unescape(left.next()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_cgroup_v1_and_past_bind_mounts() {
        let text = "\
30 24 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
33 30 0:30 / /sys/fs/cgroup/cpu rw shared:12 - cgroup cgroup rw,cpu
90 30 0:28 /inner /mnt/inner rw shared:4 - cgroup2 cgroup2 rw
31 30 0:28 / /sys/fs/cgroup/uni\\040fied rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
";
        assert_eq!(find_cgroup2(text), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
        assert_eq!(find_cgroup2("30 24 0:27 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn the_root_is_level_0() {
        let mount = Path::new("/proc");
        assert_eq!(level(mount, Path::new("/proc")).unwrap(), 0);
        assert_eq!(level(mount, Path::new("/proc/sys/net")).unwrap(), 2);
        assert!(matches!(level(mount, Path::new("/etc")), Err(KernelError::NotACgroup { .. })));
    }
}
