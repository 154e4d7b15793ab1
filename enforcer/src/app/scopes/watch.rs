//! Cgroups that come and go, by inotify: a match is tagged within milliseconds of its
//! mkdir. What inotify does not tell (too much at once, no instance, no more watches) is
//! found by looking again, which is done more often then.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};

use crate::app::inotify as advice;

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
    fd: Option<OwnedFd>,
    /// Why not everything is told, since the last `forget_problem`.
    problem: Option<String>,
    by_number: HashMap<i32, PathBuf>,
    by_path: HashMap<PathBuf, i32>,
    limit: usize,
}

impl Watcher {
    pub fn new() -> Self {
        Self::with_limit(MAX_WATCHES)
    }

    fn with_limit(limit: usize) -> Self {
        let (by_number, by_path) = Default::default();
        let mut this = Self { fd: None, problem: None, by_number, by_path, limit };
        this.open();
        this
    }

    /// Tries again to have an instance, if there was none. Everything has to be looked at
    /// and watched again then.
    pub fn open(&mut self) {
        if self.fd.is_none() {
            match advice::open() {
                Ok(fd) => (self.fd, self.problem) = (Some(fd), None),
                Err(error) => self.problem = Some(advice::no_instance(&error)),
            }
        }
    }

    /// The same descriptor, to wait on without the lock; none without inotify.
    pub fn descriptor(&self) -> Option<OwnedFd> {
        self.fd.as_ref()?.try_clone().ok()
    }

    /// Why not everything is told.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Before everything is looked at again: what cannot be watched says so anew.
    pub fn forget_problem(&mut self) {
        if self.fd.is_some() {
            self.problem = None;
        }
    }

    /// Watches what appears in this cgroup. When there is no room that is a problem; it
    /// is found by looking again then.
    pub fn watch(&mut self, path: &Path) {
        let Some(fd) = &self.fd else { return };
        if self.by_path.len() >= self.limit && !self.by_path.contains_key(path) {
            let limit = self.limit;
            self.problem = Some(format!(
                "more than {limit} cgroups would have to be watched; they are looked for every {} ms: \
                 describe fewer, or their parents",
                advice::BLIND.as_millis()
            ));
            return;
        }
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
        // The kernel gives the same number for a cgroup that is watched already.
        match inotify::add_watch(fd, path, flags) {
            Ok(number) => {
                if let Some(earlier) = self.by_path.insert(path.to_owned(), number) {
                    self.by_number.retain(|it, at| *it == number || *it != earlier || at != path);
                }
                self.by_number.insert(number, path.to_owned());
            }
            // It is gone again.
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => self.problem = Some(advice::no_watch(error)),
        }
    }

    /// What has happened since the last time.
    pub fn changes(&mut self) -> Vec<Change> {
        let Some(fd) = &self.fd else { return Vec::new() };
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
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
pub fn wait(fd: Option<&OwnedFd>, patience: Duration) {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    let mut fds: Vec<_> = fd.into_iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    // Interrupted or not, what is there is read next.
    poll(&mut fds, patience).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_told_and_watches_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::with_limit(2);
        let watches = |watcher: &mut Watcher, path: &Path| {
            watcher.forget_problem();
            watcher.watch(path);
            watcher.problem().is_none()
        };
        assert!(watches(&mut watcher, root.path()));
        let one = root.path().join("one");
        std::fs::create_dir(&one).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.clone())]);
        assert!(watches(&mut watcher, &one) && watches(&mut watcher, &one), "at the limit");
        std::fs::create_dir(one.join("two")).unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.join("two"))]);
        assert!(!watches(&mut watcher, &one.join("two")), "past the limit");
        std::fs::remove_dir(one.join("two")).unwrap();
        std::fs::remove_dir(&one).unwrap();
        assert_eq!(watcher.changes(), [Change::Gone(one.join("two")), Change::Gone(one.clone())]);
        // The place is free again, and the same path is another folder.
        std::fs::create_dir(&one).unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.clone())]);
        assert!(watches(&mut watcher, &one));
        std::fs::create_dir(one.join("two")).unwrap();
        assert_eq!(watcher.changes(), [Change::Made(one.join("two"))]);
        std::fs::remove_dir(one.join("two")).unwrap();
        std::fs::remove_dir(&one).unwrap();
        watcher.changes();
        assert!(watches(&mut watcher, &one), "what is gone needs no watch");
    }
}
