//! `enforcer holder`: started by a daemon that ends, for the next one.

use std::os::fd::RawFd;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The socket to the loader that ends
    #[arg(long, default_value_t = 10)]
    control_fd: RawFd,

    /// The socket on which the next one connects
    #[arg(long, default_value_t = 11)]
    listen_fd: RawFd,

    /// How long listeners are held
    #[arg(long)]
    for_ms: u64,

    /// The cgroup in which the next loader has to be
    #[arg(long)]
    cgroup: String,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        crate::telemetry::start();
        let patience = Duration::from_millis(self.for_ms);
        crate::app::holder::run(self.control_fd, self.listen_fd, patience, &self.cgroup)
            .map_err(|error| miette::miette!("holder: {error:#}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
