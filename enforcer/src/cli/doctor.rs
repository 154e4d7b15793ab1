//! `enforcer doctor`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use miette::{IntoDiagnostic, miette};

use super::out::{CANNOT_TELL, Form};
use crate::admin::request::{AdminRequest, AskError, ask};
use crate::app::config::Config;
use crate::app::doctor::{
    Finding, Fix, Grade, Host, Kind, Level, Probes, RUN, Report, Scope, ScopeReport, Service, State, examine,
    technique,
};

/// Grade the host and its scopes, and say what is missing
///
/// Three grades for each scope: against a job without privileges, against root in a
/// container, and against root of the host, which is noticed and not prevented.
/// Everything that is missing stands with the lines that put it right: commands for a
/// root shell, or lines for a drop-in of the unit, which `enforcer scope harden` writes.
/// Nothing is changed.
///
/// Exit code: 0 if every scope is held against what --require names, 1 if something
/// is missing, 2 if that cannot be told.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  enforcer doctor                                  # the jobs of `enforcer run`, and all scopes
  enforcer doctor --unit actions.runner.acme.r1.service
  enforcer doctor --unit gitlab-runner --user gitlab-runner --require container-root
  enforcer doctor -o json | jq '.scopes[].grades'")]
pub struct Cmd {
    /// Only the scope of this name; `run` are the jobs of `enforcer run`
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,

    /// A unit, whether it is a scope already or not (repeatable)
    #[arg(long = "unit", value_name = "UNIT")]
    units: Vec<String>,

    /// The user that the jobs run as, where it is not the unit's
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Whom the scopes have to be held against
    #[arg(long, value_enum, default_value = "unprivileged", value_name = "LEVEL")]
    require: Require,

    /// Another tree than this host's, such as an image's: no service is asked
    #[arg(long, default_value = "/", value_name = "FOLDER")]
    root: PathBuf,

    /// Show what is in order, too
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Require {
    /// A job without privileges
    Unprivileged,
    /// Root in a container or unit
    ContainerRoot,
    /// Root of the host
    HostRoot,
}

impl From<Require> for Level {
    fn from(require: Require) -> Self {
        match require {
            Require::Unprivileged => Self::Unprivileged,
            Require::ContainerRoot => Self::ContainerRoot,
            Require::HostRoot => Self::HostRoot,
        }
    }
}

impl Cmd {
    pub fn run(self, config: &Path) -> ExitCode {
        match self.report(config) {
            Ok(report) => {
                let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                let page = Page { colours, all: self.all };
                if let Err(error) = self.form.print(&report, || page.report(&report)) {
                    eprintln!("{error:?}");
                    return ExitCode::from(CANNOT_TELL);
                }
                ExitCode::from(match report.held {
                    Some(true) => 0,
                    Some(false) => 1,
                    None => CANNOT_TELL,
                })
            }
            Err(error) => {
                eprintln!("{error:?}");
                ExitCode::from(CANNOT_TELL)
            }
        }
    }

    fn report(&self, config: &Path) -> miette::Result<Report> {
        let config = Config::load(config)?;
        let probes = if self.root == Path::new("/") {
            Probes {
                service: service(&config),
                landlock: Some(crate::net::sys::landlock_version()),
                systemd: Path::new("/run/systemd/system").is_dir(),
            }
        } else {
            let why = "it is another tree than this host's".to_owned();
            Probes { service: Service::Unknown(why), landlock: None, systemd: false }
        };
        let host = Host::at(&self.root, config, probes);
        let scopes = self.scopes(&host)?;
        Ok(examine(&host, &scopes, self.require.into()))
    }

    fn scopes(&self, host: &Host) -> miette::Result<Vec<Scope>> {
        let user = self.user.as_deref();
        let mut scopes = Vec::new();
        let is_meant =
            |name: &str| self.scope.as_deref().map_or(self.units.is_empty(), |meant| meant == name);
        if is_meant(RUN) {
            scopes.push(Scope::run(host, user).into_diagnostic()?);
        }
        if let Service::Answers(status) = &host.probes.service {
            for scope in status["scopes"].as_array().into_iter().flatten() {
                let name = scope["name"].as_str().unwrap_or_default();
                let matches = scope["matches"].as_array().into_iter().flatten().filter(|_| is_meant(name));
                for path in matches.filter_map(|found| found["cgroup"].as_str()) {
                    scopes.push(of_match(host, name, &host.scope_path(path), user)?);
                }
            }
        }
        for unit in &self.units {
            scopes.push(Scope::unit(host, unit, user).into_diagnostic()?);
        }
        if let Some(name) = self.scope.as_deref().filter(|_| scopes.len() == self.units.len()) {
            return Err(miette!(
                "there is no scope `{name}`, or nothing is in it: `enforcer scope ls` lists them; a unit is named \
                 with --unit"
            ));
        }
        Ok(scopes)
    }
}

/// What a scope has matched: the cgroup of a unit, or another one.
fn of_match(host: &Host, name: &str, cgroup: &Path, user: Option<&str>) -> miette::Result<Scope> {
    let leaf = cgroup.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut scope = match leaf.ends_with(".service").then(|| Scope::unit(host, &leaf, user)) {
        Some(Ok(scope)) => scope,
        // A container may be called so, too.
        _ => Scope::cgroup(host, &leaf, cgroup, user).into_diagnostic()?,
    };
    scope.name = format!("{name}/{}", scope.name);
    Ok(scope)
}

/// What the service says of itself, with the scopes and what they have matched.
fn service(config: &Config) -> Service {
    let socket = config.admin_socket();
    let asked = ask(&socket, &AdminRequest::Status).and_then(|status| {
        let scopes = if status.ok { Some(ask(&socket, &AdminRequest::ScopeList)?) } else { None };
        Ok((status, scopes))
    });
    match asked {
        Ok((reply, Some(scopes))) if scopes.ok => {
            let mut status = reply.status;
            status["scopes"] = scopes.status;
            Service::Answers(status)
        }
        Ok((reply, scopes)) => Service::Unknown(scopes.map_or(reply.message, |scopes| scopes.message)),
        Err(AskError::NoService(_)) => Service::Silent,
        Err(error) => Service::Unknown(error.to_string()),
    }
}

/// The report for people.
struct Page {
    colours: bool,
    all: bool,
}

impl Page {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn report(&self, report: &Report) -> String {
        let mut out = String::from("host\n");
        self.findings(&mut out, &report.host);
        for scope in &report.scopes {
            self.scope(&mut out, scope);
        }
        let asked = report.require.name();
        let verdict = match report.held {
            Some(true) => self.paint("32", &format!("held against {asked}")),
            Some(false) => self.paint("31", &format!("NOT held against {asked}")),
            None => self.paint("33", &format!("cannot tell whether held against {asked}")),
        };
        line(&mut out, format_args!("\n{verdict}"));
        out
    }

    fn scope(&self, out: &mut String, scope: &ScopeReport) {
        let kind = match scope.kind {
            Kind::Run => "enforcer",
            Kind::Unit => "unit",
            Kind::Cgroup => "cgroup",
        };
        let users = scope.users.join(", ");
        line(out, format_args!("\n{kind} {} ({}), jobs of {users}", scope.name, scope.cgroup));
        self.findings(out, &scope.findings);
        for graded in &scope.grades {
            let grade = match graded.grade {
                Grade::Proof => self.paint("32", "proof"),
                Grade::Detected => self.paint("32", "noticed, not prevented"),
                Grade::Unknown => self.paint("33", &format!("cannot tell: {}", graded.unknown.join(", "))),
                Grade::Open => self.paint("31", &format!("open: {}", graded.missing.join(", "))),
            };
            line(out, format_args!("  {:<14} {grade}", graded.level.name()));
        }
        // Each can do what those before it can.
        let mut told: Vec<&str> = Vec::new();
        for graded in &scope.grades {
            let more: Vec<&str> =
                graded.not_stopped.iter().filter(|name| !told.contains(name)).copied().collect();
            if more.is_empty() {
                continue;
            }
            let besides = if told.is_empty() { "" } else { " besides" };
            line(out, format_args!("  not stopped{besides}, {}:", graded.level.name()));
            told.extend(&more);
            for name in more {
                let what = technique(name).map(|technique| technique.what).unwrap_or_default();
                line(out, format_args!("    {name:<20} {what}"));
            }
        }
    }

    fn findings(&self, out: &mut String, findings: &[Finding]) {
        for finding in findings.iter().filter(|finding| self.all || finding.state != State::Good) {
            let advice = finding.decides.is_empty();
            let state = match finding.state {
                State::Good => self.paint("32", "ok     "),
                State::Unknown => self.paint("33", "unknown"),
                State::Missing if advice => "advice ".to_owned(),
                State::Missing => self.paint("31", "missing"),
            };
            line(out, format_args!("  {state} {:<20} {}", finding.id, finding.found));
            for fix in &finding.fix {
                let (mark, lines) = match fix {
                    Fix::Shell(lines) => ("#", lines),
                    Fix::DropIn(lines) => ("[Service]", lines),
                };
                for text in lines {
                    line(out, format_args!("            {} {text}", self.paint("2", mark)));
                }
            }
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    if writeln!(out, "{text}").is_err() {
        tracing::debug!("a line is lost");
    }
}
