//! `enforcer status`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use miette::{IntoDiagnostic, miette};
use serde_json::Value;

use super::out::Form;
use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;
use crate::session::read::visible;

/// Show scopes, pins, policy and health
///
/// Exit code: 0 if enforcement is whole, 1 if it is not or no service answers.
#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[command(flatten)]
    form: Form,
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn lifted(entry: &Value) -> String {
    entry["lifted_until_unix_ms"].as_u64().map_or_else(String::new, |until| {
        let left = until.saturating_sub(now_unix_ms()) / 1000;
        format!("  NOT ENFORCED for {left} s more")
    })
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)?;
        let reply = ask(&config.admin_socket(), &AdminRequest::Status).into_diagnostic()?;
        if !reply.ok {
            return Err(miette!("{}", reply.message));
        }
        let status = reply.status;
        self.form.print(&status, || text(&status))?;
        Ok(if status["healthy"] == true { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn said<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text(status: &Value) -> String {
    let mut lines = vec![if status["healthy"] == true { "enforcing" } else { "NOT WHOLE" }.to_owned()];
    lines.push(format!("proxy  pid {}, signer pid {}", status["proxy_pid"], status["signer_pid"]));
    let proxy = &status["proxy"];
    match proxy["problem"].as_str() {
        Some(problem) => lines.push(format!("proxy  {problem}")),
        None => {
            lines.push(format!("proxy  {} connections open", proxy["connections"]));
            lines.push(format!("policy {}", said(proxy, "policy")));
            lines.extend(proxy["policy_problem"].as_str().map(|problem| format!("policy {problem}")));
            lines.push(format!("record {}", said(proxy, "recording")));
            let held = &proxy["approvals"];
            lines.extend(
                held["problem"].as_str().map(|problem| format!("held   nothing goes out: {problem}")),
            );
            let waiting = held["pending"].as_u64().filter(|count| *count > 0);
            let verb = if waiting == Some(1) { "waits" } else { "wait" };
            lines.extend(
                waiting.map(|count| format!("held   {count} {verb} for people: enforcer approvals ls")),
            );
            lines.extend(each(held, "webhooks").map(webhook));
            lines.extend(each(proxy, "found").map(|count| {
                let (requests, responses) = (&count["requests"], &count["responses"]);
                let entity = said(count, "entity");
                format!("found  {entity:<16} {requests} in requests, {responses} in responses")
            }));
        }
    }
    for tier in each(status, "tiers") {
        let why = tier["why"].as_str().map_or_else(String::new, |why| format!(": {why}"));
        lines.push(format!("tier   {:<16} {}{why}", said(tier, "name"), said(tier, "state")));
    }
    let interfaces = &status["interfaces"];
    lines.push(match interfaces["problem"].as_str() {
        Some(problem) => format!("ifaces {problem}"),
        None => format!(
            "ifaces {} guarded, {} network namespace(s) walled",
            interfaces["guarded"], interfaces["walled"]
        ),
    });
    for pin in each(status, "pins") {
        lines.push(format!("pin    {:<16} {}", said(pin, "name"), pin["problem"].as_str().unwrap_or("ok")));
    }
    tampering(status, &mut lines);
    lines.extend(status["unwatched"].as_str().map(|why| format!("watch  {why}")));
    for scope in each(status, "scopes") {
        let problem = scope["problem"].as_str().map_or_else(String::new, |it| format!("  {it}"));
        let (name, count) = (said(scope, "name"), &scope["cgroups"]);
        let sweeping = match scope["sweeping"].as_u64() {
            None | Some(0) => String::new(),
            Some(count) => format!("  sweeping {count}: connections from before may be open"),
        };
        lines.push(format!("scope  {name:<16} {count} cgroup(s){}{sweeping}{problem}", lifted(scope)));
    }
    for container in each(status, "containers") {
        lines.push(format!("contnr {}  {}", said(container, "cgroup"), said(container, "state")));
    }
    for known in each(proxy, "identities") {
        lines.push(whose(known));
    }
    for job in each(status, "jobs") {
        let served = match job["namespaces"].as_u64() {
            None | Some(0) => String::new(),
            Some(many) => format!("  {many} network namespace(s)"),
        };
        let (name, cgroup) = (said(job, "name"), said(job, "cgroup"));
        lines.push(format!("job    {name:<16} {cgroup}{served}{}", lifted(job)));
    }
    lines.join("\n") + "\n"
}

/// What became of the messages of a webhook.
fn webhook(hook: &Value) -> String {
    let name = visible(said(hook, "name"));
    if let Some(problem) = hook["problem"].as_str() {
        return format!("hook   {name:<16} NOTHING IS TOLD: {}", visible(problem));
    }
    let count = |key: &str| hook[key].as_u64().unwrap_or_default();
    let mut line = format!("hook   {name:<16} {} sent", count("sent"));
    for (key, words) in [
        ("waiting", "on their way"),
        ("failed", "FAILED"),
        ("dropped", "DROPPED"),
        ("outdated", "over before they were sent"),
    ] {
        if count(key) > 0 {
            line += &format!(", {} {words}", count(key));
        }
    }
    let last = hook["last_failure"].as_str().map(|why| format!(": {}", visible(why)));
    line + &last.unwrap_or_default()
}

/// Who a workload is.
fn whose(known: &Value) -> String {
    let identity = &known["identity"];
    let parts = ["repository", "ref", "run_id", "job_id", "actor"].map(|name| said(identity, name));
    let parts: Vec<String> = parts.into_iter().filter(|it| !it.is_empty()).map(visible).collect();
    let (name, assurance) = (visible(said(known, "name")), visible(said(identity, "assurance")));
    format!("who    {name:<16} {assurance}: {}", parts.join(" "))
}

/// What others did to what is attached.
fn tampering(status: &Value, lines: &mut Vec<String>) {
    for program in each(status, "foreign") {
        let before = if program["before"] == true { "  (since before the service)" } else { "" };
        lines.push(format!("other  {}{before}", said(program, "text")));
    }
    if let Some(what) = status["tampered"].as_str() {
        lines.push(format!("CHANGED by somebody: {what}"));
        let frozen = if status["on_tamper"] == "freeze" { " and are frozen" } else { "" };
        lines.push(format!(
            "       tagged cgroups have no network{frozen}; when you have found out by whom: enforcer reload"
        ));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn who_jobs_are_is_shown_and_not_obeyed() {
        let known = serde_json::json!([{"name": "ci", "identity": {
            "assurance": "oidc", "repository": "a/b\u{1b}[2J", "ref": "refs/heads/main", "run_id": "42",
        }}]);
        let text = super::text(&serde_json::json!({"healthy": true, "proxy": {"identities": known}}));
        assert!(text.contains("who    ci               oidc: a/b\\u{1b}[2J refs/heads/main 42\n"), "{text}");
    }

    #[test]
    fn what_webhooks_were_told_is_counted_and_what_failed_is_said() {
        let hooks = serde_json::json!([
            {"name": "chat", "sent": 3, "failed": 1, "waiting": 2, "last_failure": "a.test answers\u{1b}"},
            {"name": "siem", "sent": 0, "problem": "others can read it"},
        ]);
        let text =
            super::text(&serde_json::json!({"proxy": {"approvals": {"pending": 0, "webhooks": hooks}}}));
        let chat = "hook   chat             3 sent, 2 on their way, 1 FAILED: a.test answers\\u{1b}\n";
        assert!(text.contains(chat), "{text}");
        assert!(text.contains("hook   siem             NOTHING IS TOLD: others can read it\n"), "{text}");
    }

    #[test]
    fn what_was_found_is_counted() {
        let found = serde_json::json!([{"entity": "GITHUB_TOKEN", "requests": 3, "responses": 1}]);
        let text = super::text(&serde_json::json!({"healthy": true, "proxy": {"found": found}}));
        assert!(text.contains("found  GITHUB_TOKEN     3 in requests, 1 in responses\n"), "{text}");
    }
}
