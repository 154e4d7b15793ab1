//! What another policy would have said of what was recorded.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::policy::{Policy, RuleId};
use crate::session::SessionId;
use crate::session::read::Statement;

use super::{Answer, Replayed};

/// Statements that stand for a change.
pub const EXAMPLES: usize = 3;

/// A verdict and the rule that it is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Said {
    pub verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
}

/// One that would be judged in another way.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    pub session: SessionId,
    pub workload: String,
    /// `GET https://host/path`, masked.
    pub what: String,
}

/// Statements of which the same was said, and the same would be.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    pub was: Said,
    pub becomes: Said,
    pub statements: u64,
    pub examples: Vec<Example>,
}

/// What would change.
#[derive(Debug, Default)]
pub struct Changes {
    pub statements: u64,
    /// They depend on what was not recorded, or is masked.
    pub untold: u64,
    changes: BTreeMap<(Said, Said), (u64, Vec<Example>)>,
}

impl Changes {
    /// Asks the policy about one more.
    pub fn add(&mut self, policy: &Policy, statement: Statement) {
        if !of_policy(&statement.reason) {
            return;
        }
        self.statements += 1;
        let was = Said {
            verdict: statement.verdict.clone(),
            rule: statement.rule.clone(),
            reason: statement.reason.clone(),
        };
        let Some(replayed) = Replayed::new(statement) else {
            self.untold += 1;
            return;
        };
        let Answer::Decided(decision) = replayed.ask(policy) else {
            self.untold += 1;
            return;
        };
        if decision.verdict.as_str() == was.verdict {
            return;
        }
        let becomes = Said {
            verdict: decision.verdict.as_str().to_owned(),
            rule: decision.rule.as_ref().map(RuleId::as_str).map(str::to_owned),
            reason: decision.reason.as_str().to_owned(),
        };
        let (count, examples) = self.changes.entry((was, becomes)).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(Example {
                session: replayed.statement.session,
                workload: replayed.statement.workload.clone(),
                what: what(&replayed),
            });
        }
    }

    /// What is let through now and would not be any more comes first.
    pub fn list(&self) -> Vec<Change> {
        let one = |((was, becomes), (statements, examples)): (&(Said, Said), &(u64, Vec<Example>))| Change {
            was: was.clone(),
            becomes: becomes.clone(),
            statements: *statements,
            examples: examples.clone(),
        };
        self.changes.iter().map(one).collect()
    }
}

/// Whether policy said it, and not the proxy by itself: that would be so with any policy.
fn of_policy(reason: &str) -> bool {
    reason.starts_with("policy-") || ["missing-fact", "no-policy", "held-by-two-rules"].contains(&reason)
}

/// A statement in a line.
pub fn what(replayed: &Replayed) -> String {
    let statement = &replayed.statement;
    let protocol = replayed.protocol;
    match &statement.request {
        Some(request) => {
            format!("{} {protocol}://{}{}", request.method, request.authority, request.path)
        }
        None => {
            let host = statement.host.clone().or_else(|| statement.destination.map(|it| it.ip().to_string()));
            format!("{protocol}://{}:{}", host.unwrap_or_default(), statement.port)
        }
    }
}
