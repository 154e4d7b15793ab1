//! `enforcer version`.

use std::process::ExitCode;

/// Print the version
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        let version = env!("CARGO_PKG_VERSION");
        if self.json {
            println!("{}", serde_json::json!({ "version": version }));
        } else {
            println!("enforcer {version}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
