//! `enforcer reload`.

use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, miette};

use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;

/// Read the policy again; if anything is wrong with it, the last good one stays
#[derive(clap::Args, Debug)]
pub struct Cmd {}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)?;
        let reply = ask(&config.admin_socket(), &AdminRequest::Reload).into_diagnostic()?;
        if !reply.ok {
            return Err(miette!("{}", reply.message));
        }
        println!("{}", reply.message);
        Ok(ExitCode::SUCCESS)
    }
}
