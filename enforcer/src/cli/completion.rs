//! `enforcer completion`.

use std::process::ExitCode;

use clap::CommandFactory;

use super::out;

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The shell to complete in
    shell: clap_complete::Shell,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "enforcer", &mut script);
        out::print_bytes(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
