//! What a rule demands before a held statement goes out: who has to agree, at which
//! stage, for how long, and how far they may let it go.
//!
//! It is data that stands in the rule. A requirement that nobody could ever meet, or
//! that would let more through than it says, does not compile. What becomes of a statement
//! that is held is decided by `approval`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::Fact;

/// People of whom one approval can demand an answer.
pub const MAX_QUORUM: usize = 16;
/// Stages of one requirement.
pub const MAX_STAGES: usize = 32;
/// Groups of one need.
pub const MAX_GROUPS: usize = 32;
/// The longest that a question to people stays open.
pub const MAX_OPEN: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that a grant for a retry lies unused.
pub const MAX_RETRY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that a grant for a job lasts, in minutes.
pub const MAX_JOB_MINUTES: u32 = 12 * 60;

/// A group whose members may decide.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Group(Arc<str>);

impl Group {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So many distinct people out of any of these groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    pub people: usize,
    pub groups: BTreeSet<Group>,
}

/// What is needed at one stage. The first stage whose conditions hold applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldStage {
    /// The environment of the job; `*` stands for any text.
    #[serde(default)]
    pub environment: Option<String>,
    /// The ref of the job; `*` stands for any text.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// All of these, each by people of its own.
    pub needs: Vec<Need>,
}

/// How far deciders may let a statement go beyond once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Offers {
    /// The same statement again, as long as the session lasts.
    pub session: bool,
    /// The same statement again in this job, for so many minutes at most.
    pub job_minutes: Option<u32>,
}

/// A requirement as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequirementSpec {
    pub stages: Vec<HoldStage>,
    /// The job's actor never counts. With this, it also has to be known who that is, and
    /// who each decider is: a login that the people map does not know cannot decide.
    #[serde(default = "yes")]
    pub excludes_self: bool,
    /// How long the question stays open.
    #[serde(default = "ten_minutes")]
    pub open_seconds: u64,
    /// Holds a client shorter than its class allows.
    #[serde(default)]
    pub hold_seconds: Option<u64>,
    /// For how long a retry passes once it is approved; none: only who waits passes.
    #[serde(default = "a_quarter")]
    pub retry_seconds: Option<u64>,
    /// Lets the answer of a model's API begin before it is decided whether it is asked.
    #[serde(default)]
    pub keep_alive: bool,
    #[serde(default)]
    pub offers: Offers,
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn ten_minutes() -> u64 {
    600
}

pub(super) fn a_quarter() -> Option<u64> {
    Some(900)
}

/// Why a requirement does not load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    #[error("a requirement has 1 to {MAX_STAGES} stages")]
    Stages,
    #[error("stage {stage} demands nobody, or more than {MAX_QUORUM} people")]
    Quorum { stage: usize },
    #[error("a need of stage {stage} names no group, or more than {MAX_GROUPS}")]
    Groups { stage: usize },
    #[error("open_seconds is not between 1 and {}", MAX_OPEN.as_secs())]
    Open,
    #[error("retry_seconds is not between 1 and {}", MAX_RETRY.as_secs())]
    Retry,
    #[error("job_minutes is not between 1 and {MAX_JOB_MINUTES}")]
    Minutes,
    #[error("with hold_seconds: 0 and no retry nothing could ever pass; let retries pass or hold longer")]
    Nothing,
}

/// A requirement that can be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement(RequirementSpec);

/// What is known about the job that a stage can depend on.
#[derive(Debug, Clone, Copy)]
pub struct JobFacts<'a> {
    pub environment: Fact<&'a str>,
    pub reference: Fact<&'a str>,
}

/// Why no stage applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoStage {
    #[error("the rule has no stage for this environment and ref")]
    None,
    #[error("which stage applies depends on an environment or a ref that is not known")]
    Unknown,
}

impl Requirement {
    pub fn new(spec: RequirementSpec) -> Result<Self, RequirementError> {
        if !(1..=MAX_STAGES).contains(&spec.stages.len()) {
            return Err(RequirementError::Stages);
        }
        for (at, stage) in spec.stages.iter().enumerate() {
            let people = stage.needs.iter().fold(0usize, |sum, need| sum.saturating_add(need.people));
            if !(1..=MAX_QUORUM).contains(&people) || stage.needs.iter().any(|need| need.people == 0) {
                return Err(RequirementError::Quorum { stage: at + 1 });
            }
            if stage.needs.iter().any(|need| !(1..=MAX_GROUPS).contains(&need.groups.len())) {
                return Err(RequirementError::Groups { stage: at + 1 });
            }
        }
        if !(1..=MAX_OPEN.as_secs()).contains(&spec.open_seconds) {
            return Err(RequirementError::Open);
        }
        if spec.retry_seconds.is_some_and(|retry| !(1..=MAX_RETRY.as_secs()).contains(&retry)) {
            return Err(RequirementError::Retry);
        }
        if spec.offers.job_minutes.is_some_and(|minutes| !(1..=MAX_JOB_MINUTES).contains(&minutes)) {
            return Err(RequirementError::Minutes);
        }
        if spec.hold_seconds == Some(0) && spec.retry_seconds.is_none() {
            return Err(RequirementError::Nothing);
        }
        Ok(Self(spec))
    }

    pub fn hold(&self) -> Option<Duration> {
        self.0.hold_seconds.map(Duration::from_secs)
    }

    pub fn open(&self) -> Duration {
        Duration::from_secs(self.0.open_seconds)
    }

    /// The same once it is approved: what comes again within this time passes.
    pub fn retry_seconds(&self) -> Option<u64> {
        self.0.retry_seconds
    }

    /// Whether a client of a model may be told that it waits, with a status that cannot be taken back.
    pub fn keep_alive(&self) -> bool {
        self.0.keep_alive
    }

    /// Whether the job's actor, and who is not known, are kept from deciding.
    pub fn excludes_self(&self) -> bool {
        self.0.excludes_self
    }

    pub fn offers(&self) -> Offers {
        self.0.offers
    }

    /// Everybody who is asked at one stage or another.
    pub fn groups(&self) -> BTreeSet<&Group> {
        let needs = self.0.stages.iter().flat_map(|stage| &stage.needs);
        needs.flat_map(|need| &need.groups).collect()
    }

    /// A stage that may apply for all that is known does not let the next one apply:
    /// that one could demand less.
    pub fn stage(&self, job: JobFacts<'_>) -> Result<&HoldStage, NoStage> {
        for stage in &self.0.stages {
            let environment = holds(stage.environment.as_deref(), job.environment);
            let reference = holds(stage.reference.as_deref(), job.reference);
            match (environment, reference) {
                (Some(true), Some(true)) => return Ok(stage),
                (Some(false), _) | (_, Some(false)) => {}
                _ => return Err(NoStage::Unknown),
            }
        }
        Err(NoStage::None)
    }
}

/// Whether a condition holds, if that is known.
fn holds(pattern: Option<&str>, fact: Fact<&str>) -> Option<bool> {
    match (pattern, fact) {
        (None, _) => Some(true),
        (Some(_), Fact::Unknown) => None,
        (Some(_), Fact::Absent) => Some(false),
        (Some(pattern), Fact::Known(text)) => Some(matches(pattern, text)),
    }
}

/// `*` stands for any text. Each part is looked for behind the one before, which is
/// linear and finds a way if there is one.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(people: usize, groups: &[&str]) -> Need {
        Need { people, groups: groups.iter().map(|group| Group::new(group)).collect() }
    }

    fn stage(environment: Option<&str>, reference: Option<&str>, people: usize) -> HoldStage {
        let text = |text: Option<&str>| text.map(str::to_owned);
        HoldStage {
            environment: text(environment),
            reference: text(reference),
            needs: vec![need(people, &["g"])],
        }
    }

    fn spec(stages: Vec<HoldStage>) -> RequirementSpec {
        RequirementSpec {
            stages,
            excludes_self: true,
            open_seconds: 600,
            hold_seconds: None,
            retry_seconds: Some(900),
            keep_alive: false,
            offers: Offers::default(),
        }
    }

    fn any() -> Vec<HoldStage> {
        vec![stage(None, None, 1)]
    }

    #[test]
    fn limits_hold_on_both_sides() {
        use RequirementError as E;
        let check = |spec: RequirementSpec| Requirement::new(spec).map(drop);
        let stages = |count| vec![stage(None, None, 1); count];
        let needs = |needs| vec![HoldStage { needs, ..stage(None, None, 1) }];
        let names = |count| (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>();
        let groups = |count| {
            let names = names(count);
            needs(vec![need(1, &names.iter().map(String::as_str).collect::<Vec<_>>())])
        };
        let day = MAX_OPEN.as_secs();
        let minutes = |minutes| Offers { job_minutes: Some(minutes), ..Offers::default() };
        for (spec, want) in [
            (spec(stages(0)), Err(E::Stages)),
            (spec(stages(MAX_STAGES)), Ok(())),
            (spec(stages(MAX_STAGES + 1)), Err(E::Stages)),
            (spec(needs(vec![])), Err(E::Quorum { stage: 1 })),
            (spec(needs(vec![need(1, &["g"]), need(0, &["g"])])), Err(E::Quorum { stage: 1 })),
            (spec(needs(vec![need(MAX_QUORUM, &["g"])])), Ok(())),
            (spec(needs(vec![need(MAX_QUORUM, &["g"]), need(1, &["g"])])), Err(E::Quorum { stage: 1 })),
            (spec(needs(vec![need(usize::MAX, &["g"]), need(2, &["g"])])), Err(E::Quorum { stage: 1 })),
            (spec(groups(0)), Err(E::Groups { stage: 1 })),
            (spec(groups(MAX_GROUPS)), Ok(())),
            (spec(groups(MAX_GROUPS + 1)), Err(E::Groups { stage: 1 })),
            (RequirementSpec { open_seconds: 0, ..spec(any()) }, Err(E::Open)),
            (RequirementSpec { open_seconds: day, ..spec(any()) }, Ok(())),
            (RequirementSpec { open_seconds: day + 1, ..spec(any()) }, Err(E::Open)),
            (RequirementSpec { retry_seconds: Some(0), ..spec(any()) }, Err(E::Retry)),
            (RequirementSpec { retry_seconds: Some(day), ..spec(any()) }, Ok(())),
            (RequirementSpec { retry_seconds: Some(day + 1), ..spec(any()) }, Err(E::Retry)),
            (RequirementSpec { offers: minutes(0), ..spec(any()) }, Err(E::Minutes)),
            (RequirementSpec { offers: minutes(MAX_JOB_MINUTES), ..spec(any()) }, Ok(())),
            (RequirementSpec { offers: minutes(MAX_JOB_MINUTES + 1), ..spec(any()) }, Err(E::Minutes)),
            (RequirementSpec { hold_seconds: Some(0), ..spec(any()) }, Ok(())),
            (RequirementSpec { hold_seconds: Some(0), retry_seconds: None, ..spec(any()) }, Err(E::Nothing)),
        ] {
            assert_eq!(check(spec.clone()), want, "{spec:?}");
        }
    }

    #[test]
    fn the_first_stage_that_applies_counts_and_an_unknown_one_stops() {
        let stages = vec![
            stage(Some("prod*"), None, 3),
            stage(None, Some("refs/heads/main"), 2),
            stage(Some("*"), Some("refs/heads/*"), 1),
        ];
        let requirement = Requirement::new(spec(stages)).unwrap();
        use Fact::{Absent, Known, Unknown};
        let ask = |environment, reference| {
            let stage = requirement.stage(JobFacts { environment, reference });
            stage.map(|stage| stage.needs.iter().map(|need| need.people).sum::<usize>())
        };
        assert_eq!(ask(Known("production"), Known("refs/heads/x")), Ok(3));
        assert_eq!(ask(Known("production"), Unknown), Ok(3));
        assert_eq!(ask(Known("test"), Known("refs/heads/main")), Ok(2));
        assert_eq!(ask(Absent, Known("refs/heads/main")), Ok(2));
        assert_eq!(ask(Known("test"), Known("refs/heads/x")), Ok(1));
        // It may be production.
        assert_eq!(ask(Unknown, Known("refs/heads/x")), Err(NoStage::Unknown));
        assert_eq!(ask(Known("test"), Unknown), Err(NoStage::Unknown));
        assert_eq!(ask(Absent, Known("refs/heads/x")), Err(NoStage::None));
        assert_eq!(ask(Known("test"), Known("refs/tags/1")), Err(NoStage::None));
    }

    #[test]
    fn asterisks_stand_for_any_text() {
        for (pattern, text, want) in [
            ("", "", true),
            ("*", "", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*", "abc", true),
            ("*ab", "aab", true),
            ("a*b*c", "aXbbYc", true),
            ("a*b*c", "acb", false),
            ("refs/*/x", "refs/heads/a/x", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_not_known_does_not_load_and_nothing_means_the_strict_way() {
        let text = r#"{"stages":[{"needs":[{"people":1,"groups":["g"]}]}]}"#;
        let spec: RequirementSpec = serde_json::from_str(text).unwrap();
        assert!(spec.excludes_self);
        assert_eq!(spec.offers, Offers { session: false, job_minutes: None });
        let odd = text.replacen('{', r#"{"excludes-self":false,"#, 1);
        assert!(serde_json::from_str::<RequirementSpec>(&odd).is_err());
    }
}
