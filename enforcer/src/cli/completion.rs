//! `enforcer completion`.

use std::process::ExitCode;

use clap::CommandFactory;

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The shell to complete in
    shell: clap_complete::Shell,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        let mut command = super::Cli::command();
        clap_complete::generate(self.shell, &mut command, "enforcer", &mut std::io::stdout());
        Ok(ExitCode::SUCCESS)
    }
}
