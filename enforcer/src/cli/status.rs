//! `enforcer status`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

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

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn lifted(entry: &serde_json::Value) -> String {
    entry["lifted_until_unix_ms"].as_u64().map_or_else(String::new, |until| {
        let left = until.saturating_sub(now_unix_ms()) / 1000;
        format!("  NOT ENFORCED for {left} s more")
    })
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
            println!("proxy  pid {}, signer pid {}", status["proxy_pid"], status["signer_pid"]);
            let proxy = &status["proxy"];
            match proxy["problem"].as_str() {
                Some(problem) => println!("proxy  {problem}"),
                None => {
                    println!("proxy  {} connections open", proxy["connections"]);
                    println!("policy {}", proxy["policy"].as_str().unwrap_or_default());
                    println!("record {}", proxy["recording"].as_str().unwrap_or_default());
                }
            }
            for tier in status["tiers"].as_array().into_iter().flatten() {
                let state = tier["state"].as_str().unwrap_or_default();
                let why = tier["why"].as_str().map_or_else(String::new, |why| format!(": {why}"));
                println!("tier   {:<16} {state}{why}", tier["name"].as_str().unwrap_or_default());
            }
            print_interfaces(&status["interfaces"]);
            for pin in status["pins"].as_array().into_iter().flatten() {
                let problem = pin["problem"].as_str().unwrap_or("ok");
                println!("pin    {:<16} {problem}", pin["name"].as_str().unwrap_or_default());
            }
            print_tampering(&status);
            if let Some(why) = status["unwatched"].as_str() {
                println!("watch  {why}");
            }
            for scope in status["scopes"].as_array().into_iter().flatten() {
                let name = scope["name"].as_str().unwrap_or_default();
                let lifted = lifted(scope);
                let problem = scope["problem"].as_str().map_or_else(String::new, |it| format!("  {it}"));
                let sweeping = match scope["sweeping"].as_u64() {
                    None | Some(0) => String::new(),
                    Some(count) => format!("  sweeping {count}: connections from before may be open"),
                };
                println!("scope  {name:<16} {} cgroup(s){lifted}{sweeping}{problem}", scope["cgroups"]);
            }
            for container in status["containers"].as_array().into_iter().flatten() {
                let cgroup = container["cgroup"].as_str().unwrap_or_default();
                println!("contnr {cgroup}  {}", container["state"].as_str().unwrap_or_default());
            }
            for job in status["jobs"].as_array().into_iter().flatten() {
                let name = job["name"].as_str().unwrap_or_default();
                let lifted = lifted(job);
                let served = match job["namespaces"].as_u64() {
                    None | Some(0) => String::new(),
                    Some(many) => format!("  {many} network namespace(s)"),
                };
                println!("job    {name:<16} {}{served}{lifted}", job["cgroup"].as_str().unwrap_or_default());
            }
        }
        Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// How many interfaces are guarded, and how many namespaces have a wall.
fn print_interfaces(interfaces: &serde_json::Value) {
    match interfaces["problem"].as_str() {
        Some(problem) => println!("ifaces {problem}"),
        None => println!(
            "ifaces {} guarded, {} network namespace(s) walled",
            interfaces["guarded"], interfaces["walled"]
        ),
    }
}

/// What others did to what is attached.
fn print_tampering(status: &serde_json::Value) {
    for program in status["foreign"].as_array().into_iter().flatten() {
        let before = if program["before"] == true { "  (since before the service)" } else { "" };
        println!("other  {}{before}", program["text"].as_str().unwrap_or_default());
    }
    if let Some(what) = status["tampered"].as_str() {
        println!("CHANGED by somebody: {what}");
        let frozen = if status["on_tamper"] == "freeze" { " and are frozen" } else { "" };
        println!(
            "       tagged cgroups have no network{frozen}; when you have found out by whom: enforcer reload"
        );
    }
}
