//! What people say to questions that are open, as the loader passes it on from `admin.sock`.
//!
//! **Invariant**: who decides is known from a token that is verified here, for each answer
//! anew. That somebody is root on the host makes nobody a decider: root has `break-glass`, which
//! is recorded as what it is.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::approval::config::decider;
use crate::approval::{ApprovalId, Decided, Desk, Ignored, Listed, Scope, Seen, Spoken, Standing};
use crate::mask::Masker;
use crate::workload::identity::Verifier;
use crate::workload::wire::{ApprovalsRequest, Said};

/// Bytes of one answer: the loader passes it on in one message.
const MAX_ANSWER: usize = 96 * 1024;
/// Bytes of a statement in a list.
const LISTED: usize = 200;

/// Where people look and decide.
pub struct Approvals {
    pub desk: Desk,
    pub verifier: Verifier,
    /// Masks what people write.
    pub everything: Masker,
}

impl Approvals {
    /// Answers one question of an administrator; an error is for people.
    pub async fn answer(&self, request: ApprovalsRequest, by_uid: u32) -> Result<Value, String> {
        match request {
            ApprovalsRequest::Ls { all, after } => self.list(all, after).await,
            ApprovalsRequest::Show { approval } => Ok(whole(&self.get(&approval).await?)),
            ApprovalsRequest::Decide { approval, seen, said, reason, token } => {
                let (id, seen) = (named(&approval)?, seen_as(&seen)?);
                let shown = Box::pin(self.verifier.verify(&token.0, SystemTime::now())).await;
                let shown = shown.map_err(|refusal| {
                    tracing::warn!(
                        approval,
                        reason = refusal.reason(),
                        "an answer without a login that counts"
                    );
                    refusal.to_string().replace("[identity]", "[approvals]")
                })?;
                let (by, groups) = decider(shown.identity());
                let reason = reason.as_deref().map(|reason| self.everything.text(reason).0);
                let scope = match said {
                    Said::No => None,
                    Said::Once => Some(Scope::Once),
                    Said::Session => Some(Scope::Session),
                    Said::Job { minutes } => Some(Scope::Job { minutes }),
                };
                tracing::info!(approval, by = %by, yes = scope.is_some(), "an answer");
                let spoken = Spoken { approval: id, seen, by, groups, scope, reason };
                let decided = self.desk.decide(spoken).await.map_err(|error| error.to_string())?;
                self.told(&approval, decided).await
            }
            ApprovalsRequest::BreakGlass { approval, seen, reason } => {
                let (id, seen) = (named(&approval)?, seen_as(&seen)?);
                if reason.trim().is_empty() {
                    return Err("break-glass needs a reason, which is recorded".to_owned());
                }
                tracing::warn!(approval, by_uid, "break-glass");
                let by = self.everything.text(&format!("uid {by_uid} on this host")).0;
                let reason = self.everything.text(&reason).0;
                let decided = self.desk.break_glass(id, seen, by, reason).await;
                self.told(&approval, decided.map_err(|error| error.to_string())?).await
            }
        }
    }

    async fn list(&self, all: bool, after: Option<String>) -> Result<Value, String> {
        let after = after.map(|id| named(&id)).transpose()?;
        let listed = self.desk.list(all).await.map_err(|error| error.to_string())?;
        let (mut answer, mut bytes, mut more) = (Vec::new(), 0, false);
        for one in listed.iter().filter(|one| after.is_none_or(|after| one.approval.id > after)) {
            let value = summary(one);
            bytes += value.to_string().len();
            if bytes > MAX_ANSWER {
                more = true;
                break;
            }
            answer.push(value);
        }
        Ok(json!({ "approvals": answer, "more": more }))
    }

    async fn get(&self, approval: &str) -> Result<Listed, String> {
        let found = self.desk.get(named(approval)?).await.map_err(|error| error.to_string())?;
        found.ok_or_else(|| format!("there is no approval {approval}, or it was forgotten"))
    }

    async fn told(&self, approval: &str, decided: Decided) -> Result<Value, String> {
        let message = match decided {
            Decided::Approved { once: true, .. } => format!("{approval} is approved, for one request"),
            Decided::Approved { once: false, .. } => format!("{approval} is approved, for what was said"),
            Decided::Counted { have, need } => format!("your yes counts: {have} of {need}"),
            Decided::Repeated { have, need } => {
                format!("you had said so before, by this login or another: {have} of {need}")
            }
            Decided::Rejected => format!("{approval} is rejected"),
            Decided::Ignored(why) => return Err(ignored(why)),
            Decided::Unknown => return Err(format!("there is no approval {approval}, or it was forgotten")),
        };
        let approval = self.get(approval).await?;
        Ok(json!({ "message": message, "approval": whole(&approval) }))
    }
}

fn ignored(why: Ignored) -> String {
    match why {
        Ignored::Late => {
            "it is decided already, or was not decided in time: the answer changes nothing".to_owned()
        }
        Ignored::Changed => {
            "another request has taken the place of the one that was shown: look at it again".to_owned()
        }
        Ignored::NotEligible(why) => format!("you cannot decide this: {why}"),
        Ignored::ScopeTooWide => "the rule does not let anybody approve as far: see `offers`".to_owned(),
        Ignored::TooManyVotes => "too many have answered already".to_owned(),
    }
}

fn named(id: &str) -> Result<ApprovalId, String> {
    id.parse().map_err(|error: crate::approval::NotAnApproval| error.to_string())
}

fn seen_as(text: &str) -> Result<Seen, String> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| "`seen` is not what `enforcer approvals show` says".to_owned())
}

/// All of it. What does not fit into a message is the statement, which is shortened then.
fn whole(listed: &Listed) -> Value {
    let approval = &listed.approval;
    let mut value = serde_json::to_value(approval).unwrap_or_default();
    value["id"] = approval.id.to_string().into();
    value["state"] = state(&approval.standing).into();
    value["waiting"] = listed.waiting.into();
    value["granted"] = listed.granted.into();
    if value.to_string().len() > MAX_ANSWER {
        let statement = value["view"]["statement"].as_str().unwrap_or_default();
        let begin: String = statement.chars().take(LISTED).collect();
        value["view"]["statement"] = format!("{begin}<the rest is too long to show>").into();
        value["votes"] = Value::Null;
    }
    value
}

/// One line's worth.
fn summary(listed: &Listed) -> Value {
    let (approval, view) = (&listed.approval, &listed.approval.view);
    let first = view.statement.as_str().lines().next().unwrap_or_default();
    json!({
        "id": approval.id.to_string(),
        "state": state(&approval.standing),
        "applies": approval.applies,
        "rule": approval.rule,
        "repository": view.repository,
        "actor": view.actor,
        "host": view.host,
        "statement": first.chars().take(LISTED).collect::<String>(),
        "opened": approval.opened,
        "expires": approval.expires,
        "votes": approval.votes.len(),
        "people": approval.terms.quorum(),
        "waiting": listed.waiting,
        "seen": approval.seen,
    })
}

fn state(standing: &Standing) -> &'static str {
    match standing {
        Standing::Pending => "pending",
        Standing::Approved(_) => "approved",
        Standing::Rejected { .. } => "rejected",
        Standing::Expired => "expired",
        Standing::Cancelled(_) => "cancelled",
    }
}
