//! A request that a rule holds: it waits here, whole, until people have agreed.
//!
//! ```text
//!  read whole, masked --> shown, hashed --> submit --+--> refused, later: denied at once
//!                                                    +--> a grant covers it ----------+
//!                                                    +--> waits --+--> no: denied     |
//!                                                                 +--> client gone    |
//!                                                                 +--> yes -----------+
//!            out, as it was <-- recorded on disk <-- the newest policy still holds it <+
//! ```
//!
//! **Invariant**: not a byte goes out before the store has said so of these very bytes, and
//! before that is recorded. Whoever leaves takes the request along.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};

use crate::approval::config::{actor, run_link, stage_fact};
use crate::approval::{
    ApprovalId, Asked, Basis, Bound, Class, Denial, Desk, DeskError, Digest, Exact, JobKey, Permit,
    Reception, Refusal, RuleKey, Standing, Submitted, Taken, Turn, WaiterId,
};
use crate::mask::MaskedText;
use crate::policy::{INSPECT_CAP_BYTES, Requirement, Verdict};
use crate::protocol::http::coding::{self, Coding, Decoder};
use crate::protocol::llm;
use crate::session::{Event, Side};
use crate::workload::identity::{Assurance, Field};

use super::super::body::BodyError;
use super::super::deny::Dialect;
use super::super::masking::Masking;
use super::super::{Conn, Forward, Stop, Subject, WireBody, headers};
use super::{Allowed, Steps};

/// A request with all that goes out of it.
struct Whole {
    parts: Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// A client that waits. Dropped, it has gone.
pub(in super::super) struct Waits {
    pub desk: Desk,
    pub conn: Arc<Conn>,
    pub statement: u32,
    pub waiter: WaiterId,
    pub over: bool,
}

/// What people are asked about, beside whose it is.
pub(in super::super) struct Told {
    pub rule: RuleKey,
    pub bound: Bound,
    pub class: Class,
    pub requirement: Arc<Requirement>,
    pub host: MaskedText,
    pub statement: MaskedText,
    pub effect: Option<MaskedText>,
    pub message: Option<MaskedText>,
}

/// What ends the wait of a client.
enum Woken {
    Ready,
    Gone,
}

impl<F: Forward> Steps<'_, F> {
    /// Gives the request back when it may go out. `asked` is its head as the client sent it.
    pub(super) async fn held(
        &self,
        request: Request<WireBody>,
        allowed: &Allowed,
        requirement: &Arc<Requirement>,
        asked: &Parts,
    ) -> Result<Request<WireBody>, Stop> {
        let conn = &self.scope.conn;
        let Some(desk) = &self.gate.approvals else {
            return Err(self.no(allowed, "approvals-not-configured", None).await);
        };
        let whole = self.whole(request).await?;
        // Who waited for room would have its body in memory all the same.
        let Some(room) = conn.subject.held.room_now(whole.body.len()) else {
            return Err(self.no(allowed, "too-many-approvals", None).await);
        };
        let question = self.question(&whole, desk, allowed, requirement, asked).await?;
        let permit = self.permitted(desk, question, allowed, requirement, asked, &whole).await?;
        let (approval, exact) = (permit.approval().to_string(), permit.exact());
        if exact != bound(&whole).exact() {
            return Err(self.no(allowed, "approval-of-other-bytes", Some(approval)).await);
        }
        let event = Event::HoldReleased { statement: self.statement, approval, exact: exact.to_string() };
        conn.record_durable(&event).await.map_err(Stop::log_unavailable)?;
        let request = whole.request();
        drop(room);
        Ok(request)
    }

    /// Everything that would go out.
    async fn whole(&self, request: Request<WireBody>) -> Result<Whole, Stop> {
        let (parts, body) = request.into_parts();
        let cap = usize::try_from(INSPECT_CAP_BYTES).unwrap_or(usize::MAX);
        let whole = match Limited::new(body, cap).collect().await {
            Ok(whole) => whole,
            Err(error) if error.is::<LengthLimitError>() => {
                let stop = Stop::denied(StatusCode::PAYLOAD_TOO_LARGE, "body-over-inspect-limit");
                return Err(self.late(stop).await);
            }
            Err(error) => {
                let stop = match error.downcast::<BodyError>() {
                    Ok(error) => error.stop(),
                    Err(error) => {
                        let status = StatusCode::BAD_REQUEST;
                        Stop::failed(Side::Downstream, status, "body-aborted", error.to_string())
                    }
                };
                return Err(self.late(stop).await);
            }
        };
        let trailers = whole.trailers().cloned();
        Ok(Whole { parts, body: whole.to_bytes(), trailers })
    }

    /// What people are asked.
    async fn question(
        &self,
        whole: &Whole,
        desk: &Desk,
        allowed: &Allowed,
        requirement: &Arc<Requirement>,
        asked: &Parts,
    ) -> Result<Asked, Stop> {
        let conn = &self.scope.conn;
        let rule = allowed.decision.rule.as_ref().map_or("", |rule| rule.as_str());
        let agent = asked.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let class = match self.kept_alive(whole, allowed) {
            Some(_) => Class::KeptAlive,
            None => Class::of_user_agent(agent),
        };
        let statement = self.statement_text(whole).await?;
        let told = Told {
            rule: RuleKey::new(rule),
            bound: bound(whole),
            class,
            requirement: Arc::clone(requirement),
            host: conn.text(&allowed.facts.authority()),
            statement,
            effect: self.effect(whole),
            message: allowed.decision.message.as_deref().map(|message| conn.text(message)),
        };
        match self::asked(desk, conn, told).await {
            Ok(asked) => asked.ok_or_else(|| Stop::log_unavailable("no session")),
            Err(error) => Err(self.broken(allowed, &error).await),
        }
    }

    /// The API of a model whose client may be told that it waits.
    pub(super) fn keeps_alive(&self, allowed: &Allowed) -> Option<llm::Dialect> {
        let wanted = allowed.decision.hold.as_ref().is_some_and(|hold| hold.keep_alive());
        match self.dialect {
            Dialect::Model(api) if wanted && self.early.is_some() => Some(api),
            _ => None,
        }
    }

    /// The same for a request that asks for a stream of events.
    fn kept_alive(&self, whole: &Whole, allowed: &Allowed) -> Option<llm::Dialect> {
        let api = self.keeps_alive(allowed)?;
        let plain = super::codings(&whole.parts.headers).is_some_and(|codings| codings.is_empty());
        let uri = &whole.parts.uri;
        let asks = plain && llm::asks_for_events(api, uri.path(), uri.query(), &whole.body);
        asks.then_some(api)
    }

    /// How much of what is sent, which a long statement does not show.
    fn effect(&self, whole: &Whole) -> Option<MaskedText> {
        let kind = whole.parts.headers.get(http::header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).map(|kind| format!(" of {kind}"));
        let text = format!("sends {} bytes{}", whole.body.len(), kind.unwrap_or_default());
        (!whole.body.is_empty()).then(|| self.scope.conn.text(&text))
    }

    /// The whole of it for the eyes of people: masked, and decoded.
    async fn statement_text(&self, whole: &Whole) -> Result<MaskedText, Stop> {
        let conn = &self.scope.conn;
        let target = whole.parts.uri.to_string();
        let mut text = format!("{} {}\n", conn.text(whole.parts.method.as_str()), conn.text(&target));
        let (fields, trailers) = (&whole.parts.headers, whole.trailers.iter().flatten());
        let everything = conn.subject.everything();
        for (name, value) in fields.iter().chain(trailers) {
            let (name, value, _) = everything.recorded_header(name.as_str(), value.as_bytes());
            text.push_str(&format!("{name}: {value}\n"));
        }
        let framed = coding::aws::below_frames(fields);
        let body = match &framed {
            None => Some(whole.body.clone()),
            Some(_) => coding::aws::unframed(&whole.body),
        };
        let (Some(codings), Some(body)) = (framed.or_else(|| super::codings(fields)), body) else {
            return Err(self.unreadable("its coding is not understood").await);
        };
        let limits = self.gate.settings.decoded.clone();
        let (masker, form) = (everything.clone(), headers::is_form(fields));
        // A long body takes a while.
        let read = tokio::task::spawn_blocking(move || {
            let plain = decoded(body, &codings, limits)?;
            let mut masking = Masking::copy(&masker, None, form);
            let body = format!("{}{}", masking.push(plain)?.to_text(), masking.finish()?.to_text());
            // What was masked in parts is masked as one.
            Ok::<_, BodyError>(masker.text(&format!("{text}\n{body}")).0)
        });
        match read.await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(self.unreadable(&error.to_string()).await),
            Err(error) => Err(self.unreadable(&error.to_string()).await),
        }
    }

    /// Nobody can agree to what cannot be shown.
    async fn unreadable(&self, why: &str) -> Stop {
        let mut stop = Stop::denied(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body-unreadable");
        stop.detail = Some(why.to_owned());
        self.late(stop).await
    }

    async fn permitted(
        &self,
        desk: &Desk,
        question: Asked,
        allowed: &Allowed,
        requirement: &Arc<Requirement>,
        asked: &Parts,
        whole: &Whole,
    ) -> Result<Permit, Stop> {
        self.scope.conn.holds(desk);
        let (rule, bound) = (question.rule.clone(), question.bound);
        let Reception { submitted, approval, ready } = match desk.submit(question).await {
            Ok(reception) => reception,
            Err(error) => return Err(self.broken(allowed, &error).await),
        };
        let id = approval.as_ref().map(|approval| approval.id.to_string());
        let people = approval.as_ref().map_or(0, |approval| approval.terms.quorum());
        let held = |until_unix_ms| Event::Held {
            statement: self.statement,
            approval: id.clone().unwrap_or_default(),
            rule: self.scope.conn.text(rule.as_str()),
            exact: bound.exact().to_string(),
            fingerprint: bound.fingerprint().to_string(),
            people,
            until_unix_ms,
        };
        match submitted {
            Submitted::Pass(permit) => {
                if let Some(approval) = &approval {
                    self.decided(approval.id, &approval.standing).await?;
                }
                Ok(permit)
            }
            Submitted::Refused(refusal) => {
                let mut stop = self.stop(allowed, refused(&refusal), None);
                stop.detail = Some(refusal.to_string());
                Err(self.late(stop).await)
            }
            Submitted::Later { .. } => {
                self.note(&held(0)).await?;
                Err(self.asked_again(allowed, requirement, id).await)
            }
            Submitted::Wait { waiter, until, .. } => {
                let (desk, conn) = (desk.clone(), Arc::clone(&self.scope.conn));
                let mut waits = Waits { desk, conn, statement: self.statement, waiter, over: false };
                self.note(&held(until.0)).await?;
                if let (Some(early), Some(api)) = (self.early, self.kept_alive(whole, allowed)) {
                    early.begin(api);
                }
                let Some(ready) = ready else { return Err(self.broken(allowed, &DeskError::Ended).await) };
                self.wait(&mut waits, ready, allowed, requirement, asked, whole).await
            }
        }
    }

    /// Until there is an answer, or nobody waits for one any more.
    async fn wait(
        &self,
        waits: &mut Waits,
        mut ready: tokio::sync::oneshot::Receiver<()>,
        allowed: &Allowed,
        requirement: &Arc<Requirement>,
        asked: &Parts,
        whole: &Whole,
    ) -> Result<Permit, Stop> {
        loop {
            if matches!(self.woken(&mut ready, asked).await?, Woken::Gone) {
                let status = StatusCode::REQUEST_TIMEOUT;
                let why = "the client has left while its request was held".to_owned();
                return Err(Stop::failed(Side::Downstream, status, "client-gone", why).closing());
            }
            self.still_held(allowed, requirement, asked).await?;
            let exact: Exact = bound(whole).exact();
            let Turn { taken, approval, ready: again } = match waits.desk.take(waits.waiter, exact).await {
                Ok(turn) => turn,
                Err(error) => return Err(self.broken(allowed, &error).await),
            };
            let denial = match (taken, again) {
                (Taken::Wait { .. }, Some(again)) => {
                    ready = again;
                    continue;
                }
                (Taken::Wait { .. }, None) => Denial::Unknown,
                (Taken::Release(permit), _) => {
                    waits.over = true;
                    if let Some(approval) = &approval {
                        self.decided(approval.id, &approval.standing).await?;
                    }
                    return Ok(permit);
                }
                (Taken::Denied(denial), _) => denial,
            };
            waits.over = true;
            if let Some(approval) = approval.filter(|approval| !approval.standing.is_pending()) {
                self.decided(approval.id, &approval.standing).await?;
            }
            return Err(self.denied(allowed, requirement, waits.waiter.approval(), denial).await);
        }
    }

    /// Over HTTP/2 a stream that is reset ends this task; over HTTP/1.1 nobody reads while
    /// a request is answered, so that the connection itself is looked at.
    async fn woken(
        &self,
        ready: &mut tokio::sync::oneshot::Receiver<()>,
        asked: &Parts,
    ) -> Result<Woken, Stop> {
        if asked.version >= http::Version::HTTP_2 {
            drop(ready.await);
            return Ok(Woken::Ready);
        }
        let Some(line) = &self.scope.line else {
            // It began when no rule held anything.
            let stop = Stop::denied(StatusCode::FORBIDDEN, "policy-changed").closing();
            return Err(self.late(stop).await);
        };
        tokio::select! {
            biased;
            closed = line.closed() => {
                if let Err(error) = closed {
                    tracing::warn!(%error, "whether a client waits cannot be seen");
                }
                Ok(Woken::Gone)
            }
            _ = ready => Ok(Woken::Ready),
        }
    }

    /// What people agreed to is what policy asks for now, too.
    async fn still_held(
        &self,
        allowed: &Allowed,
        requirement: &Arc<Requirement>,
        asked: &Parts,
    ) -> Result<(), Stop> {
        let policy = self.gate.policies.current();
        if *policy.hash() == allowed.policy {
            return Ok(());
        }
        let now = self.decide(&policy, &allowed.facts, asked, &allowed.inside);
        let same = now.verdict == Verdict::Hold
            && now.rule == allowed.decision.rule
            && now.hold.as_deref() == Some(&**requirement)
            && now.request_mask == allowed.decision.request_mask;
        if same {
            return Ok(());
        }
        Err(self.refuse(&policy, Stop::denied(StatusCode::FORBIDDEN, "policy-changed")).await)
    }

    async fn note(&self, event: &Event) -> Result<(), Stop> {
        self.scope.conn.record_durable(event).await.map_err(Stop::log_unavailable)
    }

    async fn decided(&self, id: ApprovalId, standing: &Standing) -> Result<(), Stop> {
        self.note(&decision(&self.scope.conn, self.statement, id, standing)).await
    }

    async fn denied(
        &self,
        allowed: &Allowed,
        requirement: &Arc<Requirement>,
        id: ApprovalId,
        denial: Denial,
    ) -> Stop {
        let approval = Some(id.to_string());
        let reason = match &denial {
            Denial::ComeAgain => return self.asked_again(allowed, requirement, approval).await,
            Denial::Rejected { .. } => "approval-rejected",
            Denial::Expired | Denial::HeldTooLong => "approval-expired",
            Denial::Cancelled(_) | Denial::Unknown => "approval-cancelled",
            Denial::UsedUp => "approval-used",
            Denial::OtherBytes => "approval-of-other-bytes",
        };
        let mut stop = self.stop(allowed, reason, approval);
        if let Denial::Rejected { reason: Some(said) } = &denial {
            stop = stop.asking(format!("whoever said no says why: {said}"));
        }
        stop.detail = Some(denial.to_string());
        self.late(stop).await
    }

    /// The client cannot be held, or not any longer: what it sends again passes.
    async fn asked_again(
        &self,
        allowed: &Allowed,
        requirement: &Arc<Requirement>,
        id: Option<String>,
    ) -> Stop {
        let groups: Vec<&str> = requirement.groups().into_iter().map(|group| group.as_str()).collect();
        let shown = id.as_deref().unwrap_or_default();
        let ask = format!(
            "ask {} to look at `enforcer approvals show {shown}` on this host and to approve it, and send the \
             same request again then: it passes within {} seconds",
            groups.join(" or "),
            requirement.retry_seconds().unwrap_or_default()
        );
        self.late(self.stop(allowed, "approval-pending", id).asking(ask)).await
    }

    async fn no(&self, allowed: &Allowed, reason: &'static str, approval: Option<String>) -> Stop {
        let stop = self.stop(allowed, reason, approval);
        self.late(stop).await
    }

    async fn broken(&self, allowed: &Allowed, error: &DeskError) -> Stop {
        let mut stop = self.stop(allowed, "approvals-unavailable", None);
        stop.status = StatusCode::SERVICE_UNAVAILABLE;
        stop.detail = Some(error.to_string());
        self.late(stop).await
    }

    /// Of the rule that held it.
    fn stop(&self, allowed: &Allowed, reason: &'static str, approval: Option<String>) -> Stop {
        Stop::held(&allowed.decision, reason, approval)
    }
}

impl Whole {
    /// As it was read: with its length if that is all there is.
    fn request(self) -> Request<WireBody> {
        let body = Full::new(self.body).map_err(|never| match never {});
        let body = match self.trailers {
            None => body.boxed_unsync(),
            Some(trailers) => body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync(),
        };
        Request::from_parts(self.parts, body)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if !self.over {
            self.desk.gone(self.waiter);
            let gone = Standing::Cancelled(crate::approval::Cancel::ClientGone);
            self.conn.note(&decision(&self.conn, self.statement, self.waiter.approval(), &gone));
        }
    }
}

/// A question with all that is known of whose it is.
pub(in super::super) async fn asked(
    desk: &Desk,
    conn: &Conn,
    told: Told,
) -> Result<Option<Asked>, DeskError> {
    let (workload, whose) = (&conn.subject.workload, conn.subject.whose.now());
    let identity = whose.as_ref().map(|bound| &*bound.identity);
    let authors = desk.authors(&told.requirement, identity).await?;
    let Some(session) = conn.session() else { return Ok(None) };
    // Nobody is to take what a job says of itself for what somebody has verified.
    let verified = identity.is_some_and(|identity| identity.assurance() > Assurance::Attested);
    let claim = |field| {
        let said = identity?.claims().get(field)?;
        Some(if verified { conn.text(said) } else { conn.text(&format!("{said} (the job's own words)")) })
    };
    // As the actor: the login without the forge.
    let author =
        authors.iter().map(|author| conn.text(author.name()).to_string()).collect::<Vec<_>>().join(", ");
    Ok(Some(Asked {
        job: desk.job(workload.tag, workload.cgroup, whose.as_ref().map(|bound| bound.job)),
        rule: told.rule,
        session,
        bound: told.bound,
        class: told.class,
        requirement: told.requirement,
        environment: stage_fact(identity, Field::Environment),
        reference: stage_fact(identity, Field::Ref),
        actor: identity.and_then(actor),
        authors,
        held: crate::approval::Held {
            repository: claim(Field::Repository),
            run: identity.and_then(run_link).map(|link| conn.text(&link)),
            actor: claim(Field::Actor),
            author: (!author.is_empty()).then(|| conn.text(&author)),
            host: told.host,
            statement: told.statement,
            effect: told.effect,
            message: told.message,
        },
    }))
}

/// All jobs that end with a workload: the one that it is known to be, and the one that it was
/// before it said so.
pub fn jobs_of(desk: &Desk, subject: &Subject) -> Vec<JobKey> {
    let workload = &subject.workload;
    let bound = subject.whose.now().map(|bound| bound.job);
    let job = |bound| desk.job(workload.tag, workload.cgroup, bound);
    bound.map(|bound| job(Some(bound))).into_iter().chain([job(None)]).collect()
}

fn bound(whole: &Whole) -> Bound {
    let uri = &whole.parts.uri;
    // A name that no field can have.
    let trailers = whole.trailers.iter().flatten();
    let trailers: Vec<(String, &[u8])> =
        trailers.map(|(name, value)| (format!("trailer:{}", name.as_str()), value.as_bytes())).collect();
    let fields = whole.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let all: Vec<(&str, &[u8])> =
        fields.chain(trailers.iter().map(|(name, value)| (name.as_str(), *value))).collect();
    Bound::request(&crate::approval::Request {
        method: whole.parts.method.as_str(),
        scheme: uri.scheme_str().unwrap_or_default(),
        authority: uri.authority().map_or("", |authority| authority.as_str()),
        path_and_query: uri.path_and_query().map_or("", |path| path.as_str()),
        headers: &all,
        body: Digest::of([&whole.body[..]]),
    })
}

fn decoded(body: Bytes, codings: &[Coding], limits: coding::Limits) -> Result<Bytes, BodyError> {
    if codings.is_empty() || body.is_empty() {
        return Ok(body);
    }
    let mut decoder = Decoder::within(codings, limits)?;
    decoder.push(body);
    decoder.finish();
    let mut plain = Vec::new();
    while let Some(piece) = decoder.next()? {
        plain.extend_from_slice(&piece);
    }
    Ok(plain.into())
}

pub(in super::super) fn refused(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoStage(_) => "no-stage",
        Refusal::Parties(_) => "actor-unknown",
        Refusal::NobodyCanDecide { .. } => "nobody-can-approve",
        Refusal::Flood(_) => "too-many-approvals",
    }
}

/// What became of a question, as it is recorded.
pub(in super::super) fn decision(conn: &Conn, statement: u32, id: ApprovalId, standing: &Standing) -> Event {
    let texts = |accounts: &[crate::approval::Account]| {
        accounts.iter().map(|account| conn.text(&account.to_string())).collect()
    };
    let (outcome, by, reason) = match standing {
        Standing::Pending => ("pending", Vec::new(), None),
        Standing::Approved(Basis::Quorum { by }) => ("approved", texts(by), None),
        Standing::Approved(Basis::BreakGlass { by, reason }) => {
            ("break-glass", vec![conn.text(by.as_str())], Some(conn.text(reason.as_str())))
        }
        Standing::Rejected { by, reason } => {
            let reason = reason.as_ref().map(|reason| conn.text(reason.as_str()));
            ("rejected", texts(std::slice::from_ref(by)), reason)
        }
        Standing::Expired => ("expired", Vec::new(), None),
        Standing::Cancelled(_) => ("cancelled", Vec::new(), None),
    };
    Event::Decided { statement, approval: id.to_string(), outcome, by, reason }
}
