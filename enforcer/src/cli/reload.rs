//! `enforcer reload`.

use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr, miette};
use serde_json::json;

use super::out::Form;
use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;

/// Read the policy and `[[scope]]` again; if anything is wrong, what was good stays
///
/// Changes of the policy's files are noticed without it, too; this says what came of
/// them. It also lets tagged cgroups go on after somebody changed what is attached.
/// Other settings of the configuration, registered secrets and the host's roots are read
/// when the service starts: restart it, which refuses no connection. A SIGHUP does the
/// same, and says what came of it in the log.
///
/// Exit code: 0 if what is in the files is in force, 1 if not.
#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[command(flatten)]
    form: Form,
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)
            .map_err(miette::Report::new)
            .wrap_err("nothing was read again: policy and scopes stay as they were")?;
        let reply = ask(&config.admin_socket(), &AdminRequest::Reload).into_diagnostic()?;
        if !reply.ok {
            return Err(miette!("{}", reply.message));
        }
        self.form.print(&json!({ "message": reply.message }), || reply.message.clone() + "\n")?;
        Ok(ExitCode::SUCCESS)
    }
}
