//! What is known about a request when policy is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

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

/// What is known about one request.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub workload: &'a WorkloadFacts,
    pub stage: Stage,
    /// Lower-case A-labels without trailing dot, or an IP literal.
    pub host: Fact<&'a str>,
    pub port: Fact<u16>,
    pub protocol: Fact<Protocol>,
    pub method: Fact<&'a str>,
    /// The canonical path, without query.
    pub path: Fact<&'a str>,
}

impl<'a> Facts<'a> {
    /// Facts at a stage where only the workload is known.
    pub fn new(workload: &'a WorkloadFacts, stage: Stage) -> Self {
        Self {
            workload,
            stage,
            host: Fact::Unknown,
            port: Fact::Unknown,
            protocol: Fact::Unknown,
            method: Fact::Unknown,
            path: Fact::Unknown,
        }
    }
}
