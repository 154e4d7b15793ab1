//! `enforcer web`: started by the daemon.

use std::os::fd::RawFd;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The socket to the loader
    #[arg(long, default_value_t = 10)]
    control_fd: RawFd,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        crate::telemetry::start();
        crate::app::web::run(self.control_fd).map_err(|error| miette::miette!("web: {error:#}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
