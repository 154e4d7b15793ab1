//! `enforcer release`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, miette};
use serde_json::json;

use super::out::Form;
use crate::admin::request::{AdminRequest, AskError, ask};
use crate::app::{config::Config, release};

/// Lift enforcement on purpose, of one scope or of the whole host
///
/// `--all` removes every link, pin, map, cgroup and mount, and ends the service; it
/// works without the service, too. Jobs that run go on without enforcement. With
/// `--for` it comes back by itself, and the service goes on; `--for 0s` ends that
/// early. It needs root and is recorded.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  enforcer release agent --for 15m     # one job, for a quarter of an hour
  enforcer release agent               # until it ends
  enforcer release --all               # the whole host: nothing is left")]
pub struct Cmd {
    /// A job, by its name or its cgroup's (`enforcer status` lists them)
    #[arg(value_name = "SCOPE", required_unless_present = "all", conflicts_with = "all")]
    scope: Option<String>,

    /// The whole host
    #[arg(long)]
    all: bool,

    /// For this long only, such as 90s, 15m or 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    period: Option<Duration>,

    #[command(flatten)]
    form: Form,
}

/// The longest time that enforcement can be lifted for and still come back.
const MAX_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration is a number and s, m or h, such as 15m, of at most 168h".to_owned();
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number = digits.parse::<u64>().map_err(|_| wrong())?;
    let period = number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)?;
    if period > MAX_PERIOD { Err(wrong()) } else { Ok(period) }
}

/// What is said at the end.
const LIFTED: &str = "enforcement is lifted";
/// How long the service may take to lift everything: its sessions come to their end.
const LIFTS: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// The folder of the sockets is the last thing that it removes.
fn wait_lifted(config: &Config) -> miette::Result<()> {
    let until = Instant::now() + LIFTS;
    while config.run.dir.exists() {
        if Instant::now() > until {
            return Err(miette!("the service was told to, and is not done; its log says why"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)?;
        let for_ms = self.period.and_then(|period| u64::try_from(period.as_millis()).ok());
        match ask(&config.admin_socket(), &AdminRequest::Release { scope: self.scope, for_ms }) {
            Ok(reply) if reply.ok => {
                let ends = self.all && self.period.is_none();
                if ends {
                    wait_lifted(&config)?;
                }
                let message = if ends { LIFTED } else { &reply.message };
                self.form.print(&json!({ "message": message }), || format!("{message}\n"))?;
                return Ok(ExitCode::SUCCESS);
            }
            Ok(reply) => return Err(miette!("{}", reply.message)),
            // No service: it is done here.
            Err(AskError::NoService(_)) => {}
            Err(error) => return Err(error).into_diagnostic(),
        }
        if !self.all || self.period.is_some() {
            return Err(miette!(
                "no service runs, so tagged cgroups have no network: start it (`enforcer daemon`), or lift \
                 everything for good (`enforcer release --all`)"
            ));
        }
        release::offline(&config).map_err(|error| miette!("enforcement is not lifted: {error:#}"))?;
        self.form.print(&json!({ "message": LIFTED }), || format!("{LIFTED}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_limit() {
        for (text, want) in
            [("1s", Some(1)), ("15m", Some(900)), ("168h", Some(604_800)), ("169h", None), ("0s", Some(0))]
        {
            assert_eq!(duration(text).ok(), want.map(Duration::from_secs), "{text}");
        }
        for text in ["", "5", "m", "1d", "-1s", "1.5h", "99999999999999999999h", "5124095576030431h"] {
            duration(text).unwrap_err();
        }
    }
}
