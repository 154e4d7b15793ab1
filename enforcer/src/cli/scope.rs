//! `enforcer scope`.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

/// Prepare units for enforcement
#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Harden(super::harden::Cmd),
}

impl Cmd {
    pub fn run(self, config: &Path) -> ExitCode {
        match self.verb {
            Verb::Harden(cmd) => cmd.run(config),
        }
    }
}
