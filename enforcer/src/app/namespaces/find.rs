//! Which network namespaces the processes of a cgroup are in.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::kernel::netns_cookie;

/// Threads of one process that are looked at: one of them may be elsewhere than its leader.
const MAX_THREADS: usize = 1024;
/// Namespaces that are entered to find out which they are, for one refusal.
const MAX_ENTERED: usize = 256;

/// Whose namespaces are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Leaders,
    Threads,
}

pub fn namespace_file(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// The namespace files of a process: its leader's first. None once it is gone.
pub fn files_of(pid: u32, depth: Depth) -> impl Iterator<Item = PathBuf> {
    let threads = match depth {
        Depth::Leaders => None,
        Depth::Threads => fs::read_dir(format!("/proc/{pid}/task")).ok(),
    };
    let threads = threads.into_iter().flatten().flatten().take(MAX_THREADS);
    std::iter::once(namespace_file(pid)).chain(threads.map(|thread| thread.path().join("ns/net")))
}

/// All processes in these cgroups and below them.
pub fn processes(cgroups: impl IntoIterator<Item = PathBuf>) -> Vec<u32> {
    let mut pids = Vec::new();
    for cgroup in cgroups {
        collect(&cgroup, &mut pids);
    }
    pids
}

/// What is gone meanwhile has no processes. In a threaded cgroup the file cannot be read:
/// its processes stand in the one above.
fn collect(cgroup: &Path, pids: &mut Vec<u32>) {
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process of a namespace that is not seen from here.
    pids.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

/// Somebody who is in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub tag: u64,
    pub file: PathBuf,
}

impl User {
    /// The namespace, if it is still the one with this inode.
    pub fn open(&self, inode: u64) -> Option<File> {
        let file = File::open(&self.file).ok()?;
        (self::inode(&file).ok()? == inode).then_some(file)
    }
}

/// The namespaces in use, by their inodes.
pub fn in_use(cgroups: &[(u64, PathBuf)], depth: Depth) -> HashMap<u64, User> {
    let mut used = HashMap::new();
    for (tag, cgroup) in cgroups {
        for file in processes([cgroup.clone()]).into_iter().flat_map(|pid| files_of(pid, depth)) {
            if let Ok(found) = fs::metadata(&file) {
                used.entry(found.ino()).or_insert(User { tag: *tag, file });
            }
        }
    }
    used
}

/// All threads of the host that are in one of these namespaces, as the kernel numbers
/// them, with its inode.
pub fn everybody_in(inodes: &HashSet<u64>) -> Vec<(u32, u64)> {
    let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let listed = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let pids = listed(PathBuf::from("/proc")).filter_map(|entry| number(&entry));
    let threads = pids.flat_map(|pid| {
        listed(PathBuf::from(format!("/proc/{pid}/task")))
            .filter_map(|entry| number(&entry))
            .take(MAX_THREADS)
    });
    threads
        .filter_map(|thread| {
            let inode = fs::metadata(namespace_file(thread)).ok()?.ino();
            inodes.contains(&inode).then_some((thread, inode))
        })
        .collect()
}

/// Each namespace in use, once, with a tag of those who are there.
pub fn opened(cgroups: Vec<(u64, PathBuf)>) -> impl Iterator<Item = (File, u64)> {
    let mut seen = HashSet::new();
    let files = cgroups.into_iter().flat_map(|(tag, cgroup)| {
        let pids = processes([cgroup]).into_iter();
        pids.flat_map(|pid| files_of(pid, Depth::Leaders)).map(move |file| (file, tag))
    });
    files.filter_map(move |(file, tag)| {
        let file = File::open(file).ok()?;
        seen.insert(inode(&file).ok()?).then_some((file, tag))
    })
}

/// A search for the namespace that has a cookie.
pub struct Search {
    cookie: u64,
    /// Inodes of those that it is not.
    others: HashSet<u64>,
    left: usize,
}

impl Search {
    /// `others` are known to be other ones.
    pub fn new(cookie: u64, others: HashSet<u64>) -> Self {
        Self { cookie, others, left: MAX_ENTERED }
    }

    /// The namespace of this file if it is the one; each is entered once.
    pub fn look(&mut self, path: &Path) -> Option<File> {
        if self.left == 0 || self.others.contains(&fs::metadata(path).ok()?.ino()) {
            return None;
        }
        self.left -= 1;
        // What is asked is the file that is open: the path may lead to another one by now.
        let file = File::open(path).ok()?;
        let inode = inode(&file).ok()?;
        if netns_cookie(&file).ok()? == self.cookie {
            return Some(file);
        }
        self.others.insert(inode);
        None
    }
}

/// Of the namespace of this process.
pub fn own_inode() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net")?.ino())
}

pub fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_threads_have_a_namespace_and_one_that_is_gone_has_none() {
        let pid = std::process::id();
        assert_eq!(files_of(pid, Depth::Leaders).count(), 1);
        assert!(files_of(pid, Depth::Threads).count() > 1);
        let here: HashSet<u64> =
            files_of(pid, Depth::Threads).filter_map(|it| Some(fs::metadata(it).ok()?.ino())).collect();
        assert_eq!(here.len(), 1);
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        assert!(files_of(gone.id(), Depth::Threads).all(|it| fs::metadata(it).is_err()));
    }

    #[test]
    fn a_namespace_is_known_by_its_cookie_and_entered_once() {
        let path = Path::new("/proc/self/ns/net");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let cookie = crate::net::sys::netns_cookie(std::os::fd::AsFd::as_fd(&socket)).unwrap();
        // Entering a namespace needs root, its own too.
        if nix::unistd::geteuid().is_root() {
            assert!(Search::new(cookie, HashSet::new()).look(path).is_some());
            let mut other = Search::new(cookie + 1, HashSet::new());
            assert!(other.look(path).is_none() && other.look(path).is_none());
            assert_eq!(other.left, MAX_ENTERED - 1);
            other.others.clear();
            other.left = 0;
            assert!(other.look(path).is_none() && other.others.is_empty());
        }
    }
}
