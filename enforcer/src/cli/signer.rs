//! `enforcer signer`.

use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Cmd {}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        Err(miette::miette!("not built yet"))
    }
}
