//! `enforcer reload`.

use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr, miette};

use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;

/// Read the policy and `[[scope]]` again; if anything is wrong, what was good stays
///
/// Other settings of the configuration need a restart of the service. A SIGHUP does the
/// same, and says what came of it in the log.
#[derive(clap::Args, Debug)]
pub struct Cmd {}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)
            .map_err(miette::Report::new)
            .wrap_err("nothing was read again: policy and scopes stay as they were")?;
        let reply = ask(&config.admin_socket(), &AdminRequest::Reload).into_diagnostic()?;
        if !reply.ok {
            return Err(miette!("{}", reply.message));
        }
        println!("{}", reply.message);
        Ok(ExitCode::SUCCESS)
    }
}
