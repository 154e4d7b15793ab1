//! One request: facts, decision, record, forward.

mod count;
pub(super) mod early;
pub(super) mod hold;
mod inside;
mod judge;
mod search;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::mask::{MaskError, Masker, Place};
use crate::policy::{BodyClass, Decision, Policy, PolicyHash, Verdict};
use crate::protocol::http::canonical;
use crate::protocol::http::coding::{self, Coding};
use crate::protocol::http::request::{Established, RequestFacts};
use crate::protocol::http::sniff::Sniffer;
use crate::protocol::{grpc, llm};
use crate::session::{Direction, Outcome, Side};

pub use judge::Asked;

use super::body::{BodyError, Broken, Carry, Said};
use super::counted::Counting;
use super::deny::{Dialect, Kind};
use super::held::Held;
use super::look::Looked;
use super::masking::Model;
use super::tools::Tools;
use super::{Destination, Forward, Gate, Scope, Stop, WebSocketRelay, Whose, WireBody, headers, response};

use early::Early;
use inside::{Inbound, Inside};

/// Bytes of a refused request that are read after all; beyond, its stream is reset.
const DISCARD_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers one request: with what its upstream says, or with why it was stopped. With `early`
/// the answer may begin before that.
pub async fn exchange<F: Forward>(
    gate: &Gate,
    scope: &Scope,
    forward: &F,
    early: Option<&Early>,
    request: Request<Incoming>,
) -> Response<WireBody> {
    let statement = scope.conn.next_statement();
    let dialect = Dialect::of(&request);
    let steps = Steps { gate, scope, forward, early, statement, dialect };
    match Box::pin(steps.run(request)).await {
        Ok(response) => response,
        Err(stop) => {
            steps.stopped(&stop);
            stop.response_in(dialect, scope.conn.id())
        }
    }
}

struct Steps<'a, F> {
    gate: &'a Gate,
    scope: &'a Scope,
    forward: &'a F,
    early: Option<&'a Early>,
    statement: u32,
    dialect: Dialect,
}

/// A request that was allowed, with what policy wants done to it.
struct Allowed {
    facts: RequestFacts,
    decision: Decision,
    /// What it is counted in, if a rule limits it.
    counting: Option<Counting>,
    /// What is known of its body, if policy asked.
    inside: Inside,
    /// The policy that it was allowed by.
    policy: PolicyHash,
    request_masker: Option<Masker>,
    response_masker: Option<Masker>,
}

impl<F: Forward> Steps<'_, F> {
    async fn run(&self, request: Request<Incoming>) -> Result<Response<WireBody>, Stop> {
        self.gate.recording.healthy().map_err(Stop::log_unavailable)?;
        let (mut parts, body) = request.into_parts();
        let downstream = parts.extensions.remove::<OnUpgrade>();
        let mut body = Some(Inbound::Coming(body));
        let allowed = match self.judge(&parts, &mut body).await {
            Ok(allowed) => allowed,
            Err(stop) => {
                self.discard(&parts, body).await;
                return Err(stop);
            }
        };
        let head = parts.method == http::Method::HEAD;
        let broken = Broken::default();
        let unjudged_now = unjudged(&allowed.facts).filter(|_| allowed.decision.tools);
        if let Some(stop) = unjudged_now.or_else(|| count::uncountable(&allowed, &parts)) {
            self.discard(&parts, body).await;
            return Err(self.refuse(&self.gate.policies.current(), stop).await);
        }
        let asked = parts.clone();
        let mut outgoing = self.prepare(parts, body, &allowed, &broken).await?;
        if let Some(requirement) = &allowed.decision.hold {
            outgoing = Box::pin(self.held(outgoing, &allowed, requirement, &asked)).await?;
        }
        let to = Destination {
            host: &allowed.facts.host,
            port: allowed.facts.port,
            tls: allowed.facts.tls,
            addresses: &allowed.decision.addresses,
            upgrade: allowed.facts.websocket,
        };
        // From here on the verdict survives this process.
        self.scope.conn.flush().map_err(Stop::log_unavailable)?;
        let mut answer = match &allowed.counting {
            None => match self.forward.send(to, outgoing).await {
                Ok(answer) => answer,
                Err(stop) => return Err(self.late(broken.get().cloned().unwrap_or(stop)).await),
            },
            Some(counting) => Box::pin(self.sent(counting, to, outgoing, &asked, &broken)).await?,
        };
        let tools = self.tools(&allowed, &asked);
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(stop) = unjudged(&allowed.facts).filter(|_| tools.is_some()) {
                return Err(self.refuse(&self.gate.policies.current(), stop).await);
            }
            let upstream = answer.extensions_mut().remove::<OnUpgrade>();
            return self.switch(&allowed, downstream, upstream, answer);
        }
        let delivery = response::Delivery {
            gate: self.gate,
            conn: &self.scope.conn,
            statement: self.statement,
            masker: allowed.response_masker.as_ref(),
            selection: &allowed.decision.response_mask,
            path: &allowed.facts.path,
            head,
        };
        let response = delivery.deliver(answer)?;
        match tools {
            None => Ok(response),
            Some(tools) => Box::pin(tools.screen(response)).await,
        }
    }

    /// What judges the calls in the answer, if a rule is about them now: one may have come while
    /// the request was held, or on its way.
    fn tools(&self, allowed: &Allowed, asked: &Parts) -> Option<Tools> {
        let policy = self.gate.policies.current();
        let first = &allowed.decision;
        let (mut wanted, mut code) = (first.tools, first.code);
        if !(wanted && code) && *policy.hash() != allowed.policy {
            let now = self.decide(&policy, &allowed.facts, asked, &allowed.inside);
            (wanted, code) = (wanted || now.tools, code || now.code);
        }
        wanted.then(|| Tools::new(self.gate, self.scope, self.statement, &allowed.facts, asked, code))
    }

    /// Reads the head, asks the newest policy, and records both before anything
    /// else happens.
    async fn judge(&self, parts: &Parts, body: &mut Option<Inbound>) -> Result<Allowed, Stop> {
        let conn = &self.scope.conn;
        let policy = self.gate.policies.current();
        let established =
            Established { host: self.scope.host.as_deref(), port: self.scope.port, tls: self.scope.tls };
        let facts = match RequestFacts::read(parts, established) {
            Ok(facts) => facts,
            Err(error) => {
                let mut stop = Stop::denied(error.status(), error.reason());
                stop.detail = Some(error.to_string());
                return Err(self.refuse(&policy, stop).await);
            }
        };
        if let Some(stop) = &self.scope.denied {
            conn.statement(self.statement, &facts, None).map_err(Stop::log_unavailable)?;
            return Err(self.refuse(&policy, stop.clone()).await);
        }
        let (policy, inside) = match policy.asks_bodies() {
            true => match Box::pin(self.inside(&facts, parts, body)).await {
                Ok(known) => known,
                Err(stop) => return Err(self.unread(&facts, parts, stop).await),
            },
            false => (policy, Inside::default()),
        };
        let decision = self.decide(&policy, &facts, parts, &inside);
        let (decision, counting) = self.counted(decision, &policy, parts);
        let masker = |selection| conn.subject.masker(selection).map_err(mask_unavailable);
        let request_masker = masker(&decision.request_mask)?;
        let response_masker = masker(&decision.response_mask)?;
        let stated = conn.statement(self.statement, &facts, request_masker.as_ref());
        stated.map_err(Stop::log_unavailable)?;
        let recorded = conn.verdict(Some(self.statement), &policy, &decision).await;
        recorded.map_err(Stop::log_unavailable)?;
        if decision.verdict == Verdict::Deny {
            return Err(Stop::policy(&decision));
        }
        // A name is a message to whoever serves the zone; behind TLS it was looked at
        // before anybody was asked for it.
        let selected = &decision.request_mask;
        let reason = match facts.tls {
            true => None,
            false if conn.subject.reveals(&facts.host) => Some("secret-in-name"),
            false => conn.carries_data(Some(self.statement), &facts.host, selected).then_some("data-in-name"),
        };
        if let Some(reason) = reason {
            let stop = Stop::denied(StatusCode::FORBIDDEN, reason);
            return Err(self.refuse(&policy, stop).await);
        }
        if let Some(masker) = &request_masker {
            // Neither can be masked: it would be another one than policy allowed.
            let (path, mut findings) = masker.text(&facts.path);
            let (method, found) = masker.text(facts.method.as_str());
            findings.merge(&found);
            conn.findings(self.statement, Direction::Request, &findings.at(&Place::Path));
            if path.as_str() != facts.path || method.as_str() != facts.method.as_str() {
                let stop = Stop::denied(StatusCode::FORBIDDEN, "secret-in-path");
                return Err(self.refuse(&policy, stop).await);
            }
        }
        let policy = policy.hash().clone();
        Ok(Allowed { facts, decision, counting, inside, policy, request_masker, response_masker })
    }

    fn decide(&self, policy: &Policy, facts: &RequestFacts, parts: &Parts, inside: &Inside) -> Decision {
        let subject = &self.scope.conn.subject;
        // Each request is of who the job is when it comes, whenever its connection was opened.
        let whose = subject.whose.now();
        let whose = Whose::facts(whose.as_deref());
        Asked::new(&subject.facts, whose, facts, parts, inside.facts()).judge(policy)
    }

    /// Reads the rest of a request that was refused, and drops it: many clients look at
    /// the answer only when they have sent everything. Over HTTP/1.1 one that waits for
    /// a `100 Continue` has sent nothing, and would be asked for it all.
    ///
    /// git reads a refusal under status 200, and an early 200 makes curl (7.88, HTTP/2)
    /// spin instead of sending on: that answer waits until everything was read.
    async fn discard(&self, parts: &Parts, body: Option<Inbound>) {
        let Some(Inbound::Coming(body)) = body else { return };
        let waits = parts.version < http::Version::HTTP_2 && parts.headers.contains_key(header::EXPECT);
        if body.is_end_stream() || waits {
            return;
        }
        let reading = tokio::time::timeout(DISCARD_TIMEOUT, async move {
            let mut body = Limited::new(body, DISCARD_MAX_BYTES);
            while let Some(Ok(_)) = body.frame().await {}
        });
        match self.dialect {
            Dialect::Git(_) => drop(reading.await),
            Dialect::Http | Dialect::Grpc | Dialect::Model(_) => drop(tokio::spawn(reading)),
        }
    }

    async fn refuse(&self, policy: &Policy, stop: Stop) -> Stop {
        match self.scope.conn.refused(Some(self.statement), policy, &stop).await {
            Ok(()) => stop,
            Err(error) => Stop::log_unavailable(error),
        }
    }

    /// The request as it goes out: canonical, masked, its body tapped.
    async fn prepare(
        &self,
        mut parts: Parts,
        body: Option<Inbound>,
        allowed: &Allowed,
        broken: &Broken,
    ) -> Result<Request<WireBody>, Stop> {
        let conn = &self.scope.conn;
        let masker = allowed.request_masker.as_ref();
        let codings = codings(&parts.headers);
        if masker.is_some() && codings.is_none() {
            let stop = Stop::denied(StatusCode::UNSUPPORTED_MEDIA_TYPE, "coding-unsupported");
            self.discard(&parts, body).await;
            return Err(self.refuse(&self.gate.policies.current(), stop).await);
        }
        outgoing(&mut parts.headers, allowed);
        let counts_tokens = allowed.counting.as_ref().is_some_and(Counting::counts_tokens);
        if self.keeps_alive(allowed).is_some() || allowed.decision.tools || counts_tokens {
            // The head of the answer may be told before it is known how it is coded, or the tool
            // calls in it have to be read, or its tokens counted.
            parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let mut query = allowed.facts.query.clone();
        let empty = body.as_ref().is_none_or(Inbound::is_end_stream);
        if let Some(masker) = masker {
            let masked = headers::mask(&mut parts.headers, masker).map(|found| {
                conn.findings(self.statement, Direction::Request, &found);
                query.map(|query| self.mask_query(masker, query)).transpose()
            });
            query = match masked {
                Ok(Ok(masked)) => masked,
                Ok(Err(error)) | Err(error) => {
                    self.discard(&parts, body).await;
                    return Err(self.late(Stop::found(error)).await);
                }
            };
            if !empty {
                headers::forget_the_bytes(&mut parts.headers);
            }
        }
        let look = masker.map(|masker| {
            let codings = codings.as_deref().unwrap_or_default();
            (Sniffer::new(codings, &parts.headers), masker.clone())
        });
        let carry = Carry {
            conn,
            statement: self.statement,
            direction: Direction::Request,
            said: Said::of(parts.version, &parts.headers),
            codings,
            parts: headers::body_parts(&parts.headers, masker),
            form: headers::is_form(&parts.headers),
            broken: Arc::clone(broken),
            messages: grpc::Framing::of(&parts.headers),
            wire: masker,
            model: self.model(&parts, allowed)?,
            settings: &self.gate.settings,
        };
        let body = self.carried(body, look, carry, allowed.decision.body, &parts.headers).await?;
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri(&allowed.facts, query)?;
        *request.headers_mut() = parts.headers;
        Ok(request)
    }

    /// What is to be known of a request to a model, if something is masked in it.
    fn model(&self, parts: &Parts, allowed: &Allowed) -> Result<Option<Model>, Stop> {
        let masked = allowed.request_masker.is_some();
        if !masked || !llm::asks_model(&parts.method, &allowed.facts.path, &parts.headers) {
            return Ok(None);
        }
        let exact = self.scope.conn.subject.exact(&allowed.decision.request_mask);
        exact.map(|exact| Some(Model::Whole(exact))).map_err(mask_unavailable)
    }

    /// The body as it goes out; the head is recorded when it is known that it does.
    async fn carried(
        &self,
        body: Option<Inbound>,
        look: Option<(Sniffer, Masker)>,
        carry: Carry<'_>,
        class: BodyClass,
        fields: &http::HeaderMap,
    ) -> Result<WireBody, Stop> {
        let conn = &self.scope.conn;
        let head = || conn.request_head(self.statement, fields).map_err(Stop::log_unavailable);
        let Some(body) = body.filter(|body| !body.is_end_stream()) else {
            head()?;
            return Ok(http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync());
        };
        let held = match (body, class) {
            (Inbound::Read(read), _) => read.held,
            (Inbound::Coming(body), BodyClass::Inspect { cap }) => {
                conn.flush().map_err(Stop::log_unavailable)?;
                self.hold(body, cap).await?
            }
            (Inbound::Coming(body), BodyClass::Stream) => {
                let body = self.begun(Looked::new(body, look, conn, self.statement)).await?;
                head()?;
                return carry.body(body).map_err(body_unreadable);
            }
        };
        let held = self.begun(Looked::new(held, look, conn, self.statement)).await?;
        head()?;
        carry.body(held).map_err(body_unreadable)
    }

    fn mask_query(&self, masker: &Masker, query: String) -> Result<String, MaskError> {
        let (masked, findings) = masker.query(&canonical::query(&query))?;
        if findings.is_empty() {
            return Ok(query);
        }
        self.scope.conn.findings(self.statement, Direction::Request, &findings);
        // Brackets do not stand in a query.
        Ok(masked.as_str().replace('[', "%5B").replace(']', "%5D"))
    }

    /// Holds a whole body before anything goes out.
    async fn hold(&self, body: Incoming, cap: u64) -> Result<Held, Stop> {
        match self.collected(body, cap).await {
            Ok(held) => Ok(held),
            Err(stop) => Err(self.late(stop).await),
        }
    }

    /// The same; what is wrong with it is not recorded yet.
    async fn collected(&self, body: Incoming, cap: u64) -> Result<Held, Stop> {
        let most = body.size_hint().exact().unwrap_or(cap).min(cap);
        let [cap, most] = [cap, most].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let held = tokio::time::timeout(self.gate.settings.body_idle, async {
            let room = self.scope.conn.subject.held.room(most).await;
            Ok(Held::new(Limited::new(body, cap).collect().await?, room))
        });
        match held.await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err::<_, Box<dyn std::error::Error + Send + Sync>>(error))
                if error.is::<LengthLimitError>() =>
            {
                Err(Stop::denied(StatusCode::PAYLOAD_TOO_LARGE, "body-over-inspect-limit"))
            }
            Ok(Err(error)) => Err(match error.downcast::<hyper::Error>() {
                Ok(error) => BodyError::Read(*error).stop(),
                Err(error) => {
                    let status = StatusCode::BAD_REQUEST;
                    Stop::failed(Side::Downstream, status, "body-aborted", error.to_string())
                }
            }),
            Err(_) => Err(BodyError::Idle.stop()),
        }
    }

    /// A request whose first archive may not pass is denied before anything goes out.
    async fn begun<B>(&self, body: Looked<B>) -> Result<Looked<B>, Stop>
    where
        B: Body<Data = Bytes> + Unpin,
        BodyError: From<B::Error>,
    {
        match body.begun(self.gate.settings.body_idle).await {
            Ok(body) => Ok(body),
            Err(error) => Err(self.late(error.stop()).await),
        }
    }

    /// What is wrong with a body shows after the verdict of the head, and is one of
    /// its own.
    async fn late(&self, stop: Stop) -> Stop {
        match stop.kind {
            Kind::Denied => self.refuse(&self.gate.policies.current(), stop).await,
            Kind::Failed(_) => stop,
        }
    }

    /// Both sides agreed to speak WebSocket from here on.
    fn switch(
        &self,
        allowed: &Allowed,
        downstream: Option<OnUpgrade>,
        upstream: Option<OnUpgrade>,
        answer: Response<WireBody>,
    ) -> Result<Response<WireBody>, Stop> {
        let conn = &self.scope.conn;
        let (Some(downstream), Some(upstream), true) = (downstream, upstream, allowed.facts.websocket) else {
            let status = StatusCode::BAD_GATEWAY;
            let why = "the upstream switched protocols unasked".to_owned();
            return Err(Stop::failed(Side::Upstream, status, "upgrade-unasked", why));
        };
        let (mut parts, body) = answer.into_parts();
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_detours(&mut parts.headers);
        parts.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(masker) = &allowed.response_masker {
            let mut found = headers::mask(&mut parts.headers, masker).map_err(Stop::found)?;
            found.merge(&headers::mask_reason(&mut parts.extensions, masker).map_err(Stop::found)?);
            conn.findings(self.statement, Direction::Response, &found);
        }
        let recorded = conn.response_head(self.statement, parts.status, &parts.headers);
        recorded.and_then(|()| conn.flush()).map_err(Stop::log_unavailable)?;
        let exact = |selection| conn.subject.exact(selection).map_err(mask_unavailable);
        let known = [exact(&allowed.decision.request_mask)?, exact(&allowed.decision.response_mask)?];
        let relay = WebSocketRelay {
            model: llm::Answer::of_websocket(&allowed.facts.path),
            known,
            conn: Arc::clone(conn),
            statement: self.statement,
            request: allowed.request_masker.clone(),
            response: allowed.response_masker.clone(),
            counting: allowed.counting.clone(),
            keep: self.gate.settings.body_bytes,
        };
        self.forward.websocket(downstream, upstream, relay);
        Ok(Response::from_parts(parts, body))
    }

    fn stopped(&self, stop: &Stop) {
        let conn = &self.scope.conn;
        match stop.kind {
            Kind::Denied => {
                if let Some(detail) = &stop.detail {
                    conn.error(Side::Downstream, stop.reason, detail);
                }
                conn.settle(Outcome::Denied { reason: stop.reason });
            }
            Kind::Failed(side) => {
                conn.error(side, stop.reason, stop.detail.as_deref().unwrap_or_default());
                conn.settle(Outcome::Failed { side, reason: stop.reason });
            }
        }
    }
}

/// The content codings of a body; `None` if one of them cannot be read.
pub(super) fn codings(headers: &http::HeaderMap) -> Option<Vec<Coding>> {
    if grpc::is_coded(headers) {
        return None;
    }
    coding::parse_codings(headers).ok()
}

/// The fields of a request as they go out, before they are masked.
fn outgoing(fields: &mut http::HeaderMap, allowed: &Allowed) {
    headers::strip_hop_by_hop(fields);
    headers::strip_rewrites(fields);
    coding::restrict_accept_encoding(fields);
    fields.remove(header::HOST);
    // hyper answers `100 Continue` by itself when the body is first asked for,
    // which is after the verdict.
    fields.remove(header::EXPECT);
    if allowed.response_masker.is_some() {
        headers::ask_for_the_whole(fields);
    }
    if allowed.facts.websocket {
        fields.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Where a model may answer in a way that is not read for tool calls.
fn unjudged(facts: &RequestFacts) -> Option<Stop> {
    if facts.websocket && llm::speaks_messages(&facts.path) {
        // Most of its clients take the answer in events then.
        return Some(Stop::denied(StatusCode::UPGRADE_REQUIRED, "tool-calls-by-websocket"));
    }
    llm::speaks_grpc(&facts.path).then(|| Stop::denied(StatusCode::FORBIDDEN, "tool-calls-by-grpc"))
}

fn uri(facts: &RequestFacts, query: Option<String>) -> Result<Uri, Stop> {
    let scheme = if facts.tls { "https" } else { "http" };
    let path = match query {
        Some(query) => format!("{}?{query}", facts.path),
        None => facts.path.clone(),
    };
    let uri = Uri::builder().scheme(scheme).authority(facts.authority()).path_and_query(path);
    uri.build().map_err(|error| {
        let status = StatusCode::BAD_REQUEST;
        Stop::failed(Side::Downstream, status, "target-invalid", error.to_string())
    })
}

fn body_unreadable(error: super::BodyError) -> Stop {
    let status = StatusCode::BAD_REQUEST;
    Stop::failed(Side::Downstream, status, "body-unreadable", error.to_string())
}

pub(super) fn mask_unavailable(error: crate::mask::MaskError) -> Stop {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Stop::failed(Side::Internal, status, "mask-unavailable", error.to_string())
}
