//! Recorded statements, asked of a policy once more: what it would say of them, and which
//! policy would let through what was let through.

mod diff;
mod generalise;
mod suggest;

#[cfg(test)]
mod tests;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::gate::Asked;
use crate::policy::{
    BodyFacts, Decision, Fact, Facts, IdentityFacts, Policy, Protocol, Reason, Stage, WorkloadFacts,
};
use crate::protocol::http::request::{Established, RequestFacts, claimed_methods};
use crate::session::read::Statement;
use crate::workload::identity::{Assurance, Claims, Field};

pub use diff::{Change, Changes, Said};
pub use suggest::{SuggestError, Suggested, Suggestion};

/// A recorded statement with its facts.
pub struct Replayed {
    pub statement: Statement,
    pub protocol: Protocol,
    workload: WorkloadFacts,
    identity: Option<(Claims, Assurance)>,
    /// None: there was no request.
    pub request: Option<RequestFacts>,
    claimed: Vec<String>,
    headers: Option<HeaderMap>,
}

/// What a policy says of what was recorded.
pub enum Answer {
    Decided(Box<Decision>),
    /// It depends on what was not recorded.
    Untold,
}

/// As it is recorded.
#[derive(Deserialize)]
struct Recorded {
    assurance: Assurance,
    #[serde(flatten)]
    rest: Value,
}

/// The keys of a record that are parts of an identity other than its texts.
const NO_TEXTS: [&str; 6] = ["provider", "issuer", "subject", "ref_protected", "groups", "roles"];

/// A record is flat; [`Claims`] have the texts by themselves.
fn identity(value: &Value) -> Option<(Claims, Assurance)> {
    let Recorded { assurance, rest } = serde_json::from_value(value.clone()).ok()?;
    let mut parts = serde_json::Map::new();
    let mut texts = serde_json::Map::new();
    for (key, value) in rest.as_object()? {
        let into = if NO_TEXTS.contains(&key.as_str()) { &mut parts } else { &mut texts };
        into.insert(key.clone(), value.clone());
    }
    parts.insert("texts".to_owned(), texts.into());
    Some((serde_json::from_value(parts.into()).ok()?, assurance))
}

impl Replayed {
    /// None: what was recorded cannot be read as facts, since something in it is masked, or it
    /// ended before they were known.
    pub fn new(statement: Statement) -> Option<Self> {
        let protocol: Protocol = statement.protocol.parse().ok()?;
        let tls = protocol == Protocol::Https;
        let mut headers = None;
        let (mut request, mut claimed) = (None, Vec::new());
        if let Some(recorded) = &statement.request {
            let mut map = HeaderMap::new();
            for (name, value) in recorded.headers.iter().flatten() {
                map.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?);
            }
            let query = recorded.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
            let head = http::Request::builder()
                .method(recorded.method.as_bytes())
                .uri(format!("{}{query}", recorded.path))
                .header(http::header::HOST, &recorded.authority)
                .body(())
                .ok()?;
            let (mut parts, ()) = head.into_parts();
            let established = Established { host: None, port: statement.port, tls };
            request = Some(RequestFacts::read(&parts, established).ok()?);
            parts.headers.clone_from(&map);
            claimed = claimed_methods(&parts);
            headers = recorded.headers.is_some().then_some(map);
        }
        Some(Self {
            protocol,
            workload: WorkloadFacts {
                name: statement.workload.clone(),
                cgroup: statement.cgroup_path.clone(),
                labels: statement.labels.clone(),
            },
            identity: statement.identity.as_ref().and_then(identity),
            request,
            claimed,
            headers,
            statement,
        })
    }

    /// Who the job was, and how far that was known.
    pub fn identity(&self) -> Option<(&Claims, Assurance)> {
        self.identity.as_ref().map(|(claims, assurance)| (claims, *assurance))
    }

    /// The host that policy is asked about.
    pub fn host(&self) -> Option<&str> {
        match &self.request {
            Some(request) => Some(&request.host),
            None => self.statement.host.as_deref(),
        }
    }

    /// What the policy would have said.
    pub fn ask(&self, policy: &Policy) -> Answer {
        let identity = match &self.identity {
            Some((claims, assurance)) => Fact::Known(IdentityFacts { claims, assurance: *assurance }),
            None => Fact::Absent,
        };
        let headers = self.headers.as_ref();
        if let Some(request) = &self.request {
            let asked = Asked {
                workload: &self.workload,
                identity,
                request,
                headers: headers.map_or(Fact::Unknown, Fact::Known),
                // What was in it was looked at if a rule asked, and is not recorded.
                body: BodyFacts::default(),
                claimed: self.claimed.clone(),
            };
            let decision = asked.judge(policy);
            // Of what did not go out the headers were not recorded.
            let unknown = headers.is_none() || decision.awaits.any();
            let untold = unknown && decision.reason == Reason::MissingFact;
            return if untold { Answer::Untold } else { Answer::Decided(Box::new(decision)) };
        }
        let facts = Facts {
            identity,
            host: self.host().map_or(Fact::Absent, Fact::Known),
            port: Fact::Known(self.statement.port),
            protocol: Fact::Known(self.protocol),
            ..Facts::new(&self.workload, Stage::Tls)
        };
        if !matches!(self.protocol, Protocol::Http | Protocol::Https) {
            let absent = Facts {
                method: Fact::Absent,
                path: Fact::Absent,
                query: Fact::Absent,
                headers: Fact::Absent,
                body: BodyFacts::ABSENT,
                ..facts
            };
            return Answer::Decided(Box::new(policy.decide(&absent)));
        }
        // It was refused before there was a request: nobody knows which it would have been.
        match policy.feasible(&facts) {
            crate::policy::Feasibility::Possible => Answer::Untold,
            crate::policy::Feasibility::Never(decision) => Answer::Decided(decision),
        }
    }

    /// The same of a request without headers that goes elsewhere, by a job of this repository
    /// alone, or of which nobody knows anything.
    fn ask_as(&self, policy: &Policy, host: &str, path: &str, repository: Option<&str>) -> Answer {
        let mut statement = self.statement.clone();
        statement.host = Some(host.to_owned());
        let request = self.request.as_ref().map(|request| RequestFacts {
            host: host.to_owned(),
            path: path.to_owned(),
            query: None,
            ..request.clone()
        });
        let identity = repository.zip(self.identity.as_ref()).map(|(repository, (claims, assurance))| {
            let texts = [(Field::Repository, repository.to_owned())].into();
            (Claims { provider: claims.provider, texts, ..Claims::default() }, *assurance)
        });
        let headers = request.is_some().then(HeaderMap::new);
        Self {
            statement,
            protocol: self.protocol,
            workload: self.workload.clone(),
            identity,
            request,
            claimed: Vec::new(),
            headers,
        }
        .ask(policy)
    }
}
