//! `enforcer policy`: check, explain, test and begin policies.

mod hits;
mod identity;
mod init;
mod layers;
mod output;
mod replay;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use clap::Subcommand;
use http::{HeaderMap, HeaderName, HeaderValue};
use miette::{IntoDiagnostic, WrapErr, miette};
use serde::Deserialize;
use serde_json::json;

use self::identity::{Stated, Told};
use self::layers::Loaded;
use super::out::Form;
use crate::app::config::Config;
use crate::policy::{
    BodyFacts, Decision, Fact, Facts, Meters, Payer, Policy, Protocol, Size, Stage, Step, ToolFacts, Unit,
    Verdict, WorkloadFacts,
};
use crate::protocol::command::{Effect, assess_call, assess_code};
use crate::protocol::llm::{self, Item};

/// Check, explain, test and begin policies
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The folder of the policies [default: the configured one]
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,

    /// The folder of the layers of organizations and repositories [default: the configured one, if
    /// --dir is, too]
    #[arg(long, global = true, value_name = "FOLDER")]
    layers: Option<PathBuf>,

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
        request: Box<Request>,
        #[command(flatten)]
        identity: Told,
        #[command(flatten)]
        form: Form,
    },
    /// Run the tests beside the policies (`*.test.yaml`); exit code 1 if one fails
    ///
    /// Rules that matched in no test are named: what they say is not tested.
    Test(Form),
    /// Say how often each rule had a say since the running service has this policy (as root)
    ///
    /// A connection, each request on it and each name that is resolved are a decision of their
    /// own. A rule counts if it matched on the way to the decision; those behind the rule that
    /// decided were not asked.
    Hits(Form),
    /// Say what would change for what was recorded; exit code 1 if anything would
    ///
    /// Every request of the recording is asked of the policies in --dir, with the facts that were
    /// recorded: who the job was, its labels, the head as it went out. What the proxy refuses by
    /// itself (a head that cannot be read, a secret that cannot be masked) is left out.
    Diff {
        #[command(flatten)]
        part: replay::Part,
        #[command(flatten)]
        form: Form,
    },
    Suggest(replay::Suggest),
    /// Print the JSON Schema of policy files, for editors
    Schema,
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
    /// The query, without the question mark
    #[arg(long, default_value = "")]
    #[serde(default)]
    query: String,
    /// A field of the head (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE")]
    #[serde(default)]
    headers: Vec<Field>,
    /// The workload's name
    #[arg(long, default_value = "run")]
    #[serde(default)]
    workload: String,
    /// A label of the workload (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    #[serde(default)]
    labels: Vec<String>,
    /// A tool that the answer calls: policy is asked about that call, and not about the request
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Its arguments, mostly JSON
    #[arg(long, requires = "tool", default_value = "", hide_default_value = true)]
    #[serde(default)]
    arguments: String,
    /// A block of code in the text of the answer: policy is asked about that
    #[arg(long, value_name = "TEXT", conflicts_with = "tool")]
    code: Option<String>,
    /// Its language
    #[arg(long, requires = "code", default_value = "", hide_default_value = true)]
    #[serde(default)]
    language: String,
    /// The model that the body asks for; with --tool or --code the one that the answer names
    #[arg(long)]
    model: Option<String>,
    /// An entity that detectors find in it (repeatable)
    #[arg(long = "finding", value_name = "ENTITY")]
    #[serde(default)]
    findings: Vec<String>,
    /// Who the job is
    #[arg(skip)]
    identity: Option<Stated>,
}

/// What follows from what is said of a request.
struct WorkedOut {
    workload: WorkloadFacts,
    headers: HeaderMap,
    /// What a command in the arguments of a tool, or in code, would do.
    effects: Vec<Effect>,
    /// Those of the address, and of the body.
    models: Option<Vec<String>>,
}

/// A field of a request's head.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Field(HeaderName, HeaderValue);

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no field of a head: write `NAME: VALUE`");
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        Ok(Self(name.trim().parse().map_err(|_| wrong())?, value))
    }
}

impl TryFrom<String> for Field {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
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
    /// What the job has used before of the limits of the rule that decides.
    #[serde(default)]
    used: UsedBefore,
    verdict: String,
    rule: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct UsedBefore {
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    bytes_up: u64,
    #[serde(default)]
    bytes_down: u64,
    #[serde(default)]
    tokens: u64,
}

impl UsedBefore {
    /// What becomes of a decision when so much was used.
    fn counted(&self, decision: Decision, request: &Request) -> Decision {
        let identity = request.identity.as_ref().map_or(Fact::Absent, Stated::facts);
        let account = Arc::new(Meters::default()).account(&decision.limits, &Payer { job: 0, identity });
        account.add(Unit::Requests, self.requests);
        account.add(Unit::BytesUp, self.bytes_up);
        account.add(Unit::BytesDown, self.bytes_down);
        account.add(Unit::Tokens, self.tokens);
        if decision.verdict == Verdict::Deny { decision } else { account.request(decision, Size::default()) }
    }
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

    fn headers(&self) -> HeaderMap {
        self.headers.iter().map(|Field(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What follows from what is said.
    fn worked_out(&self) -> WorkedOut {
        let risks = match &self.code {
            Some(text) => assess_code(&self.language, text),
            None => assess_call(&self.arguments),
        };
        let mut effects: Vec<Effect> = risks.iter().map(|risk| risk.effect).collect();
        effects.dedup();
        let models = llm::of_address(&self.path, Some(&self.query)).map(|mut models| {
            models.extend(self.model.clone().filter(|model| !models.contains(model)));
            models
        });
        WorkedOut { workload: self.workload(), headers: self.headers(), effects, models }
    }

    fn body<'a>(&'a self, worked: &'a WorkedOut) -> BodyFacts<'a> {
        let models = match &worked.models {
            None => Fact::Known(crate::policy::Told::Unclear),
            Some(models) if models.is_empty() => Fact::Absent,
            Some(models) => Fact::Known(crate::policy::Told::These(models)),
        };
        BodyFacts { models, findings: Fact::Known(crate::policy::Told::These(&self.findings)) }
    }

    fn facts<'a>(&'a self, worked: &'a WorkedOut) -> Facts<'a> {
        let WorkedOut { workload, headers, effects, .. } = worked;
        // What a path does not tell is taken for the API that most speak.
        let api = llm::speaks(&self.path).unwrap_or(llm::Dialect::Chat);
        let tool = self.tool.as_deref().map(|name| (Item::Tool, name, self.arguments.as_str()));
        let code = self.code.as_deref().map(|text| (Item::Code, self.language.as_str(), text));
        let tool = tool.or(code).map(|(item, name, arguments)| ToolFacts {
            item,
            provider: api.provider(),
            model: self.model.as_deref(),
            name,
            arguments,
            effects,
        });
        let http = matches!(self.protocol, Protocol::Http | Protocol::Https);
        let fact = |text: &'a str| if http { Fact::Known(text) } else { Fact::Absent };
        Facts {
            workload,
            identity: self.identity.as_ref().map_or(Fact::Absent, Stated::facts),
            stage: if http { Stage::Http } else { Stage::Tls },
            host: Fact::Known(&self.host),
            port: Fact::Known(self.port),
            protocol: Fact::Known(self.protocol),
            method: fact(&self.method),
            path: fact(&self.path),
            query: fact(&self.query),
            headers: if http { Fact::Known(headers) } else { Fact::Absent },
            body: if http { self.body(worked) } else { BodyFacts::ABSENT },
            tool: tool.map_or(Fact::Unknown, Fact::Known),
        }
    }
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let verb = match self.verb {
            Verb::Init(init) => return init.run(),
            Verb::Suggest(suggest) => return suggest.run(config),
            Verb::Hits(form) => return hits::run(config, form),
            Verb::Schema => {
                write!(std::io::stdout(), "{}", crate::policy::SCHEMA).into_diagnostic()?;
                return Ok(ExitCode::SUCCESS);
            }
            verb => verb,
        };
        let place = config;
        // Policies name the entities and rules of the operator's own detectors, too.
        let config = match (Config::load(config), self.dir.is_some()) {
            (Err(_), true) => None,
            (config, _) => Some(config?),
        };
        if let Some(config) = &config {
            crate::app::detectors::install(&config.mask.detectors_dir)?;
        }
        let loaded = match Loaded::load(self.dir, self.layers, config.as_ref()) {
            Ok(loaded) => loaded,
            Err(error) => {
                eprintln!("{:?}", miette::Report::new(error));
                return Ok(ExitCode::from(2));
            }
        };
        if !loaded.problems.is_empty() {
            loaded.problems.into_iter().for_each(layers::tell);
            return Ok(ExitCode::from(2));
        }
        let policy = &loaded.policy;
        match verb {
            Verb::Init(_) | Verb::Schema | Verb::Suggest(_) | Verb::Hits(_) => Ok(ExitCode::SUCCESS),
            Verb::Diff { part, form } => replay::diff(policy, &part, place, form),
            Verb::Check(form) => {
                let (rules, hash) = (policy.len(), policy.hash().as_str());
                let owners = policy.owners();
                let layers = policy.layers();
                let of_each: BTreeMap<&str, usize> =
                    layers.iter().map(|(name, rules)| (name.as_str(), *rules)).collect();
                let idle = policy.idle();
                let answer = json!({
                    "rules": rules, "policy": hash, "owners": owners, "layers": of_each, "idle": idle,
                });
                form.print(&answer, || {
                    let warn = |rule| {
                        format!(
                            "warning: {rule} allows what no rule above delegates: it never has an effect\n"
                        )
                    };
                    let warnings: String = idle.iter().map(warn).collect();
                    let below = of_each.values().sum::<usize>();
                    let below = match of_each.len() {
                        0 => String::new(),
                        count => format!(" and {below} in {count} layers below"),
                    };
                    format!("{warnings}{rules} rules{below}, policy {hash}\n")
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Explain { mut request, identity, form } => {
                request.identity = identity.stated().map_err(|error| miette!("{error}"))?;
                loaded.complete(&mut request.identity, None);
                explain(policy, &request, form)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Test(form) => test(&loaded, form),
        }
    }
}

fn explain(policy: &Policy, request: &Request, form: Form) -> miette::Result<()> {
    let worked = request.worked_out();
    let facts = request.facts(&worked);
    let (trace, layers) = (policy.explain(&facts), policy.layers_of(&facts));
    let decision = &trace.decision;
    let rule = decision.rule.as_ref().map(crate::policy::RuleId::as_str);
    let (verdict, reason) = (decision.verdict.as_str(), decision.reason.as_str());
    let limits: Vec<String> =
        decision.limits.iter().flat_map(|it| it.limits.iter()).map(ToString::to_string).collect();
    let answer = json!({
        "verdict": verdict, "rule": rule, "owner": decision.owner, "reason": reason,
        "message": decision.message, "steps": trace.steps, "tool_calls_judged": decision.tools,
        "code_judged": decision.code,
        "limits": limits,
        "layers": layers,
    });
    form.print(&answer, || {
        let mut lines: Vec<String> = layers.iter().map(|name| format!("layer {name}")).collect();
        for step in &trace.steps {
            let because = step.because.map(|fact| format!(" because of {fact}")).unwrap_or_default();
            let detail = step.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            let by = step.assurance.map(|by| format!(" (who the job is: {by})")).unwrap_or_default();
            lines.push(format!(
                "{:<40} matches: {:?}{because}{by}{detail}",
                step.rule.as_str(),
                step.matches
            ));
        }
        let rule = rule.map(|rule| format!(" by {rule}")).unwrap_or_default();
        let owner = decision.owner.as_ref().map(|owner| format!(" of {owner}")).unwrap_or_default();
        let counts = |step: &&Step| step.decides && Some(&step.rule) == decision.rule.as_ref();
        let rests = trace.steps.iter().find(counts).and_then(|step| step.assurance);
        let rests = rests.map(|by| format!(", by who the job is: {by}")).unwrap_or_default();
        lines.push(format!("{verdict}{rule}{owner} ({reason}){rests}"));
        lines.extend(decision.message.as_deref().map(str::to_owned));
        lines.extend(limits.iter().map(|limit| format!("at most {limit}")));
        let judged = "tool calls in the answer are judged, each by itself: ask with --tool";
        lines.extend(decision.tools.then(|| judged.to_owned()));
        let judged = "blocks of code in it are judged, each by itself: ask with --code";
        lines.extend(decision.code.then(|| judged.to_owned()));
        lines.join("\n") + "\n"
    })
}

fn test(loaded: &Loaded, form: Form) -> miette::Result<ExitCode> {
    let policy = &loaded.policy;
    let (mut passed, mut failures) = (0, Vec::new());
    let mut files = Vec::new();
    for (dir, layer) in loaded.folders() {
        let found = std::fs::read_dir(dir).into_diagnostic()?.flatten().map(|entry| entry.path());
        let mut found: Vec<_> = found.collect();
        found.sort();
        files.extend(found.into_iter().map(|path| (path, layer.clone())));
    }
    for (path, layer) in files.iter().filter(|(path, _)| path.to_string_lossy().ends_with(".test.yaml")) {
        let text = std::fs::read_to_string(path).into_diagnostic()?;
        let file: TestFile = serde_saphyr::from_str(&text)
            .map_err(|error| miette!("{error}"))
            .wrap_err_with(|| path.display().to_string())?;
        for mut case in file.tests {
            loaded.complete(&mut case.request.identity, layer.as_ref());
            let decision = policy.decide(&case.request.facts(&case.request.worked_out()));
            let decision = case.used.counted(decision, &case.request);
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
    let hits = policy.hits(usize::MAX).rules;
    let untested: Vec<&str> = hits.iter().filter(|it| it.hits == 0).map(|it| it.rule.as_str()).collect();
    let answer = json!({
        "passed": passed, "failed": failures.len(), "failures": failures,
        "rules": hits.len(), "untested": untested,
    });
    form.print(&answer, || {
        let lines: String = failures.iter().map(|failure| format!("FAILED {failure}\n")).collect();
        let covered = hits.len() - untested.len();
        let not = if untested.is_empty() { String::new() } else { format!("; not {}", untested.join(", ")) };
        format!(
            "{lines}{passed} passed, {} failed\n{covered} of {} rules matched in a test{not}\n",
            failures.len(),
            hits.len()
        )
    })?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
