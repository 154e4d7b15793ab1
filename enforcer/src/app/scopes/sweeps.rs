//! The threads that sweep. They hold no lock while they do, so that a tag never waits for
//! the sockets of others; and each looks at one cgroup for a moment only, then at another,
//! so that a job with very many sockets keeps nobody else from being swept.
//!
//! ```text
//!   tagged ──▶ sweeping ──▶ clean ──somebody comes──▶ sweeping ──▶ clean
//!                 ▲  │ the moment is over, or it failed
//!                 └──┘
//! ```

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::daemon::{Daemon, lock};
use super::sweep::{Order, Seen, Since, Swept};
use super::{Scopes, TICK};

/// So many cgroups are swept at a time.
const SWEEPERS: usize = 4;
/// How long one is, before it is another's turn.
const SLICE: Duration = Duration::from_millis(250);
/// How long until its next turn, while others have theirs.
const REST: Duration = Duration::from_millis(25);
/// How long a sweeper that has nothing to do waits at most.
const IDLE: Duration = Duration::from_millis(100);

/// How far one match is.
#[derive(Debug)]
pub(super) struct Sweep {
    seen: Seen,
    pub since: Since,
    /// Processes that are not looked at yet; none: the cgroup is clean. Not known at first.
    left: Option<usize>,
    problems: BTreeSet<String>,
}

impl Sweep {
    /// Of a match that was tagged now, or was clean already under an earlier loader.
    pub fn new(since: Since) -> Self {
        Self { seen: Seen::default(), since, left: None, problems: BTreeSet::new() }
    }

    /// How many processes have not been looked at, unless it is clean.
    pub fn under_way(&self) -> Option<usize> {
        match self.left {
            Some(0) => None,
            left => Some(left.unwrap_or(0)),
        }
    }

    pub fn problems(&self) -> Vec<String> {
        self.problems.iter().cloned().chain(self.seen.problems()).collect()
    }

    fn learn(&mut self, seen: Seen, swept: &Swept) {
        self.seen = seen;
        self.left = Some(swept.left);
        self.problems = swept.problems.clone();
        if swept.left == 0 {
            self.since = Since::Earlier;
        }
    }
}

/// Which matches are to be swept when, the longest waiting first; each stands there once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeSet<(Instant, u64)>,
    due: HashMap<u64, Instant>,
}

impl Queue {
    /// Of two times the earlier counts.
    pub fn push(&mut self, due: Instant, cgroup: u64) {
        match self.due.get(&cgroup) {
            Some(earlier) if *earlier <= due => return,
            Some(later) => self.order.remove(&(*later, cgroup)),
            None => false,
        };
        self.order.insert((due, cgroup));
        self.due.insert(cgroup, due);
    }

    fn pop(&mut self, now: Instant) -> Option<u64> {
        self.order.first().filter(|(due, _)| *due <= now)?;
        let (_, cgroup) = self.order.pop_first()?;
        self.due.remove(&cgroup);
        Some(cgroup)
    }
}

/// One turn of a sweeper.
struct Turn {
    cgroup: u64,
    path: PathBuf,
    tag: u64,
    since: Since,
    seen: Seen,
}

/// Starts the sweepers, which go on until the end.
pub(super) fn serve(daemon: &Arc<Daemon>) -> Result<()> {
    for number in 0..SWEEPERS {
        let daemon = Arc::clone(daemon);
        let sweep = move || {
            while !daemon.stop.load(Ordering::Acquire) {
                if let Some(turn) = daemon.next_turn() {
                    daemon.take_turn(turn);
                }
            }
        };
        std::thread::Builder::new().name(format!("sweep {number}")).spawn(sweep).context("a sweeper")?;
    }
    Ok(())
}

impl Daemon {
    /// Whose turn it is, after waiting a little for somebody.
    fn next_turn(&self) -> Option<Turn> {
        let mut scopes = lock(&self.scopes);
        let now = Instant::now();
        let Some(cgroup) = scopes.queue.pop(now) else {
            drop(self.swept.wait_timeout(scopes, IDLE));
            return None;
        };
        let later = now + TICK;
        if scopes.is_in_question(cgroup) {
            // It may not be meant: then it keeps its connections.
            scopes.queue.push(later, cgroup);
            return None;
        }
        let found = scopes.matched(cgroup)?;
        if lock(&self.lifted).contains_key(&found.note.tag) {
            // What it does meanwhile is its own affair; afterwards it is as if tagged anew.
            found.sweep = Sweep::new(Since::ThisMoment);
            scopes.queue.push(later, cgroup);
            return None;
        }
        let (path, tag, since) = (found.note.path.clone(), found.note.tag, found.sweep.since);
        let seen = std::mem::take(&mut found.sweep.seen);
        Some(Turn { cgroup, path, tag, since, seen })
    }

    fn take_turn(&self, mut turn: Turn) {
        let is_served =
            |cookie| self.with_kernel(|kernel| kernel.served()).is_ok_and(|served| served.contains(&cookie));
        let order = Order {
            since: turn.since,
            ports: [self.config.listen.tcp_port, self.config.listen.dns_port],
            is_served: &is_served,
            until: Instant::now() + SLICE,
        };
        let swept = turn.seen.sweep(&turn.path, &order);
        for pid in swept.namespaces.values() {
            // Else their first connect is refused, and then it is served.
            if let Err(error) = self.serve_namespace_of(*pid) {
                tracing::debug!(pid, "the network namespace is served on demand: {error:#}");
            }
        }
        let cgroup = turn.path.display();
        if swept.closed > 0 {
            tracing::info!(%cgroup, closed = swept.closed, left = swept.left, "sockets from before");
        }
        self.end_turn(&mut lock(&self.scopes), turn.cgroup, turn.tag, turn.seen, &swept);
        self.swept.notify_all();
    }

    fn end_turn(&self, scopes: &mut Scopes, cgroup: u64, tag: u64, seen: Seen, swept: &Swept) {
        // Its tag may be lifted, or be another's, by now.
        let Some(found) = scopes.matched(cgroup).filter(|found| found.note.tag == tag) else {
            return;
        };
        for problem in swept.problems.difference(&found.sweep.problems) {
            tracing::warn!(cgroup = %found.note.path.display(), "{problem}");
        }
        found.sweep.learn(seen, swept);
        let is_news = swept.closed > 0 || swept.left == 0 && !found.note.swept;
        found.note.closed += swept.closed;
        found.note.swept |= swept.left == 0;
        if is_news {
            self.write_note(&found.note);
        }
        // Who cannot be swept is tried less often, as who is clean is looked at.
        let goes_on = swept.left > 0 && swept.problems.is_empty();
        scopes.queue.push(Instant::now() + if goes_on { REST } else { TICK }, cgroup);
    }

    /// Waits until all matches of a scope are clean, but not longer than that.
    pub(super) fn wait_swept(&self, name: &str, patience: Duration) {
        let until = Instant::now() + patience;
        let mut scopes = lock(&self.scopes);
        let under_way = |scopes: &Scopes| {
            let known = scopes.known.iter().find(|known| known.scope.name() == name);
            known.is_some_and(|known| known.matches.values().any(|it| it.sweep.under_way().is_some()))
        };
        while under_way(&scopes) && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            scopes =
                self.swept.wait_timeout(scopes, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longest_is_next_and_nobody_before_his_time() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(now + TICK, 1);
        queue.push(now, 2);
        queue.push(now, 3);
        assert_eq!(queue.pop(now), Some(2));
        // Its moment is over, and others wait.
        queue.push(now + Duration::from_nanos(1), 2);
        let soon = now + Duration::from_millis(1);
        assert_eq!((queue.pop(soon), queue.pop(soon), queue.pop(soon)), (Some(3), Some(2), None));
        assert_eq!(queue.pop(now + TICK), Some(1));
        // Twice is once, and the earlier time counts.
        for due in [now + TICK, now, now + TICK] {
            queue.push(due, 4);
        }
        assert_eq!((queue.pop(now), queue.pop(now + TICK)), (Some(4), None));
    }

    #[test]
    fn it_is_under_way_until_nobody_is_left() {
        let mut sweep = Sweep::new(Since::ThisMoment);
        assert_eq!(sweep.under_way(), Some(0));
        sweep.learn(Seen::default(), &Swept { left: 7, ..Swept::default() });
        assert_eq!((sweep.under_way(), sweep.since), (Some(7), Since::ThisMoment));
        sweep.learn(Seen::default(), &Swept::default());
        assert_eq!((sweep.under_way(), sweep.since), (None, Since::Earlier));
    }
}
