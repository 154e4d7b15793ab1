//! What waits for people, and what they say to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::approval::ApprovalId;
use crate::workload::wire::{ApprovalsRequest, JobToken, Said as Answer};

use super::approvals_view::{Row, Whole};
use super::limits::{LIST_KEPT, REASON};
use super::logins::{Login, Role};
use super::page::{Head, Said, Still, Who, now_unix_ms, refusal, rendered};
use super::ticket::same;
use super::{Web, WebRequest};

/// Pages of an answer that are put together.
const PARTS: usize = 64;

/// What is open, as it was a moment ago: many may look, and the proxy has other work.
#[derive(Default)]
pub struct Cache {
    open: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Value>>)>>,
    /// After a vote it is out of date.
    stale: Mutex<bool>,
}

#[derive(Deserialize)]
pub struct Which {
    #[serde(default)]
    all: Option<String>,
}

#[derive(Template)]
#[template(path = "web/approvals.html")]
struct ListPage {
    head: Head,
    list: List,
}

#[derive(Template)]
#[template(path = "web/approvals_list.html")]
struct List {
    all: bool,
    rows: Vec<Row>,
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "web/approval.html")]
struct ShowPage {
    head: Head,
    may_decide: bool,
    one: Whole,
    state: Standing,
}

#[derive(Template)]
#[template(path = "web/approval_state.html")]
struct Standing {
    one: Whole,
    /// Another request has taken the place of the one that was shown.
    changed: bool,
}

impl Web {
    async fn approvals(&self, request: ApprovalsRequest) -> Result<Value, String> {
        self.ask.ask(WebRequest::Approvals { request: Box::new(request) }).await
    }

    async fn listed(&self, all: bool) -> Result<Arc<Vec<Value>>, String> {
        if all {
            return self.read(true).await.map(Arc::new);
        }
        let mut kept = self.listed.open.lock().await;
        let stale = std::mem::take(&mut *self.listed.stale.lock().unwrap_or_else(PoisonError::into_inner));
        match &*kept {
            Some((at, listed)) if !stale && at.elapsed() < LIST_KEPT => Ok(Arc::clone(listed)),
            _ => {
                let listed = Arc::new(self.read(false).await?);
                *kept = Some((Instant::now(), Arc::clone(&listed)));
                Ok(listed)
            }
        }
    }

    async fn read(&self, all: bool) -> Result<Vec<Value>, String> {
        let (mut listed, mut after) = (Vec::new(), None);
        for _ in 0..PARTS {
            let answer = self.approvals(ApprovalsRequest::Ls { all, after }).await?;
            let some = answer["approvals"].as_array().cloned().unwrap_or_default();
            after = some.last().and_then(|last| last["id"].as_str()).map(str::to_owned);
            listed.extend(some);
            if answer["more"] != true || after.is_none() {
                break;
            }
        }
        Ok(listed)
    }

    async fn rows(&self, all: bool) -> List {
        let now = now_unix_ms();
        match self.listed(all).await {
            Ok(listed) => {
                let mut rows: Vec<Row> = listed.iter().map(|one| Row::of(one, now)).collect();
                if all {
                    rows.reverse();
                }
                List { all, rows, problem: None }
            }
            Err(problem) => List { all, rows: Vec::new(), problem: Some(problem) },
        }
    }

    async fn one(&self, id: ApprovalId) -> Result<Whole, String> {
        let value = self.approvals(ApprovalsRequest::Show { approval: id.to_string() }).await?;
        Ok(Whole::of(&value, now_unix_ms()))
    }
}

pub async fn list(
    State(web): State<Arc<Web>>,
    Who(login): Who,
    Query(Which { all }): Query<Which>,
) -> Response {
    let head = Head::of(&login, "What waits", "approvals");
    rendered(StatusCode::OK, &ListPage { head, list: web.rows(all.is_some()).await })
}

pub async fn list_again(
    State(web): State<Arc<Web>>,
    _: Still,
    Query(Which { all }): Query<Which>,
) -> Response {
    rendered(StatusCode::OK, &web.rows(all.is_some()).await)
}

pub async fn show(State(web): State<Arc<Web>>, Who(login): Who, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<ApprovalId>() else { return unknown(&login) };
    match web.one(id).await {
        Ok(one) => shown(&login, StatusCode::OK, one),
        Err(why) => not_done(&login, &why, "/approvals".to_owned(), StatusCode::NOT_FOUND),
    }
}

fn shown(login: &Login, status: StatusCode, one: Whole) -> Response {
    let head = Head::of(login, "A request that waits", "approvals");
    let may_decide = login.role >= Role::Approver && one.pending;
    let state = Standing { one: one.clone(), changed: false };
    rendered(status, &ShowPage { head, may_decide, one, state })
}

#[derive(Deserialize)]
pub struct Seen {
    seen: String,
}

pub async fn state_again(
    State(web): State<Arc<Web>>,
    _: Still,
    Path(id): Path<String>,
    Query(Seen { seen }): Query<Seen>,
) -> Response {
    let Ok(id) = id.parse::<ApprovalId>() else { return StatusCode::NOT_FOUND.into_response() };
    match web.one(id).await {
        Ok(one) => {
            let changed = one.seen != seen;
            rendered(StatusCode::OK, &Standing { one, changed })
        }
        // What stands there stays, and is asked for again.
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

/// The form below an approval.
#[derive(Deserialize)]
pub struct Decision {
    csrf: String,
    seen: String,
    said: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    minutes: String,
    #[serde(default)]
    reason: String,
}

impl Decision {
    fn answer(&self) -> Option<Answer> {
        match (self.said.as_str(), self.scope.as_str()) {
            ("no", _) => Some(Answer::No),
            ("yes", "" | "once") => Some(Answer::Once),
            ("yes", "session") => Some(Answer::Session),
            ("yes", "job") => self.minutes.parse().ok().map(|minutes| Answer::Job { minutes }),
            _ => None,
        }
    }
}

pub async fn decide(
    State(web): State<Arc<Web>>,
    Who(login): Who,
    Path(id): Path<String>,
    Form(form): Form<Decision>,
) -> Response {
    let Ok(id) = id.parse::<ApprovalId>() else { return unknown(&login) };
    let here = format!("/approvals/{id}");
    if let Some(answer) = refusal(&login, Role::Approver) {
        return answer;
    }
    let wrong = |why: &str, status| not_done(&login, why, here.clone(), status);
    if !same(&form.csrf, &login.csrf) {
        return wrong("This form is of another login. Nothing was decided.", StatusCode::FORBIDDEN);
    }
    let Some(said) = form.answer() else {
        return wrong("This is neither a yes nor a no. Nothing was decided.", StatusCode::BAD_REQUEST);
    };
    let reason = form.reason.trim();
    if reason.len() > REASON {
        let why = format!("The reason is longer than {REASON} bytes. Nothing was decided.");
        return wrong(&why, StatusCode::BAD_REQUEST);
    }
    if now_unix_ms() / 1000 >= login.person.ends {
        return log_in_again(&login, here);
    }
    let request = ApprovalsRequest::Decide {
        approval: id.to_string(),
        seen: form.seen.clone(),
        said,
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        token: JobToken(login.person.token.clone()),
    };
    let answer = web.approvals(request).await;
    *web.listed.stale.lock().unwrap_or_else(PoisonError::into_inner) = true;
    match answer {
        Ok(answer) => {
            let says = super::page::text(&answer["message"]);
            let head = Head::of(&login, "Your answer", "approvals");
            Said { head, says, next: (here, "Look at it") }.with(StatusCode::OK)
        }
        Err(why) => wrong(&format!("Nothing was decided: {why}."), StatusCode::CONFLICT),
    }
}

/// What the proxy would say too.
fn log_in_again(login: &Login, here: String) -> Response {
    let says = "For deciding, your login has ended: it counts as long as its ID token does. Nothing was decided. Log \
                in again, and you come back to this request.";
    let head = Head::of(login, "Log in again", "approvals");
    let to = format!("/login/start?to={}", super::oidc::escaped(&here));
    Said { head, says: says.to_owned(), next: (to, "Log in again") }.with(StatusCode::UNAUTHORIZED)
}

fn not_done(login: &Login, why: &str, here: String, status: StatusCode) -> Response {
    let head = Head::of(login, "Nothing was decided", "approvals");
    let says = crate::session::read::visible(why);
    Said { head, says, next: (here, "Look again") }.with(status)
}

fn unknown(login: &Login) -> Response {
    not_done(login, "There is no such request.", "/approvals".to_owned(), StatusCode::NOT_FOUND)
}
