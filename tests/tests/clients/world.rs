//! One server and one service for all clients of a test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use enforcer_tests::origin::{Content, Origin, make_content};
use enforcer_tests::service::Service;

pub const NAME: &str = "upstream.test";
pub const POLICY: &str = r#"
version: 1
name: clients
rules:
  - id: mask
    when: {host: upstream.test}
    mask: {request: [secrets], response: [secrets]}
    addresses: [loopback]
  - id: no-push
    when: {host: upstream.test, path: '/git/protected.git/git-receive-pack'}
    deny: pushes go through review
  - id: elsewhere
    when: {host: upstream.test, path: '/elsewhere/**'}
    deny: ask for the other host
  - id: rest
    when: {host: upstream.test}
    allow: true
"#;

/// A client that hangs fails its test instead of all that follow.
const TIMEOUT_SECONDS: &str = "300";

pub struct World {
    pub origin: Origin,
    pub service: Service,
    pub folder: tempfile::TempDir,
}

/// What came of one job.
pub struct Outcome {
    pub text: String,
    pub code: Option<i32>,
    /// Requests that reached the server.
    pub reached: usize,
    /// Statements in the recording of this job, for the server's name.
    pub recorded: u64,
    /// The reasons for which connections of this job were refused.
    pub refused: Vec<String>,
}

impl World {
    pub fn start() -> Self {
        Self::start_with(POLICY)
    }

    pub fn start_with(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("content");
        let origin = Origin::start(NAME, Content::of(&content)).unwrap();
        make_content(&content, &format!("https://{NAME}:{}", origin.address.port())).unwrap();
        let service = Service::start_for(NAME, origin.address, &origin.ca_pem, policy).unwrap();
        Self { origin, service, folder }
    }

    pub fn url(&self) -> String {
        format!("https://{NAME}:{}", self.origin.address.port())
    }

    /// Runs a script as a job called `job`, in a folder of its own and without any
    /// variable of this machine that says what to trust.
    pub fn run(&self, job: &str, script: &str, with_variables: bool) -> Outcome {
        self.run_with(job, script, with_variables, &[])
    }

    /// The same with more variables.
    pub fn run_with(&self, job: &str, script: &str, with_variables: bool, more: &[(&str, &Path)]) -> Outcome {
        self.origin.take_seen();
        let home = self.folder.path().join(job);
        std::fs::create_dir_all(&home).unwrap();
        let mut command = self.service.command(&["run", "--name", job]).unwrap();
        if !with_variables {
            command.arg("--no-env");
        }
        let out = command
            .args(["--", "timeout", TIMEOUT_SECONDS, "sh", "-c", &format!("exec 2>&1; {script}")])
            .env_clear()
            .envs(self.environment(&home))
            .envs(more.iter().copied())
            .current_dir(&home)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        let (recorded, refused) = self.recorded(job);
        Outcome { text, code: out.status.code(), reached: self.origin.take_seen().len(), recorded, refused }
    }

    fn environment(&self, home: &Path) -> BTreeMap<&'static str, String> {
        let own = std::env::var("HOME").unwrap();
        let text = |path: PathBuf| path.display().to_string();
        BTreeMap::from([
            ("URL", self.url()),
            ("HOME", text(home.to_owned())),
            ("TMPDIR", text(home.to_owned())),
            ("PATH", std::env::var("PATH").unwrap()),
            ("PYTHON", text(installed("python/bin/python"))),
            ("NODE", text(installed("node"))),
            ("NODEJS", text(node())),
            ("GO", text(installed("go"))),
            ("RUST", env!("CARGO_BIN_EXE_enforcer-client").to_owned()),
            ("CLIENTS", text(clients(""))),
            ("RUSTUP_HOME", std::env::var("RUSTUP_HOME").unwrap_or_else(|_| format!("{own}/.rustup"))),
            ("RUSTUP_TOOLCHAIN", std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned())),
            ("CARGO_HOME", text(home.join("cargo-home"))),
            ("LANG", "C.UTF-8".to_owned()),
        ])
    }

    fn recorded(&self, job: &str) -> (u64, Vec<String>) {
        let out = self.service.output(&["sessions", "ls", "-o", "json", "--limit", "1000"]).unwrap();
        let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let sessions = list.as_array().unwrap_or_else(|| list["sessions"].as_array().unwrap()).clone();
        let own: Vec<_> = sessions.iter().filter(|session| session["workload"] == job).collect();
        let to_us = |session: &&&serde_json::Value| {
            session["destination"].as_str().is_some_and(|destination| destination.starts_with(NAME))
        };
        let recorded = own.iter().filter(to_us).filter_map(|session| session["statements"].as_u64()).sum();
        let refused =
            own.iter().map(|session| session.to_string()).filter(|text| text.contains("client-pins-roots"));
        (recorded, refused.collect())
    }
}

/// A file of this folder's clients.
pub fn clients(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Node as nodejs.org builds it: with roots of its own, which Debian's has not.
pub fn node() -> PathBuf {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    installed(&format!("node/node_modules/node-linux-{arch}/bin/node"))
}

/// What `cargo xtask setup` installed.
pub fn installed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients").join(name)
}
