//! `enforcer roots-exec`: started by the daemon, gives a container the CA and ends.

use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::process::ExitCode;

use crate::launch::FAILED;
use crate::launch::roots::{self, RootsSpec};
use crate::net::sys;

#[derive(clap::Args, Debug)]
pub struct Cmd {
    #[arg(long)]
    spec_fd: RawFd,
}

impl Cmd {
    pub fn run(self) -> ExitCode {
        let read = || -> std::io::Result<RootsSpec> {
            crate::secret::process::not_traceable()?;
            let mut text = Vec::new();
            File::from(sys::inherited(self.spec_fd)?).read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        // Alone on its output stands what the loader reads.
        let told = match read() {
            Ok(spec) => roots::give(&spec).map_err(|error| error.to_string()),
            Err(error) => Err(format!("the loader's word was not understood: {error}")),
        };
        match serde_json::to_string(&told) {
            Ok(told) => {
                println!("{told}");
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::from(FAILED),
        }
    }
}
