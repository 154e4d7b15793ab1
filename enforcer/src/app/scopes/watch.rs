//! Cgroups that come and go, by inotify: a match is tagged within milliseconds of its
//! mkdir. What inotify does not tell (too much at once, no more watches) is found by
//! looking again.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// The most cgroups that are watched: those below which a match may appear.
pub const MAX_WATCHES: usize = 8192;
const BUFFER: usize = 64 * 1024;

/// What has happened.
#[derive(Debug, PartialEq)]
pub enum Change {
    Made(PathBuf),
    Gone(PathBuf),
    /// More than the kernel keeps: look at everything.
    Overflow,
}

pub struct Watcher {
    fd: OwnedFd,
    by_number: HashMap<i32, PathBuf>,
    by_path: HashMap<PathBuf, i32>,
    limit: usize,
}

impl Watcher {
    pub fn new() -> io::Result<Self> {
        Self::with_limit(MAX_WATCHES)
    }

    fn with_limit(limit: usize) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd, by_number: HashMap::new(), by_path: HashMap::new(), limit })
    }

    /// The same descriptor, to wait on without the lock.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Watches what appears in this cgroup. False when there is no room; it is found
    /// by looking again then.
    pub fn watch(&mut self, path: &Path) -> bool {
        if self.by_path.len() >= self.limit && !self.by_path.contains_key(path) {
            return false;
        }
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
        // The kernel gives the same number for a cgroup that is watched already.
        match inotify::add_watch(&self.fd, path, flags) {
            Ok(number) => {
                if let Some(earlier) = self.by_path.insert(path.to_owned(), number) {
                    self.by_number.retain(|it, at| *it == number || *it != earlier || at != path);
                }
                self.by_number.insert(number, path.to_owned());
                true
            }
            // It is gone again.
            Err(rustix::io::Errno::NOENT) => true,
            Err(_) => false,
        }
    }

    /// What has happened since the last time.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut changes = Vec::new();
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.push(Change::Overflow);
            }
            let Some(path) = self.by_number.get(&event.wd()) else { continue };
            if flags.contains(ReadFlags::IGNORED) {
                let path = path.clone();
                self.by_number.remove(&event.wd());
                if self.by_path.get(&path) == Some(&event.wd()) {
                    self.by_path.remove(&path);
                }
                continue;
            }
            let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
            if !flags.contains(ReadFlags::ISDIR) {
                continue;
            }
            let path = path.join(name);
            changes.push(if flags.contains(ReadFlags::CREATE) {
                Change::Made(path)
            } else {
                Change::Gone(path)
            });
        }
        changes
    }
}

/// Waits until there is something to read, at most this long.
pub fn wait(fd: &OwnedFd, patience: Duration) {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    // Interrupted or not, what is there is read next.
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], patience).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_told_and_watches_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::with_limit(2).unwrap();
        assert!(watcher.watch(root.path()));
        let one = root.path().join("one");
        std::fs::create_dir(&one).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.clone())]);
        assert!(watcher.watch(&one) && watcher.watch(&one), "at the limit");
        std::fs::create_dir(one.join("two")).unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.join("two"))]);
        assert!(!watcher.watch(&one.join("two")), "past the limit");
        std::fs::remove_dir(one.join("two")).unwrap();
        std::fs::remove_dir(&one).unwrap();
        assert_eq!(watcher.changes(), [Change::Gone(one.join("two")), Change::Gone(one.clone())]);
        // The place is free again, and the same path is another folder.
        std::fs::create_dir(&one).unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.clone())]);
        assert!(watcher.watch(&one));
        std::fs::create_dir(one.join("two")).unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.join("two"))]);
        std::fs::remove_dir(one.join("two")).unwrap();
        std::fs::remove_dir(&one).unwrap();
        watcher.changes();
        assert!(watcher.watch(&one), "what is gone needs no watch");
    }
}
