//! `enforcer release`.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr, miette};

use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;

/// Lift enforcement on purpose: every link, pin, map, cgroup and mount goes
///
/// Jobs that run go on without enforcement. It needs root and is recorded.
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// All scopes
    #[arg(long, required = true)]
    all: bool,
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)?;
        match ask(&config.admin_socket(), &AdminRequest::Release) {
            Ok(reply) if reply.ok => {
                println!("{}", reply.message);
                return Ok(ExitCode::SUCCESS);
            }
            Ok(reply) => return Err(miette!("{}", reply.message)),
            // No service: it is done here.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(error).into_diagnostic().wrap_err("the service did not answer"),
        }
        if !nix::unistd::Uid::effective().is_root() {
            return Err(miette!("lifting enforcement needs root"));
        }
        crate::kernel::release(&config.kernel.pins)
            .into_diagnostic()
            .wrap_err("enforcement could not be lifted")?;
        let mount = crate::kernel::cgroup2_mount().into_diagnostic()?;
        for path in [&config.cgroup.own, &config.cgroup.jobs] {
            let path = mount.join(path.strip_prefix("/").unwrap_or(path));
            if path.exists() && std::fs::remove_dir(&path).is_err() {
                eprintln!("{} stays: something still runs in it, without enforcement", path.display());
            }
        }
        println!("enforcement is lifted");
        Ok(ExitCode::SUCCESS)
    }
}
