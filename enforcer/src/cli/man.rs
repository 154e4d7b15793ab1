//! `enforcer man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use miette::{IntoDiagnostic, WrapErr};

/// Print the manual page (roff); `enforcer man | man -l -` shows it
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// Write a page for each verb into this folder instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        let command = super::Cli::command();
        match self.dir {
            None => clap_mangen::Man::new(command).render(&mut std::io::stdout()).into_diagnostic()?,
            Some(dir) => {
                std::fs::create_dir_all(&dir)
                    .and_then(|()| clap_mangen::generate_to(command, &dir))
                    .into_diagnostic()
                    .wrap_err_with(|| format!("writing to {}", dir.display()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
