//! `enforcer daemon`.

use std::path::Path;
use std::process::ExitCode;

use crate::app::{config::Config, daemon};

/// Run the service: loader, signer and proxy
///
/// It needs root, and a user for the proxy (`enforcer` unless configured). When
/// it ends, tagged cgroups have no network until it runs again; `enforcer
/// release --all` lifts that.
#[derive(clap::Args, Debug)]
pub struct Cmd {}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        crate::telemetry::start();
        let config = Config::load(config)?;
        daemon::run(config).map_err(|error| miette::miette!("{error:#}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
