//! Whether a mount is the container's alone, or would spread to others.
//!
//! The lists are the kernel's, of the namespaces that were current when they were opened,
//! and are read anew each time. **Invariant**: what is not known is no reason to go on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, StatxFlags, major, minor};

use super::look::Store;
use super::{RootsError, step};

/// More of the kernel's list of mounts is not read, in bytes.
const MAX_MOUNTINFO: usize = 4 << 20;

/// Lists of mounts.
pub struct Mounts {
    hosts: Vec<File>,
    theirs: File,
}

impl Mounts {
    pub fn new(hosts: Vec<OwnedFd>, theirs: OwnedFd) -> Self {
        Self { hosts: hosts.into_iter().map(File::from).collect(), theirs: File::from(theirs) }
    }

    /// What is mounted over these stores would not spread to the host.
    pub fn require_apart(&self, stores: &[Store]) -> Result<(), RootsError> {
        let mut groups = BTreeSet::new();
        for host in &self.hosts {
            groups.extend(peer_groups(&read(host)?));
        }
        // After the host's: a group that both are in by then is seen.
        let theirs = read(&self.theirs)?;
        stores.iter().try_for_each(|store| {
            let place = || store.place.clone();
            match group_of(&theirs, mount_id(&store.target)?) {
                None => Err(RootsError::Unknown(place())),
                Some(Some(group)) if groups.contains(&group) => Err(RootsError::Shared(place())),
                Some(_) => Ok(()),
            }
        })
    }

    /// The host has not got a copy of this mount.
    pub fn require_unseen(&self, tree: &OwnedFd) -> Result<(), RootsError> {
        let found = step("looking at a copy", rustix::fs::fstat(tree))?;
        let device = format!("{}:{}", major(found.st_dev), minor(found.st_dev));
        for host in &self.hosts {
            if shows(&read(host)?, &device) {
                return Err(RootsError::Spread);
            }
        }
        Ok(())
    }
}

fn read(mut file: &File) -> Result<String, RootsError> {
    step("reading a list of mounts", file.rewind())?;
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_MOUNTINFO + 1).unwrap_or(u64::MAX);
    step("reading a list of mounts", file.take(limit).read_to_end(&mut text))?;
    if text.len() > MAX_MOUNTINFO {
        return Err(RootsError::TooManyMounts);
    }
    // Names of mounts need not be text; what is looked at is.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn mount_id(fd: &OwnedFd) -> Result<u64, RootsError> {
    let found = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    Ok(step("looking at a store's mount", found)?.stx_mnt_id)
}

/// The peer group of a mount, into and out of which mounts spread.
fn group(line: &str) -> Option<u64> {
    line.split(" - ").next()?.split(' ').skip(6).find_map(|tag| tag.strip_prefix("shared:")?.parse().ok())
}

fn peer_groups(mountinfo: &str) -> BTreeSet<u64> {
    mountinfo.lines().filter_map(group).collect()
}

/// None: the mount is not in the list.
fn group_of(mountinfo: &str, mount: u64) -> Option<Option<u64>> {
    let id = format!("{mount} ");
    mountinfo.lines().find(|line| line.starts_with(&id)).map(group)
}

fn shows(mountinfo: &str, device: &str) -> bool {
    mountinfo.lines().any(|line| line.split(' ').nth(2) == Some(device))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustix::fs::{CWD, Mode, OFlags};
    use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags};

    use super::super::look::Entry;
    use super::super::put;
    use super::*;

    const HOST: &str = "20 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n30 20 0:33 / /run rw - tmpfs tmpfs rw\n";

    #[test]
    fn a_mount_is_known_with_its_group_or_without_or_not_at_all() {
        assert_eq!(group_of(HOST, 20), Some(Some(1)));
        assert_eq!(group_of(HOST, 30), Some(None));
        assert_eq!(group_of(HOST, 3), None);
        assert_eq!(peer_groups(HOST), BTreeSet::from([1]));
        assert!(shows(HOST, "0:33") && !shows(HOST, "0:3") && !shows(HOST, "/"));
    }

    fn store(target: &Path) -> Store {
        let target = rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        Store { place: "/etc/ssl/certs".to_owned(), target, content: Entry::Link("nowhere".into()) }
    }

    fn mountinfo() -> OwnedFd {
        rustix::fs::open("/proc/thread-self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .unwrap()
    }

    fn file(text: &str) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        file.into()
    }

    #[test]
    fn what_is_not_in_the_list_gets_no_mount() {
        let dir = tempfile::tempdir().unwrap();
        let stores = [store(dir.path())];
        let id = mount_id(&stores[0].target).unwrap();
        let line = |tag: &str| format!("{id} 1 8:1 / / rw {tag}- ext4 /dev/vda rw\n");
        let check = |theirs: &str| Mounts::new(vec![file(HOST)], file(theirs)).require_apart(&stores);
        assert!(matches!(check(&line("")), Ok(())));
        assert!(matches!(check(&line("shared:2 ")), Ok(())));
        assert!(matches!(check(&line("shared:1 ")), Err(RootsError::Shared(_))));
        assert!(matches!(check(""), Err(RootsError::Unknown(_))));
        // A list to the byte, and one that is longer than what is looked at.
        let long = |bytes: usize| Mounts::new(vec![file(&" ".repeat(bytes))], file(&line("")));
        assert!(matches!(long(MAX_MOUNTINFO).require_apart(&stores), Ok(())));
        assert!(matches!(long(MAX_MOUNTINFO + 1).require_apart(&stores), Err(RootsError::TooManyMounts)));
    }

    /// On a thread in a mount namespace of its own, which is another's copy: that one plays
    /// the host.
    #[test]
    fn what_has_spread_to_the_host_is_undone() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_owned();
        let test = move || {
            use nix::sched::{CloneFlags, unshare};
            let change = |at: &Path, how| rustix::mount::mount_change(at, how).unwrap();
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            change(Path::new("/"), MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
            let [volume, copy] = ["volume", "copy"].map(|name| place.join(name));
            for folder in [&volume, &copy] {
                fs::create_dir(folder).unwrap();
                rustix::mount::mount("test", folder, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
            }
            fs::create_dir(volume.join("certs")).unwrap();
            let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let [one, two] = [(), ()].map(|()| rustix::mount::open_tree(CWD, &copy, clone).unwrap());
            let (trees, other) = ([one], [two]);
            rustix::mount::unmount(&copy, UnmountFlags::DETACH).unwrap();
            change(&volume, MountPropagationFlags::SHARED);
            let host = mountinfo();
            let hosts = || vec![host.try_clone().unwrap()];
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let stores = [store(&volume.join("certs"))];
            let own = rustix::fs::open("/proc/thread-self/fd", OFlags::PATH, Mode::empty()).unwrap();
            let device = rustix::fs::fstat(&trees[0]).unwrap().st_dev;
            let device = format!("{}:{}", major(device), minor(device));
            let seen = |list: OwnedFd| shows(&read(&File::from(list)).unwrap(), &device);
            let nowhere = || !seen(mountinfo()) && !seen(host.try_clone().unwrap());
            let mounts = Mounts::new(hosts(), mountinfo());
            assert!(matches!(put(&mounts, &trees, &stores, &own), Err(RootsError::Shared(_))));
            assert!(nowhere());
            // It came to be shared after the look: this list is from before that.
            let before = read(&File::from(mountinfo())).unwrap().replace("shared:", "unshared:");
            let late = Mounts::new(hosts(), file(&before));
            assert!(matches!(put(&late, &trees, &stores, &own), Err(RootsError::Spread)));
            assert!(nowhere());
            // What is the container's alone is mounted over, and the host does not see it.
            change(&volume, MountPropagationFlags::PRIVATE);
            put(&mounts, &other, &stores, &own).unwrap();
            assert!(seen(mountinfo()) && !seen(host.try_clone().unwrap()));
        };
        std::thread::spawn(test).join().unwrap();
    }
}
