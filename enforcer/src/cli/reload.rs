//! `enforcer reload`.

use std::path::Path;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Cmd {}

impl Cmd {
    pub fn run(self, _config: &Path) -> miette::Result<ExitCode> {
        Err(miette::miette!("not built yet"))
    }
}
