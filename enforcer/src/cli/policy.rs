//! `enforcer policy`: check, explain, test and begin policies.

mod init;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr, miette};
use serde::Deserialize;
use serde_json::json;

use super::out::Form;
use crate::app::config::Config;
use crate::policy::{Fact, Facts, Policy, Protocol, Stage, WorkloadFacts};

/// Check, explain, test and begin policies
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The folder of the policies [default: the configured one]
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Load the policies as the service would; exit code 2 if they do not load
    Check(Form),
    /// Print what policy says of a request, and which rule said it
    Explain {
        #[command(flatten)]
        request: Request,
        #[command(flatten)]
        form: Form,
    },
    /// Run the tests beside the policies (`*.test.yaml`); exit code 1 if one fails
    Test(Form),
    /// Write a policy to begin with, from what this host is set up to use
    #[command(subcommand)]
    Init(init::Verb),
}

/// A request as policy sees it.
#[derive(clap::Args, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[arg(long)]
    host: String,
    #[arg(long, default_value_t = 443)]
    #[serde(default = "https_port")]
    port: u16,
    /// http, https, dns, tls or opaque
    #[arg(long, default_value = "https")]
    #[serde(default = "https")]
    protocol: Protocol,
    #[arg(long, default_value = "GET")]
    #[serde(default = "get")]
    method: String,
    #[arg(long, default_value = "/")]
    #[serde(default = "root")]
    path: String,
    /// The workload's name
    #[arg(long, default_value = "run")]
    #[serde(default)]
    workload: String,
    /// A label of the workload (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    #[serde(default)]
    labels: Vec<String>,
}

fn https_port() -> u16 {
    443
}

fn https() -> Protocol {
    Protocol::Https
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: Request,
    verdict: String,
    rule: Option<String>,
}

impl Request {
    fn workload(&self) -> WorkloadFacts {
        let labels: BTreeMap<String, String> = self
            .labels
            .iter()
            .filter_map(|label| label.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        WorkloadFacts { name: self.workload.clone(), cgroup: String::new(), labels }
    }

    fn facts<'a>(&'a self, workload: &'a WorkloadFacts) -> Facts<'a> {
        let http = matches!(self.protocol, Protocol::Http | Protocol::Https);
        let fact = |text: &'a str| if http { Fact::Known(text) } else { Fact::Absent };
        Facts {
            workload,
            stage: if http { Stage::Http } else { Stage::Tls },
            host: Fact::Known(&self.host),
            port: Fact::Known(self.port),
            protocol: Fact::Known(self.protocol),
            method: fact(&self.method),
            path: fact(&self.path),
        }
    }
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let verb = match self.verb {
            Verb::Init(init) => return init.run(),
            verb => verb,
        };
        // Policies name the entities and rules of the operator's own detectors, too.
        let config = match (Config::load(config), self.dir.is_some()) {
            (Err(_), true) => None,
            (config, _) => Some(config?),
        };
        if let Some(config) = &config {
            crate::app::detectors::install(&config.mask.detectors_dir)?;
        }
        let configured = config.unwrap_or_default().policy.dir;
        let dir = self.dir.unwrap_or(configured);
        let policy = match Policy::load_dir(&dir) {
            Ok(policy) => policy,
            Err(error) => {
                eprintln!("{:?}", miette::Report::new(error));
                return Ok(ExitCode::from(2));
            }
        };
        match verb {
            Verb::Init(init) => init.run(),
            Verb::Check(form) => {
                let (rules, hash) = (policy.len(), policy.hash().as_str());
                form.print(&json!({ "rules": rules, "policy": hash }), || {
                    format!("{rules} rules, policy {hash}\n")
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Explain { request, form } => {
                explain(&policy, &request, form)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Test(form) => test(&policy, &dir, form),
        }
    }
}

fn explain(policy: &Policy, request: &Request, form: Form) -> miette::Result<()> {
    let workload = request.workload();
    let trace = policy.explain(&request.facts(&workload));
    let decision = &trace.decision;
    let rule = decision.rule.as_ref().map(crate::policy::RuleId::as_str);
    let (verdict, reason) = (decision.verdict.as_str(), decision.reason.as_str());
    let answer = json!({
        "verdict": verdict, "rule": rule, "reason": reason, "message": decision.message, "steps": trace.steps,
    });
    form.print(&answer, || {
        let mut lines = Vec::new();
        for step in &trace.steps {
            let because = step.because.map(|fact| format!(" because of {fact}")).unwrap_or_default();
            lines.push(format!("{:<40} matches: {:?}{because}", step.rule.as_str(), step.matches));
        }
        let rule = rule.map(|rule| format!(" by {rule}")).unwrap_or_default();
        lines.push(format!("{verdict}{rule} ({reason})"));
        lines.extend(decision.message.as_deref().map(str::to_owned));
        lines.join("\n") + "\n"
    })
}

fn test(policy: &Policy, dir: &Path, form: Form) -> miette::Result<ExitCode> {
    let (mut passed, mut failures) = (0, Vec::new());
    let mut files: Vec<_> =
        std::fs::read_dir(dir).into_diagnostic()?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.to_string_lossy().ends_with(".test.yaml")) {
        let text = std::fs::read_to_string(path).into_diagnostic()?;
        let file: TestFile = serde_saphyr::from_str(&text)
            .map_err(|error| miette!("{error}"))
            .wrap_err_with(|| path.display().to_string())?;
        for case in file.tests {
            let workload = case.request.workload();
            let decision = policy.decide(&case.request.facts(&workload));
            let rule = decision.rule.as_ref().map(crate::policy::RuleId::as_str);
            if decision.verdict.as_str() == case.verdict
                && (case.rule.is_none() || case.rule.as_deref() == rule)
            {
                passed += 1;
            } else {
                failures.push(format!(
                    "{}: {}: wanted {} {}, got {} {}",
                    path.display(),
                    case.name,
                    case.verdict,
                    case.rule.unwrap_or_default(),
                    decision.verdict,
                    rule.unwrap_or_default()
                ));
            }
        }
    }
    form.print(&json!({ "passed": passed, "failed": failures.len(), "failures": failures }), || {
        let lines: String = failures.iter().map(|failure| format!("FAILED {failure}\n")).collect();
        format!("{lines}{passed} passed, {} failed\n", failures.len())
    })?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
