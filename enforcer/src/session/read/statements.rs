//! What was asked of policy: requests, and connections that came to none.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::list::begin;
use super::{Filter, Flow, each};
use crate::session::record::{Kind, SessionId};

/// One request as it was recorded, or a connection without any: relayed unread, or refused
/// before.
#[derive(Debug, Clone)]
pub struct Statement {
    pub session: SessionId,
    pub workload: String,
    pub cgroup_path: String,
    pub labels: BTreeMap<String, String>,
    /// An [`IdentityRecord`](crate::session::IdentityRecord), if it was known who the job was.
    pub identity: Option<Value>,
    /// Where the process connected to.
    pub destination: Option<SocketAddr>,
    /// `https`, `http`, `tls` or `opaque`; empty: it ended before that was known.
    pub protocol: String,
    /// Of the connection: the name that was found out for it, and its port.
    pub host: Option<String>,
    pub port: u16,
    /// None: there was no request.
    pub request: Option<Request>,
    pub verdict: String,
    pub rule: Option<String>,
    pub reason: String,
    /// The rule in audit mode that would have refused it.
    pub audit: Option<String>,
}

/// The head of a request: canonical and masked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub authority: String,
    pub path: String,
    pub query: Option<String>,
    /// As it went out; none if it did not.
    pub headers: Option<Vec<(String, String)>>,
}

/// A session that goes on.
struct Open {
    workload: String,
    cgroup_path: String,
    labels: BTreeMap<String, String>,
    tag: u64,
    destination: Option<SocketAddr>,
    protocol: String,
    host: Option<String>,
    port: u16,
    /// Requests whose verdict, or head, is still to come.
    begun: BTreeMap<u64, Begun>,
}

struct Begun {
    request: Request,
    /// Who the job was when it came.
    identity: Option<Value>,
    said: Option<Said>,
}

struct Said {
    verdict: String,
    rule: Option<String>,
    reason: String,
    audit: Option<String>,
}

/// Visits everything that policy decided for connections, in the order in which it was
/// complete. Of the filter, the workload and the time count. Returns the sessions looked at.
pub fn statements(dir: &Path, filter: &Filter, mut visit: impl FnMut(Statement)) -> io::Result<u64> {
    let mut open: HashMap<SessionId, Open> = HashMap::new();
    // Whose job it is stands in the workload's own session.
    let mut workloads: HashMap<SessionId, u64> = HashMap::new();
    let mut who: HashMap<u64, Value> = HashMap::new();
    let mut sessions = 0;
    each(dir, |record| {
        let value = || serde_json::from_slice::<Value>(record.payload).unwrap_or(Value::Null);
        match record.kind {
            // Another process records from here on: nothing is added to what is open.
            Kind::Segment if value()["begins"] == true => {
                open.drain().for_each(|(id, session)| session.end(id, &mut visit));
                workloads.clear();
                who.clear();
            }
            Kind::Segment | Kind::Note => {}
            Kind::Begin => {
                let mut value = value();
                let tag = value["tag"].as_u64().unwrap_or_default();
                if value["kind"] == "workload" {
                    workloads.insert(record.session, tag);
                }
                if value["identity"].is_object() {
                    who.insert(tag, value["identity"].take());
                }
                if value["kind"] == "connection" && filter.may_pass(&begin(record.session, &value)) {
                    sessions += 1;
                    open.insert(record.session, Open::new(&value));
                }
            }
            Kind::Event => {
                if let Some(tag) = workloads.get(&record.session) {
                    let mut value = value();
                    match value["event"].as_str() {
                        Some("identity") => _ = who.insert(*tag, value["identity"].take()),
                        Some("identity-ended") => _ = who.remove(tag),
                        _ => {}
                    }
                } else if let Some(session) = open.get_mut(&record.session) {
                    session.event(record.session, &value(), &who, &mut visit);
                }
            }
            Kind::End => {
                workloads.remove(&record.session);
                if let Some(session) = open.remove(&record.session) {
                    session.end(record.session, &mut visit);
                }
            }
        }
        Flow::More
    })?;
    open.into_iter().for_each(|(id, session)| session.end(id, &mut visit));
    Ok(sessions)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let pairs = value.as_array().map_or(&[][..], Vec::as_slice);
    pairs.iter().filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?))).collect()
}

impl Open {
    fn new(value: &Value) -> Self {
        let destination: Option<SocketAddr> = value["destination"].as_str().and_then(|it| it.parse().ok());
        Self {
            workload: text(&value["workload"]).unwrap_or_default(),
            cgroup_path: text(&value["cgroup_path"]).unwrap_or_default(),
            labels: pairs(&value["labels"]).into_iter().collect(),
            tag: value["tag"].as_u64().unwrap_or_default(),
            destination,
            protocol: String::new(),
            host: None,
            port: destination.map_or(0, |it| it.port()),
            begun: BTreeMap::new(),
        }
    }

    fn event(
        &mut self,
        id: SessionId,
        value: &Value,
        who: &HashMap<u64, Value>,
        visit: &mut impl FnMut(Statement),
    ) {
        let identity = || who.get(&self.tag).cloned();
        let number = value["statement"].as_u64();
        match (value["event"].as_str(), number) {
            (Some("plan"), _) => {
                self.host = text(&value["host"]);
                self.protocol = text(&value["protocol"]).unwrap_or_default();
                self.port = value["port"].as_u64().and_then(|it| u16::try_from(it).ok()).unwrap_or(self.port);
            }
            (Some("statement"), Some(number)) => {
                let request = Request {
                    method: text(&value["method"]).unwrap_or_default(),
                    authority: text(&value["authority"]).unwrap_or_default(),
                    path: text(&value["path"]).unwrap_or_default(),
                    query: text(&value["query"]),
                    headers: None,
                };
                let identity = identity();
                self.begun.insert(number, Begun { request, identity, said: None });
            }
            (Some("verdict"), number) => {
                let said = Said {
                    verdict: text(&value["verdict"]).unwrap_or_default(),
                    rule: text(&value["rule"]),
                    reason: text(&value["reason"]).unwrap_or_default(),
                    audit: text(&value["audit"]),
                };
                match number.and_then(|number| self.begun.get_mut(&number)) {
                    // What the proxy refuses later is not what policy said.
                    Some(begun) => _ = begun.said.get_or_insert(said),
                    None if number.is_none() => visit(self.statement(id, None, identity(), said)),
                    None => {}
                }
            }
            (Some("head"), Some(number)) if value["direction"] == "request" => {
                if let Some(Begun { mut request, identity, said: Some(said) }) = self.begun.remove(&number) {
                    request.headers = Some(pairs(&value["headers"]));
                    visit(self.statement(id, Some(request), identity, said));
                }
            }
            _ => {}
        }
    }

    /// What was begun had no head: it did not go out.
    fn end(mut self, id: SessionId, visit: &mut impl FnMut(Statement)) {
        for Begun { request, identity, said } in std::mem::take(&mut self.begun).into_values() {
            if let Some(said) = said {
                visit(self.statement(id, Some(request), identity, said));
            }
        }
    }

    fn statement(
        &self,
        session: SessionId,
        request: Option<Request>,
        identity: Option<Value>,
        said: Said,
    ) -> Statement {
        let Said { verdict, rule, reason, audit } = said;
        Statement {
            session,
            workload: self.workload.clone(),
            cgroup_path: self.cgroup_path.clone(),
            labels: self.labels.clone(),
            identity,
            destination: self.destination,
            protocol: self.protocol.clone(),
            host: self.host.clone(),
            port: self.port,
            request,
            verdict,
            rule,
            reason,
            audit,
        }
    }
}
