//! The policy in force, and how the host is.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use crate::policy::{Hits, Policy};

use super::logins::Role;
use super::page::{Head, Said, Who, refusal, rendered, text};
use super::{Web, WebRequest};

#[derive(Template)]
#[template(path = "web/policy.html")]
struct PolicyPage {
    head: Head,
    hash: String,
    problem: String,
    /// How often each rule had a say; None if the policy has just become another one.
    hits: Option<Hits>,
    /// Names and texts, if they are what is in force.
    files: Option<Vec<(String, String)>>,
}

#[derive(Template)]
#[template(path = "web/health.html")]
struct HealthPage {
    head: Head,
    whole: bool,
    facts: Vec<(String, String)>,
    /// What is not as it should be.
    problems: Vec<String>,
}

pub async fn policy(State(web): State<Arc<Web>>, Who(login): Who) -> Response {
    let status = match web.ask.ask(WebRequest::Status {}).await {
        Ok(status) => status,
        Err(why) => return unknown(&login, &why),
    };
    let (hash, problem) = (text(&status["proxy"]["policy"]), text(&status["proxy"]["policy_problem"]));
    let of_host = text(&status["proxy"]["policy_of_host"]);
    let hits = web.ask.ask(WebRequest::Hits {}).await.ok();
    let hits = hits.and_then(|hits| serde_json::from_value::<Hits>(hits).ok());
    let hits = hits.filter(|hits| hits.policy == hash);
    let dir = web.policy_dir.clone();
    let found = tokio::task::spawn_blocking(move || Policy::read_dir(&dir)).await;
    let files = found.ok().and_then(Result::ok).filter(|files| Policy::hash_of(files).as_str() == of_host);
    let head = Head::of(&login, "Policy in force", "policy");
    rendered(StatusCode::OK, &PolicyPage { head, hash, problem, hits, files })
}

pub async fn health(State(web): State<Arc<Web>>, Who(login): Who) -> Response {
    if let Some(answer) = refusal(&login, Role::Admin) {
        return answer;
    }
    match web.ask.ask(WebRequest::Status {}).await {
        Ok(status) => rendered(StatusCode::OK, &HealthPage::of(Head::of(&login, "Host", "host"), &status)),
        Err(why) => unknown(&login, &why),
    }
}

fn unknown(login: &super::Login, why: &str) -> Response {
    let head = Head::of(login, "Not known", "");
    let says = crate::session::read::visible(why);
    Said { head, says, next: ("/".to_owned(), "Go to what waits") }.with(StatusCode::BAD_GATEWAY)
}

impl HealthPage {
    fn of(head: Head, status: &Value) -> Self {
        let each = |key: &str| status[key].as_array().cloned().unwrap_or_default();
        let proxy = &status["proxy"];
        let said = |value: &Value| match value {
            Value::Null => "none".to_owned(),
            Value::String(_) => text(value),
            other => crate::session::read::visible(&other.to_string()),
        };
        let mut facts: Vec<(String, String)> = vec![
            ("Version".to_owned(), said(&status["version"])),
            (
                "Proxy".to_owned(),
                format!(
                    "pid {}, {} connections open",
                    said(&status["proxy_pid"]),
                    said(&proxy["connections"])
                ),
            ),
            ("Policy".to_owned(), said(&proxy["policy"])),
            ("Recording".to_owned(), said(&proxy["recording"])),
            ("Waiting for people".to_owned(), said(&proxy["approvals"]["pending"])),
            ("Jobs".to_owned(), each("jobs").len().to_string()),
        ];
        for tier in each("tiers") {
            facts.push((
                format!("Tier {}", text(&tier["name"])),
                format!("{} {}", text(&tier["state"]), text(&tier["why"])),
            ));
        }
        for scope in each("scopes") {
            facts.push((
                format!("Scope {}", text(&scope["name"])),
                format!("{} cgroup(s)", said(&scope["cgroups"])),
            ));
        }
        let mut problems = Vec::new();
        let mut problem = |what: &str, value: &Value| {
            if value.is_string() {
                problems.push(format!("{what}: {}", text(value)));
            }
        };
        problem("proxy", &proxy["problem"]);
        problem("policy", &proxy["policy_problem"]);
        problem("approvals", &proxy["approvals"]["problem"]);
        problem("interfaces", &status["interfaces"]["problem"]);
        problem("watch", &status["unwatched"]);
        problem("changed", &status["tampered"]);
        for key in ["pins", "scopes"] {
            for one in each(key) {
                problem(&text(&one["name"]), &one["problem"]);
            }
        }
        Self { head, whole: status["healthy"] == true, facts, problems }
    }
}
