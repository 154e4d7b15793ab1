//! What the thread is told that nobody waits for, and that must not be lost: clients that have
//! gone, and jobs and sessions that have ended.
//!
//! **Invariant**: what has ended is over for each call that began before, in whatever order the
//! thread comes to them, and however many wait: an end takes effect when it is heard, and once
//! more behind the last call that can be from before it.

use std::collections::{HashMap, HashSet};

use super::ids::{JobKey, WaiterId};
use crate::session::SessionId;

/// Ends that are kept apart until the thread has seen to them; one more, and all have ended.
pub(super) const ENDED: usize = 4096;

/// What has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ended {
    Job(JobKey),
    Session(SessionId),
    /// Too much to tell apart.
    Everything,
}

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// No more than there are clients that wait.
    pub gone: Vec<WaiterId>,
    pub ended: HashSet<Ended>,
}

impl Told {
    pub fn end(&mut self, ended: Ended) {
        let many = self.ended.len() >= ENDED && !self.ended.contains(&ended);
        if many || self.ended.contains(&Ended::Everything) {
            self.ended.clear();
            self.ended.insert(Ended::Everything);
        } else {
            self.ended.insert(ended);
        }
    }
}

/// What was heard to have ended, each with how many calls may still be from before that.
#[derive(Debug, Default)]
pub(super) struct Endings(HashMap<Ended, usize>);

impl Endings {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// It was heard of, with so many calls that can be from before.
    pub fn heard(&mut self, ended: Ended, calls: usize) {
        let many = self.0.len() >= ENDED && !self.0.contains_key(&ended);
        if many || self.0.contains_key(&Ended::Everything) {
            self.0.clear();
            self.0.insert(Ended::Everything, calls);
        } else {
            self.0.insert(ended, calls);
        }
    }

    /// A call was answered: what is due by now.
    pub fn called(&mut self) -> Vec<Ended> {
        self.0.values_mut().for_each(|calls| *calls = calls.saturating_sub(1));
        self.0.iter().filter(|(_, calls)| **calls == 0).map(|(ended, _)| ended.clone()).collect()
    }

    /// No call waits: what is due by now, which is all.
    pub fn all(&self) -> Vec<Ended> {
        self.0.keys().cloned().collect()
    }

    /// It has taken effect behind the last call.
    pub fn done(&mut self, ended: &Ended) {
        self.0.remove(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: usize) -> Ended {
        Ended::Job(JobKey::new(&number.to_string()))
    }

    #[test]
    fn as_many_ends_as_can_be_told_apart_are_and_one_more_is_the_end_of_all() {
        let (mut told, mut endings) = (Told::default(), Endings::default());
        for number in (0..ENDED).chain([0]) {
            told.end(job(number));
            endings.heard(job(number), 1);
        }
        assert_eq!((told.ended.len(), endings.0.len()), (ENDED, ENDED));
        assert!(!told.ended.contains(&Ended::Everything));
        for number in [ENDED, 0] {
            told.end(job(number));
            endings.heard(job(number), 1);
            assert_eq!(told.ended, HashSet::from([Ended::Everything]));
            assert_eq!(endings.all(), [Ended::Everything]);
        }
    }

    #[test]
    fn an_end_is_due_behind_the_last_call_from_before_it_and_stays_until_it_is_done() {
        let mut endings = Endings::default();
        endings.heard(job(1), 2);
        assert_eq!(endings.called(), []);
        endings.heard(job(2), 2);
        assert_eq!(endings.called(), [job(1)]);
        assert_eq!(endings.called().len(), 2);
        endings.done(&job(1));
        assert_eq!(endings.called(), [job(2)]);
        endings.done(&job(2));
        assert!(endings.is_empty());
    }
}
