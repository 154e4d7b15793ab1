//! What limits count of a request: itself when it comes, its bytes as they go, and the tokens of
//! its answer when that has ended.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::policy::{Decision, Payer, Policy, Size, Unit, Verdict};
use crate::protocol::{grpc, llm};
use crate::session::Side;

use super::super::body::Broken;
use super::super::counted::{self, Counting, Tokens};
use super::super::{BodyError, Destination, Forward, Stop, Whose, WireBody};
use super::{Allowed, Steps, codings};

impl<F: Forward> Steps<'_, F> {
    /// Counts a request that may go out, if there is a limit to it, and room.
    pub(super) fn counted(
        &self,
        decision: Decision,
        policy: &Policy,
        parts: &Parts,
    ) -> (Decision, Option<Counting>) {
        if decision.limits.is_empty() || decision.verdict == Verdict::Deny {
            return (decision, None);
        }
        let subject = &self.scope.conn.subject;
        let whose = subject.whose.now();
        let payer = Payer { job: subject.workload.tag, identity: Whose::facts(whose.as_deref()) };
        let account = Arc::new(self.gate.policies.meters().account(&decision.limits, &payer));
        let said = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let size = Size {
            head: counted::head_bytes(&parts.method, &parts.uri, &parts.headers),
            body: said.and_then(|length| length.parse().ok()).unwrap_or_default(),
        };
        let decision = account.request(decision, size);
        let (conn, statement) = (Arc::clone(&self.scope.conn), self.statement);
        let policy = policy.hash().clone();
        (decision, Some(Counting { account, conn, statement, policy, late: Arc::default() }))
    }

    /// Sends a request whose bodies are counted on their way.
    pub(super) async fn sent(
        &self,
        counting: &Counting,
        to: Destination<'_>,
        outgoing: Request<WireBody>,
        asked: &Parts,
        broken: &Broken,
    ) -> Result<Response<WireBody>, Stop> {
        let limits = || self.gate.settings.decoded.clone();
        let tokens = counting.counts_tokens().then(|| Tokens::new(counting, generates(asked)));
        let reading = match &tokens {
            Some(tokens) => {
                let codings = codings(outgoing.headers()).unwrap_or_default();
                Some(tokens.asked(&codings, limits()).map_err(|error| BodyError::from(error).stop())?)
            }
            None => None,
        };
        let cut = Arc::clone(broken);
        let outgoing = outgoing.map(|body| counting.clone().request(body, cut, reading).boxed_unsync());
        let answer = match self.forward.send(to, outgoing).await {
            Ok(answer) => answer,
            Err(stop) => {
                tokens.into_iter().for_each(Tokens::unanswered);
                return Err(self.late(broken.get().cloned().unwrap_or(stop)).await);
            }
        };
        let head = counted::fields_bytes(answer.headers());
        if let Err(over) = counting.answer(head as u64, answer.body().size_hint().exact()) {
            return Err(self.late(Stop::over(&over)).await);
        }
        counting.answered();
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let tokens = match tokens {
            None => None,
            Some(tokens) => {
                let Some(codings) = codings(answer.headers()) else {
                    let why = "the tokens of the answer cannot be counted in its coding".to_owned();
                    return Err(Stop::failed(
                        Side::Upstream,
                        StatusCode::BAD_GATEWAY,
                        "coding-unsupported",
                        why,
                    ));
                };
                let tokens = tokens.answered(answer.status(), answer.headers(), &codings, limits());
                Some(tokens.map_err(|error| {
                    Stop::failed(
                        Side::Upstream,
                        StatusCode::BAD_GATEWAY,
                        "body-unreadable",
                        error.to_string(),
                    )
                })?)
            }
        };
        if answer.body().is_end_stream() {
            tokens.into_iter().for_each(Tokens::ended);
            return Ok(answer);
        }
        Ok(answer.map(|body| counting.clone().response(body, tokens).boxed_unsync()))
    }
}

/// Whether a model may say something to it for which tokens are taken.
fn generates(asked: &Parts) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE].contains(&asked.method);
    let path = asked.uri.path();
    !reads && !path.ends_with("/count_tokens") && !path.ends_with(":countTokens")
}

/// Where tokens are limited and nobody could count them.
pub(super) fn uncountable(allowed: &Allowed, asked: &Parts) -> Option<Stop> {
    let counting = allowed.counting.as_ref()?;
    if !counting.account.enforces(Unit::Tokens) {
        return None;
    }
    if allowed.facts.websocket {
        return Some(Stop::denied(StatusCode::UPGRADE_REQUIRED, "tokens-by-websocket"));
    }
    if llm::speaks_grpc(&allowed.facts.path) || grpc::Framing::of(&asked.headers).is_some() {
        return Some(Stop::denied(StatusCode::FORBIDDEN, "tokens-by-grpc"));
    }
    let unread = codings(&asked.headers).is_none();
    unread.then(|| Stop::denied(StatusCode::UNSUPPORTED_MEDIA_TYPE, "coding-unsupported"))
}
