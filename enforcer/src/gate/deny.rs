//! Why a request ends here, and what its sender is told.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::mask::MaskError;
use crate::policy::Decision;
use crate::protocol::{git, grpc};
use crate::session::Side;

use super::{BodyError, WireBody};

/// The header in which machines find the decision.
pub const DECISION_HEADER: &str = "x-enforcer-decision";

/// In which protocol a refusal is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Http,
    Git(git::Service),
    Grpc,
}

impl Dialect {
    pub fn of<B>(request: &Request<B>) -> Self {
        let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match git::Service::of(request.method(), request.uri(), kind) {
            Some(service) => Self::Git(service),
            None if grpc::Framing::of(request.headers()) == Some(grpc::Framing::Call) => Self::Grpc,
            None => Self::Http,
        }
    }
}

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

/// What a reason means, and what its sender can do.
fn explained(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "policy-default-deny" => "no rule of this host's egress policy allows this request; do without it",
        "no-policy" => "this host has no valid egress policy, so everything is denied",
        "missing-fact" | "invalid-fact" => {
            "what the rules of this host's egress policy look at is missing from this request"
        }
        "sni-missing" => "a TLS connection has to name its host (SNI): connect by name instead of by address",
        "authority-mismatch" => {
            "the Host header or :authority differs from the name that the connection was opened for: \
             send it to the name itself"
        }
        "authority-missing" | "authority-invalid" => {
            "the request names no host, or not in a form that has one meaning"
        }
        "path-not-canonical" | "target-invalid" => {
            "the path can be read in more than one way: send it without encoded slashes, steps above \
             the root or bytes that need encoding"
        }
        "connect-refused" => "no proxy is needed here: connect to the host itself",
        "upgrade-refused" | "upgrade-unasked" => "only an upgrade to WebSocket is let through",
        "address-unspecified"
        | "address-loopback"
        | "address-link-local"
        | "address-private"
        | "address-multicast"
        | "address-embedded"
        | "address-reserved" => {
            "the name leads to an address that is not public, and no rule names that range for it"
        }
        "dns-not-found" => "there is no such name",
        "dns-timeout" | "dns-failed" => "the name could not be looked up; try again later",
        "secret-in-path" => {
            "a known secret stands in the path or the query: send it in a header or in the body"
        }
        "secret-in-name" => "a known secret stands in the host name, which is told to name servers",
        "data-in-name" => "the host name looks as if data were sent in it, which policy does not let out",
        "length-invalid" => "the length of the body has to be given once, as a number",
        "body-over-inspect-limit" => "a rule has to see the whole body, and this one is too long for that",
        "coding-unsupported" | "body-unreadable" => {
            "the body cannot be read, so secrets in it cannot be found: send it in gzip, deflate, br, zstd or as it is"
        }
        "decoded-over-limit" => {
            "the body decodes to too much (`decoded_ratio` in [limits]): compress it less"
        }
        "secret-in-body" => {
            "the request holds something that this host's policy does not let out: take it away"
        }
        "held" => {
            "the request holds something that a person has to agree to, and nobody can be asked here yet: \
             take it away"
        }
        "signed-thinking" => {
            "a secret stands in a thinking block that its model has signed, which cannot be changed: leave \
             that block out"
        }
        "event-too-long" | "event-too-complex" => {
            "an event of the stream is too long, or holds too much, to look for secrets in it"
        }
        "secret-in-message" => {
            "a secret stands in a message of gRPC, which cannot be masked since its length stands before it"
        }
        "log-unavailable" => "the session recording cannot be written, so nothing is let through",
        "body-aborted" | "body-idle" => "the request's body ended, or stood still, before its end",
        malformed if malformed.starts_with("http-") => {
            "the request is malformed, or could be read in more than one way: send it as RFC 9112 says"
        }
        other => return of_archive(other),
    })
}

/// The same, for what is packed in a request.
fn of_archive(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "secret-in-archive" => {
            "a secret stands in an archive or a compressed file, which cannot be masked: take it out"
        }
        "archive-unreadable" => {
            "an archive or a compressed file cannot be read here, so secrets in it cannot be found: send it as \
             zip, tar, gzip or zstd, whole and not encrypted"
        }
        "archive-over-limit" => {
            "an archive is too large to be looked into (8 MiB, packed and unpacked, 64 archives, four in one \
             another): send less at once, or ask for a rule that does not mask requests to this host"
        }
        _ => return None,
    })
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

    /// Policy denies, or would have held, what was found in the head of a message.
    pub fn found(error: MaskError) -> Self {
        let stop = BodyError::Mask(error).stop();
        Self { close: false, ..stop }
    }

    #[must_use]
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// What the sender gets, in its own protocol.
    pub fn response_in(&self, dialect: Dialect, session: &str) -> Response<WireBody> {
        let mut response = self.response(session);
        let (kind, body) = match dialect {
            Dialect::Git(service) if self.kind == Kind::Denied => {
                if service != git::Service::Discovery {
                    *response.status_mut() = StatusCode::OK;
                }
                service.refusal(&self.line(session))
            }
            Dialect::Grpc => {
                *response.status_mut() = StatusCode::OK;
                response.headers_mut().extend(self.grpc_end(session));
                ("application/grpc", Vec::new())
            }
            Dialect::Http | Dialect::Git(_) => return response,
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        *response.body_mut() = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        response
    }

    /// The fields that tell a caller by gRPC.
    pub fn grpc_end(&self, session: &str) -> HeaderMap {
        let status = match self.kind {
            Kind::Denied => grpc::Status::PermissionDenied,
            Kind::Failed(_) => grpc::Status::Unavailable,
        };
        grpc::ended(status, &self.line(session))
    }

    /// All that a person is told, in one line.
    fn line(&self, session: &str) -> String {
        let rule = self.rule.as_deref().map_or_else(String::new, |rule| format!("rule {rule}, "));
        format!("enforcer: {} ({rule}session {session})", self.detail_text())
    }

    /// What it means, for people.
    fn detail_text(&self) -> &str {
        self.message.as_deref().or_else(|| explained(self.reason)).unwrap_or(match self.kind {
            Kind::Denied => "this host's egress enforcer does not let this request through",
            Kind::Failed(_) => "the egress enforcer on this host could not complete it",
        })
    }

    /// What the sender gets.
    pub fn response(&self, session: &str) -> Response<WireBody> {
        let (title, word) = match self.kind {
            Kind::Denied => ("Denied by policy on this host", "deny"),
            Kind::Failed(_) => ("The request could not be carried out", "fail"),
        };
        let problem = Problem {
            r#type: format!("urn:enforcer:{}", self.reason),
            title,
            status: self.status.as_u16(),
            detail: self.detail_text(),
            rule: self.rule.as_deref(),
            reason: self.reason,
            session,
            ask: match self.kind {
                Kind::Denied => {
                    "show this session's id to the operator of this host: \
                     `enforcer sessions show` tells which rule decided"
                }
                // Policy let it through.
                Kind::Failed(_) => {
                    "show this session's id to the operator of this host: \
                     `enforcer sessions show` tells what failed"
                }
            },
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
