//! Waiting for what is to come, in place of pauses.

use std::time::{Duration, Instant};

/// How long anything may take that comes at once on a machine that does nothing else.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// How long it took until this held; None if it did not within the limit.
pub fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        if holds() {
            return Some(begun.elapsed());
        }
        if begun.elapsed() > limit {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until this holds, and fails the test with what did not come; how long it took.
#[track_caller]
pub fn until(what: &str, holds: impl FnMut() -> bool) -> Duration {
    match within(PATIENCE, holds) {
        Some(took) => took,
        None => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Tries until this is part of the answer.
#[track_caller]
pub fn until_said(what: &str, mut attempt: impl FnMut() -> String) {
    let mut said = String::new();
    let done = within(PATIENCE, || {
        said = attempt();
        said.contains(what)
    });
    assert!(done.is_some(), "no `{what}` within {PATIENCE:?} but: {said}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_is_waited_for_as_long_as_said_and_no_longer() {
        let limit = Duration::from_millis(50);
        let begun = Instant::now();
        assert_eq!(within(limit, || false), None);
        assert!(begun.elapsed() >= limit);
        let mut left = 3;
        let came = within(PATIENCE, || {
            left -= 1;
            left == 0
        });
        assert!(came.is_some_and(|took| took < PATIENCE));
        // What holds already is asked for once, whatever the limit.
        assert!(within(Duration::ZERO, || true).is_some());
    }
}
