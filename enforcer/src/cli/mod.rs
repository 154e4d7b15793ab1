//! The command line: one file a verb.

mod approvals;
mod completion;
mod daemon;
mod doctor;
mod harden;
mod holder;
mod job;
mod launch_exec;
mod man;
mod mask;
mod out;
mod policy;
mod proxy;
mod release;
mod reload;
mod roots_exec;
mod run;
mod scope;
mod sessions;
mod signer;
mod status;
mod version;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::launch::FAILED;

/// The configuration file that is read when `--config` is not given.
pub const DEFAULT_CONFIG: &str = "/etc/enforcer/config.toml";

/// Nothing gets out of a tagged cgroup but through policy.
#[derive(Parser, Debug)]
#[command(name = "enforcer", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Configuration file
    #[arg(long, global = true, env = "ENFORCER_CONFIG", default_value = DEFAULT_CONFIG, value_name = "FILE")]
    pub config: PathBuf,

    #[command(subcommand)]
    verb: Verb,
}

/// What each does is said once, at its arguments: a comment here would replace all of it.
#[derive(Subcommand, Debug)]
enum Verb {
    Run(run::Cmd),
    Job(job::Cmd),
    Status(status::Cmd),
    Doctor(doctor::Cmd),
    Scope(scope::Cmd),
    Sessions(sessions::Cmd),
    Policy(policy::Cmd),
    Approvals(approvals::Cmd),
    Mask(mask::Cmd),
    Reload(reload::Cmd),
    Release(release::Cmd),
    Daemon(daemon::Cmd),
    Completion(completion::Cmd),
    Man(man::Cmd),
    Version(version::Cmd),
    /// The proxy process (started by the daemon)
    #[command(hide = true)]
    Proxy(proxy::Cmd),
    /// Holds the listeners from one daemon to the next (started by the daemon)
    #[command(hide = true)]
    Holder(holder::Cmd),
    /// Becomes a job (started by the daemon)
    #[command(hide = true)]
    LaunchExec(launch_exec::Cmd),
    /// Gives a container the CA (started by the daemon)
    #[command(hide = true)]
    RootsExec(roots_exec::Cmd),
    /// The signer process (started by the daemon)
    #[command(hide = true)]
    Signer(signer::Cmd),
    /// The web page's process (started by the daemon)
    #[command(hide = true)]
    Web(web::Cmd),
}

/// Says what is wrong with the arguments. `run` has the codes below 125 to give for
/// its command.
fn misused(error: &clap::Error) -> ExitCode {
    if let Err(error) = error.print() {
        tracing::debug!(%error, "nobody is told");
    }
    let mut args = std::env::args_os().skip(1);
    let mut verb = args.next();
    while let Some(option) = verb.take_if(|arg| arg.as_encoded_bytes().starts_with(b"-")) {
        verb = if option == "--config" { args.nth(1) } else { args.next() };
    }
    let of_run = verb.is_some_and(|verb| verb == "run") && error.exit_code() != 0;
    ExitCode::from(if of_run { FAILED } else { u8::try_from(error.exit_code()).unwrap_or(1) })
}

/// Parses the arguments, runs the verb, and turns an error into a message on
/// standard error and an exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let config = cli.config;
    let done = match cli.verb {
        Verb::Run(cmd) => return cmd.run(&config),
        Verb::Job(cmd) => cmd.run(&config),
        Verb::Status(cmd) => cmd.run(&config),
        Verb::Doctor(cmd) => return cmd.run(&config),
        Verb::Scope(cmd) => cmd.run(&config),
        Verb::Sessions(cmd) => cmd.run(&config),
        Verb::Policy(cmd) => cmd.run(&config),
        Verb::Approvals(cmd) => cmd.run(&config),
        Verb::Mask(cmd) => cmd.run(&config),
        Verb::Reload(cmd) => cmd.run(&config),
        Verb::Release(cmd) => cmd.run(&config),
        Verb::Daemon(cmd) => cmd.run(&config),
        Verb::Completion(cmd) => cmd.run(),
        Verb::Man(cmd) => cmd.run(),
        Verb::Version(cmd) => cmd.run(),
        Verb::LaunchExec(cmd) => return cmd.run(),
        Verb::RootsExec(cmd) => return cmd.run(),
        Verb::Proxy(cmd) => cmd.run(),
        Verb::Holder(cmd) => cmd.run(),
        Verb::Signer(cmd) => cmd.run(),
        Verb::Web(cmd) => cmd.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::from(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    fn help(verb: &str) -> String {
        let mut cli = Cli::command();
        let verb = cli.find_subcommand_mut(verb).unwrap_or_else(|| panic!("there is no verb {verb}"));
        verb.render_long_help().to_string()
    }

    #[test]
    fn the_long_help_of_a_verb_teaches() {
        for (verb, words) in [
            (
                "run",
                &["runs as you, without privileges", "125 if enforcer failed", "Examples:", "--label"][..],
            ),
            ("release", &["Jobs that run go on without enforcement", "comes back by itself", "Examples:"]),
            ("daemon", &["It needs root", "release --all"]),
            ("scope", &["need no `enforcer run`", "scope=NAME"]),
            ("job", &["called in the job", "attested", "--token-stdin"]),
            (
                "approvals",
                &[
                    "until enough people have agreed",
                    "a login of their own",
                    "--seen",
                    "break-glass",
                    "logout",
                ],
            ),
            ("mask", &["what would be masked", "test", "list"]),
            ("doctor", &["Exit code: 0", "Examples:"]),
        ] {
            let text = help(verb);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for words in words {
                assert!(text.contains(words), "enforcer {verb} --help does not say `{words}`: {text}");
            }
        }
    }

    #[test]
    fn every_verb_is_listed_with_what_it_does() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.len() > 10 && !about.ends_with('.'), "{}: {about:?}", verb.get_name());
        }
    }
}
