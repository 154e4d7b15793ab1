//! `enforcer version`.

use std::process::ExitCode;

use super::out::Form;

/// Print the version
#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[command(flatten)]
    form: Form,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        let version = env!("CARGO_PKG_VERSION");
        self.form.print(&serde_json::json!({ "version": version }), || format!("enforcer {version}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
