//! The enforcer as in life: the daemon on a CPU of its own, the load generator
//! as a job in a tagged cgroup, redirected by the kernel.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use enforcer_tests::cgroup::Cgroup;

use super::process;
use crate::tls::NAME;

/// What flows as text is masked with everything there is, as by default; the
/// large binary body is not.
const POLICY: &str = "
version: 1
name: bench
rules:
  - id: mask
    when: {host: bench.test, path: ['/s', '/close', '/text/**', '/sse/**']}
    mask: {request: [secrets], response: [secrets]}
  - id: allow
    when: {host: bench.test}
    allow: true
    addresses: [loopback]
";

/// A running daemon; dropping it lifts enforcement.
pub struct Enforcer {
    program: PathBuf,
    config: PathBuf,
    daemon: Child,
    /// The process that carries the traffic.
    pub proxy: u32,
    // Removed when the daemon is gone.
    _cgroup: Cgroup,
    _dir: tempfile::TempDir,
}

impl Enforcer {
    pub fn start(program: &Path, object: &Path, certs: &Path, base: &Path, fsync: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("enforcer-").tempdir_in(base)?;
        let group = format!("enf-bench-{}", std::process::id());
        let cgroup = Cgroup::at_root(&group)?;
        std::fs::create_dir(dir.path().join("policies"))?;
        let durability = if fsync { "    durability: fsync\n" } else { "" };
        std::fs::write(dir.path().join("policies/bench.yaml"), format!("{POLICY}{durability}"))?;
        let path = dir.path().display();
        let text = format!(
            "[cgroup]\nattach = \"/{group}\"\nown = \"/{group}/own\"\njobs = \"/{group}/jobs\"\n\
             scopes_dir = \"{path}/scopes.d\"\n[listen]\ntcp_port = {}\ndns_port = {}\n[proxy]\nuser = \"nobody\"\nworkers = 1\n\
             [policy]\ndir = \"{path}/policies\"\n[recording]\ndir = \"{path}/sessions\"\n\
             [ca]\ndir = \"{path}/ca\"\n[dns.names]\n\"{NAME}\" = [\"127.0.0.2\"]\n\
             [upstream]\nca_file = \"{}\"\n[mask]\nsecrets_dir = \"{path}/secrets.d\"\nsurrogate_key_file = \"{path}/surrogates.key\"\n\
             [run]\ndir = \"{path}/run\"\ngroup = \"nogroup\"\n\
             [kernel]\npins = \"/sys/fs/bpf/{group}\"\nobject = \"{}\"\n",
            process::free("127.0.0.1")?.port(),
            process::free("127.0.0.1")?.port(),
            certs.join("ca.pem").display(),
            object.display(),
        );
        let config = dir.path().join("config.toml");
        std::fs::write(&config, text)?;
        // The proxy's user reads policies and roots there.
        make_readable(dir.path())?;
        let log = std::fs::File::create(base.join("enforcer.log"))?;
        let mut command = process::pinned(1, program);
        command.arg("--config").arg(&config).arg("daemon").stdin(Stdio::null()).process_group(0);
        let mut daemon = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut lines = BufReader::new(daemon.stdout.take().context("no output")?).lines();
        let ready = lines.next().transpose()?;
        std::thread::spawn(move || lines.for_each(drop));
        let mut started =
            Self { program: program.to_path_buf(), config, daemon, proxy: 0, _cgroup: cgroup, _dir: dir };
        ensure!(ready.as_deref() == Some("enforcer: ready"), "the daemon said {ready:?}");
        let out = started.command(&["status", "--json"]).output()?;
        let status: serde_json::Value = serde_json::from_slice(&out.stdout).context("no status")?;
        let pid = status["proxy_pid"].as_u64().context("no proxy")?;
        started.proxy = u32::try_from(pid)?;
        Ok(started)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).args(args);
        command
    }

    /// A command that runs as a job.
    pub fn job(&self, program: &Path) -> Command {
        let mut command = self.command(&["run", "--"]);
        command.arg(program);
        command
    }

    fn release(&mut self) -> Result<()> {
        let out = self.command(&["release", "--all"]).output()?;
        if !out.status.success() {
            self.daemon.kill()?;
        }
        self.daemon.wait()?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            eprintln!("bench: the enforcer is not lifted: {error:#}");
        }
    }
}

fn make_readable(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?)
}

/// The roots that a job is given.
pub const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
