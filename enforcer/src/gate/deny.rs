//! Why a request ends here, and what its sender is told.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::mask::MaskError;
use crate::policy::{Decision, Over, Why};
use crate::protocol::{git, grpc, llm};
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
    /// A model's API: its client shows what stands in its own kind of error.
    Model(llm::Dialect),
}

impl Dialect {
    pub fn of<B>(request: &Request<B>) -> Self {
        let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match git::Service::of(request.method(), request.uri(), kind) {
            Some(service) => Self::Git(service),
            None if grpc::Framing::of(request.headers()) == Some(grpc::Framing::Call) => Self::Grpc,
            None => match llm::api(request.method(), request.uri().path(), request.headers()) {
                Some(api) => Self::Model(api),
                None => Self::Http,
            },
        }
    }
}

/// A question to people, as whoever has to wait for them is told of it.
#[derive(Debug, Clone, Default)]
pub struct Question {
    pub approval: Option<String>,
    /// How to go on, if that is not the same as for all denials.
    pub ask: Option<String>,
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
    /// Who that rule belongs to.
    pub owner: Option<Arc<str>>,
    /// What the operator says about it.
    pub message: Option<Arc<str>>,
    /// For the recording only.
    pub detail: Option<String>,
    /// What people are asked about it.
    pub question: Option<Box<Question>>,
    /// What it is over.
    pub over: Option<Box<Over>>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    reason: &'a str,
    session: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
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
        "address-of-the-page" => "this is where people decide about jobs; no job is led there",
        address if address.starts_with("address-") => {
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
            "the request holds something that this host's policy does not let out by itself (people are asked by \
             rules that look at `findings`): take it away"
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
        other => return of_approval(other).or_else(|| of_archive(other)).or_else(|| of_tools(other)),
    })
}

/// The same, for what people have to agree to.
fn of_approval(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "approvals-not-configured" => {
            "a rule holds this request until people agree, and this host has nobody to ask: its operator \
             has to write [approvals] into the configuration"
        }
        "approvals-unavailable" => {
            "people have to agree to this request, and cannot be asked now: try again later"
        }
        "approval-pending" => "people have to agree to this request, and were asked",
        "approval-rejected" => "somebody who was asked said no to this request",
        "approval-expired" => "nobody agreed to this request in time",
        "approval-cancelled" => {
            "the question whether this request may go out is no longer open: send it again"
        }
        "approval-used" => "it was agreed to one such request, and another one has gone out",
        "approval-of-other-bytes" => "what was agreed to is not what would go out",
        "no-stage" => "the rule that holds this request says nothing of who has to agree for such a job",
        "actor-unknown" => {
            "people have to agree to this request who are not its author, and it is not known who that is: let the \
             job say who it is by a token (`enforcer job start`), and the operator know that login"
        }
        "nobody-can-approve" => "more people would have to agree to this request than there are who may",
        "too-many-searches" => {
            "this host looks into as many bodies of this job as it may at the same time: send fewer at once, or this \
             one again later"
        }
        "too-many-approvals" => {
            "too many questions are open, or were asked of late: wait until they are decided"
        }
        "held-by-two-rules" => {
            "a rule holds this request by its method, and another one by the method that a header or a \
             parameter names: send one method"
        }
        "policy-changed" => "the policy has changed since: send the request again",
        "client-gone" => "the client has left while its request was held",
        _ => return None,
    })
}

/// The same, for tool calls in the answer of a model, and the tokens of it.
fn of_tools(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "tool-call-over-limit" => {
            "a tool call in the answer of the model is longer than can be kept back until it is judged, or there \
             are too many, or there is no room for more: ask for less at once"
        }
        "tool-call-ambiguous" => "a tool call in the answer of the model can be read in two ways",
        "tool-call-unreadable" => {
            "a rule is about the tool calls in this answer, which cannot be read in this form: ask for server-sent \
             events, or for an answer in one piece"
        }
        "tool-call-incomplete" => "the answer of the model broke off in a tool call",
        "tool-calls-by-websocket" => {
            "a rule is about the tool calls in the answers of this model, which are not read in a WebSocket: ask \
             by POST for server-sent events"
        }
        "tokens-by-websocket" => {
            "a rule limits the tokens of this model, which cannot be counted in a WebSocket: ask by POST for \
             server-sent events"
        }
        "tokens-by-grpc" => {
            "a rule limits the tokens of this model, which cannot be counted in gRPC: use its REST API"
        }
        "tool-calls-by-grpc" => {
            "a rule is about the tool calls in the answers of this model, which are not read in gRPC: use its \
             REST API"
        }
        _ => return None,
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
        "multipart-ambiguous" => {
            "the parts of this multipart body could be told apart in more than one way, so that secrets in one could \
             be missed: send one boundary in one Content-Type, written plainly, and lines that end in CRLF"
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
        let (rule, owner, message, detail) = (None, None, None, None);
        Self { status, reason, kind, rule, owner, message, detail, question: None, over: None, close: false }
    }

    pub fn failed(side: Side, status: StatusCode, reason: &'static str, detail: String) -> Self {
        Self { kind: Kind::Failed(side), detail: Some(detail), ..Self::denied(status, reason) }
    }

    pub fn policy(decision: &Decision) -> Self {
        Self {
            rule: decision.rule.as_ref().map(|rule| rule.as_str().to_owned()),
            owner: decision.owner.clone(),
            message: decision.message.clone(),
            ..match &decision.over {
                Some(over) => Self::over(over),
                None => Self::denied(StatusCode::FORBIDDEN, decision.reason.as_str()),
            }
        }
    }

    /// Who is over a limit may come again, unless there is never room.
    pub fn over(over: &Over) -> Self {
        let later = over.retry_after().is_some() || over.why == Why::Counters;
        let status = if later { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::FORBIDDEN };
        Self {
            rule: Some(over.rule.as_str().to_owned()),
            owner: over.owner.clone(),
            message: Some(over.to_string().into()),
            over: Some(Box::new(over.clone())),
            ..Self::denied(status, over.reason().as_str())
        }
    }

    /// What a rule holds does not go out: for another reason than the rule, which says what
    /// it is about.
    pub fn held(decision: &Decision, reason: &'static str, approval: Option<String>) -> Self {
        let why = explained(reason).unwrap_or("a rule holds this request until people agree");
        let message = match &decision.message {
            Some(message) => format!("{why}: {message}"),
            None => why.to_owned(),
        };
        let question = Some(Box::new(Question { approval, ask: None }));
        Self { reason, question, message: Some(message.into()), ..Self::policy(decision) }
    }

    /// With how to go on.
    #[must_use]
    pub fn asking(mut self, ask: String) -> Self {
        self.question.get_or_insert_default().ask = Some(ask);
        self
    }

    fn approval(&self) -> Option<&str> {
        self.question.as_ref()?.approval.as_deref()
    }

    fn ask(&self) -> Option<&str> {
        self.question.as_ref()?.ask.as_deref()
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
            Dialect::Model(api) => {
                let limited = self.status == StatusCode::TOO_MANY_REQUESTS;
                let refusal = if limited { llm::limited } else { llm::refusal };
                let mut body = refusal(api, self.reason, &self.line(session));
                body["enforcer"] = serde_json::to_value(self.problem(session)).unwrap_or_default();
                ("application/json", body.to_string().into_bytes())
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
            Kind::Denied if self.status == StatusCode::TOO_MANY_REQUESTS => grpc::Status::ResourceExhausted,
            Kind::Denied => grpc::Status::PermissionDenied,
            Kind::Failed(_) => grpc::Status::Unavailable,
        };
        grpc::ended(status, &self.line(session))
    }

    /// All that a person is told, in one line.
    pub(super) fn line(&self, session: &str) -> String {
        let owner = self.owner.as_deref().map_or_else(String::new, |owner| format!(" of {owner}"));
        let rule = self.rule.as_deref().map_or_else(String::new, |rule| format!("rule {rule}{owner}, "));
        let approval = self.approval().map(|id| format!("approval {id}, ")).unwrap_or_default();
        let ask = self.ask().map(|ask| format!("; {ask}")).unwrap_or_default();
        format!("enforcer: {}{ask} ({rule}{approval}session {session})", self.detail_text())
    }

    /// In how many seconds the same may pass.
    fn retry_after(&self) -> Option<u64> {
        self.over.as_ref()?.retry_after()
    }

    /// What it means, for people.
    fn detail_text(&self) -> &str {
        self.message.as_deref().or_else(|| explained(self.reason)).unwrap_or(match self.kind {
            Kind::Denied => "this host's egress enforcer does not let this request through",
            Kind::Failed(_) => "the egress enforcer on this host could not complete it",
        })
    }

    fn problem<'a>(&'a self, session: &'a str) -> Problem<'a> {
        let title = match self.kind {
            Kind::Denied => "Denied by policy on this host",
            Kind::Failed(_) => "The request could not be carried out",
        };
        Problem {
            r#type: format!("urn:enforcer:{}", self.reason),
            title,
            status: self.status.as_u16(),
            detail: self.detail_text(),
            rule: self.rule.as_deref(),
            owner: self.owner.as_deref(),
            reason: self.reason,
            session,
            approval: self.approval(),
            limit: self.over.as_ref().map(|over| over.limit.to_string()),
            retry_after_seconds: self.retry_after(),
            ask: match self.kind {
                _ if self.ask().is_some() => self.ask().unwrap_or_default(),
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
        }
    }

    /// What the sender gets.
    pub fn response(&self, session: &str) -> Response<WireBody> {
        let word = match self.kind {
            Kind::Denied => "deny",
            Kind::Failed(_) => "fail",
        };
        let problem = self.problem(session);
        // A struct of strings and numbers always serialises.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut decision = format!("{word}; reason={}; session={session}", self.reason);
        if let Some(rule) = &self.rule {
            decision.push_str("; rule=");
            decision.push_str(rule);
        }
        if let Some(approval) = self.approval() {
            decision.push_str("; approval=");
            decision.push_str(approval);
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
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
