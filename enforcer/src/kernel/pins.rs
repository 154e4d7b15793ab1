//! The directory of the pins, on a bpffs in the mount namespace of process 1.
//!
//! A loader may be started in a private mount namespace (a service with
//! `PrivateMounts=`, a container's entry point). A bpffs that is mounted there
//! dies with the loader and takes every pin with it: fail-open. So the
//! directory is that of process 1: through `/proc/1/root`, or where it stands if
//! the bpffs there is the very one that process 1 has. Where neither can be had, the
//! loader refuses to load.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{KernelError, Result, io_error, links};
use crate::net::sys::unescape;

/// Source of a bpffs that we mounted, by which release knows that it is ours.
const MOUNT_SOURCE: &str = "enforcer";
const LINK_PREFIX: &str = "link_";
const MAP_PREFIX: &str = "map_";

/// The directory: as process 1 sees it, and as this process reaches it.
pub struct PinDir {
    shown: PathBuf,
    reached: PathBuf,
}

impl PinDir {
    /// Makes the directory, and mounts the bpffs above it if there is none.
    pub fn prepare(shown: &Path) -> Result<Self> {
        let dir = Self::reach(shown)?;
        let mount_point = dir.mount_point();
        fs::create_dir_all(&mount_point).map_err(io_error("making the mount point", &mount_point))?;
        if !is_bpffs(&mount_point)? {
            let target = shown_parent(shown);
            in_mount_namespace_of_1(move || {
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                nix::mount::mount(Some(MOUNT_SOURCE), &target, Some("bpf"), flags, Some("mode=0700"))
            })?;
        }
        match DirBuilder::new().mode(0o700).create(&dir.reached) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("making the directory of the pins", shown)(e));
            }
            _ => {}
        }
        dir.require_ours()?;
        Ok(dir)
    }

    /// A bpffs is open to everybody unless its mount says otherwise: whoever made the
    /// directory before us would remove the pins, and so the enforcement, at will.
    fn require_ours(&self) -> Result<()> {
        let look = |path: &Path| fs::symlink_metadata(path).map_err(io_error("looking at", path));
        let (own, above) = (look(&self.reached)?, look(&self.mount_point())?);
        let sticky = above.mode() & libc::S_ISVTX != 0;
        let is_ours = own.is_dir() && own.uid() == 0 && own.mode() & 0o077 == 0;
        let stays = above.uid() == 0 && (above.mode() & 0o022 == 0 || sticky);
        if is_ours && stays { Ok(()) } else { Err(KernelError::ForeignPins(self.shown.clone())) }
    }

    pub fn exists(&self) -> bool {
        self.reached.is_dir()
    }

    pub fn link(&self, name: &str) -> PathBuf {
        self.reached.join(format!("{LINK_PREFIX}{name}"))
    }

    /// The names of all links that are pinned.
    pub fn links(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.reached).map_err(io_error("listing", &self.shown))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_prefix(LINK_PREFIX).map(str::to_owned)).collect())
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.reached.join(format!("{MAP_PREFIX}{name}"))
    }

    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Detaches every link and removes every pin, the directory, and our mount.
    pub fn remove(self) -> Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.reached).map_err(io_error("listing", &self.shown))? {
            entries.push(entry.map_err(io_error("listing", &self.shown))?.path());
        }
        // Links before maps: no program runs with half of its maps unpinned.
        entries.sort();
        for path in entries {
            let is_link =
                path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(LINK_PREFIX.as_bytes()));
            if is_link {
                detach(&path);
            }
            fs::remove_file(&path).map_err(io_error("removing", &path))?;
        }
        fs::remove_dir(&self.reached).map_err(io_error("removing", &self.shown))?;
        self.unmount()
    }

    /// Detaches the link of this name and removes its pin, if there is one.
    pub fn remove_link(&self, name: &str) -> Result<()> {
        let path = self.link(name);
        if path.exists() {
            detach(&path);
            fs::remove_file(&path).map_err(io_error("removing", &path))?;
        }
        Ok(())
    }

    /// Unmounts the bpffs if it was mounted for us and nobody else has pinned anything there.
    pub fn unmount(&self) -> Result<()> {
        let mount_point = shown_parent(&self.shown);
        let path = Path::new("/proc/1/mountinfo");
        let text = fs::read_to_string(path).map_err(io_error("reading", path))?;
        // The kernel's own `maps.debug` and `progs.debug` are in every bpffs.
        let foreign = |entry: io::Result<fs::DirEntry>| {
            entry.map_or(true, |it| !it.file_name().as_encoded_bytes().ends_with(b".debug"))
        };
        let empty = || fs::read_dir(self.mount_point()).is_ok_and(|mut entries| !entries.any(foreign));
        if !is_our_mount(&text, &mount_point) || !empty() {
            return Ok(());
        }
        in_mount_namespace_of_1(move || nix::mount::umount2(&mount_point, MntFlags::MNT_DETACH))
    }

    /// Says how the directory is reached; it need not exist.
    pub fn reach(shown: &Path) -> Result<Self> {
        if !shown.is_absolute() || shown.parent().is_none() {
            return Err(io_error("using as directory of the pins", shown)(
                io::ErrorKind::InvalidInput.into(),
            ));
        }
        let reached = if same_mount_namespace()? || has_bpffs_of_1(&shown_parent(shown))? {
            shown.to_owned()
        } else if fs::metadata("/proc/1/root").is_ok() {
            let mut path = PathBuf::from("/proc/1/root");
            path.extend(shown.components().skip(1));
            path
        } else {
            return Err(KernelError::PrivateMounts(shown_parent(shown)));
        };
        Ok(Self { shown: shown.to_owned(), reached })
    }

    fn mount_point(&self) -> PathBuf {
        shown_parent(&self.reached)
    }
}

/// A link that somebody has detached already is no reason to keep the rest.
fn detach(pin: &Path) {
    if let Ok(link) = links::pinned(pin)
        && let Err(e) = links::detach(link.as_fd())
    {
        tracing::debug!(path = %pin.display(), error = %e, "link was detached before");
    }
}

/// Held while a loader lives: a second one refuses to start.
pub struct Lock(Flock<File>);

impl Lock {
    pub fn take(pins: &PinDir) -> Result<Self> {
        let dir = File::open(&pins.reached).map_err(io_error("opening", &pins.shown))?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(KernelError::Locked(pins.shown.clone())),
            Err((_, e)) => Err(io_error("locking", &pins.shown)(e.into())),
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn shown_parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

fn is_bpffs(path: &Path) -> Result<bool> {
    let found = statfs(path).map_err(|e| io_error("looking at the file system", path)(e.into()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}

/// Ids of mounts are unique on a host, and a new namespace has new ones. The
/// links in `/proc/PID/ns` would say it too, but not to everybody about process 1.
fn same_mount_namespace() -> Result<bool> {
    let read = |path: &'static str| fs::read_to_string(path).map_err(io_error("reading", Path::new(path)));
    Ok(share_a_mount(&read("/proc/self/mountinfo")?, &read("/proc/1/mountinfo")?))
}

fn share_a_mount(one: &str, other: &str) -> bool {
    let id = |line: &'_ str| line.split(' ').next().and_then(|id| id.parse::<u64>().ok());
    let Some(first) = one.lines().find_map(id) else { return false };
    other.lines().filter_map(id).any(|it| it == first)
}

/// Whether the bpffs at this place is the one that process 1 has there: a new mount
/// namespace begins with the mounts of the old one.
fn has_bpffs_of_1(mount_point: &Path) -> Result<bool> {
    let read = |path: &'static str| fs::read_to_string(path).map_err(io_error("reading", Path::new(path)));
    let ours = bpffs_at(&read("/proc/self/mountinfo")?, mount_point);
    Ok(ours.is_some() && ours == bpffs_at(&read("/proc/1/mountinfo")?, mount_point))
}

/// The device number of the bpffs that is seen at this place. The last mount covers
/// the others; one that shows a part of a file system is not a place for pins.
fn bpffs_at(mountinfo: &str, mount_point: &Path) -> Option<String> {
    let mut mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let fields: Vec<&str> = left.split(' ').collect();
        let (device, root, at) = (fields.get(2)?, fields.get(3)?, fields.get(4)?);
        let covers = Path::new(&unescape(at)) == mount_point;
        covers.then(|| (*device, *root == "/" && right.starts_with("bpf ")))
    });
    mounts.next_back().and_then(|(device, whole_bpffs)| whole_bpffs.then(|| device.to_owned()))
}

/// Runs on a thread of its own, which ends there: nothing has to be put back.
fn in_mount_namespace_of_1<F>(what: F) -> Result<()>
where
    F: FnOnce() -> nix::Result<()> + Send + 'static,
{
    let path = Path::new("/proc/1/ns/mnt");
    let failed = |e: nix::Error| io_error("mounting in the mount namespace of process 1", path)(e.into());
    if same_mount_namespace()? {
        return what().map_err(failed);
    }
    let namespace = File::open(path).map_err(io_error("opening", path))?;
    let run = move || -> nix::Result<()> {
        // A thread that shares its root with others may not change its mount namespace.
        nix::sched::unshare(CloneFlags::CLONE_FS)?;
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)?;
        what()
    };
    let done = std::thread::spawn(run).join().map_err(|_| KernelError::Thread)?;
    done.map_err(failed)
}

fn is_our_mount(mountinfo: &str, mount_point: &Path) -> bool {
    mountinfo.lines().any(|line| {
        let Some((left, right)) = line.split_once(" - ") else { return false };
        let mut right = right.split(' ');
        let at = left.split(' ').nth(4).map(unescape);
        right.next() == Some("bpf")
            && right.next() == Some(MOUNT_SOURCE)
            && at.is_some_and(|at| Path::new(&at) == mount_point)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bpffs_that_was_mounted_for_us_is_ours() {
        let ours = "40 30 0:33 / /sys/fs/bpf rw,nosuid - bpf enforcer rw,mode=700";
        let theirs = "40 30 0:33 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700";
        assert!(is_our_mount(ours, Path::new("/sys/fs/bpf")));
        assert!(!is_our_mount(theirs, Path::new("/sys/fs/bpf")));
        assert!(!is_our_mount(ours, Path::new("/run/bpf")));
    }

    #[test]
    fn a_namespace_is_recognised_by_the_ids_of_its_mounts() {
        let host = "22 27 0:21 / /proc rw - proc proc rw\n27 1 8:1 / / rw - ext4 /dev/vda rw\n";
        let copy = "122 127 0:21 / /proc rw - proc proc rw\n127 1 8:1 / / rw - ext4 /dev/vda rw\n";
        let chrooted = "27 1 8:1 / / rw - ext4 /dev/vda rw\n";
        assert!(share_a_mount(host, host));
        assert!(share_a_mount(chrooted, host));
        assert!(!share_a_mount(copy, host));
        assert!(!share_a_mount("", host));
    }

    #[test]
    fn the_bpffs_that_is_seen_is_the_last_and_whole_one() {
        let at = |text: &str| bpffs_at(text, Path::new("/sys/fs/bpf"));
        let one = "40 30 0:33 / /sys/fs/bpf rw - bpf bpf rw";
        assert_eq!(at(one).as_deref(), Some("0:33"));
        assert_eq!(at(&format!("{one}\n50 40 0:44 / /sys/fs/bpf rw - bpf bpf rw")).as_deref(), Some("0:44"));
        assert_eq!(at(&format!("{one}\n50 40 0:44 / /sys/fs/bpf rw - tmpfs tmpfs rw")), None);
        assert_eq!(at("40 30 0:33 /below /sys/fs/bpf rw - bpf bpf rw"), None);
        assert_eq!(at("40 30 0:33 / /run/bpf rw - bpf bpf rw"), None);
    }

    #[test]
    fn a_relative_directory_is_refused() {
        assert!(PinDir::reach(Path::new("bpf/enforcer")).is_err());
    }
}
