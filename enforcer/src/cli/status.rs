//! `enforcer status`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use miette::{IntoDiagnostic, miette};
use serde_json::Value;

use super::out::Form;
use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;

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
    fn what_was_found_is_counted() {
        let found = serde_json::json!([{"entity": "GITHUB_TOKEN", "requests": 3, "responses": 1}]);
        let text = super::text(&serde_json::json!({"healthy": true, "proxy": {"found": found}}));
        assert!(text.contains("found  GITHUB_TOKEN     3 in requests, 1 in responses\n"), "{text}");
    }
}
