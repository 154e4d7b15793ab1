//! What is known about a request when policy is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use http::HeaderMap;

use crate::protocol::command::Effect;
use crate::protocol::llm::Item;
use crate::workload::identity::{Assurance, Claims};

/// A fact is known, not known yet, or known not to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<T> {
    Known(T),
    /// Not known at this stage; a later stage may complete it.
    Unknown,
    /// Known not to exist: an opaque connection has no method.
    Absent,
}

impl<T> Fact<T> {
    pub fn as_ref(&self) -> Fact<&T> {
        match self {
            Fact::Known(value) => Fact::Known(value),
            Fact::Unknown => Fact::Unknown,
            Fact::Absent => Fact::Absent,
        }
    }

    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Fact::Known(value) => Fact::Known(of(value)),
            Fact::Unknown => Fact::Unknown,
            Fact::Absent => Fact::Absent,
        }
    }

    pub fn known(self) -> Option<T> {
        match self {
            Fact::Known(value) => Some(value),
            Fact::Unknown | Fact::Absent => None,
        }
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Connect,
    Dns,
    Tls,
    Http,
}

impl Stage {
    pub const ALL: [Stage; 4] = [Stage::Connect, Stage::Dns, Stage::Tls, Stage::Http];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Dns => "dns",
            Stage::Tls => "tls",
            Stage::Http => "http",
        }
    }
}

/// The protocol of a connection. WebSocket and gRPC are `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Http,
    Https,
    Dns,
    /// TLS that carries something other than HTTP.
    Tls,
    Opaque,
}

impl Protocol {
    pub const ALL: [Protocol; 5] =
        [Protocol::Http, Protocol::Https, Protocol::Dns, Protocol::Tls, Protocol::Opaque];

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Https => "https",
            Protocol::Dns => "dns",
            Protocol::Tls => "tls",
            Protocol::Opaque => "opaque",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == text)
            .ok_or_else(|| format!("unknown protocol {text:?}: use http, https, dns, tls or opaque"))
    }
}

/// What policy may ask about the workload. All of it comes from the loader,
/// never from the job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadFacts {
    pub name: String,
    pub cgroup: String,
    pub labels: BTreeMap<String, String>,
}

/// Who a job is, with how far that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityFacts<'a> {
    pub claims: &'a Claims,
    pub assurance: Assurance,
}

/// A tool call that a model's answer has in it, or a block of code in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolFacts<'a> {
    pub item: Item,
    /// Whose API it is: `openai`, `anthropic`, ...
    pub provider: &'a str,
    /// As the answer says it.
    pub model: Option<&'a str>,
    /// Of a block of code, its language.
    pub name: &'a str,
    /// As the client puts them together; mostly JSON. Of a block of code, its text.
    pub arguments: &'a str,
    /// What a command in them would do, each once.
    pub effects: &'a [Effect],
}

/// What the body of a request says of one thing, together with its address and its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    These(&'a [String]),
    /// It cannot be read, or not in one way only.
    Unclear,
}

/// What is known of a request when its body was read. Before that it is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyFacts<'a> {
    /// The models that it asks for: each is a reading of its own.
    pub models: Fact<Told<'a>>,
    /// Names of what detectors find in it, its head and its address included.
    pub findings: Fact<Told<'a>>,
}

impl Default for BodyFacts<'_> {
    fn default() -> Self {
        Self { models: Fact::Unknown, findings: Fact::Unknown }
    }
}

impl BodyFacts<'_> {
    /// Of what is no request.
    pub const ABSENT: Self = Self { models: Fact::Absent, findings: Fact::Absent };

    /// What of these is not known yet.
    pub fn missing(self, of: Awaits) -> Awaits {
        Awaits {
            models: of.models && self.models == Fact::Unknown,
            findings: of.findings && self.findings == Fact::Unknown,
        }
    }
}

/// Which facts of a body are needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Awaits {
    pub models: bool,
    pub findings: bool,
}

impl Awaits {
    pub fn any(self) -> bool {
        self.models || self.findings
    }
}

impl std::ops::BitOrAssign for Awaits {
    fn bitor_assign(&mut self, other: Self) {
        self.models |= other.models;
        self.findings |= other.findings;
    }
}

/// What is known about one request, or about a tool call in its answer.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub workload: &'a WorkloadFacts,
    /// Absent: nobody has said who the job is.
    pub identity: Fact<IdentityFacts<'a>>,
    pub stage: Stage,
    /// Lower-case A-labels without trailing dot, or an IP literal.
    pub host: Fact<&'a str>,
    pub port: Fact<u16>,
    pub protocol: Fact<Protocol>,
    pub method: Fact<&'a str>,
    /// The canonical path, without query.
    pub path: Fact<&'a str>,
    /// As it was sent, without the question mark; empty if there is none.
    pub query: Fact<&'a str>,
    pub headers: Fact<&'a HeaderMap>,
    pub body: BodyFacts<'a>,
    /// Known: policy is asked about this call, and no longer about the request.
    pub tool: Fact<ToolFacts<'a>>,
}

impl<'a> Facts<'a> {
    /// Facts at a stage where only the workload is known, and not who it is.
    pub fn new(workload: &'a WorkloadFacts, stage: Stage) -> Self {
        Self {
            workload,
            identity: Fact::Absent,
            stage,
            host: Fact::Unknown,
            port: Fact::Unknown,
            protocol: Fact::Unknown,
            method: Fact::Unknown,
            path: Fact::Unknown,
            query: Fact::Unknown,
            headers: Fact::Unknown,
            body: BodyFacts::default(),
            tool: Fact::Unknown,
        }
    }
}
