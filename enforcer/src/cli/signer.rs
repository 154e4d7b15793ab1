//! `enforcer signer`: started by the daemon.

use std::os::fd::RawFd;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// The socket to the proxy
    #[arg(long, default_value_t = 10)]
    socket_fd: RawFd,

    /// The file with the CA
    #[arg(long, default_value_t = 11)]
    keys_fd: RawFd,
}

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        crate::telemetry::start();
        crate::app::signer::run(self.socket_fd, self.keys_fd)
            .map_err(|error| miette::miette!("signer: {error:#}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
