//! `enforcer policy diff` and `suggest`: policies beside what was recorded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr, ensure};
use serde_json::json;

use super::output::Output;
use crate::app::replay::{Change, Changes, Said, Suggestion};
use crate::cli::out::Form;
use crate::cli::sessions::{configured, since, unreadable};
use crate::policy::Policy;
use crate::session::read::{Filter, statements, visible};

/// Which part of a recording counts.
#[derive(clap::Args, Debug)]
pub struct Part {
    /// The folder of the recording [default: the configured one]
    #[arg(long, value_name = "FOLDER")]
    against: Option<PathBuf>,

    /// Only sessions of this workload (`*` stands for any text)
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,

    /// Only sessions begun since: 90s, 15m, 6h, 2d, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
}

impl Part {
    fn folder(&self, config: &Path) -> miette::Result<PathBuf> {
        self.against.clone().map_or_else(|| configured(config), Ok)
    }

    fn filter(&self) -> miette::Result<Filter> {
        Ok(Filter {
            workload: self.workload.clone(),
            since_unix_ms: self.since.as_deref().map(since).transpose()?,
            ..Filter::default()
        })
    }
}

/// Exit code 1 if a statement would be judged in another way.
pub fn diff(policy: &Policy, part: &Part, config: &Path, form: Form) -> miette::Result<ExitCode> {
    let dir = part.folder(config)?;
    let mut changes = Changes::default();
    let sessions = statements(&dir, &part.filter()?, |statement| changes.add(policy, statement))
        .into_diagnostic()
        .wrap_err_with(unreadable(&dir))?;
    let list = changes.list();
    let (count, untold) = (changes.statements, changes.untold);
    let changed: u64 = list.iter().map(|change| change.statements).sum();
    let answer = json!({
        "sessions": sessions, "statements": count, "changed": changed, "untold": untold,
        "changes": list, "policy": policy.hash().as_str(),
    });
    form.print(&answer, || {
        let mut text: String = list.iter().map(one).collect();
        text +=
            &format!("{count} statements of {sessions} connections, {changed} would be judged otherwise\n");
        if untold > 0 {
            text += &format!("{untold} depend on what was masked, or not recorded\n");
        }
        text
    })?;
    Ok(if changed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn one(change: &Change) -> String {
    let said = |said: &Said| {
        let by = said.rule.as_ref().map_or_else(|| said.reason.clone(), |rule| format!("by {rule}"));
        visible(&format!("{} {by}", said.verdict))
    };
    let mut text =
        format!("{} -> {}: {} statements\n", said(&change.was), said(&change.becomes), change.statements);
    for example in &change.examples {
        let (what, workload) = (visible(&example.what), visible(&example.workload));
        text += &format!("    {what}  {workload}  session {}\n", example.session);
    }
    text
}

/// Write a policy, and its tests, from what a recording says was let through
///
/// Meant for a service whose policies are in audit mode (`mode: audit`): let a job run, and
/// read what it needs. Requests that were denied or held are left out, and told. A path that
/// holds the job's own repository becomes a condition on `identity.repository`, if a verified
/// token says which that is. Before it is printed, the policy is asked about everything that
/// it was made from.
#[derive(clap::Args, Debug)]
pub struct Suggest {
    #[command(flatten)]
    part: Part,

    /// Write here, and the tests beside it [default: the policy to standard output]
    #[arg(long, value_name = "FILE.yaml")]
    to: Option<PathBuf>,

    /// Overwrite files that are there
    #[arg(long)]
    force: bool,

    /// The policy's name
    #[arg(long, default_value = "suggested", value_parser = name)]
    name: String,
}

fn name(text: &str) -> Result<String, String> {
    let fine = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fine && (1..=64).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 64 letters, digits, `-`, `_` and `.`".to_owned())
    }
}

impl Suggest {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let dir = self.part.folder(config)?;
        let filter = self.part.filter()?;
        let mut suggestion = Suggestion::of(self.part.workload.clone());
        let sessions = statements(&dir, &filter, |statement| suggestion.add(statement))
            .into_diagnostic()
            .wrap_err_with(unreadable(&dir))?;
        ensure!(sessions > 0, "no connection of that kind is recorded in {}", dir.display());
        let made = suggestion.finish(&self.name).into_diagnostic()?;
        if self.to.is_none() {
            made.notes.iter().for_each(|note| eprintln!("note: {}", visible(note)));
        }
        let output = Output { path: self.to, force: self.force };
        output.write(&made.policy, &made.tests, &made.notes, made.rules)?;
        Ok(ExitCode::SUCCESS)
    }
}
