//! `enforcer policy init`: policies to begin with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr, bail, miette};

use crate::app::registries::{Host, policy};
use crate::cli::out;

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// The package registries of this host: apt sources, pip, uv, npm and cargo
    ///
    /// Reads their configuration, and asks pip and npm for their defaults where none is
    /// configured. Nothing is fetched, and no credential is copied. The rules allow GET
    /// and HEAD; what a file's address is, is looked up once for hosts that are not public.
    Registries(Registries),
}

#[derive(clap::Args, Debug)]
pub struct Registries {
    /// Write here, and the tests beside it [default: the policy to standard output]
    #[arg(long, value_name = "FILE.yaml")]
    output: Option<PathBuf>,

    /// Overwrite files that are there
    #[arg(long)]
    force: bool,

    /// A home folder whose configuration counts (repeatable) [default: yours]
    #[arg(long = "home", value_name = "FOLDER")]
    homes: Vec<PathBuf>,

    /// Look at the file system below this folder; no variable counts and no tool is asked
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
}

impl Verb {
    pub fn run(self) -> miette::Result<ExitCode> {
        match self {
            Verb::Registries(cmd) => cmd.run(),
        }
    }
}

impl Registries {
    fn run(self) -> miette::Result<ExitCode> {
        let own = self.root.is_none();
        let ask = |program: &str, args: &[&str]| own.then(|| ask(program, args)).flatten();
        let mut homes = self.homes;
        if homes.is_empty() {
            homes.extend(std::env::home_dir().filter(|_| own));
        }
        let host = Host {
            root: self.root.unwrap_or_else(|| PathBuf::from("/")),
            homes,
            // One that is no text names no registry.
            environment: std::env::vars_os()
                .filter(|_| own)
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            ask: &ask,
            resolve: &resolve,
        };
        let written = policy(&host).into_diagnostic()?;
        let Some(path) = self.output else {
            out::print(&written.policy)?;
            return Ok(ExitCode::SUCCESS);
        };
        let Some(tests) = beside(&path) else {
            bail!("a policy's file ends in .yaml, and not in .test.yaml: {}", path.display());
        };
        if let Some(there) = [&path, &tests].into_iter().find(|path| !self.force && path.exists()) {
            bail!("{} is there: say --force to overwrite it", there.display());
        }
        put(&tests, &written.tests)?;
        put(&path, &written.policy)?;
        for note in &written.notes {
            eprintln!("note: {note}");
        }
        let (path, tests) = (path.display(), tests.display());
        out::print(&format!("{} rules in {path}, tests in {tests}\n", written.rules))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `x.yaml` -> `x.test.yaml`
fn beside(path: &Path) -> Option<PathBuf> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".yaml")?;
    (!stem.is_empty() && !stem.ends_with(".test")).then(|| path.with_file_name(format!("{stem}.test.yaml")))
}

/// Under another name until it is whole: a running service reads the folder.
fn put(path: &Path, text: &str) -> miette::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let begun = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&begun)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&begun, path)
    };
    write().into_diagnostic().wrap_err_with(|| miette!("writing {}", path.display()))
}

/// In a folder where nothing of a user's counts.
fn ask(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    (out.status.success() && !text.trim().is_empty()).then_some(text)
}

fn resolve(host: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> =
        (host, 0).to_socket_addrs().into_iter().flatten().map(|address| address.ip()).collect();
    found.sort();
    found.dedup();
    found
}
