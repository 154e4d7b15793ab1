//! `enforcer man`.

use std::process::ExitCode;

use clap::CommandFactory;
use miette::IntoDiagnostic;

/// Print the manual page (roff); `enforcer man | man -l -` shows it
#[derive(clap::Args, Debug)]
pub struct Cmd {}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        clap_mangen::Man::new(super::Cli::command()).render(&mut std::io::stdout()).into_diagnostic()?;
        Ok(ExitCode::SUCCESS)
    }
}
