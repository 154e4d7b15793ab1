//! Which namespaces' interfaces are looked after: those that tagged processes are in,
//! whether they are served, and whether a proxy runs, or not.

use std::collections::HashMap;
use std::time::Instant;

use super::find::User;
use super::table::{MAX_OF_WORKLOAD, MAX_SERVED, MISSES};

/// Namespaces whose interfaces are looked at in one go: the others wait for the next.
const AT_ONCE: usize = 128;

#[derive(Debug)]
struct Namespace {
    cookie: u64,
    tag: u64,
    misses: u8,
    /// Since when its interfaces were not looked at.
    looked: Option<Instant>,
    /// Nothing comes out of it by a cable.
    walled: bool,
}

/// By inode.
#[derive(Debug, Default)]
pub struct Guarded {
    known: HashMap<u64, Namespace>,
    /// What an earlier loader guarded, and nobody is in any more, is left.
    pub settled: bool,
}

impl Guarded {
    pub fn is_known(&self, inode: u64) -> bool {
        self.known.contains_key(&inode)
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        self.known.keys().copied()
    }

    pub fn cookies(&self) -> impl Iterator<Item = u64> {
        self.known.values().map(|it| it.cookie)
    }

    /// Whether there is a place for one more of this workload.
    pub fn has_room(&self, tag: u64) -> bool {
        self.known.len() < MAX_SERVED
            && self.known.values().filter(|it| it.tag == tag).count() < MAX_OF_WORKLOAD
    }

    pub fn add(&mut self, inode: u64, cookie: u64, tag: u64) {
        let new = Namespace { cookie, tag, misses: 0, looked: None, walled: false };
        self.known.entry(inode).or_insert(new);
    }

    /// Takes out those that nobody has been seen in for long enough; their cookies.
    pub fn gone(&mut self, used: &HashMap<u64, User>) -> Vec<u64> {
        let mut gone = Vec::new();
        self.known.retain(|inode, it| {
            it.misses = match used.get(inode) {
                Some(user) => {
                    it.tag = user.tag;
                    0
                }
                None => it.misses + 1,
            };
            let stays = it.misses < MISSES;
            if !stays {
                gone.push(it.cookie);
            }
            stays
        });
        gone
    }

    /// Those that were not looked at for the longest time: cookies with inodes.
    pub fn next(&mut self, now: Instant) -> Vec<(u64, u64)> {
        let mut all: Vec<_> = self.known.iter_mut().collect();
        all.sort_unstable_by_key(|(_, it)| it.looked);
        let next = all.into_iter().take(AT_ONCE);
        next.map(|(inode, it)| {
            it.looked = Some(now);
            (it.cookie, *inode)
        })
        .collect()
    }

    /// Notes whether there is a wall; true if that is new.
    pub fn note_wall(&mut self, inode: u64, walled: bool) -> bool {
        self.known.get_mut(&inode).is_some_and(|it| std::mem::replace(&mut it.walled, walled) != walled)
    }

    /// How many have a wall.
    pub fn walled(&self) -> usize {
        self.known.values().filter(|it| it.walled).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn filled(many: usize, tag: impl Fn(u64) -> u64) -> Guarded {
        let mut guarded = Guarded::default();
        for number in 0..many as u64 {
            assert!(guarded.has_room(tag(number)), "{number}");
            guarded.add(number, 100 + number, tag(number));
        }
        guarded
    }

    #[test]
    fn one_workload_has_so_many_and_all_together_so_many() {
        let guarded = filled(MAX_OF_WORKLOAD, |_| 7);
        assert!(!guarded.has_room(7) && guarded.has_room(8));
        assert!(!filled(MAX_SERVED, |number| number).has_room(u64::MAX));
        assert!(filled(MAX_SERVED - 1, |number| number).has_room(u64::MAX));
    }

    #[test]
    fn many_are_looked_at_in_turn() {
        let mut guarded = filled(AT_ONCE + 1, |number| number);
        let now = Instant::now();
        let first: HashSet<u64> = guarded.next(now).into_iter().map(|(cookie, _)| cookie).collect();
        assert_eq!(first.len(), AT_ONCE);
        let second = guarded.next(now + Duration::from_secs(1));
        assert_eq!(second.iter().filter(|(cookie, _)| !first.contains(cookie)).count(), 1);
        assert_eq!(filled(AT_ONCE, |number| number).next(now).len(), AT_ONCE);
    }

    #[test]
    fn one_that_nobody_is_in_twice_is_gone() {
        let mut guarded = filled(2, |_| 7);
        assert!(guarded.note_wall(1, true) && !guarded.note_wall(1, true));
        assert_eq!(guarded.walled(), 1);
        let used = HashMap::from([(0, User { tag: 8, file: PathBuf::new() })]);
        assert_eq!(guarded.gone(&used), Vec::<u64>::new());
        assert_eq!(guarded.gone(&used), [101]);
        assert_eq!((guarded.walled(), guarded.inodes().collect::<Vec<_>>()), (0, vec![0]));
    }
}
