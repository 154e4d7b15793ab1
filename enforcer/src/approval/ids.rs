//! The names of what an approval speaks about, and the time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since 1970. The caller reads the clock; nothing here does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// One question to people. Numbers are given once in the life of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApprovalId(pub(super) u64);

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "apr-{}", self.0)
    }
}

/// The text is not the name of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an approval: one looks like apr-12")]
pub struct NotAnApproval;

impl FromStr for ApprovalId {
    type Err = NotAnApproval;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("apr-").ok_or(NotAnApproval)?;
        if !number.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NotAnApproval);
        }
        number.parse().map(Self).map_err(|_| NotAnApproval)
    }
}

/// One client that waits for an approval; it does not outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId {
    pub(super) approval: ApprovalId,
    pub(super) number: u64,
}

impl WaiterId {
    pub fn approval(self) -> ApprovalId {
        self.approval
    }
}

/// A job: what its grants are kept under. The caller makes it of what the kernel and
/// a verified token say; it has to outlive a restart and never be given twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobKey(Arc<str>);

impl JobKey {
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rule that holds, by the id that policy gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleKey(Arc<str>);

impl RuleKey {
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_is_named_in_one_way() {
        assert_eq!("apr-12".parse(), Ok(ApprovalId(12)));
        assert_eq!(ApprovalId(12).to_string(), "apr-12");
        for odd in ["", "12", "apr-", "apr-+1", "apr-1 ", "apr--1", "APR-1", "apr-99999999999999999999"] {
            assert_eq!(odd.parse::<ApprovalId>(), Err(NotAnApproval), "{odd}");
        }
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        assert_eq!(UnixMs(u64::MAX - 1).after(Duration::from_secs(1)), UnixMs(u64::MAX));
        assert_eq!(UnixMs(1).after(Duration::from_secs(1)), UnixMs(1001));
    }
}
