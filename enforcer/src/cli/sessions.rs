//! `enforcer sessions`: list, show and verify recordings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use miette::{IntoDiagnostic, WrapErr, miette};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::session::read::{self, Entry, Summary};

/// Where the service keeps its recording unless it is told otherwise.
const DEFAULT_DIR: &str = "/var/lib/enforcer/sessions";

#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The folder of the recording
    #[arg(long, global = true, default_value = DEFAULT_DIR, value_name = "FOLDER")]
    dir: PathBuf,

    /// Table for people, JSON for scripts
    #[arg(short, long, global = true, default_value = "table")]
    output: Output,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List sessions, the newest first
    Ls {
        /// Only of this workload
        #[arg(long)]
        workload: Option<String>,
        /// Only with this outcome: completed, denied, failed, cancelled, cut
        #[arg(long)]
        outcome: Option<String>,
        /// At most so many
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: usize,
    },
    /// Show one session, event by event
    Show {
        /// The session's id, or the beginning of it
        id: String,
    },
    /// Check every hash of the recording; exit code 1 if anything is wrong
    Verify,
}

impl Cmd {
    pub fn run(self, _config: &Path) -> miette::Result<ExitCode> {
        let json = self.output == Output::Json;
        match self.verb {
            Verb::Ls { workload, outcome, limit } => {
                let mut sessions = read::ls(&self.dir)
                    .into_diagnostic()
                    .wrap_err_with(|| format!("cannot read the recording in {}", self.dir.display()))?;
                sessions.retain(|one| {
                    workload.as_ref().is_none_or(|want| one.workload == *want)
                        && outcome.as_ref().is_none_or(|want| one.outcome == *want)
                });
                sessions.truncate(limit);
                list(&sessions, json)
            }
            Verb::Show { id } => {
                let (id, entries) = read::show(&self.dir, &id).into_diagnostic()?;
                if json {
                    return print(&serde_json::json!({ "id": id, "records": entries }));
                }
                println!("session {id}");
                entries.iter().for_each(show);
                Ok(ExitCode::SUCCESS)
            }
            Verb::Verify => verify(&self.dir, json),
        }
    }
}

fn print(value: &impl serde::Serialize) -> miette::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(value).into_diagnostic()?);
    Ok(ExitCode::SUCCESS)
}

fn list(sessions: &[Summary], json: bool) -> miette::Result<ExitCode> {
    if json {
        return print(&sessions);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "STARTED",
        "WORKLOAD",
        "DESTINATION",
        "STATEMENTS",
        "DENIED",
        "REFUSED",
        "MASKED",
        "OUTCOME",
        "ID",
    ]);
    for one in sessions {
        let outcome = if one.reason.is_empty() {
            one.outcome.clone()
        } else {
            format!("{} ({})", one.outcome, one.reason)
        };
        table.add_row([
            started(one.started_unix_ms),
            visible(&one.workload),
            visible(&one.destination),
            one.statements.to_string(),
            one.denied.to_string(),
            one.refused.to_string(),
            one.masked.to_string(),
            visible(&outcome),
            one.id.to_string(),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

fn started(unix_ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|time| time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_ms.to_string())
}

/// Control characters are shown and not obeyed: a recording holds what an
/// attacker sent, and a terminal is not to run it.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c.to_string(),
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                c.escape_unicode().to_string()
            }
            c => c.to_string(),
        })
        .collect()
}

fn show(entry: &Entry) {
    let name = entry.payload["event"].as_str().or(entry.payload["outcome"].as_str()).unwrap_or("begin");
    println!("{:>5}  {}", entry.sequence, visible(name));
    let Some(fields) = entry.payload.as_object() else { return };
    for (key, value) in
        fields.iter().filter(|(key, value)| *key != "event" && *key != "outcome" && !value.is_null())
    {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        println!("         {key}: {}", visible(&text).replace('\n', "\n           "));
    }
}

fn verify(dir: &Path, json: bool) -> miette::Result<ExitCode> {
    let report = read::verify(dir)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read the recording in {}", dir.display()))?;
    if report.segments == 0 {
        return Err(miette!("{} holds no recording", dir.display()));
    }
    let fine = report.problems.is_empty();
    if json {
        print(&report)?;
    } else {
        println!(
            "{} segments, {} records, {} sessions ({} without an end)",
            report.segments, report.records, report.sessions, report.open
        );
        println!("head {}", report.head);
        for problem in &report.problems {
            let session = problem.session.map(|id| format!(" session {id}")).unwrap_or_default();
            println!(
                "PROBLEM segment {} offset {}{session}: {}",
                problem.segment, problem.offset, problem.what
            );
        }
        println!("{}", if fine { "every hash holds" } else { "the recording has been changed or damaged" });
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
