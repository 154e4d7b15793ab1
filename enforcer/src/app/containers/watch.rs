//! Tagged cgroups, and those that appear below them: the kernel says so. Where it cannot
//! (root has no instance or no watch left) they are looked at again and again.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::app::inotify as advice;

/// The most cgroups that are watched, of all tagged ones together and of each. Those
/// beyond are looked at when a program of theirs is refused.
pub const MOST: Most = Most { all: 4096, of_each: 256 };
/// How deep below a tagged cgroup others are looked for.
const MAX_DEPTH: usize = 8;

/// Limits: what one workload makes takes no place from others.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub all: usize,
    pub of_each: usize,
}

impl Most {
    /// Whether there is a place for one more of this tagged cgroup beside those of these.
    pub fn admit(self, there: impl Iterator<Item = impl AsRef<Path>>, owner: &Path) -> bool {
        let (mut all, mut of_owner) = (0, 0);
        for other in there {
            all += 1;
            of_owner += usize::from(other.as_ref() == owner);
        }
        all < self.all && of_owner < self.of_each
    }
}

/// Folders of cgroups. Any thread may add one.
pub struct Watch {
    fd: Option<OwnedFd>,
    places: Mutex<Places>,
    most: Most,
}

#[derive(Default)]
struct Places {
    /// The tagged ones.
    owners: HashSet<PathBuf>,
    /// How many each of them has; none after one has gone, to be counted again.
    counts: Option<HashMap<PathBuf, usize>>,
    watched: HashMap<i32, PathBuf>,
    /// Of what appears in these nobody tells.
    blind: HashSet<PathBuf>,
    problem: Option<String>,
    /// When all of those were looked at, and how long it took.
    looked: Option<(Instant, Duration)>,
}

impl Places {
    /// The innermost tagged cgroup that a place is in, or itself.
    fn owner<'a>(&self, path: &'a Path) -> &'a Path {
        path.ancestors().find(|it| self.owners.contains(*it)).unwrap_or(path)
    }

    fn has_room(&mut self, owner: &Path, most: Most) -> bool {
        self.watched.len() + self.blind.len() < most.all
            && self.counts().get(owner).is_none_or(|many| *many < most.of_each)
    }

    /// Those that are there already take no second place.
    fn knows(&self, path: &Path) -> bool {
        self.blind.contains(path) || self.watched.values().any(|it| it.as_os_str() == path.as_os_str())
    }

    fn counts(&mut self) -> &mut HashMap<PathBuf, usize> {
        if self.counts.is_none() {
            let mut counts = HashMap::new();
            for path in self.watched.values().chain(&self.blind) {
                *counts.entry(self.owner(path).to_owned()).or_insert(0) += 1;
            }
            self.counts = Some(counts);
        }
        self.counts.get_or_insert_default()
    }
}

impl Watch {
    pub fn new(most: Most) -> Self {
        let mut places = Places::default();
        let fd = advice::open().map_err(|error| places.problem = Some(advice::no_instance(&error))).ok();
        if let Some(why) = &places.problem {
            tracing::warn!("containers are not told of: {why}");
        }
        Self { fd, places: Mutex::new(places), most }
    }

    /// Why not everything is told.
    pub fn problem(&self) -> Option<String> {
        let places = self.places();
        places.problem.clone().filter(|_| !places.blind.is_empty() || self.fd.is_none())
    }

    /// Watches a tagged cgroup and those below it; false if there are too many.
    pub fn add(&self, path: &Path) -> bool {
        let mut places = self.places();
        if places.owners.len() >= self.most.all {
            places.owners.retain(|it| it.is_dir());
        }
        if places.owners.insert(path.to_owned()) {
            places.counts = None;
        }
        drop(places);
        self.add_below(path, 0)
    }

    /// The innermost tagged cgroup that a place is in, or itself.
    pub fn owner(&self, path: &Path) -> PathBuf {
        self.places().owner(path).to_owned()
    }

    fn add_below(&self, path: &Path, depth: usize) -> bool {
        let mut places = self.places();
        let owner = places.owner(path).to_owned();
        if !places.has_room(&owner, self.most) && !places.knows(path) {
            return false;
        }
        let flags = WatchFlags::CREATE | WatchFlags::ONLYDIR;
        match self.fd.as_ref().map(|fd| inotify::add_watch(fd, path, flags)) {
            Some(Ok(number)) => {
                let known = places.blind.remove(path);
                if places.watched.insert(number, path.to_owned()).is_none() && !known {
                    *places.counts().entry(owner).or_insert(0) += 1;
                }
            }
            // It is gone already.
            Some(Err(Errno::NOENT | Errno::NOTDIR)) => return true,
            refused => {
                if let Some(Err(error)) = refused
                    && places.problem.is_none()
                {
                    let why = advice::no_watch(error);
                    tracing::warn!("not all containers are told of: {why}");
                    places.problem = Some(why);
                }
                if places.blind.insert(path.to_owned()) {
                    *places.counts().entry(owner).or_insert(0) += 1;
                }
            }
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
        let places = self.places();
        places.watched.values().chain(&places.blind).cloned().collect()
    }

    /// Cgroups that have appeared where nobody tells of them.
    fn found(&self) -> Vec<PathBuf> {
        let begun = Instant::now();
        let mut places = self.places();
        places.blind.retain(|path| path.is_dir());
        places.counts = None;
        let below = places.blind.iter().flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten());
        let folders = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let known: HashSet<&PathBuf> = places.watched.values().chain(&places.blind).collect();
        let found = folders.map(|entry| entry.path()).filter(|path| !known.contains(path)).collect();
        places.looked = Some((Instant::now(), begun.elapsed()));
        found
    }

    /// How long to wait until those are looked at that nobody tells of, if there are any.
    fn patience(&self) -> Option<Duration> {
        let places = self.places();
        let pause = |(at, took): (Instant, Duration)| advice::pause_after(took).saturating_sub(at.elapsed());
        (!places.blind.is_empty()).then(|| places.looked.map_or(Duration::ZERO, pause))
    }

    /// Cgroups that were made since, after waiting for one at most this long. They
    /// are watched from now on.
    pub fn made(&self, timeout: Duration) -> io::Result<Vec<PathBuf>> {
        let blind = self.patience();
        let timeout = blind.map_or(timeout, |pause| pause.min(timeout));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let fds = self.fd.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        match poll(&mut fds.collect::<Vec<_>>(), timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut made = self.told()?;
        if self.patience() == Some(Duration::ZERO) {
            made.extend(self.found());
        }
        for path in &made {
            self.add_below(path, 0);
        }
        Ok(made)
    }

    /// What the kernel has told.
    fn told(&self) -> io::Result<Vec<PathBuf>> {
        let Some(fd) = &self.fd else { return Ok(Vec::new()) };
        let mut made = Vec::new();
        let mut lost = false;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    if event.events().contains(ReadFlags::IGNORED) {
                        let mut places = self.places();
                        places.watched.remove(&event.wd());
                        places.counts = None;
                    }
                    let name = event.file_name().filter(|_| event.events().contains(ReadFlags::ISDIR));
                    let place = self.places().watched.get(&event.wd()).cloned();
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
        Ok(made)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
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
        let watch = Watch::new(MOST);
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
        let watch = |all, of_each| Watch::new(Most { all, of_each });
        assert!(watch(2, 2).add(dir.path()));
        assert!(!watch(1, 2).add(dir.path()));
        assert!(!watch(2, 1).add(dir.path()));
        // What is watched already takes no second place.
        let again = watch(2, 2);
        assert!(again.add(dir.path()) && again.add(dir.path()));
    }

    #[test]
    fn one_that_has_as_many_as_it_may_leaves_room_for_others() {
        let (hostile, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for number in 0..8 {
            fs::create_dir(hostile.path().join(number.to_string())).unwrap();
        }
        let watch = Watch::new(Most { all: 7, of_each: 4 });
        assert!(!watch.add(hostile.path()));
        assert!(watch.add(other.path()));
        // Also of what is made in it later.
        fs::create_dir(hostile.path().join("more")).unwrap();
        let one = other.path().join("one");
        fs::create_dir(&one).unwrap();
        wait_for(&watch, &one);
        let of = |owner: &Path| watch.all().iter().filter(|it| watch.owner(it) == owner).count();
        assert_eq!((of(hostile.path()), of(other.path())), (4, 2));
        // A tagged one in a tagged one has places of its own.
        let inner = hostile.path().join("7");
        assert!(watch.add(&inner));
        assert_eq!(of(&inner), 1);
    }

    #[test]
    fn without_inotify_what_is_made_is_found_by_looking() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch { fd: None, ..Watch::new(Most { all: 3, of_each: 3 }) };
        assert!(watch.add(dir.path()));
        let (one, two) = (dir.path().join("one"), dir.path().join("one/two"));
        fs::create_dir(&one).unwrap();
        wait_for(&watch, &one);
        fs::create_dir(&two).unwrap();
        wait_for(&watch, &two);
        assert_eq!(watch.found(), Vec::<PathBuf>::new(), "each is told of once");
        assert!(!watch.add(&dir.path().join("three")), "past the limit");
        fs::remove_dir_all(&one).unwrap();
        watch.found();
        assert_eq!(watch.all(), [dir.path().to_owned()]);
    }
}
