//! Tagged cgroups, and those that appear below them: the kernel says so.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// The most cgroups that are watched. Those beyond are looked at when a program of
/// theirs is refused.
pub const MAX_WATCHED: usize = 4096;
/// How deep below a tagged cgroup others are looked for.
const MAX_DEPTH: usize = 8;

/// Folders of cgroups. Any thread may add one.
pub struct Watch {
    fd: OwnedFd,
    places: Mutex<HashMap<i32, PathBuf>>,
    limit: usize,
}

impl Watch {
    pub fn new(limit: usize) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd, places: Mutex::default(), limit })
    }

    /// Watches a cgroup and those below it; false if there are too many.
    pub fn add(&self, path: &Path) -> bool {
        self.add_below(path, 0)
    }

    fn add_below(&self, path: &Path, depth: usize) -> bool {
        let mut places = self.places();
        if places.len() >= self.limit {
            return false;
        }
        let flags = WatchFlags::CREATE | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.fd, path, flags) {
            Ok(number) => drop(places.insert(number, path.to_owned())),
            // It is gone already.
            Err(Errno::NOENT | Errno::NOTDIR) => return true,
            Err(_) => return false,
        }
        drop(places);
        // After the watch, so that none is missed that is made now.
        let below = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if depth == MAX_DEPTH || !self.add_below(&entry.path(), depth + 1) {
                return false;
            }
        }
        true
    }

    /// All that are watched now.
    pub fn all(&self) -> Vec<PathBuf> {
        self.places().values().cloned().collect()
    }

    /// Cgroups that were made since, after waiting for one at most this long. They
    /// are watched from now on.
    pub fn made(&self, timeout: Duration) -> io::Result<Vec<PathBuf>> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut made = Vec::new();
        let mut lost = false;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    if event.events().contains(ReadFlags::IGNORED) {
                        self.places().remove(&event.wd());
                    }
                    let name = event.file_name().filter(|_| event.events().contains(ReadFlags::ISDIR));
                    let place = self.places().get(&event.wd()).cloned();
                    if let (Some(place), Some(name)) = (place, name) {
                        made.push(place.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if lost {
            made = self.all();
        }
        for path in &made {
            self.add(path);
        }
        Ok(made)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<i32, PathBuf>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(watch: &Watch, want: &Path) {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while std::time::Instant::now() < until {
            if watch.made(Duration::from_millis(50)).unwrap().iter().any(|path| path == want) {
                return;
            }
        }
        panic!("nobody said that {} was made", want.display());
    }

    #[test]
    fn what_is_made_below_what_was_made_is_told_too() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(MAX_WATCHED).unwrap();
        assert!(watch.add(dir.path()));
        let (one, two) = (dir.path().join("one"), dir.path().join("one/two"));
        fs::create_dir(&one).unwrap();
        wait_for(&watch, &one);
        fs::create_dir(&two).unwrap();
        wait_for(&watch, &two);
        assert_eq!(watch.all().len(), 3);
        fs::remove_dir(&two).unwrap();
        fs::remove_dir(&one).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while watch.all().len() > 1 && std::time::Instant::now() < until {
            assert_eq!(watch.made(Duration::from_millis(50)).unwrap(), Vec::<PathBuf>::new());
        }
        assert_eq!(watch.all(), [dir.path().to_owned()]);
    }

    #[test]
    fn so_many_are_watched_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("one")).unwrap();
        assert!(Watch::new(2).unwrap().add(dir.path()));
        assert!(!Watch::new(1).unwrap().add(dir.path()));
    }
}
