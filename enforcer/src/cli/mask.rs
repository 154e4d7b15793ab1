//! `enforcer mask`: what would be masked in a text, and what is looked for.

mod report;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr, miette};
use serde_json::json;

use super::out::{CANNOT_TELL, Form};
use crate::app::config::Config;
use crate::app::detectors;
use crate::mask::{ExactValue, Masker, Selection};
use crate::secret::SecretBytes;

use report::Report;

/// Bytes of a text that is tested.
const INPUT_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Show what would be masked in a text, and list what is looked for
#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Test(Test),
    List(List),
    Check(Check),
}

/// Show what would be masked in a file, where and why, without showing it
///
/// Each match is told with its line and column, its bytes, its path if the text is JSON, what it
/// is and which rule knew it. The line is shown as it would go out: masked with everything that
/// is known, also with what `--select` leaves out. Nothing is sent anywhere, and no privilege
/// is needed.
///
/// Exit code: 0 if nothing would be masked, 1 if something would be, 2 if that cannot be told.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  enforcer mask test app.log
  kubectl get secret -o yaml | enforcer mask test -
  enforcer mask test --select secrets,EMAIL -o json body.json
  enforcer mask test --secret DEPLOY_KEY=/run/secrets/deploy build.log
  enforcer mask test --secret-env NPM_TOKEN --exit-zero build.log")]
struct Test {
    /// The text; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What is looked for, as in a policy: sets, entities, exact:NAME
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "all")]
    select: Vec<String>,
    /// A value that is known to be secret: its name, and the file that holds it (repeatable)
    #[arg(long, value_name = "NAME=FILE")]
    secret: Vec<String>,
    /// An environment variable whose value is known to be secret (repeatable)
    #[arg(long, value_name = "VARIABLE")]
    secret_env: Vec<String>,
    /// Detectors of your own, a file or a folder (repeatable) [default: the service's]
    #[arg(long, value_name = "PATH")]
    detectors: Vec<PathBuf>,
    /// Exit with 0 also if something would be masked
    #[arg(long)]
    exit_zero: bool,
    #[command(flatten)]
    form: Form,
}

/// List what is looked for: sets, entities, and the rules that find them
#[derive(clap::Args, Debug)]
struct List {
    /// Detectors of your own, a file or a folder (repeatable) [default: the service's]
    #[arg(long, value_name = "PATH")]
    detectors: Vec<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// Test detectors of your own: their patterns, examples and counter-examples
///
/// A detector that does not pass here does not load, and the service does not start with it.
/// docs/masking.md says how they are written.
///
/// Exit code: 0 if all of them load, 1 if one does not.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  enforcer mask check acme.yaml
  enforcer mask check /etc/enforcer/detectors.d
  enforcer mask test --detectors acme.yaml build.log")]
struct Check {
    /// Files, or folders of them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    form: Form,
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        match self.verb {
            Verb::Test(test) => Ok(test.run(config).unwrap_or_else(|error| {
                eprintln!("{error:?}");
                ExitCode::from(CANNOT_TELL)
            })),
            Verb::List(list) => list.run(config),
            Verb::Check(check) => check.run(),
        }
    }
}

impl Test {
    fn run(self, config: &Path) -> miette::Result<ExitCode> {
        install(&self.detectors, config)?;
        let selection = Selection::parse(&self.select).into_diagnostic().wrap_err("--select")?;
        let values = self.values()?;
        let text = read(&self.file)?;
        let selected = Masker::new(&selection, &values).into_diagnostic()?;
        let everything = Masker::new(&Selection::All, &values).into_diagnostic()?;
        let name = self.file.to_string_lossy();
        let report = Report::new(&name, &text, &selected, &everything).into_diagnostic()?;
        self.form.print(&report, || report.text())?;
        let found = !report.is_empty() && !self.exit_zero;
        Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }

    fn values(&self) -> miette::Result<Vec<ExactValue>> {
        let mut values = Vec::new();
        for named in &self.secret {
            let Some((name, path)) = named.split_once('=') else {
                return Err(miette!("--secret {named}: write NAME=FILE; the file holds the value"));
            };
            let value = std::fs::read(path).into_diagnostic().wrap_err_with(|| format!("reading {path}"))?;
            values.push(ExactValue::new(name, &SecretBytes::new(value)).into_diagnostic()?);
        }
        for name in &self.secret_env {
            let Some(value) = std::env::var_os(name) else {
                return Err(miette!("--secret-env {name}: there is no such environment variable"));
            };
            let value = SecretBytes::new(value.into_encoded_bytes());
            values.push(ExactValue::new(name, &value).into_diagnostic()?);
        }
        Ok(values)
    }
}

fn read(path: &Path) -> miette::Result<Vec<u8>> {
    let (name, mut source): (_, Box<dyn Read>) = if path == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = path.display().to_string();
        let file = std::fs::File::open(path).into_diagnostic().wrap_err_with(|| format!("reading {name}"))?;
        (name, Box::new(file))
    };
    let mut text = Vec::new();
    let most = source.by_ref().take(INPUT_MAX_BYTES + 1).read_to_end(&mut text);
    most.into_diagnostic().wrap_err_with(|| format!("reading {name}"))?;
    if text.len() as u64 > INPUT_MAX_BYTES {
        return Err(miette!("{name} has more than {INPUT_MAX_BYTES} bytes; test a part of it"));
    }
    Ok(text)
}

/// Puts detectors into force: those that are named, or else the service's.
fn install(paths: &[PathBuf], config: &Path) -> miette::Result<()> {
    if !paths.is_empty() {
        if !detectors::load(paths)?.install() {
            return Err(miette!("detectors were installed twice"));
        }
        return Ok(());
    }
    let service = Config::load(config).map_err(miette::Report::from);
    if let Err(error) = service.and_then(|config| detectors::install(&config.mask.detectors_dir)) {
        // Whoever may not read them can still look for what is built in.
        eprintln!("the service's own detectors are not looked for: {error}");
    }
    Ok(())
}

impl Check {
    fn run(self) -> miette::Result<ExitCode> {
        let count = detectors::load(&self.paths)?.len();
        self.form.print(&json!({ "detectors": count }), || format!("{count} detectors load\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(self, config: &Path) -> miette::Result<ExitCode> {
        install(&self.detectors, config)?;
        let listed = crate::mask::listed().into_diagnostic()?;
        self.form.print(&json!({ "detectors": listed }), || {
            let mut table = comfy_table::Table::new();
            table.load_style(comfy_table::presets::NOTHING);
            table.set_header(["SET", "ENTITY", "RULE", "CONFIDENCE", "LONGEST"]);
            for one in &listed {
                let longest = one.longest.map_or_else(|| "to its end".to_owned(), |bytes| bytes.to_string());
                table.add_row([&one.set, &one.entity, &one.rule, &one.confidence.to_string(), &longest]);
            }
            format!("{table}\n")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
