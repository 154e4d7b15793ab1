//! Traffic that goes on while the service dies and comes back: what was tried, when,
//! and what came of it. `enforcer-traffic` makes it, suites judge it.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Error, Result};
use nix::time::{ClockId, clock_gettime};

/// The time to live of all that a tagged process sends: whatever carries it on the wire
/// has got out, whatever it says and wherever it goes.
pub const TAGGED_TTL: u8 = 77;

/// What a tagged process tries to get out.
pub const PAYLOAD: &[u8] = b"SOAK-SECRET";

/// One thing that was tried. Times are of a clock that all processes share, in ns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub kind: String,
    pub began: u64,
    pub ended: u64,
    /// Why it failed.
    pub error: Option<String>,
}

impl Attempt {
    /// Does it, and notes when it began and ended.
    pub fn make(kind: &str, what: impl FnOnce() -> Result<()>) -> Self {
        let began = monotonic_ns();
        let error = what().err().map(|error| format!("{error:#}").replace('\n', " "));
        Self { kind: kind.to_owned(), began, ended: monotonic_ns(), error }
    }

    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, began, ended, error } = self;
        write!(f, "{kind} {began} {ended} {}", error.as_deref().unwrap_or_default())
    }
}

impl FromStr for Attempt {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().context("a line of too few words");
        let (kind, began, ended, error) = (word()?, word()?, word()?, word()?);
        let error = (!error.is_empty()).then(|| error.to_owned());
        Ok(Self { kind: kind.to_owned(), began: began.parse()?, ended: ended.parse()?, error })
    }
}

/// Nanoseconds of a clock that all processes share.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(std::time::Duration::ZERO, Into::into);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// All that one process has tried so far.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Attempt>>>);

impl Log {
    /// Reads what a process of traffic prints, until its end. A line that is none is a failure.
    pub fn of(output: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let into = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                let attempt = line.parse().unwrap_or_else(|error| {
                    Attempt::make("unreadable", || Err(Error::msg(format!("{line}: {error:#}"))))
                });
                into.lock().push(attempt);
            }
        });
        log
    }

    /// What matches, copied.
    pub fn all(&self, mut wanted: impl FnMut(&Attempt) -> bool) -> Vec<Attempt> {
        self.lock().iter().filter(|attempt| wanted(attempt)).cloned().collect()
    }

    pub fn count(&self, wanted: impl FnMut(&&Attempt) -> bool) -> usize {
        self.lock().iter().filter(wanted).count()
    }

    pub fn has(&self, wanted: impl FnMut(&Attempt) -> bool) -> bool {
        self.lock().iter().any(wanted)
    }

    /// When the service was back for this kind after a disturbance at `since`: the end of the
    /// first answered attempt after the last failed one, and after `new` (when those who
    /// answer now had begun; before that somebody may have answered who is about to go).
    pub fn back(&self, kind: &str, since: u64, new: u64) -> Option<u64> {
        let attempts = self.lock();
        let of_it = || attempts.iter().filter(|it| it.kind == kind && it.ended >= since);
        let failed = of_it().filter(|it| !it.is_ok()).map(|it| it.ended).max().unwrap_or(since);
        of_it().find(|it| it.is_ok() && it.ended >= failed.max(new)).map(|it| it.ended)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(began: u64, ended: u64, ok: bool) -> Attempt {
        let error = (!ok).then(|| "error 111".to_owned());
        Attempt { kind: "https".to_owned(), began, ended, error }
    }

    fn log(attempts: &[Attempt]) -> Log {
        Log(Arc::new(Mutex::new(attempts.to_vec())))
    }

    #[test]
    fn an_attempt_survives_its_line() {
        for it in [attempt(1, 2, true), attempt(3, 44, false)] {
            assert_eq!(it.to_string().parse::<Attempt>().unwrap(), it);
        }
        let failed = Attempt::make("x", || anyhow::bail!("two\nlines"));
        assert_eq!(failed.error.as_deref(), Some("two lines"));
        assert!("https 1 2".parse::<Attempt>().is_err() && "https x 2 ".parse::<Attempt>().is_err());
    }

    #[test]
    fn it_is_back_with_the_first_answer_after_the_last_failure() {
        let all = [
            attempt(0, 10, true),
            attempt(20, 30, false),
            attempt(40, 50, true),
            attempt(60, 70, false),
            attempt(80, 90, true),
            attempt(100, 110, true),
        ];
        assert_eq!(log(&all).back("https", 15, 0), Some(90));
        assert_eq!(log(&all[..4]).back("https", 15, 0), None);
        // The one that is about to go has answered this one.
        assert_eq!(log(&all).back("https", 75, 95), Some(110));
        assert_eq!(log(&all).back("dns", 15, 0), None);
        // One that waits all the time is answered when it is answered.
        assert_eq!(log(&[attempt(5, 200, true)]).back("https", 15, 100), Some(200));
    }
}
