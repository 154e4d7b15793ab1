//! Which namespaces are served, for whom, and which could not be.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use enforcer_common::MAX_NETNS;

use super::guarded::Guarded;

/// Namespaces of one workload that are served at the same time. A program that makes
/// one after the other takes no place from others, and no descriptors without end.
pub const MAX_OF_WORKLOAD: usize = 64;
/// Namespaces that are served at the same time, beside the service's own.
pub const MAX_SERVED: usize = MAX_NETNS as usize - 1;
/// Failures that are remembered; the oldest makes room.
const MAX_FAILURES: usize = 1024;
/// How long a namespace that could not be served is left alone, at first and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(5)];
/// Looks in a row that find nobody before the listeners are closed: one look may miss a
/// process whose parent ends at that moment.
pub const MISSES: u8 = 2;

/// Why there is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("the workload has {MAX_OF_WORKLOAD} network namespaces that are served, the most it may have")]
    OfWorkload,
    #[error("{MAX_SERVED} network namespaces are served, the most there may be")]
    All,
}

/// A namespace whose listeners the proxy has.
#[derive(Debug)]
pub struct Served {
    inode: u64,
    tag: u64,
    misses: u8,
}

impl Served {
    pub fn new(inode: u64, tag: u64) -> Self {
        Self { inode, tag, misses: 0 }
    }
}

#[derive(Debug)]
struct Failure {
    again: Instant,
    pause: Duration,
}

/// By cookie.
#[derive(Debug, Default)]
pub struct Table {
    /// The service's own namespace while a proxy runs.
    home: Option<u64>,
    home_inode: u64,
    served: HashMap<u64, Served>,
    failures: HashMap<u64, Failure>,
    /// Over the proxy's death, too.
    pub guarded: Guarded,
}

impl Table {
    /// A proxy has begun, and has nothing but the listeners of `home`.
    pub fn start(&mut self, home: u64, home_inode: u64) {
        self.stop();
        self.home = Some(home);
        self.home_inode = home_inode;
    }

    /// The proxy is gone, and the listeners with it.
    pub fn stop(&mut self) {
        self.home = None;
        self.served.clear();
        self.failures.clear();
    }

    pub fn is_open(&self) -> bool {
        self.home.is_some()
    }

    pub fn is_served(&self, cookie: u64) -> bool {
        self.home == Some(cookie) || self.served.contains_key(&cookie)
    }

    /// Whether there is a place for one more of this workload.
    pub fn room(&self, tag: u64) -> Result<(), Full> {
        if self.served.values().filter(|it| it.tag == tag).count() >= MAX_OF_WORKLOAD {
            return Err(Full::OfWorkload);
        }
        if self.served.len() >= MAX_SERVED { Err(Full::All) } else { Ok(()) }
    }

    pub fn insert(&mut self, cookie: u64, served: Served) {
        self.failures.remove(&cookie);
        self.served.insert(cookie, served);
    }

    /// The namespaces that need not be looked into: it is known which they are.
    pub fn inodes(&self) -> HashSet<u64> {
        self.served.values().map(|it| it.inode).chain([self.home_inode]).collect()
    }

    /// Whether one that failed is to be tried again.
    pub fn is_due(&self, cookie: u64, now: Instant) -> bool {
        self.failures.get(&cookie).is_none_or(|it| it.again <= now)
    }

    /// Returns how long it is left alone: twice as long as the last time.
    pub fn failed(&mut self, cookie: u64, now: Instant) -> Duration {
        let before = self.failures.remove(&cookie);
        let pause = before.map_or(PAUSE[0], |it| (it.pause * 2).min(PAUSE[1]));
        if self.failures.len() >= MAX_FAILURES {
            let oldest = self.failures.iter().min_by_key(|(_, it)| it.again).map(|(cookie, _)| *cookie);
            oldest.and_then(|oldest| self.failures.remove(&oldest));
        }
        self.failures.insert(cookie, Failure { again: now + pause, pause });
        pause
    }

    /// A failure that has been due for long begins anew.
    pub fn forget_failures(&mut self, now: Instant) {
        self.failures.retain(|_, it| now.saturating_duration_since(it.again) < PAUSE[1]);
    }

    /// Whether somebody is in each of them: `used` is tags by inode.
    pub fn all_in<T>(&self, used: &HashMap<u64, T>) -> bool {
        let served = self.served.values().map(|it| it.inode);
        served.chain(self.guarded.inodes()).all(|inode| used.contains_key(&inode))
    }

    /// Takes out those that nobody has been seen in for long enough. The others count
    /// for whoever is there now.
    pub fn unused(&mut self, used: &HashMap<u64, u64>) -> Vec<u64> {
        let mut gone = Vec::new();
        self.served.retain(|cookie, it| {
            it.misses = match used.get(&it.inode) {
                Some(tag) => {
                    it.tag = *tag;
                    0
                }
                None => it.misses + 1,
            };
            let stays = it.misses < MISSES;
            if !stays {
                gone.push(*cookie);
            }
            stays
        });
        gone
    }

    pub fn by_tag(&self) -> HashMap<u64, usize> {
        let mut counts = HashMap::new();
        for served in self.served.values() {
            *counts.entry(served.tag).or_insert(0) += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: u64 = 1;

    fn filled(many: usize, tag: impl Fn(u64) -> u64) -> Table {
        let mut table = Table::default();
        table.start(HOME, u64::MAX);
        for number in 0..many as u64 {
            assert_eq!(table.room(tag(number)), Ok(()), "{number}");
            table.insert(100 + number, Served::new(number, tag(number)));
        }
        table
    }

    #[test]
    fn one_workload_has_so_many_and_another_has_room() {
        let mut table = filled(MAX_OF_WORKLOAD, |_| 7);
        assert_eq!(table.room(7), Err(Full::OfWorkload));
        assert_eq!(table.room(8), Ok(()));
        let used = (1..MAX_OF_WORKLOAD as u64).map(|inode| (inode, 7)).collect();
        assert_eq!((table.unused(&used), table.unused(&used)), (vec![], vec![100]));
        assert_eq!(table.room(7), Ok(()));
    }

    #[test]
    fn all_together_are_so_many() {
        let table = filled(MAX_SERVED, |number| number);
        assert_eq!(table.room(u64::MAX), Err(Full::All));
        assert_eq!(filled(MAX_SERVED - 1, |number| number).room(u64::MAX), Ok(()));
    }

    #[test]
    fn one_that_is_seen_again_stays_and_counts_for_who_is_there() {
        let mut table = filled(1, |_| 7);
        let (nobody, other) = (HashMap::new(), HashMap::from([(0, 8)]));
        for _ in 0..3 {
            assert!(table.unused(&nobody).is_empty());
            assert!(table.unused(&other).is_empty());
        }
        assert_eq!(table.by_tag(), HashMap::from([(8, 1)]));
        assert!(!table.all_in(&nobody) && table.all_in(&other));
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often() {
        let mut table = filled(0, |_| 0);
        let now = Instant::now();
        assert!(table.is_due(5, now));
        assert_eq!(table.failed(5, now), PAUSE[0]);
        assert!(!table.is_due(5, now) && table.is_due(5, now + PAUSE[0]));
        assert_eq!(table.failed(5, now), PAUSE[0] * 2);
        assert_eq!((0..20).map(|_| table.failed(5, now)).last(), Some(PAUSE[1]));
        table.forget_failures(now + PAUSE[1]);
        assert!(!table.is_due(5, now));
        table.forget_failures(now + PAUSE[1] * 2);
        assert!(table.is_due(5, now));
    }

    #[test]
    fn failures_are_remembered_up_to_a_number() {
        let mut table = filled(0, |_| 0);
        let now = Instant::now();
        for cookie in 0..MAX_FAILURES as u64 {
            table.failed(cookie, now + Duration::from_millis(cookie));
        }
        assert!(!table.is_due(0, now));
        table.failed(u64::MAX, now);
        assert!(table.is_due(0, now) && !table.is_due(1, now) && !table.is_due(u64::MAX, now));
    }

    #[test]
    fn without_a_proxy_nothing_is_served() {
        let mut table = filled(3, |_| 7);
        assert!(table.is_open() && table.is_served(HOME) && table.is_served(100));
        table.stop();
        assert!(!table.is_open() && !table.is_served(HOME) && !table.is_served(100));
    }
}
