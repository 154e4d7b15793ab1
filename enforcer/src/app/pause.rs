//! How long the loader waits before it starts its children again.
//!
//! Until they are there no workload has network, so the death of children that had
//! begun is answered at once, and soon if they die as soon as they have begun. A
//! beginning that fails fails again until somebody mends what is missing: there is no
//! hurry.

use std::time::Duration;

/// The first pause that is one.
const SHORTEST: Duration = Duration::from_millis(25);
/// The longest after a death. A start takes about half as long: whoever makes them die
/// again and again leaves the host half of one processor at least.
const AFTER_DEATH: Duration = Duration::from_millis(200);
/// The longest after a beginning that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Who has lived as long as the longest pause has left the host as much without one.
const LONG: Duration = AFTER_DEATH;

/// The pause that would come next.
#[derive(Debug, Default)]
pub(super) struct Pause(Duration);

impl Pause {
    /// The children had begun, lived for a while, and died.
    pub(super) fn after_death(&mut self, lived: Duration) -> Duration {
        if lived >= LONG {
            self.0 = Duration::ZERO;
        }
        self.take(AFTER_DEATH)
    }

    /// They could not begin.
    pub(super) fn after_failure(&mut self) -> Duration {
        self.take(AFTER_FAILURE)
    }

    fn take(&mut self, longest: Duration) -> Duration {
        let now = self.0.min(longest);
        self.0 = (now * 2).clamp(SHORTEST, longest);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(pauses: impl Iterator<Item = Duration>) -> Vec<u128> {
        pauses.map(|pause| pause.as_millis()).collect()
    }

    #[test]
    fn a_death_is_answered_at_once_and_many_soon() {
        let mut pause = Pause::default();
        let short = LONG.saturating_sub(Duration::from_millis(1));
        let many = (0..6).map(|_| pause.after_death(short));
        assert_eq!(millis(many), [0, 25, 50, 100, 200, 200]);
        assert_eq!(pause.after_death(LONG), Duration::ZERO);
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often() {
        let mut pause = Pause::default();
        let many = (0..10).map(|_| pause.after_failure());
        assert_eq!(millis(many), [0, 25, 50, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(pause.after_failure(), AFTER_FAILURE);
        // What could begin after all is not punished for that.
        assert_eq!(pause.after_death(Duration::ZERO), AFTER_DEATH);
    }
}
