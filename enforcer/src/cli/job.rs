//! `enforcer job`.

pub(super) mod ci;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr, bail, miette};
use serde_json::Value;

use super::out::{self, Form};
use crate::admin::request::{AskError, connect};
use crate::app::config::Config;
use crate::secret::SecretText;
use crate::session::read::visible;
use crate::workload::identity::token::MAX_TOKEN;
use crate::workload::wire::{JobReply, JobRequest, JobToken};
use ci::{Ci, Found};

/// How often it is asked again, and with which pause: the proxy may be started right now.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// The exit code where there is no job to speak of.
const EXIT_NO_JOB: u8 = 3;
const NO_JOB: &str = "no-job";

/// Of an identity, in this order.
const SHOWN: [&str; 18] = [
    "assurance",
    "provider",
    "issuer",
    "subject",
    "repository",
    "repository_id",
    "ref",
    "ref_protected",
    "sha",
    "workflow",
    "environment",
    "event",
    "run_id",
    "run_attempt",
    "job_id",
    "actor",
    "groups",
    "roles",
];

/// Say who a job is, by a token of its CI system; called in the job
///
/// A hook of the runner calls `start` when a job begins and `end` when it is over. Which job it
/// is comes from the kernel; what it may call itself comes of a token that the service verifies
/// (`[identity]` in the configuration). Without a token the job is known by what it says of
/// itself, as `attested`, which policies tell from `oidc`.
///
/// Exit code: 0 if it is known now, 3 if this is in no tagged cgroup, 1 if it is not known.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  enforcer job start                       the CI system's own token, whichever it is
  enforcer job start --token-env CI_TOKEN
  fetch-a-token | enforcer job start --token-stdin
  enforcer job ls -o json
  enforcer job end")]
pub struct Cmd {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Present a token: from here on policy and recordings know who the job is
    Start(Start),
    /// From here on nobody knows who the job is
    End,
    /// Show this job, and who it is
    Ls {
        #[command(flatten)]
        form: Form,
    },
}

#[derive(clap::Args, Debug)]
struct Start {
    /// Where the token comes from
    #[arg(long, value_enum, default_value_t = Ci::Auto, conflicts_with_all = ["token_stdin", "token_env", "token_file"])]
    ci: Ci,

    /// Read the token from standard input
    #[arg(long, conflicts_with_all = ["token_env", "token_file"])]
    token_stdin: bool,

    /// Read the token from this environment variable
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    token_env: Option<String>,

    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// This may be the next job: whoever was known before in its cgroup is known no longer, also if
    /// this one cannot be. The same token again is the same job
    #[arg(long)]
    anew: bool,

    /// Whom the token is for; else the audience of the issuer in the configuration
    #[arg(long, env = "ENFORCER_AUDIENCE")]
    audience: Option<String>,
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        match self.asked(config) {
            Err(report) if report.code().is_some_and(|code| code.to_string() == NO_JOB) => {
                eprintln!("{report:?}");
                Ok(ExitCode::from(EXIT_NO_JOB))
            }
            done => done,
        }
    }

    fn asked(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)?;
        match self.verb {
            Verb::Start(start) => start.run(&config),
            Verb::End => {
                let reply = ask(&config, &JobRequest::End {})?;
                out::print(&format!("{}\n", visible(&reply.message)))?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Ls { form } => {
                let reply = ask(&config, &JobRequest::Ls {})?;
                form.print(&reply.job, || text(&reply.job))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Start {
    fn run(self, config: &Config) -> miette::Result<ExitCode> {
        let found = self.found(config)?;
        if let Some(hint) = &found.hint {
            eprintln!("enforcer: {hint}");
        }
        let token = found.token.map(JobToken);
        let claims = if token.is_none() { found.claims.map(Box::new) } else { None };
        if token.is_none() && claims.is_none() {
            bail!("there is no token and no CI system: see `enforcer job start --help`");
        }
        let reply = ask(config, &JobRequest::Start { token, api: found.api, claims, anew: self.anew })?;
        out::print(&format!("{}\n{}", visible(&reply.message), text(&reply.job)))?;
        Ok(ExitCode::SUCCESS)
    }

    fn found(&self, config: &Config) -> miette::Result<Found> {
        let of = |token| Ok(Found { token: Some(token), ..Found::default() });
        if self.token_stdin {
            return of(limited(io::stdin().lock()).wrap_err("reading the token from standard input")?);
        }
        if let Some(path) = &self.token_file {
            let file = std::fs::File::open(path).into_diagnostic();
            return of(file.and_then(limited).wrap_err_with(|| format!("reading {}", path.display()))?);
        }
        if let Some(name) = &self.token_env {
            let token = ci::variable(name).ok_or_else(|| miette!("the variable {name} is not set"))?;
            return of(SecretText::new(token));
        }
        self.ci.find(config, self.audience.as_deref())
    }
}

/// One byte more than the longest token, so that it is seen to be too long.
fn limited(from: impl Read) -> miette::Result<SecretText> {
    let mut text = String::new();
    from.take(MAX_TOKEN as u64 + 2).read_to_string(&mut text).into_diagnostic()?;
    Ok(SecretText::new(text.trim().to_owned()))
}

fn ask(config: &Config, request: &JobRequest) -> miette::Result<JobReply> {
    let socket = config.job_socket();
    let mut last = None;
    for _ in 0..TRIES {
        match once(&socket, request) {
            Ok(Some(reply)) if !reply.again => {
                let said = visible(&reply.message);
                return match (reply.ok, reply.stranger) {
                    (true, _) => Ok(reply),
                    (false, true) => Err(miette!(code = NO_JOB, "{said}")),
                    (false, false) => Err(miette!("{said}")),
                };
            }
            Ok(Some(reply)) => last = Some(visible(&reply.message)),
            Ok(None) => {}
            Err(error) => return Err(error).into_diagnostic(),
        }
        std::thread::sleep(PAUSE);
    }
    let why = last.unwrap_or_else(|| "it is started right now, or asked too often".to_owned());
    Err(miette!("the service does not answer: {why}; try again"))
}

/// None if nobody has answered.
fn once(socket: &Path, request: &JobRequest) -> Result<Option<JobReply>, AskError> {
    let channel = connect(socket, "everybody; check the folder that it is in")?;
    let asked = channel.send(request, &[]).and_then(|()| channel.recv::<JobReply>());
    match asked {
        Ok(reply) => Ok(reply.map(|(reply, _)| reply)),
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(None)
        }
        Err(cause) => Err(AskError::Broken { socket: socket.to_path_buf(), cause }),
    }
}

/// A workload and who it is, in lines.
pub(super) fn text(job: &Value) -> String {
    let said = |value: &Value| match value {
        Value::String(text) => visible(text),
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(visible).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    let mut lines = vec![format!("job           {}", said(&job["name"]))];
    let identity = job["identity"].as_object();
    if identity.is_none() {
        lines.push("assurance     none".to_owned());
    }
    let known = |name: &&str| identity.is_some_and(|identity| identity.contains_key(*name));
    let fields = SHOWN.into_iter().filter(known).map(|name| (name, said(&job["identity"][name])));
    lines.extend(
        fields.filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name:<13} {value}")),
    );
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_shown_and_what_it_holds_is_not_obeyed() {
        let identity = serde_json::json!({
            "assurance": "oidc", "repository": "a/b\u{1b}[2J", "issuer": "", "groups": ["x", "y"], "ref_protected": true,
        });
        let shown = text(&serde_json::json!({"name": "run", "identity": identity}));
        assert!(shown.contains("job           run\n") && shown.contains("assurance     oidc\n"), "{shown}");
        assert!(shown.contains("groups        x, y\n") && shown.contains("ref_protected true\n"), "{shown}");
        assert!(!shown.contains('\u{1b}') && !shown.contains("issuer"), "{shown}");
        assert!(text(&serde_json::json!({"name": "run", "identity": null})).contains("assurance     none\n"));
    }

    #[test]
    fn of_a_token_is_read_what_can_be_one_and_a_byte() {
        let long = "x".repeat(2 * MAX_TOKEN);
        assert_eq!(limited(long.as_bytes()).unwrap().expose().len(), MAX_TOKEN + 2);
        assert_eq!(limited(&b" a.b.c\n"[..]).unwrap().expose(), "a.b.c");
    }
}
