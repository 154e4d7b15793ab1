//! `enforcer run`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::sys::stat::{Mode, umask};

use crate::admin::request::{RunIdentity, RunReply, RunRequest, Signal, connect};
use crate::app::config::Config;
use crate::launch::{FAILED, Form, JobSpec};
use crate::net::ipc::Channel;
use crate::net::sys;
use crate::session::read::visible;
use crate::workload::wire::{JobToken, RefusedTo};

use super::job::ci::Ci;

/// What the terminal sends at `^Z`.
const STOPPED: i32 = nix::libc::SIGTSTP;
const CONTINUED: i32 = nix::libc::SIGCONT;

/// Run a command in a tagged cgroup: all its traffic goes through policy
///
/// The command runs as you, without privileges, and trusts this host's CA beside
/// the host's own roots. Exit code: the command's own; 125 if enforcer failed, 126
/// if the command cannot be run, 127 if it was not found.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  enforcer run -- curl -sS https://example.com/
  enforcer run --name agent --label team=web -- make test
  enforcer run --ci auto -- ./build.sh
  enforcer run --expose \"$SSH_AUTH_SOCK\" -- git fetch")]
pub struct Cmd {
    /// A name for the job, which policy can match
    #[arg(long, default_value = "run")]
    name: String,

    /// A label, which policy can match (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// Say who the job is before it begins, by the token that its CI system gives it here
    ///
    /// Fetching it is no traffic of the job. Where the system gives none the job is known by what
    /// the variables say, as `attested`; a job whose token is refused does not start.
    #[arg(long, value_enum, value_name = "SYSTEM")]
    ci: Option<Ci>,

    /// With --ci: whom the token is for; else the audience of the issuer in the configuration
    #[arg(long, env = "ENFORCER_AUDIENCE")]
    audience: Option<String>,

    /// Only mount the CA bundles, set no environment variables
    #[arg(long)]
    no_env: bool,

    /// A Unix socket of the host, or a folder of them, that the job sees (repeatable)
    ///
    /// Jobs see none otherwise: who listens there acts for the job outside, and nothing
    /// looks at it. Use it for what is meant to, such as "$SSH_AUTH_SOCK".
    #[arg(long, value_name = "PATH")]
    expose: Vec<PathBuf>,

    /// Say on standard error what the job does not see: in lines, or as JSON
    #[arg(
        short, long, value_name = "FORM", num_args = 0..=1, require_equals = true,
        default_missing_value = "text"
    )]
    verbose: Option<Form>,

    /// Do not say at the end what was refused
    #[arg(long, short)]
    quiet: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "a label is KEY=VALUE".to_owned())
}

impl Cmd {
    pub fn run(self, config: &Path) -> ExitCode {
        match self.start(config) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("enforcer: {error:#}");
                ExitCode::from(FAILED)
            }
        }
    }

    fn start(self, config: &Path) -> Result<ExitCode> {
        // It is not in the job's cgroup and has its user: the job is not to get into it.
        crate::secret::process::not_traceable().context("closing the process to others")?;
        let config =
            Config::load(config).map_err(|error| anyhow::anyhow!("{:?}", miette::Report::new(error)))?;
        let identity = self.ci.map(|ci| identity(ci, &config, self.audience.as_deref())).transpose()?;
        let socket = config.run_socket();
        let whom = format!("root, or a member of the group `{}`", config.run.group);
        let channel = connect(&socket, &whom)?;
        let umask = umask(Mode::empty());
        nix::sys::stat::umask(umask);
        let job = JobSpec {
            umask: umask.bits(),
            report: self.verbose,
            argv: self.command.into_iter().map(OsString::into_vec).collect(),
            env: std::env::vars_os()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
        };
        let mut spec = File::from(rustix::fs::memfd_create("job", rustix::fs::MemfdFlags::CLOEXEC)?);
        spec.write_all(&serde_json::to_vec(&job)?)?;
        spec.rewind()?;
        let cwd = File::open(".").context("the working folder")?;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let request = RunRequest {
            name: self.name,
            labels: self.labels.into_iter().collect::<BTreeMap<_, _>>(),
            no_env: self.no_env,
            expose: self.expose,
            identity,
        };
        channel
            .send(&request, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), cwd.as_fd(), spec.as_fd()])?;
        forward_signals(&channel)?;
        while let Some((reply, _)) = channel.recv::<RunReply>()? {
            match reply {
                RunReply::Started { .. } => {}
                RunReply::Exited { code, refused } => {
                    if let Some(line) = told(&refused).filter(|_| !self.quiet)
                        && let Err(error) = writeln!(std::io::stderr(), "{line}")
                    {
                        tracing::debug!(%error, "nobody is told");
                    }
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(FAILED)));
                }
                RunReply::Failed { code, message } => {
                    eprintln!("enforcer: {message}");
                    return Ok(ExitCode::from(code));
                }
            }
        }
        bail!(
            "the service has ended; the job runs on: without network until the service is back, or without \
             enforcement if that was lifted"
        )
    }
}

fn identity(ci: Ci, config: &Config, audience: Option<&str>) -> Result<RunIdentity> {
    let found = ci.find(config, audience).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    if let Some(hint) = found.hint {
        eprintln!("enforcer: {hint}");
    }
    let token = found.token.map(JobToken);
    let claims = if token.is_none() { found.claims.map(Box::new) } else { None };
    Ok(RunIdentity { token, api: found.api, claims })
}

/// Destinations that are named at the end of a job.
const NAMED: usize = 5;

/// What the job's user sees of its refusals: many programs say only that a name is not known.
fn told(refused: &RefusedTo) -> Option<String> {
    let all = &refused.destinations;
    let named: Vec<String> = all.iter().take(NAMED).map(|to| visible(to)).collect();
    let count = match all.len() {
        0 => return None,
        1 => "1 destination".to_owned(),
        many if refused.more > 0 => format!("more than {many} destinations"),
        many => format!("{many} destinations"),
    };
    let rest = if all.len() > NAMED { ", ..." } else { "" };
    let named = named.join(", ");
    Some(format!(
        "enforcer: {count} refused: {named}{rest}; see `enforcer sessions ls --outcome denied` (as root)"
    ))
}

/// Signals to us are signals to the job.
fn forward_signals(channel: &Channel) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let channel = channel.try_clone()?;
    // What we were told to ignore, by nohup(1) say, is not for the job either.
    let ignored = sys::caller(std::process::id())?.ignored;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (told, tell) = tokio::sync::mpsc::unbounded_channel();
    let inside = runtime.enter();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::window_change(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::from_raw(STOPPED),
        SignalKind::from_raw(CONTINUED),
    ] {
        if ignored.contains(&kind.as_raw_value()) {
            continue;
        }
        let (mut stream, told) = (signal(kind)?, told.clone());
        runtime.spawn(async move {
            while stream.recv().await.is_some() {
                told.send(kind.as_raw_value()).ok();
            }
        });
    }
    drop(inside);
    std::thread::spawn(move || {
        let mut tell = tell;
        runtime.block_on(async {
            while let Some(number) = tell.recv().await {
                channel.send(&Signal { number }, &[]).ok();
                if number == STOPPED {
                    // The job is stopped; now it is our turn.
                    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).ok();
                }
            }
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_one_line() {
        let of = |names: &[&str], more| {
            told(&RefusedTo { destinations: names.iter().map(|name| (*name).to_owned()).collect(), more })
        };
        assert_eq!(of(&[], 0), None);
        let line = of(&["a.test"], 0).unwrap();
        assert!(line.starts_with("enforcer: 1 destination refused: a.test; see "), "{line}");
        let line = of(&["a", "b", "c", "d", "e"], 0).unwrap();
        assert!(line.contains("5 destinations refused: a, b, c, d, e; see "), "{line}");
        let line = of(&["a", "b", "c", "d", "e", "f\x1b[2J\n"], 3).unwrap();
        assert!(line.contains("more than 6 destinations refused: a, b, c, d, e, ...; see "), "{line}");
        let line = of(&["\x1b[2J\n"], 0).unwrap();
        assert!(!line.contains(['\x1b', '\n']), "{line}");
    }
}
