//! `enforcer scope harden`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use miette::{IntoDiagnostic, WrapErr, miette};
use serde_json::json;

use super::out::{self, CANNOT_TELL as FAILED, Form};
use crate::app::config::Config;
use crate::app::doctor::harden::{Plan, Wishes};
use crate::app::doctor::{Host, Level, Probes, Service, State, examine};

/// Write the drop-in of a unit with the settings that `enforcer doctor` demands
///
/// Shows what would change, as a diff, and with --apply writes it to
/// /etc/systemd/system/UNIT.d/50-enforcer.conf. Nothing that stands elsewhere is
/// undone: a setting that a later drop-in says is left to it, and told; a file that
/// was written by somebody else is refused. The unit has it after its next restart.
///
/// Exit code: 0 if the drop-in is as it should be, 1 if it is not written (yet), 2 if
/// something failed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  enforcer scope harden actions.runner.acme.r1.service
  enforcer scope harden buildkite-agent --apply
  enforcer scope harden gitlab-runner --without NoNewPrivileges --apply --yes")]
pub struct Cmd {
    /// The service; `.service` may be left out
    #[arg(value_name = "UNIT")]
    unit: String,

    /// Write it, after a question
    #[arg(long)]
    apply: bool,

    /// Do not ask
    #[arg(long, requires = "apply")]
    yes: bool,

    /// The unit starts no containers: take the making of namespaces away as well
    #[arg(long)]
    no_containers: bool,

    /// Give the unit a network namespace of its own: no abstract socket of others is in it,
    /// and what it connects to is reached through the enforcer all the same
    #[arg(long)]
    own_network: bool,

    /// Put the unit into this slice
    #[arg(long, value_name = "SLICE")]
    slice: Option<String>,

    /// Leave this setting out, such as InaccessiblePaths (repeatable)
    #[arg(long, value_name = "SETTING")]
    without: Vec<String>,

    /// The user that the jobs run as, where it is not the unit's
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Another tree than this host's, such as an image's
    #[arg(long, default_value = "/", value_name = "FOLDER")]
    root: PathBuf,
}

const NOT_WRITTEN: u8 = 1;

impl Cmd {
    pub fn run(self, config: &Path, form: Form) -> ExitCode {
        match self.harden(config, form) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("{error:?}");
                ExitCode::from(FAILED)
            }
        }
    }

    fn harden(self, config: &Path, form: Form) -> miette::Result<u8> {
        // The files are read, not systemd asked: what stands in ours must not count.
        let why = "it is not asked for this".to_owned();
        let landlock = None;
        let probes = Probes { service: Service::Unknown(why), landlock, systemd: false };
        let host = Host::at(&self.root, Config::load(config)?, probes);
        let wishes = Wishes {
            without: self.without.clone(),
            no_containers: self.no_containers,
            own_network: self.own_network,
            slice: self.slice.clone(),
        };
        let plan = Plan::of(&host, &self.unit, &wishes).into_diagnostic()?;
        for (lines, file) in &plan.left {
            eprintln!("left out, since {} says the same setting; add there:\n{lines}", file.display());
        }
        let rest = self.rest(&host, &plan)?;
        let mut text = String::new();
        if plan.is_done() {
            text.push_str(&format!("{}: nothing to change\n", plan.unit));
        } else {
            text.push_str(&plan.diff());
        }
        if !rest.is_empty() {
            let (rest, unit) = (rest.join(", "), &plan.unit);
            text.push_str(&format!(
                "still missing then: {rest} (`enforcer doctor --unit {unit}` says how)\n"
            ));
        }
        let left: Vec<_> =
            plan.left.iter().map(|(lines, file)| json!({ "lines": lines, "file": file })).collect();
        let report = |written: bool| {
            json!({
                "unit": plan.unit, "path": plan.path, "diff": plan.diff(), "left": left,
                "still_missing": rest, "done": plan.is_done() || written,
            })
        };
        if plan.is_done() {
            form.print(&report(false), || text)?;
            return Ok(0);
        }
        if !form.is_json() {
            out::print(&text)?;
        }
        if !self.apply {
            form.print(&report(false), || "not written; --apply writes it\n".to_owned())?;
            return Ok(NOT_WRITTEN);
        }
        if !self.yes && (form.is_json() || !agreed(&plan)?) {
            form.print(&report(false), || "not written\n".to_owned())?;
            return Ok(NOT_WRITTEN);
        }
        plan.apply(&host).into_diagnostic()?;
        let reloads = host.is_this() && Path::new("/run/systemd/system").is_dir();
        if reloads {
            let done = Command::new("systemctl").arg("daemon-reload").status().into_diagnostic()?;
            if !done.success() {
                return Err(miette!("`systemctl daemon-reload` failed: run it again, it says why"));
            }
        }
        form.print(&report(true), || {
            let (path, unit) = (plan.path.display(), &plan.unit);
            let first = if reloads { "" } else { "systemctl daemon-reload && " };
            format!("written: {path}\nin force after: {first}systemctl restart {unit}\n")
        })?;
        Ok(0)
    }

    /// What no drop-in puts right.
    fn rest(&self, host: &Host, plan: &Plan) -> miette::Result<Vec<&'static str>> {
        let scope = plan.hardened(host, self.user.as_deref()).into_diagnostic()?;
        let report = examine(host, &[scope], Level::Unprivileged);
        let findings = report.scopes[0].findings.iter();
        let missing = findings.filter(|it| it.state == State::Missing && !it.decides.is_empty());
        Ok(missing.map(|finding| finding.id).collect())
    }
}

fn agreed(plan: &Plan) -> miette::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(miette!("there is no terminal to ask at: --yes writes without a question"));
    }
    print!("write {}? [y/N] ", plan.path.display());
    std::io::stdout().flush().into_diagnostic()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).into_diagnostic().wrap_err("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
