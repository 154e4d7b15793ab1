//! Tool calls in the answers of models, and blocks of code in their texts: policy is asked about
//! each before its client has it.
//!
//! ```text
//!  answer, masked --> events: kept from the first byte of a call until it is whole --+
//!                 --> JSON in one piece: read whole ---------------------------------+
//!                                                                                    v
//!      end in the API's own shape <-- deny --- the newest policy, recorded --- allow --> on
//!                          ^                        |
//!                          +--- no, time, gone --- hold --- yes --> the same bytes, once
//! ```
//! Only the rules that name `llm.tool` or `llm.code` are asked, and only of answers to requests that such a
//! rule may match: no other answer is looked at. Of those every stream of events and all JSON is
//! read, wherever it stands: a call may be fetched where no model is asked.
//!
//! **Invariant**: not a byte of a call goes on before the verdict about it is recorded. An answer
//! that cannot be read, or not be kept, ends.

mod hold;
mod stream;
mod whole;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body;

use crate::approval::{Class, Desk};
use crate::net::sys::Line;
use crate::policy::{
    BodyFacts, Decision, Fact, Facts, Policy, PolicyStore, Protocol, Stage, ToolFacts, Verdict,
};
use crate::protocol::command::{Effect, Risk, assess_call, assess_code};
use crate::protocol::http::coding;
use crate::protocol::http::request::RequestFacts;
use crate::protocol::llm::{self, Answer, Call, CallError, CallStream, Dialect, Item};
use crate::session::Side;

use super::{Conn, Gate, Scope, Stop, Whose, WireBody, headers};

/// All that is needed to judge the calls of one answer, also when its request is long over.
pub(super) struct Tools {
    policies: Arc<PolicyStore>,
    desk: Option<Desk>,
    conn: Arc<Conn>,
    statement: u32,
    request: RequestFacts,
    /// The head as the client sent it.
    fields: HeaderMap,
    http1: bool,
    line: Option<Arc<Line>>,
    decoded: coding::Limits,
    /// Whether blocks of code are judged, too.
    code: bool,
}

/// Calls that are judged together, with what stands around them.
struct Group {
    calls: Vec<Call>,
    dialect: Dialect,
    model: Option<String>,
    /// SHA-256 of all that waits.
    bytes: crate::approval::Digest,
    class: Class,
}

/// What policy said of one of them, and which policy.
struct Given<'a> {
    judged: Judged<'a>,
    policy: Arc<Policy>,
    decision: Decision,
}

/// One of them.
struct Judged<'a> {
    group: &'a Group,
    call: &'a Call,
    risks: Vec<Risk>,
    effects: Vec<Effect>,
}

impl Tools {
    pub fn new(
        gate: &Gate,
        scope: &Scope,
        statement: u32,
        request: &RequestFacts,
        asked: &Parts,
        code: bool,
    ) -> Self {
        Self {
            policies: Arc::clone(&gate.policies),
            desk: gate.approvals.clone(),
            conn: Arc::clone(&scope.conn),
            statement,
            request: request.clone(),
            fields: asked.headers.clone(),
            http1: asked.version < http::Version::HTTP_2,
            line: scope.line.clone(),
            decoded: gate.settings.decoded.clone(),
            code,
        }
    }

    /// The answer as its client may have it.
    pub async fn screen(self, response: Response<WireBody>) -> Result<Response<WireBody>, Stop> {
        let (mut parts, body) = response.into_parts();
        let path = &self.request.path;
        let answer = Answer::of(path, &parts.headers);
        let json = llm::says_json(&parts.headers);
        // A page may stand where a model is asked.
        let reads = matches!(self.request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let asked = !reads && llm::speaks(path).is_some();
        if !parts.status.is_success() || body.is_end_stream() || !(answer.is_some() || json || asked) {
            return Ok(Response::from_parts(parts, body));
        }
        let coded = parts.headers.contains_key(header::CONTENT_ENCODING);
        if coded && (answer.is_some() || llm::of_model(path).is_some()) {
            return Err(coded_unasked());
        }
        if let Some(stream) = answer.and_then(CallStream::new).map(|stream| stream.judging_code(self.code)) {
            headers::forget_the_bytes(&mut parts.headers);
            return Ok(Response::from_parts(parts, stream::kept(body, stream, self)));
        }
        if !json {
            return Err(self.refused(CallError::Unreadable).await);
        }
        self.whole(parts, body).await
    }

    /// Whether all of them may go on.
    async fn judge(&self, group: &Group) -> Result<(), Stop> {
        let mut verdicts = Vec::with_capacity(group.calls.len());
        for call in &group.calls {
            let risks = match call.item {
                Item::Tool => assess_call(&call.arguments),
                Item::Code => assess_code(&call.name, &call.arguments),
            };
            let mut effects: Vec<Effect> = risks.iter().map(|risk| risk.effect).collect();
            effects.dedup();
            let judged = Judged { group, call, risks, effects };
            let policy = self.policies.current();
            let decision = self.decide(&policy, &judged);
            self.record(&policy, &decision, &judged).await?;
            match decision.verdict {
                Verdict::Allow | Verdict::Passthrough => {}
                Verdict::Deny => return Err(of(call.item, of_a_call(Stop::policy(&decision)))),
                Verdict::Hold => {
                    let held = self.held(&policy, &decision, &judged).await;
                    held.map_err(|stop| of(call.item, stop))?;
                }
            }
            verdicts.push(Given { judged, policy, decision });
        }
        self.still_all(&verdicts).await?;
        self.conn.flush().map_err(Stop::log_unavailable)
    }

    fn decide(&self, policy: &Policy, judged: &Judged<'_>) -> Decision {
        let subject = &self.conn.subject;
        let whose = subject.whose.now();
        let request = &self.request;
        policy.decide(&Facts {
            workload: &subject.facts,
            identity: Whose::facts(whose.as_deref()),
            stage: Stage::Http,
            host: Fact::Known(&request.host),
            port: Fact::Known(request.port),
            protocol: Fact::Known(if request.tls { Protocol::Https } else { Protocol::Http }),
            method: Fact::Known(request.method.as_str()),
            path: Fact::Known(&request.path),
            query: Fact::Known(request.query.as_deref().unwrap_or_default()),
            headers: Fact::Known(&self.fields),
            // Rules about calls do not ask for it.
            body: BodyFacts::default(),
            tool: Fact::Known(ToolFacts {
                item: judged.call.item,
                provider: judged.group.dialect.provider(),
                model: judged.group.model.as_deref(),
                name: &judged.call.name,
                arguments: &judged.call.arguments,
                effects: &judged.effects,
            }),
        })
    }

    async fn record(&self, policy: &Policy, decision: &Decision, judged: &Judged<'_>) -> Result<(), Stop> {
        let recorded =
            self.conn.tool_verdict(self.statement, policy, decision, judged.call, &judged.risks).await;
        recorded.map_err(Stop::log_unavailable)
    }

    /// A denial that is not a rule's.
    async fn refused(&self, error: CallError) -> Stop {
        let mut stop = Stop::denied(StatusCode::FORBIDDEN, error.reason());
        stop.detail = Some(error.to_string());
        self.refuse(stop).await
    }

    async fn refuse(&self, stop: Stop) -> Stop {
        let policy = self.policies.current();
        match self.conn.refused(Some(self.statement), &policy, &stop).await {
            Ok(()) => stop,
            Err(error) => Stop::log_unavailable(error),
        }
    }

    fn agent(&self) -> Option<&str> {
        self.fields.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok())
    }
}

/// What is said of a call, said of what it is.
fn of(item: Item, mut stop: Stop) -> Stop {
    let other = |said: &str| {
        said.replacen(
            &format!("{} in the model's answer", Item::Tool.one()),
            &format!("{} in the model's answer", item.one()),
            1,
        )
    };
    stop.message = stop.message.map(|said| other(&said).into());
    stop
}

fn coded_unasked() -> Stop {
    let why = "the answer is coded, which it was asked not to be".to_owned();
    Stop::failed(Side::Upstream, StatusCode::BAD_GATEWAY, "coding-unsupported", why)
}

/// What its client is told, who has asked for nothing that could be denied.
fn of_a_call(mut stop: Stop) -> Stop {
    let said = stop.message.as_deref().unwrap_or("a rule of this host's egress policy denies it");
    stop.message = Some(format!("a tool call in the model's answer was kept back: {said}").into());
    stop
}
