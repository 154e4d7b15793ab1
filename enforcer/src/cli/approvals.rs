//! `enforcer approvals`: what waits for people, and what they say to it.

mod login;
mod show;

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr, bail, miette};
use serde_json::Value;

use super::out::{self, Form};
use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;
use crate::secret::SecretText;
use crate::session::read::visible;
use crate::workload::identity::token::MAX_TOKEN;
use crate::workload::wire::{ApprovalsRequest, JobToken, Said};

/// How often `watch` looks.
const LOOK: Duration = Duration::from_secs(1);

/// Look at what a rule holds for people, and decide about it
///
/// A request that a policy holds (`hold`) waits until enough people have agreed. Each of them
/// says so with a login of their own at an issuer of `[approvals]` (`login`, or a token), whose groups are
/// those that the rule asks for. Whoever started the job never counts, root neither. An answer is for
/// what was shown: `approve` and `deny` show it and ask, or take `--seen` from `show --json`.
///
/// Exit code: 0 if it was done, 1 if not.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  enforcer approvals ls
  enforcer approvals show apr-12
  enforcer approvals login
  enforcer approvals approve apr-12 --reason 'as announced'
  enforcer approvals approve apr-12 --token-file token
  enforcer approvals approve apr-12 --scope job:30
  enforcer approvals deny apr-12 --reason 'not from this branch'
  enforcer approvals watch --json
  enforcer approvals break-glass apr-12 --reason 'incident 4711; nobody is awake'")]
pub struct Cmd {
    #[command(flatten)]
    form: Form,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List what waits
    Ls {
        /// What was decided, too
        #[arg(long)]
        all: bool,
    },
    /// Show all of one: who, what, by which rule, until when, and who has answered
    Show {
        /// As `ls` and denials name it: apr-12
        id: String,
    },
    /// Tell what is asked and what becomes of it, line by line
    Watch,
    /// Log in with a browser of yours, on whatever device; `approve` and `deny` are yours from then on
    ///
    /// The login is kept in $XDG_STATE_HOME/enforcer (~/.local/state/enforcer), readable to you
    /// alone, and lasts as long as the issuer's ID token.
    Login(login::Login),
    /// Forget the login
    Logout,
    /// Say yes
    Approve {
        #[command(flatten)]
        answer: Answer,
        /// How far: once, session, or job:MINUTES, as the rule offers it
        #[arg(long, default_value = "once", value_name = "SCOPE", value_parser = scope)]
        scope: Said,
    },
    /// Say no: one is enough
    Deny(Answer),
    /// Let it go past all people, as root of this host; recorded as that, with the reason
    BreakGlass {
        id: String,
        #[arg(long)]
        reason: String,
        /// What was shown (`seen` of `show --json`)
        #[arg(long, value_name = "DIGEST")]
        seen: Option<String>,
    },
}

#[derive(clap::Args, Debug)]
struct Answer {
    id: String,

    /// Why; it is recorded, and of a no it is told to the job
    #[arg(long)]
    reason: Option<String>,

    /// A file with your token; else it is the variable ENFORCER_APPROVER_TOKEN, else your login
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// What was shown (`seen` of `show --json`); without it you are shown it, and asked
    #[arg(long, value_name = "DIGEST")]
    seen: Option<String>,
}

fn scope(text: &str) -> Result<Said, String> {
    let wrong = || format!("{text:?} is not once, session or job:MINUTES");
    match text {
        "once" => Ok(Said::Once),
        "session" => Ok(Said::Session),
        text => {
            let minutes = text.strip_prefix("job:").and_then(|minutes| minutes.parse().ok());
            minutes.map(|minutes| Said::Job { minutes }).ok_or_else(wrong)
        }
    }
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let service = Service(Config::load(config)?);
        let form = self.form;
        match self.verb {
            Verb::Login(login) => login.run(&service.0)?,
            Verb::Logout => login::logout()?,
            Verb::Ls { all } => {
                let listed = service.list(all)?;
                form.print(&listed, || show::list(&listed))?;
            }
            Verb::Show { id } => {
                let approval = service.show(&id)?;
                form.print(&approval, || show::whole(&approval))?;
            }
            Verb::Watch => return service.watch(form),
            Verb::Approve { answer, scope } => service.decide(answer, scope, form)?,
            Verb::Deny(answer) => service.decide(answer, Said::No, form)?,
            Verb::BreakGlass { id, reason, seen } => {
                let seen = service.seen(&id, seen, "let it go past all people")?;
                let request = ApprovalsRequest::BreakGlass { approval: id, seen, reason };
                service.said(&request, form)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

struct Service(Config);

impl Service {
    fn ask(&self, request: &ApprovalsRequest) -> miette::Result<Value> {
        let request = AdminRequest::Approvals { request: Box::new(request.clone()) };
        let reply = ask(&self.0.admin_socket(), &request).into_diagnostic()?;
        if reply.ok { Ok(reply.status) } else { Err(miette!("{}", visible(&reply.message))) }
    }

    fn list(&self, all: bool) -> miette::Result<Vec<Value>> {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let answer = self.ask(&ApprovalsRequest::Ls { all, after })?;
            let some = answer["approvals"].as_array().cloned().unwrap_or_default();
            after = some.last().and_then(|last| last["id"].as_str()).map(str::to_owned);
            listed.extend(some);
            if answer["more"] != true || after.is_none() {
                return Ok(listed);
            }
        }
    }

    fn show(&self, id: &str) -> miette::Result<Value> {
        self.ask(&ApprovalsRequest::Show { approval: id.to_owned() })
    }

    /// What the answer is to. Nobody answers to what they have not seen.
    fn seen(&self, id: &str, seen: Option<String>, what: &str) -> miette::Result<String> {
        if let Some(seen) = seen {
            return Ok(seen);
        }
        let approval = self.show(id)?;
        if !std::io::stdin().is_terminal() {
            bail!(
                "what was shown has to be named: --seen, with `seen` of `enforcer approvals show {id} --json`"
            );
        }
        let mut told = std::io::stderr().lock();
        write!(told, "{}\n{what}? [y/N] ", show::whole(&approval)).into_diagnostic()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).into_diagnostic()?;
        if !matches!(line.trim(), "y" | "Y" | "yes") {
            bail!("nothing was said");
        }
        approval["seen"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| miette!("the service does not say what it shows"))
    }

    fn decide(&self, answer: Answer, said: Said, form: Form) -> miette::Result<()> {
        let token = JobToken(token(answer.token_file.as_deref())?);
        let what = if matches!(said, Said::No) { "deny it" } else { "approve it" };
        let seen = self.seen(&answer.id, answer.seen, what)?;
        let (approval, reason) = (answer.id, answer.reason);
        self.said(&ApprovalsRequest::Decide { approval, seen, said, reason, token }, form)
    }

    fn said(&self, request: &ApprovalsRequest, form: Form) -> miette::Result<()> {
        let answer = self.ask(request)?;
        form.print(&answer, || format!("{}\n", visible(answer["message"].as_str().unwrap_or_default())))
    }

    /// Until the reader is gone, or the service does not answer.
    fn watch(&self, form: Form) -> miette::Result<ExitCode> {
        let mut known: Vec<Value> = Vec::new();
        loop {
            let now = self.list(true)?;
            for one in now.iter().filter(|one| !known.contains(one)) {
                let line = if form.is_json() {
                    crate::session::read::visible_json(&one.to_string())
                } else {
                    show::line(one)
                };
                out::print(&(line + "\n"))?;
            }
            known = now;
            std::thread::sleep(LOOK);
        }
    }
}

/// Whoever decides shows who they are.
fn token(file: Option<&Path>) -> miette::Result<SecretText> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path)
            .into_diagnostic()
            .wrap_err_with(|| format!("reading {}", path.display()))?,
        None => match std::env::var("ENFORCER_APPROVER_TOKEN") {
            Ok(token) => token,
            Err(_) => return login::token(),
        },
    };
    let text = text.trim();
    if text.len() > MAX_TOKEN {
        bail!("the token is longer than {MAX_TOKEN} bytes");
    }
    Ok(SecretText::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_in_one_way() {
        assert!(matches!(scope("once"), Ok(Said::Once)) && matches!(scope("session"), Ok(Said::Session)));
        assert!(matches!(scope("job:30"), Ok(Said::Job { minutes: 30 })));
        for wrong in ["", "job", "job:", "job:-1", "Once", "job:1h"] {
            scope(wrong).unwrap_err();
        }
    }
}
