//! The CPU time of this thread.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds that this thread has run for.
pub fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// How long something takes this thread, in ns; at least one.
pub fn taken(what: impl FnOnce()) -> u64 {
    let before = thread_ns();
    what();
    thread_ns().saturating_sub(before).max(1)
}

#[test]
fn work_takes_time_and_sleep_does_not() {
    let work = taken(|| {
        let begun = thread_ns();
        while thread_ns() < begun + 2_000_000 {}
    });
    assert!(work >= 2_000_000);
    assert!(taken(|| std::thread::sleep(Duration::from_millis(200))) < 100_000_000);
}
