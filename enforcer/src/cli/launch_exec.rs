//! `enforcer launch-exec`: started by the daemon, becomes a job.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, RawFd};
use std::process::ExitCode;

use crate::launch::{self, FAILED, LaunchSpec};
use crate::net::sys;

#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[arg(long)]
    spec_fd: RawFd,
    #[arg(long)]
    cwd_fd: RawFd,
}

impl Cmd {
    pub fn run(self) -> ExitCode {
        let read = || -> std::io::Result<_> {
            // Until it is the command nobody looks into it: it still has a folder of the
            // host's mount namespace.
            crate::secret::process::not_traceable()?;
            let mut text = Vec::new();
            File::from(sys::inherited(self.spec_fd)?).read_to_end(&mut text)?;
            let spec: LaunchSpec = serde_json::from_slice(&text)?;
            Ok((spec, sys::inherited(self.cwd_fd)?))
        };
        match read() {
            Ok((spec, cwd)) => {
                let error = launch::become_job(&spec, cwd.as_fd());
                eprintln!("enforcer: {error}");
                ExitCode::from(error.code())
            }
            Err(error) => {
                eprintln!("enforcer: the loader's word was not understood: {error}");
                ExitCode::from(FAILED)
            }
        }
    }
}
