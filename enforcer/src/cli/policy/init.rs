//! `enforcer policy init`: policies to begin with.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::Subcommand;
use miette::IntoDiagnostic;

use super::output::Output;
use crate::app::registries::{Host, policy};

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
        Output { path: self.output, force: self.force }.write(
            &written.policy,
            &written.tests,
            &written.notes,
            written.rules,
        )?;
        Ok(ExitCode::SUCCESS)
    }
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
