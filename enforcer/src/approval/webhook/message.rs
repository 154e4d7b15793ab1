//! What a webhook says of an approval: JSON for programs. Chats get the same in their own forms.
//!
//! **Invariant**: of what a job wrote, nothing stands here but what is [`Shown`] to whoever
//! decides: masked, and with what hides written out.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::config::Kind;
use crate::approval::ids::UnixMs;
use crate::approval::people::Account;
use crate::approval::record::{Applies, Approval, Basis, Cancel, Standing};
use crate::approval::visible::{LINE_MAX, Shown, visible};
use crate::policy::Need;

/// The version of what is sent: another one where a field goes or means something else.
const VERSION: u32 = 1;

/// Where messages come from.
#[derive(Debug, Default)]
pub struct Sender {
    /// The host's name.
    pub host: String,
    /// The web page, if there is one: scheme and host.
    pub page: Option<String>,
}

/// All that is said. Names of the fields are what receivers rely on.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    version: u32,
    /// Of the message, the same in all attempts to send it.
    id: &'a str,
    pub event: String,
    pub host: &'a str,
    pub approval: String,
    pub state: &'static str,
    pub applies: &'static str,
    pub who: Who<'a>,
    pub what: What<'a>,
    pub rule: &'a str,
    /// What the rule says about itself.
    pub message: Option<&'a str>,
    pub needs: &'a [Need],
    pub since: String,
    pub until: String,
    /// Where people look at it and decide.
    pub link: Option<String>,
    pub decision: Option<Decision<'a>>,
}

#[derive(Debug, Serialize)]
pub struct Who<'a> {
    pub repository: Option<&'a str>,
    pub run: Option<&'a str>,
    pub actor: Option<&'a str>,
    pub author: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct What<'a> {
    pub host: &'a str,
    pub statement: &'a str,
    pub effect: Option<&'a str>,
}

/// How it ended.
#[derive(Debug, Serialize)]
pub struct Decision<'a> {
    pub at: String,
    pub by: Vec<String>,
    /// Whether root has let it go past the people who were asked.
    pub break_glass: bool,
    pub reason: Option<&'a str>,
}

impl<'a> Message<'a> {
    pub fn new(id: &'a str, approval: &'a Approval, sender: &'a Sender) -> Self {
        let (view, kind) = (&approval.view, Kind::of(&approval.standing));
        let text = |shown: &'a Option<Shown>| shown.as_ref().map(Shown::as_str);
        Self {
            version: VERSION,
            id,
            event: format!("approval.{}", kind.as_str()),
            host: &sender.host,
            approval: approval.id.to_string(),
            state: kind.as_str(),
            applies: match approval.applies {
                Applies::Waiting => "waiting",
                Applies::Retry => "retry",
            },
            who: Who {
                repository: text(&view.repository),
                run: text(&view.run),
                actor: text(&view.actor),
                author: text(&view.author),
            },
            what: What {
                host: view.host.as_str(),
                statement: view.statement.as_str(),
                effect: text(&view.effect),
            },
            rule: approval.rule.as_str(),
            message: text(&view.message),
            needs: &approval.terms.needs,
            since: moment(approval.opened),
            until: moment(approval.expires),
            link: sender.page.as_ref().map(|page| format!("{page}/approvals/{}", approval.id)),
            decision: decision(approval),
        }
    }

    /// `2 of ops or web, 1 of security`
    pub fn needed(&self) -> String {
        let groups = |need: &Need| need.groups.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(" or ");
        let needs = self.needs.iter().map(|need| format!("{} of {}", need.people, groups(need)));
        needs.collect::<Vec<_>>().join(", ")
    }
}

fn decision(approval: &Approval) -> Option<Decision<'_>> {
    let (by, break_glass, reason) = match &approval.standing {
        Standing::Pending => return None,
        Standing::Approved(Basis::Quorum { by }) => (by.iter().map(named).collect(), false, None),
        Standing::Approved(Basis::BreakGlass { by, reason }) => {
            (vec![by.as_str().to_owned()], true, Some(reason.as_str()))
        }
        Standing::Rejected { by, reason } => (vec![named(by)], false, reason.as_ref().map(Shown::as_str)),
        Standing::Expired => (Vec::new(), false, None),
        Standing::Cancelled(why) => (Vec::new(), false, Some(cancelled(*why))),
    };
    let at = moment(approval.ended.unwrap_or(approval.opened));
    Some(Decision { at, by, break_glass, reason })
}

fn cancelled(why: Cancel) -> &'static str {
    match why {
        Cancel::ClientGone => "the client that waited has gone",
        Cancel::JobEnded => "the job has ended",
        Cancel::Restarted => "the service was started anew",
        Cancel::ClockWentBack => "the host's clock went back",
    }
}

/// As its issuer has it, which is not us.
fn named(account: &Account) -> String {
    visible(&account.to_string().chars().take(LINE_MAX).collect::<String>(), false)
}

fn moment(at: UnixMs) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
