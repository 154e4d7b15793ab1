//! A tool call that a rule holds: it waits here until people have agreed, and its client with it.
//!
//! It is asked about as a request is, by the same desk: bound to all the bytes that wait, and,
//! for a client that cannot wait, to the tool's name and its arguments.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use tokio::sync::oneshot;

use crate::approval::{
    Asked, Bound, Denial, Desk, DeskError, Permit, Reception, RuleKey, Submitted, Taken, Turn,
};
use crate::mask::MaskedText;
use crate::policy::{Decision, Policy, Requirement, Verdict};
use crate::protocol::llm::Item;
use crate::session::{Event, Side};

use super::super::Stop;
use super::super::request::hold::{Told, Waits, asked, decision as decided, refused};
use super::{Given, Judged, Tools, of_a_call};

impl Tools {
    pub(super) async fn held(
        &self,
        policy: &Policy,
        decision: &Decision,
        judged: &Judged<'_>,
    ) -> Result<(), Stop> {
        let (Some(desk), Some(requirement)) = (&self.desk, &decision.hold) else {
            return Err(self.no(decision, "approvals-not-configured", None).await);
        };
        let conn = &self.conn;
        let bound = self.bound(judged);
        let rule = RuleKey::new(decision.rule.as_ref().map_or("", |rule| rule.as_str()));
        let question = match self.question(desk, requirement, decision, judged, bound).await {
            Ok(question) => question.ok_or_else(|| Stop::log_unavailable("no session"))?,
            Err(error) => return Err(self.broken(decision, &error).await),
        };
        conn.holds(desk);
        let Reception { submitted, approval, ready } = match desk.submit(question).await {
            Ok(reception) => reception,
            Err(error) => return Err(self.broken(decision, &error).await),
        };
        let id = approval.as_ref().map(|approval| approval.id.to_string());
        let people = approval.as_ref().map_or(0, |approval| approval.terms.quorum());
        let held = |until_unix_ms| Event::Held {
            statement: self.statement,
            approval: id.clone().unwrap_or_default(),
            rule: conn.text(rule.as_str()),
            exact: bound.exact().to_string(),
            fingerprint: bound.fingerprint().to_string(),
            people,
            until_unix_ms,
        };
        let permit = match submitted {
            Submitted::Pass(permit) => {
                if let Some(approval) = &approval {
                    self.note(&decided(conn, self.statement, approval.id, &approval.standing)).await?;
                }
                permit
            }
            Submitted::Refused(refusal) => {
                let mut stop = Stop::held(decision, refused(&refusal), None);
                stop.detail = Some(refusal.to_string());
                return Err(of_a_call(self.refuse(stop).await));
            }
            Submitted::Later { .. } => {
                self.note(&held(0)).await?;
                return Err(self.asked_again(decision, requirement, id).await);
            }
            Submitted::Wait { waiter, until, .. } => {
                let mut waits = Waits {
                    desk: desk.clone(),
                    conn: Arc::clone(conn),
                    statement: self.statement,
                    waiter,
                    over: false,
                };
                self.note(&held(until.0)).await?;
                let Some(ready) = ready else { return Err(self.broken(decision, &DeskError::Ended).await) };
                self.wait(&mut waits, ready, policy, decision, judged, bound).await?
            }
        };
        let (approval, exact) = (permit.approval().to_string(), permit.exact());
        if exact != bound.exact() {
            return Err(self.no(decision, "approval-of-other-bytes", Some(approval)).await);
        }
        self.note(&Event::HoldReleased { statement: self.statement, approval, exact: exact.to_string() })
            .await
    }

    fn bound(&self, judged: &Judged<'_>) -> Bound {
        let (request, authority, call) = (&self.request, self.request.authority(), judged.call);
        let scheme = if request.tls { "https" } else { "http" };
        let asked = [request.method.as_str(), scheme, &authority, &request.path];
        let name = match call.item {
            Item::Tool => Cow::Borrowed(call.name.as_str()),
            // No tool is called so.
            Item::Code => Cow::Owned(format!("```{}", call.name)),
        };
        Bound::tool_call(judged.group.bytes, asked, &name, &call.arguments)
    }

    /// What people are asked.
    async fn question(
        &self,
        desk: &Desk,
        requirement: &Arc<Requirement>,
        decision: &Decision,
        judged: &Judged<'_>,
        bound: Bound,
    ) -> Result<Option<Asked>, DeskError> {
        let conn = &self.conn;
        let told = Told {
            rule: RuleKey::new(decision.rule.as_ref().map_or("", |rule| rule.as_str())),
            bound,
            class: judged.group.class,
            requirement: Arc::clone(requirement),
            host: conn.text(&self.request.authority()),
            statement: self.shown(judged),
            effect: effect(judged).map(|text| conn.text(&text)),
            message: decision.message.as_deref().map(|message| conn.text(message)),
        };
        asked(desk, conn, told).await
    }

    /// Until there is an answer, or nobody waits for one any more.
    async fn wait(
        &self,
        waits: &mut Waits,
        mut ready: oneshot::Receiver<()>,
        policy: &Policy,
        decision: &Decision,
        judged: &Judged<'_>,
        bound: Bound,
    ) -> Result<Permit, Stop> {
        loop {
            self.woken(&mut ready).await?;
            self.still_held(policy, decision, judged).await?;
            let Turn { taken, approval, ready: again } =
                match waits.desk.take(waits.waiter, bound.exact()).await {
                    Ok(turn) => turn,
                    Err(error) => return Err(self.broken(decision, &error).await),
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
                        self.note(&decided(&self.conn, self.statement, approval.id, &approval.standing))
                            .await?;
                    }
                    return Ok(permit);
                }
                (Taken::Denied(denial), _) => denial,
            };
            waits.over = true;
            if let Some(approval) = approval.filter(|approval| !approval.standing.is_pending()) {
                self.note(&decided(&self.conn, self.statement, approval.id, &approval.standing)).await?;
            }
            return Err(self.denied(decision, waits.waiter.approval().to_string(), &denial).await);
        }
    }

    /// A client that leaves takes this with it where its body is asked for; where its answer has
    /// not begun over HTTP/1.1, its connection is looked at.
    async fn woken(&self, ready: &mut oneshot::Receiver<()>) -> Result<(), Stop> {
        let Some(line) = self.line.as_ref().filter(|_| self.http1) else {
            drop(ready.await);
            return Ok(());
        };
        tokio::select! {
            biased;
            closed = line.closed() => {
                if let Err(error) = closed {
                    tracing::warn!(%error, "whether a client waits cannot be seen");
                }
                let status = StatusCode::REQUEST_TIMEOUT;
                let why = "the client has left while a tool call was held".to_owned();
                Err(Stop::failed(Side::Downstream, status, "client-gone", why).closing())
            }
            _ = ready => Ok(()),
        }
    }

    /// What people agreed to is what policy asks for now, too.
    async fn still_held(
        &self,
        policy: &Policy,
        decision: &Decision,
        judged: &Judged<'_>,
    ) -> Result<(), Stop> {
        let newest = self.policies.current();
        if newest.hash() == policy.hash() {
            return Ok(());
        }
        if same(decision, &self.decide(&newest, judged)) {
            return Ok(());
        }
        Err(self.changed().await)
    }

    /// Nothing is released by what an older policy said: people may have taken long over one call
    /// of several.
    pub(super) async fn still_all(&self, verdicts: &[Given<'_>]) -> Result<(), Stop> {
        let newest = self.policies.current();
        let older = verdicts.iter().filter(|given| given.policy.hash() != newest.hash());
        for given in older {
            if !same(&given.decision, &self.decide(&newest, &given.judged)) {
                return Err(self.changed().await);
            }
        }
        Ok(())
    }

    async fn changed(&self) -> Stop {
        of_a_call(self.refuse(Stop::denied(StatusCode::FORBIDDEN, "policy-changed")).await)
    }

    /// The whole of it for the eyes of people: masked.
    fn shown(&self, judged: &Judged<'_>) -> MaskedText {
        let model = judged.group.model.as_deref().unwrap_or("a model");
        let request = &self.request;
        let asked = format!("the answer to {} {}{}", request.method, request.authority(), request.path);
        let (name, arguments) = (&judged.call.name, &judged.call.arguments);
        let text = match judged.call.item {
            Item::Tool => {
                format!("{model} asks, in {asked}, for the tool\n{name}\nwith the arguments\n{arguments}")
            }
            Item::Code => format!("{model} gives, in {asked}, this code\n```{name}\n{arguments}"),
        };
        self.conn.text(&text)
    }

    async fn note(&self, event: &Event) -> Result<(), Stop> {
        self.conn.record_durable(event).await.map_err(Stop::log_unavailable)
    }

    async fn denied(&self, decision: &Decision, approval: String, denial: &Denial) -> Stop {
        let reason = match denial {
            Denial::ComeAgain => {
                let Some(requirement) = &decision.hold else {
                    return self.no(decision, "approval-expired", Some(approval)).await;
                };
                return self.asked_again(decision, requirement, Some(approval)).await;
            }
            Denial::Rejected { .. } => "approval-rejected",
            Denial::Expired | Denial::HeldTooLong => "approval-expired",
            Denial::Cancelled(_) | Denial::Unknown => "approval-cancelled",
            Denial::UsedUp => "approval-used",
            Denial::OtherBytes => "approval-of-other-bytes",
        };
        let mut stop = Stop::held(decision, reason, Some(approval));
        if let Denial::Rejected { reason: Some(said) } = denial {
            stop = stop.asking(format!("whoever said no says why: {said}"));
        }
        stop.detail = Some(denial.to_string());
        of_a_call(self.refuse(stop).await)
    }

    /// The client cannot wait, or not any longer: the same call passes when it comes again.
    async fn asked_again(&self, decision: &Decision, requirement: &Requirement, id: Option<String>) -> Stop {
        let groups: Vec<&str> = requirement.groups().into_iter().map(|group| group.as_str()).collect();
        let shown = id.as_deref().unwrap_or_default();
        let ask = format!(
            "ask {} to look at `enforcer approvals show {shown}` on this host and to approve it; if the model \
             then says the same again, within {} seconds, it passes",
            groups.join(" or "),
            requirement.retry_seconds().unwrap_or_default()
        );
        of_a_call(self.refuse(Stop::held(decision, "approval-pending", id).asking(ask)).await)
    }

    async fn no(&self, decision: &Decision, reason: &'static str, approval: Option<String>) -> Stop {
        of_a_call(self.refuse(Stop::held(decision, reason, approval)).await)
    }

    async fn broken(&self, decision: &Decision, error: &DeskError) -> Stop {
        let mut stop = Stop::held(decision, "approvals-unavailable", None);
        stop.status = StatusCode::SERVICE_UNAVAILABLE;
        stop.detail = Some(error.to_string());
        of_a_call(self.refuse(stop).await)
    }
}

/// Whether what was done about a call is what policy asks for now.
fn same(then: &Decision, now: &Decision) -> bool {
    let held = |decision: &Decision| decision.verdict == Verdict::Hold;
    match held(then) || held(now) {
        true => held(then) && held(now) && now.rule == then.rule && now.hold == then.hold,
        false => now.verdict != Verdict::Deny,
    }
}

/// What a command in it would do, which its text may hide.
fn effect(judged: &Judged<'_>) -> Option<String> {
    let risks: Vec<String> =
        judged.risks.iter().map(|risk| format!("{}: {}", risk.effect.as_str(), risk.what)).collect();
    (!risks.is_empty()).then(|| risks.join("; "))
}
