//! `enforcer status`.

use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr, miette};

use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;

/// Show scopes, pins and health; exit code 1 if enforcement is not whole
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Cmd {
    pub fn run(self, config: &Path) -> miette::Result<ExitCode> {
        let config = Config::load(config)?;
        let reply = ask(&config.admin_socket(), &AdminRequest::Status)
            .into_diagnostic()
            .wrap_err("no service answers; tagged cgroups have no network until `enforcer daemon` runs")?;
        if !reply.ok {
            return Err(miette!("{}", reply.message));
        }
        let status = reply.status;
        let healthy = status["healthy"] == true;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&status).into_diagnostic()?);
        } else {
            println!("{}", if healthy { "enforcing" } else { "NOT WHOLE" });
            println!("proxy  {}", status["proxy_pid"]);
            for pin in status["pins"].as_array().into_iter().flatten() {
                let problem = pin["problem"].as_str().unwrap_or("ok");
                println!("pin    {:<16} {problem}", pin["name"].as_str().unwrap_or_default());
            }
            for job in status["jobs"].as_array().into_iter().flatten() {
                println!("job    {:<16} {}", job["name"].as_str().unwrap_or_default(), job["cgroup"]);
            }
        }
        Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
