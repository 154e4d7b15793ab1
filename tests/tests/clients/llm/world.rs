//! The fakes of the APIs and the service, and jobs that talk to them by their real names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use enforcer_tests::llm::{Call, FakeLlm, HOSTS, Script};
use enforcer_tests::origin::token;
use enforcer_tests::search::Needle;
use enforcer_tests::service::Service;
use serde_json::Value;

use crate::world::installed;

/// A registered value, with what JSON and shells write in another way.
pub const REGISTERED: &str = r#"Harbour"41\lamp-zq7/Kelp"#;
/// One that the user types.
pub const TYPED: &str = "Lantern&52\\moss-xw3<Tarn";
/// The key that clients have of their provider.
pub const KEY: &str = "fake-key-of-the-client-0001";

pub struct World {
    pub fake: FakeLlm,
    pub service: Service,
    pub folder: tempfile::TempDir,
}

/// What came of one job.
pub struct Outcome {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
    /// What reached the fake.
    pub calls: Vec<Call>,
    /// Where the job could write.
    pub home: PathBuf,
}

/// What the model says, with both secrets in all of it that is not signed.
pub fn script() -> Script {
    let secrets = format!("{} and then {REGISTERED}", token());
    Script {
        text: format!("Grüße 😀, \"the token\" is {secrets}.\nNow I look it up."),
        reasoning: format!("they want {secrets}; so be it"),
        thinking: "they want the token; so be it".to_owned(),
        note: format!("say \"{secrets}\"\tto ü"),
        command: format!("printf '%s' 'noted: {secrets}' > noted.txt"),
        last: format!("Done: {secrets} is noted."),
    }
}

/// A token that the user types; in pieces, so that no scanner takes it for one of ours.
pub fn typed_token() -> String {
    ["gh", "p_", "Z9y8X7w6V5u4", "T3s2R1q0P9o8", "N7m6L5k4J3i2"].concat()
}

/// What is asked of models.
pub fn prompt() -> String {
    format!("Grüße! \"My\" token is {} and {TYPED}:\nnote it.", typed_token())
}

/// The text as it is to arrive at the other side.
pub fn arrives(text: &str) -> String {
    let tokens = [token(), typed_token()];
    let text = tokens.iter().fold(text.to_owned(), |text, it| text.replace(it, "[MASKED:GITHUB_TOKEN]"));
    text.replace(REGISTERED, "[MASKED:DEPLOY]").replace(TYPED, "[MASKED:TYPED]")
}

impl World {
    pub fn start(policy: &str) -> Self {
        Self::start_with(policy, script())
    }

    /// The same with another thing to say.
    pub fn start_with(policy: &str, script: Script) -> Self {
        let (address, fake) = FakeLlm::start(script).unwrap();
        let names: Vec<(&str, IpAddr)> = HOSTS.iter().map(|name| (*name, address)).collect();
        let secrets = [("DEPLOY", REGISTERED), ("TYPED", TYPED)];
        let service = Service::start_with(&[], &names, &fake.ca_pem, policy, &secrets).unwrap();
        Self { fake, service, folder: tempfile::tempdir().unwrap() }
    }

    /// What the model said stands nowhere where the job could have it from, and what the
    /// user typed stands in nothing that left the job.
    pub fn holds_no_secret(&self, outcome: &Outcome) {
        for secret in [token(), REGISTERED.to_owned()] {
            let needle = Needle::new(&secret);
            for (what, text) in [("output", &outcome.out), ("errors", &outcome.err)] {
                assert_eq!(needle.found_in(text.as_bytes()), None, "{what}: {outcome}");
            }
            assert_eq!(needle.files(&outcome.home).unwrap(), [], "{outcome}");
        }
        for secret in [token(), REGISTERED.to_owned(), typed_token(), TYPED.to_owned()] {
            let needle = Needle::new(&secret);
            for call in &outcome.calls {
                let head = format!("{} {:?}", call.target, call.headers);
                assert_eq!(needle.found_in(head.as_bytes()), None, "{head}");
                let body = String::from_utf8_lossy(&call.body);
                assert_eq!(needle.found_in(&call.body), None, "{}: {body}", call.target);
            }
            assert_eq!(needle.files(&self.service.sessions()).unwrap(), [], "the recording");
        }
    }

    /// Runs a script as a job called `job`, in a folder of its own, with these variables.
    pub fn run(&self, job: &str, script: &str, more: &[(&str, &str)]) -> Outcome {
        self.fake.take_calls();
        let home = self.folder.path().join(job);
        std::fs::create_dir_all(&home).unwrap();
        let out = self
            .service
            .command(&["run", "--name", job, "--", "sh", "-c", script])
            .unwrap()
            .env_clear()
            .envs(environment(&home))
            .envs(more.iter().copied())
            .current_dir(&home)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = out.status.code();
        Outcome { out: text(&out.stdout), err: text(&out.stderr), code, calls: self.fake.take_calls(), home }
    }
}

impl Outcome {
    /// What it printed, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// What was asked of models, in the order in which it came.
    pub fn asked(&self) -> Vec<Value> {
        const PATHS: [&str; 5] = [
            "/v1/messages?",
            "/v1/responses?",
            "/v1/chat/completions?",
            ":streamGenerateContent?",
            "/api/chat?",
        ];
        let asks = |call: &&Call| {
            !call.body.is_empty() && PATHS.iter().any(|path| format!("{}?", call.target).contains(path))
        };
        self.calls.iter().filter(asks).map(Call::json).collect()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "code {:?}\n{}\n{}", self.code, self.out, self.err)?;
        for call in &self.calls {
            let kind = if call.websocket { "websocket" } else { "http" };
            writeln!(f, "{} {} {}, {kind}, {} bytes", call.method, call.host, call.target, call.body.len())?;
        }
        Ok(())
    }
}

fn environment(home: &Path) -> BTreeMap<&'static str, String> {
    let text = |path: PathBuf| path.display().to_string();
    BTreeMap::from([
        ("HOME", text(home.to_owned())),
        ("TMPDIR", text(home.to_owned())),
        ("PATH", std::env::var("PATH").unwrap()),
        ("PYTHON", text(installed("python/bin/python"))),
        ("NODE", text(installed("node"))),
        ("NODEJS", text(crate::world::node())),
        ("AGENTS", text(installed("agents/node_modules"))),
        ("CLIENTS", text(crate::world::clients(""))),
        ("LANG", "C.UTF-8".to_owned()),
        ("OPENAI_API_KEY", KEY.to_owned()),
        ("ANTHROPIC_API_KEY", KEY.to_owned()),
        ("GEMINI_API_KEY", KEY.to_owned()),
    ])
}
