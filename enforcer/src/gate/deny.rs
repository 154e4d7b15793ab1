//! Why a request ends here, and what its sender is told.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::policy::Decision;
use crate::session::Side;

use super::WireBody;

/// The header in which machines find the decision.
pub const DECISION_HEADER: &str = "x-enforcer-decision";

/// A request that is not answered by its upstream.
///
/// **Invariant**: `reason` and `message` are of the operator or of this program;
/// nothing that a job or a target sent is echoed.
#[derive(Debug, Clone)]
pub struct Stop {
    pub status: StatusCode,
    pub reason: &'static str,
    pub kind: Kind,
    pub rule: Option<String>,
    /// What the operator says about it.
    pub message: Option<Arc<str>>,
    /// For the recording only.
    pub detail: Option<String>,
    /// Nothing more is read from this connection.
    pub close: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Policy or a rule of the proxy says no.
    Denied,
    /// Something broke.
    Failed(Side),
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    reason: &'a str,
    session: &'a str,
    ask: &'a str,
}

impl Stop {
    pub fn denied(status: StatusCode, reason: &'static str) -> Self {
        let kind = Kind::Denied;
        Self { status, reason, kind, rule: None, message: None, detail: None, close: false }
    }

    pub fn failed(side: Side, status: StatusCode, reason: &'static str, detail: String) -> Self {
        Self { kind: Kind::Failed(side), detail: Some(detail), ..Self::denied(status, reason) }
    }

    pub fn policy(decision: &Decision) -> Self {
        Self {
            rule: decision.rule.as_ref().map(|rule| rule.as_str().to_owned()),
            message: decision.message.clone(),
            ..Self::denied(StatusCode::FORBIDDEN, decision.reason.as_str())
        }
    }

    pub fn log_unavailable(detail: impl ToString) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::failed(Side::Internal, status, "log-unavailable", detail.to_string())
    }

    #[must_use]
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// What the sender gets.
    pub fn response(&self, session: &str) -> Response<WireBody> {
        let (title, word) = match self.kind {
            Kind::Denied => ("Denied by policy on this host", "deny"),
            Kind::Failed(_) => ("The request could not be carried out", "fail"),
        };
        let detail = self.message.as_deref().unwrap_or(match self.kind {
            Kind::Denied => "no rule of this host's egress policy allows this request",
            Kind::Failed(_) => "the egress enforcer on this host could not complete it",
        });
        let problem = Problem {
            r#type: format!("urn:enforcer:{}", self.reason),
            title,
            status: self.status.as_u16(),
            detail,
            rule: self.rule.as_deref(),
            reason: self.reason,
            session,
            ask: "show this session's id to the operator of this host: \
                  `enforcer sessions show` tells which rule decided",
        };
        // A struct of strings and numbers always serialises.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut decision = format!("{word}; reason={}; session={session}", self.reason);
        if let Some(rule) = &self.rule {
            decision.push_str("; rule=");
            decision.push_str(rule);
        }
        let mut response =
            Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(decision) = HeaderValue::from_str(&decision) {
            headers.insert(DECISION_HEADER, decision);
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
