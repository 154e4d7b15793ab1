//! How much a rule lets through: so many in a window of time, of whoever is counted by itself.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::decision::RuleId;
use super::file::LimitSource;

/// Limits of one rule.
pub const MAX_LIMITS: usize = 8;
/// The longest window, in seconds.
pub const MAX_WINDOW_SECONDS: u32 = 24 * 60 * 60;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    Requests,
    /// Heads and bodies that go to the upstream.
    BytesUp,
    /// The same of what comes from there.
    BytesDown,
    /// Tokens that a model takes for what is asked and what it answers.
    Tokens,
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::BytesUp => "bytes up",
            Unit::BytesDown => "bytes down",
            Unit::Tokens => "tokens",
        }
    }
}

/// Who is counted by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// A workload: the cgroup that is tagged, for as long as it is.
    #[default]
    Job,
    /// A repository, as a verified token names it.
    Repository,
    /// Everybody together to whom the rule applies.
    Rule,
}

impl Per {
    fn as_str(self) -> &'static str {
        match self {
            Per::Job => "job",
            Per::Repository => "repository",
            Per::Rule => "rule",
        }
    }
}

/// At most so many of a unit in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit {
    pub unit: Unit,
    pub most: u64,
    pub window_seconds: u32,
    pub per: Per,
}

/// As it is shown: `100 requests in 1m for each job`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, letter) = match self.window_seconds {
            day if day % 86_400 == 0 => (day / 86_400, 'd'),
            hour if hour % 3_600 == 0 => (hour / 3_600, 'h'),
            minute if minute % 60 == 0 => (minute / 60, 'm'),
            second => (second, 's'),
        };
        write!(f, "{} {} in {number}{letter}", self.most, self.unit.as_str())?;
        match self.per {
            Per::Rule => f.write_str(" for all together"),
            per => write!(f, " for each {}", per.as_str()),
        }
    }
}

impl Limit {
    /// As a policy file has it.
    pub(super) fn read(source: &LimitSource) -> Result<Self, &'static str> {
        let said = [
            (Unit::Requests, source.requests),
            (Unit::BytesUp, source.bytes_up),
            (Unit::BytesDown, source.bytes_down),
            (Unit::Tokens, source.tokens),
        ];
        let mut said = said.into_iter().filter_map(|(unit, most)| Some((unit, most?)));
        let (Some((unit, most)), None) = (said.next(), said.next()) else {
            return Err("a limit has one amount: `requests`, `bytes_up`, `bytes_down` or `tokens`");
        };
        if most == 0 {
            return Err("a limit of 0 lets nothing through: write `deny: \"why\"` in place of `allow: true`");
        }
        let wrong = "a window is a number with its unit (`30s`, `5m`, `1h`), from `1s` to `1d`";
        let window_seconds = window(&source.window).ok_or(wrong)?;
        Ok(Self { unit, most, window_seconds, per: source.per })
    }
}

fn window(text: &str) -> Option<u32> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<u32>().ok()?.checked_mul(unit)?;
    (1..=MAX_WINDOW_SECONDS).contains(&seconds).then_some(seconds)
}

/// The limits of a rule that lets something through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    pub rule: RuleId,
    /// Who that rule belongs to.
    pub owner: Option<Arc<str>>,
    /// What would be over is recorded, and goes on.
    pub audit: bool,
    pub limits: Arc<[Limit]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_second_to_a_day() {
        for (text, want) in [
            ("1s", Some(1)),
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("24h", Some(86_400)),
            ("1d", Some(86_400)),
            ("86400s", Some(86_400)),
            ("86401s", None),
            ("2d", None),
            ("0s", None),
            ("60", None),
            ("m", None),
            ("", None),
            ("+1m", None),
            ("1.5h", None),
            ("1 m", None),
            ("99999999999d", None),
            ("4294967295d", None),
            ("1µ", None),
        ] {
            assert_eq!(window(text), want, "{text}");
        }
    }

    #[test]
    fn it_is_shown_in_the_greatest_unit_that_fits() {
        for (window_seconds, per, want) in [
            (86_400, Per::Job, "7 requests in 1d for each job"),
            (7_200, Per::Repository, "7 requests in 2h for each repository"),
            (60, Per::Rule, "7 requests in 1m for all together"),
            (90, Per::Job, "7 requests in 90s for each job"),
        ] {
            let limit = Limit { unit: Unit::Requests, most: 7, window_seconds, per };
            assert_eq!(limit.to_string(), want);
        }
    }
}
