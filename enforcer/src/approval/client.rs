//! How long a client waits for an answer before it gives up.
//!
//! Each limit is some seconds below what that client was seen to wait, so that the
//! denial, which says how to go on, still arrives. The job writes the `User-Agent`
//! itself: a lie changes how long its own statement is held, and nothing else.

use std::time::Duration;

use crate::policy::MAX_OPEN;

/// Clients that give up at about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Gives up after 5 s.
    Httpx,
    /// Gives up after 15 s.
    Pip,
    /// Give up after 30 s: uv, cargo, reqwest, kubectl.
    HalfMinute,
    /// Give up after 60 s: boto3, Ruby, PHP, Gemini CLI.
    Minute,
    /// Were seen to wait 240 s, or for ever: most clients of HTTP, and psql, ssh, git.
    Patient,
    /// Hear that they wait, and go on waiting as long as they do.
    KeptAlive,
}

impl Class {
    pub const ALL: [Class; 6] =
        [Class::Httpx, Class::Pip, Class::HalfMinute, Class::Minute, Class::Patient, Class::KeptAlive];

    /// The class of an HTTP client by its `User-Agent`.
    pub fn of_user_agent(user_agent: Option<&str>) -> Self {
        let Some(agent) = user_agent else { return Class::Patient };
        let agent = agent.trim_start().to_ascii_lowercase();
        let begins = |(name, _): &&(&str, Class)| agent.starts_with(name);
        let holds = |(name, _): &&(&str, Class)| agent.contains(name);
        let found = BEGINNINGS.iter().find(begins).or_else(|| INSIDE.iter().find(holds));
        found.map_or(Class::Patient, |(_, class)| *class)
    }

    /// How long a statement of such a client is held at most.
    pub fn hold(self) -> Duration {
        match self {
            Class::Httpx => Duration::from_secs(3),
            Class::Pip => Duration::from_secs(10),
            Class::HalfMinute => Duration::from_secs(25),
            Class::Minute => Duration::from_secs(55),
            Class::Patient => Duration::from_secs(240),
            // No question is open for longer.
            Class::KeptAlive => MAX_OPEN,
        }
    }

    /// How long this one is held: a rule may say less than the class's limit, never more.
    pub fn hold_under(self, rule: Option<Duration>) -> Duration {
        rule.map_or(self.hold(), |rule| rule.min(self.hold()))
    }
}

/// What a `User-Agent` begins with, in lower case.
const BEGINNINGS: [(&str, Class); 17] = [
    ("python-httpx/", Class::Httpx),
    ("python-httpx2/", Class::Httpx),
    ("pip/", Class::Pip),
    ("uv/", Class::HalfMinute),
    ("cargo/", Class::HalfMinute),
    ("cargo ", Class::HalfMinute),
    ("reqwest/", Class::HalfMinute),
    ("kubectl/", Class::HalfMinute),
    ("boto3/", Class::Minute),
    ("botocore/", Class::Minute),
    ("aws-cli/", Class::Minute),
    ("ruby", Class::Minute),
    ("bundler/", Class::Minute),
    ("faraday", Class::Minute),
    ("php", Class::Minute),
    ("composer/", Class::Minute),
    ("geminicli", Class::Minute),
];

/// What tells one anywhere in the text.
const INSIDE: [(&str, Class); 3] =
    [("reqwest/", Class::HalfMinute), ("botocore/", Class::Minute), ("rubygems/", Class::Minute)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_what_they_call_themselves() {
        for (agent, class) in [
            ("python-httpx/0.28.1", Class::Httpx),
            (r#"pip/23.2 {"ci":true,"cpu":"x86_64"}"#, Class::Pip),
            ("uv/0.13.8 {}", Class::HalfMinute),
            ("cargo/1.95.0 (f2d3ce0bd 2026-03-21)", Class::HalfMinute),
            ("cargo 1.60.0", Class::HalfMinute),
            ("my-tool/1 reqwest/0.12", Class::HalfMinute),
            ("kubectl/v1.33.0 (linux/amd64) kubernetes/1", Class::HalfMinute),
            ("Boto3/1.44.0 md/Botocore#1.44.0 ua/2.1", Class::Minute),
            ("aws-cli/2.20 md/awscrt", Class::Minute),
            ("s3transfer Botocore/1.44", Class::Minute),
            ("Ruby", Class::Minute),
            ("Ruby, RubyGems/3.3.15 x86_64-linux Ruby/3.1.2", Class::Minute),
            ("bundler/2.4 rubygems/3.4", Class::Minute),
            ("PHP/8.2", Class::Minute),
            ("Composer/2.7 (Linux; 6.1; PHP 8.2; cURL)", Class::Minute),
            ("GeminiCLI/0.61.0/gemini-3 (linux; x64)", Class::Minute),
            ("curl/7.88.1", Class::Patient),
            ("python-requests/2.34", Class::Patient),
            ("node", Class::Patient),
            ("Go-http-client/1.1", Class::Patient),
            ("OpenAI/Python 3.52.0", Class::Patient),
            ("claude-cli/2.1.197 (external, cli)", Class::Patient),
            ("git/2.39.5", Class::Patient),
            ("pipeline/1", Class::Patient),
            ("", Class::Patient),
        ] {
            assert_eq!(Class::of_user_agent(Some(agent)), class, "{agent}");
        }
        assert_eq!(Class::of_user_agent(None), Class::Patient);
    }

    #[test]
    fn a_rule_lowers_the_limit_and_never_raises_it() {
        let limits = [3, 10, 25, 55, 240, 86_400].map(Duration::from_secs);
        for (class, limit) in Class::ALL.into_iter().zip(limits) {
            let one = Duration::from_millis(1);
            assert_eq!(class.hold_under(None), limit, "{class:?}");
            assert_eq!(class.hold_under(Some(limit - one)), limit - one, "{class:?}");
            assert_eq!(class.hold_under(Some(limit)), limit, "{class:?}");
            assert_eq!(class.hold_under(Some(limit + one)), limit, "{class:?}");
            assert_eq!(class.hold_under(Some(Duration::ZERO)), Duration::ZERO, "{class:?}");
        }
    }
}
