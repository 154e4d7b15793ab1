//! `enforcer scope`: which cgroups of others are enforced.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use miette::{IntoDiagnostic, miette};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::out::Form;
use crate::admin::request::{AdminReply, AdminRequest, ask};
use crate::app::config::Config;
use crate::app::scopes::{Scope, ScopeReport, State, User};
use crate::session::read::visible;

/// Describe which units, cgroups and users are enforced
///
/// A scope is enforced as it is: its processes need no `enforcer run`. Policy knows
/// its workloads by the label `scope=NAME`. Scopes can stand in the configuration
/// (`[[scope]]`), too.
#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[command(flatten)]
    form: Form,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Enforce what matches, now and from now on; a restart of the service keeps it
    Add(Add),
    /// List scopes, what they match, and what is wrong with them
    Ls,
    /// Lift the enforcement of a scope and forget it
    Rm {
        /// The scope's name
        name: String,
    },
    Harden(super::harden::Cmd),
}

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("match").required(true).multiple(true)
    .args(["unit", "cgroup", "uid", "cgroup_parent", "container_label"]))]
struct Add {
    /// A name for the scope, which policy can match
    name: String,

    /// A systemd service, scope or slice; `*` is any text (repeatable)
    #[arg(long, value_name = "UNIT")]
    unit: Vec<String>,

    /// A path below the cgroup mount; `*` is any text without `/` (repeatable)
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,

    /// A user, by number or name, with all sessions (repeatable)
    #[arg(long, value_name = "USER")]
    uid: Vec<User>,

    /// The cgroup in which a container daemon starts its containers
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,

    /// Containers with this label, as their daemon tells it; with `--cgroup-parent` only
    /// those there (repeatable: all of them)
    #[arg(long, value_name = "KEY[=VALUE]")]
    container_label: Vec<String>,

    /// A label, which policy can match (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = super::run::label)]
    labels: Vec<(String, String)>,

    /// Even if it holds what administrators need to come in
    #[arg(long)]
    force: bool,

    /// Only show what it would match now
    #[arg(long)]
    dry_run: bool,
}

impl Cmd {
    pub fn run(self, path: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(path);
        match self.verb {
            Verb::Harden(cmd) => return Ok(cmd.run(path, self.form)),
            Verb::Add(add) => {
                let (dry_run, scope) = (add.dry_run, add.scope()?);
                let reply = tell(&config?, &AdminRequest::ScopeAdd { scope, dry_run })?;
                let report: ScopeReport = serde_json::from_value(reply.status.clone()).into_diagnostic()?;
                show(self.form, &reply.status, &[report])?;
            }
            Verb::Ls => {
                let reply = tell(&config?, &AdminRequest::ScopeList)?;
                let reports: Vec<ScopeReport> =
                    serde_json::from_value(reply.status.clone()).into_diagnostic()?;
                show(self.form, &reply.status, &reports)?;
                if reports.iter().any(|report| report.failed) {
                    return Ok(ExitCode::from(1));
                }
            }
            Verb::Rm { name } => {
                let reply = tell(&config?, &AdminRequest::ScopeRemove { name })?;
                self.form.print(&json!({ "message": reply.message }), || format!("{}\n", reply.message))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    /// Checked here, so that what is wrong is said without the service as well.
    fn scope(self) -> miette::Result<Value> {
        let labels: serde_json::Map<_, _> =
            self.labels.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
        let mut scope = json!({ "name": self.name, "force": self.force, "labels": labels });
        if let Some(parent) = self.cgroup_parent {
            scope["container"]["cgroup_parent"] = json!(parent);
        }
        if !self.container_label.is_empty() {
            scope["container"]["label"] = json!(self.container_label);
        }
        for (key, values) in [("unit", self.unit), ("cgroup", self.cgroup)] {
            if !values.is_empty() {
                scope[key] = json!(values);
            }
        }
        if !self.uid.is_empty() {
            scope["uid"] = serde_json::to_value(&self.uid).into_diagnostic()?;
        }
        let scope: Scope = serde_json::from_value(scope).map_err(|error| miette!("{error}"))?;
        scope.check().map_err(|why| miette!("{why}"))?;
        serde_json::to_value(scope).into_diagnostic()
    }
}

fn tell(config: &Config, request: &AdminRequest) -> miette::Result<AdminReply> {
    let reply = ask(&config.admin_socket(), request).into_diagnostic()?;
    if reply.ok { Ok(reply) } else { Err(miette!("{}", reply.message)) }
}

fn show(form: Form, json: &Value, reports: &[ScopeReport]) -> miette::Result<()> {
    form.print(json, || match reports {
        [] => "no scopes: only jobs of `enforcer run` are enforced\n".to_owned(),
        _ => reports.iter().map(text).collect(),
    })
}

fn text(report: &ScopeReport) -> String {
    let mut text = String::new();
    let name = visible(&report.name);
    // Writing to a String cannot fail.
    writeln!(text, "{name}  {} cgroup(s), from {}", report.count, report.from).ok();
    for found in &report.matches {
        let since =
            found.since_unix_ms.map_or_else(String::new, |since| format!("  since {}", moment(since)));
        let closed = match found.sockets_closed {
            0 => String::new(),
            closed => format!("  {closed} socket(s) from before closed"),
        };
        let state = match found.state {
            Some(State::Sweeping) => format!(
                "  SWEEPING: connections from before may be open, {} process(es) left",
                found.processes_left.unwrap_or(0)
            ),
            Some(State::Lifted) => "  NOT ENFORCED for a while".to_owned(),
            Some(State::Failed) => "  NOT ENFORCED".to_owned(),
            Some(State::Enforced) | None => String::new(),
        };
        writeln!(text, "  {}{since}{closed}{state}", visible(&found.cgroup)).ok();
        for problem in &found.problems {
            writeln!(text, "    ! {}", visible(problem)).ok();
        }
    }
    if report.count > report.matches.len() {
        writeln!(text, "  and {} more", report.count - report.matches.len()).ok();
    }
    for problem in &report.problems {
        writeln!(text, "  ! {}", visible(problem)).ok();
    }
    text
}

fn moment(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or_default();
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}
