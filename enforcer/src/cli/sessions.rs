//! `enforcer sessions`: list, show and verify recordings.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr, miette};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::out::{CANNOT_TELL, Form};
use crate::session::read::{self, Filter, Summary, visible};

/// Where the service keeps its recording unless it is told otherwise.
const DEFAULT_DIR: &str = "/var/lib/enforcer/sessions";

/// List, show and verify session recordings
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The folder of the recording [default: `dir` of `[recording]` in the configuration]
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,

    #[command(flatten)]
    form: Form,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List sessions, the newest first
    Ls(Ls),
    /// Show one session, event by event
    Show {
        /// The session's id, or the beginning of it
        id: String,
    },
    /// Check every hash of the recording
    ///
    /// Exit code: 0 if all is as it was written, 1 if anything is wrong, 2 if that cannot be
    /// told: the folder cannot be read, or holds no recording.
    Verify {
        /// Only what concerns this session: its id, or the beginning of it
        id: Option<String>,
        /// A head that `verify` printed before; if no record has it any more, records were removed
        #[arg(long, value_name = "HASH", value_parser = hash)]
        head: Option<String>,
    },
}

#[derive(clap::Args, Debug)]
struct Ls {
    /// Only of this workload (`*` stands for any text)
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// Only to this host (`*` stands for any text)
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only with at least one such verdict
    #[arg(long, value_parser = ["allow", "deny", "audit", "refused"])]
    verdict: Option<String>,
    /// Only with this outcome; `denied` finds open ones with a denial, too
    #[arg(long, value_parser = ["completed", "denied", "failed", "cancelled", "open", "cut"])]
    outcome: Option<String>,
    /// Only begun since: 90s, 15m, 6h, 2d, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// At most so many
    #[arg(long, short = 'n', default_value_t = 50)]
    limit: usize,
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let dir = match self.dir {
            Some(dir) => dir,
            None => configured(config)?,
        };
        let json = self.form.is_json();
        let mut out = io::BufWriter::new(io::stdout().lock());
        let done = match self.verb {
            Verb::Ls(ls) => list(&mut out, &dir, ls, json),
            Verb::Show { id } => show(&mut out, &dir, &id, json),
            Verb::Verify { id, head } => verify(&mut out, &dir, id.as_deref(), head.as_deref(), json),
        };
        match done.and_then(|code| out.flush().map(|()| code).map_err(Stop::Output)) {
            Ok(code) => Ok(code),
            Err(Stop::CannotTell(report)) => {
                eprintln!("{report:?}");
                Ok(ExitCode::from(CANNOT_TELL))
            }
            // Whoever reads has seen enough.
            Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Err(Stop::Output(error)) => Err(error).into_diagnostic(),
            Err(Stop::Report(report)) => Err(report),
        }
    }
}

/// Why a verb ends early.
enum Stop {
    Output(io::Error),
    Report(miette::Report),
    /// Nobody knows whether the recording is whole.
    CannotTell(miette::Report),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<miette::Report> for Stop {
    fn from(report: miette::Report) -> Self {
        Self::Report(report)
    }
}

/// The folder that the configuration names. Only this one value is read, so
/// that recordings can be looked at even if the rest does not load.
pub(super) fn configured(config: &Path) -> miette::Result<PathBuf> {
    let text = match std::fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DEFAULT_DIR.into()),
        Err(error) => {
            let why = format!("cannot read {}; give --dir FOLDER", config.display());
            return Err(error).into_diagnostic().wrap_err(why);
        }
    };
    let table: toml::Table =
        text.parse().into_diagnostic().wrap_err_with(|| format!("cannot read {}", config.display()))?;
    let dir = table.get("recording").and_then(|part| part.get("dir")).and_then(toml::Value::as_str);
    Ok(dir.unwrap_or(DEFAULT_DIR).into())
}

pub(super) fn unreadable(dir: &Path) -> impl FnOnce() -> String {
    let dir = dir.display().to_string();
    move || format!("cannot read the recording in {dir}; is it the right folder, and are you root?")
}

fn print(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), Stop> {
    let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    Ok(writeln!(out, "{}", read::visible_json(&json))?)
}

fn list(out: &mut impl Write, dir: &Path, ls: Ls, json: bool) -> Result<ExitCode, Stop> {
    let filter = Filter {
        workload: ls.workload,
        host: ls.host,
        verdict: ls.verdict,
        outcome: ls.outcome,
        since_unix_ms: ls.since.as_deref().map(since).transpose()?,
        limit: Some(ls.limit),
    };
    let sessions = read::list(dir, &filter).into_diagnostic().wrap_err_with(unreadable(dir))?;
    if json {
        print(out, &sessions)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "STARTED",
        "WORKLOAD",
        "DESTINATION",
        "STATEMENTS",
        "VERDICTS",
        "MASKED",
        "OUTCOME",
        "ID",
    ]);
    for one in &sessions {
        let reason = if one.reason.is_empty() { String::new() } else { format!(" ({})", one.reason) };
        table.add_row([
            started(one.started_unix_ms),
            visible(&one.workload),
            visible(&one.destination),
            one.statements.to_string(),
            verdicts(one),
            one.masked.to_string(),
            visible(&format!("{}{reason}", one.outcome)),
            one.id.to_string(),
        ]);
    }
    writeln!(out, "{table}")?;
    if sessions.len() == ls.limit {
        writeln!(out, "(the newest {}; --limit shows more)", ls.limit)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn verdicts(one: &Summary) -> String {
    let counts =
        [(one.allowed, "allow"), (one.denied, "deny"), (one.audited, "audit"), (one.refused, "refused")];
    let said: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if said.is_empty() { "-".to_owned() } else { said.join(", ") }
}

fn started(unix_ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|time| time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_ms.to_string())
}

/// What `verify` prints: a part of it, or another case, would be in no record.
fn hash(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a head has 64 hexadecimal digits, as `enforcer sessions verify` prints it".to_owned())
    }
}

/// A length of time before now, or a moment.
pub(super) fn since(text: &str) -> miette::Result<u64> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or(0));
    }
    let bad = || miette!("`{text}` is no time; write 90s, 15m, 6h, 2d or 2026-01-31T12:00:00Z");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => return Err(bad()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(now.saturating_sub(count.saturating_mul(unit * 1000)))
}

fn show(out: &mut impl Write, dir: &Path, prefix: &str, json: bool) -> Result<ExitCode, Stop> {
    if json {
        let (id, records) = read::show(dir, prefix).into_diagnostic()?;
        print(out, &serde_json::json!({ "id": id, "records": records }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let id = read::find(dir, prefix).into_diagnostic()?;
    let colour = Colour::new();
    let (mut begun, mut ended) = (None, false);
    writeln!(out, "session {id}")?;
    read::entries(dir, id, |entry| {
        let first = *begun.get_or_insert(entry.at_unix_us);
        if entry.kind == "begin" {
            writeln!(out, "started {}", started(entry.at_unix_us / 1000))?;
        }
        ended = entry.kind == "end";
        let text = read::timeline(&entry, first);
        let denied = entry.payload["verdict"] == "deny" || entry.payload["event"] == "refused";
        out.write_all(if denied { colour.red(&text) } else { text }.as_bytes())
    })?;
    if !ended {
        writeln!(out, "no end was recorded: the session is still open, or it was cut")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(
    out: &mut impl Write,
    dir: &Path,
    id: Option<&str>,
    head: Option<&str>,
    json: bool,
) -> Result<ExitCode, Stop> {
    let only = id.map(|prefix| read::find(dir, prefix)).transpose().into_diagnostic();
    let only = only.map_err(Stop::CannotTell)?;
    let report = read::verify_with(dir, only, head).into_diagnostic().wrap_err_with(unreadable(dir));
    let report = report.map_err(Stop::CannotTell)?;
    if report.segments == 0 {
        return Err(Stop::CannotTell(miette!("{} holds no recording", dir.display())));
    }
    let code = if report.valid { ExitCode::SUCCESS } else { ExitCode::from(1) };
    if json {
        print(out, &report)?;
        return Ok(code);
    }
    let colour = Colour::new();
    let mut text = format!(
        "{} segments, {} records, {} sessions ({} without an end: open, or cut)\nhead {}\n",
        report.segments, report.records, report.sessions, report.open, report.head
    );
    for problem in &report.problems {
        let session = problem.session.map(|id| format!(" session {id}")).unwrap_or_default();
        let line = format!(
            "PROBLEM {} in segment {} at byte {}{session}: {}\n",
            problem.what,
            problem.segment,
            problem.offset,
            visible(&problem.detail)
        );
        text.push_str(&colour.red(&line));
    }
    let named = report.problems.len() as u64;
    if report.problem_count > named {
        // Writing to a string does not fail.
        writeln!(text, "and {} more problems", report.problem_count - named).ok();
    }
    text.push_str(if report.valid {
        "every hash holds\n"
    } else {
        "the recording has been changed or damaged\n"
    });
    out.write_all(text.as_bytes())?;
    Ok(code)
}

/// Colours for a terminal, and for nothing else.
struct Colour(bool);

impl Colour {
    fn new() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(io::stdout().is_terminal() && !refused)
    }

    fn red(&self, text: &str) -> String {
        if self.0 { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn a_head_is_whole_or_none() {
        let head = "0123456789abcdef".repeat(4);
        assert_eq!(hash(&head).unwrap(), head);
        assert_eq!(hash(&head.to_uppercase()).unwrap(), head);
        for wrong in ["", "abc", &head[1..], &format!("{head}0"), &head.replace('a', "g")] {
            hash(wrong).unwrap_err();
        }
    }
}
