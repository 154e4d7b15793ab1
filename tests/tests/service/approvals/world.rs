//! The service with deciders, a job with a token, and an upstream that remembers what came.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use enforcer_tests::issuer::Issuer;
use enforcer_tests::service::Service;
use enforcer_tests::sink::Sink;
use enforcer_tests::wait::until;
use serde_json::{Value, json};

use crate::NAME;

pub const ISSUER: &str = "issuer.test";
/// The commit of its jobs.
pub const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
const JOBS: &str = "https://enforcer.test";
const PEOPLE: &str = "https://approvals.test";
pub const POLICY: &str = r#"
version: 1
name: held
rules:
  - {id: net, when: {host: upstream.test}, addresses: [loopback]}
  - id: one
    when: {host: upstream.test, path: /one}
    hold: {needs: [{people: 1, groups: [ops]}]}
  - id: two
    when: {host: upstream.test, path: [/two, '/two/**']}
    hold: {message: two people, needs: [{people: 2, groups: [ops]}]}
  - id: both
    when: {host: upstream.test, path: /both}
    hold: {needs: [{people: 1, groups: [ops]}, {people: 1, groups: [sec]}]}
  - id: later
    when: {host: upstream.test, path: [/later, '/later/**']}
    hold: {needs: [{people: 1, groups: [ops]}], hold_seconds: 1}
  - id: later-two
    when: {host: upstream.test, path: /later-two}
    hold: {needs: [{people: 2, groups: [ops]}], hold_seconds: 1}
  - id: later-both
    when: {host: upstream.test, path: /later-both}
    hold: {needs: [{people: 1, groups: [ops]}, {people: 1, groups: [sec]}], hold_seconds: 1}
  - id: soon
    when: {host: upstream.test, path: [/soon, '/soon/**']}
    hold: {needs: [{people: 1, groups: [ops]}], open_seconds: 2}
  - id: kept
    when: {host: upstream.test, path: '/kept/**'}
    hold: {needs: [{people: 1, groups: [ops]}], keep_alive: true}
  - id: fetched
    when: {host: upstream.test, path: '/files/wheels/**'}
    hold: {needs: [{people: 1, groups: [ops]}]}
  - {id: rest, when: {host: upstream.test}, allow: true}
"#;

pub struct World {
    pub sink: Sink,
    pub issuer: Issuer,
    pub service: Service,
    tokens: AtomicU32,
}

impl World {
    pub fn new() -> Self {
        Self::with(POLICY, &[], "")
    }

    /// With another policy, more names, and more settings, in which `@UPSTREAM@` is the URL of the
    /// upstream, `@ISSUER@` that of the issuer and `@DIR@` the folder of the service.
    pub fn with(policy: &str, more_names: &[(&str, IpAddr)], more: &str) -> Self {
        let sink = Sink::start(NAME).unwrap();
        let issuer = Issuer::start(ISSUER).unwrap();
        let roots = format!("{}{}", sink.ca_pem, issuer.ca_pem);
        let names = [&[(NAME, sink.address.ip()), (ISSUER, issuer.address.ip())], more_names].concat();
        let mut service = Service::start_by(&[], &names, &roots, policy).unwrap();
        service.stop_daemon().unwrap();
        let (url, dir) = (&issuer.url, service.dir.path().display().to_string());
        let mut text = format!(
            "[[identity.issuer]]\nname = \"ci\"\nissuer = \"{url}\"\naudience = \"{JOBS}\"\nprofile = \"github\"\n\
             [approvals]\ndir = \"{dir}/approvals\"\n\
             [[approvals.issuer]]\nname = \"idp\"\nissuer = \"{url}\"\naudience = \"{PEOPLE}\"\n"
        );
        // What the configuration expects of ann is more than her tokens say.
        for (name, groups) in [
            ("mona", "\"ops\""),
            ("ann", "\"ops\", \"sec\""),
            ("bob", "\"ops\""),
            ("cat", "\"ops\", \"sec\""),
        ] {
            text += &format!(
                "[[approvals.person]]\nname = \"{name}\"\nlogins = [\"{name}@{ISSUER}\"]\nsubjects = {{ idp = \"{name}\" }}\n\
                 groups = [{groups}]\n"
            );
        }
        let upstream = format!("https://{NAME}:{}", sink.address.port());
        text += &more.replace("@UPSTREAM@", &upstream).replace("@ISSUER@", url).replace("@DIR@", &dir);
        let config = service.dir.path().join("config.toml");
        let mut config = std::fs::OpenOptions::new().append(true).open(config).unwrap();
        config.write_all(text.as_bytes()).unwrap();
        service.start_daemon().unwrap();
        Self { sink, issuer, service, tokens: AtomicU32::new(0) }
    }

    pub fn token(&self, more: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let jti = self.tokens.fetch_add(1, Ordering::Relaxed).to_string();
        let mut claims = json!({ "iss": self.issuer.url, "jti": jti, "iat": now, "exp": now + 300 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.issuer.token(&claims)
    }

    pub fn token_of_job(&self) -> String {
        self.token(json!({
            "aud": JOBS, "sub": "repo:octo/app:ref:refs/heads/main", "repository": "octo/app", "repository_id": "7",
            "ref": "refs/heads/main", "sha": SHA, "workflow": "build", "event_name": "push", "run_id": "42",
            "actor": "mona",
        }))
    }

    pub fn token_of(&self, who: &str, groups: &[&str]) -> String {
        self.token(json!({ "aud": PEOPLE, "sub": who, "groups": groups }))
    }

    pub fn url(&self) -> String {
        format!("https://{NAME}:{}", self.sink.address.port())
    }

    /// A job that has said who it is, in which `post PATH BODY` posts.
    pub fn job(&self, script: &str) -> String {
        let program = self.service.command(&[]).unwrap();
        let config = self.service.dir.path().join("config.toml");
        let url = self.url();
        let script = format!(
            "exec 2>&1; E='{} --config {}'; D={}; $E job start --token-env CI_TOKEN >/dev/null; \
             post() {{ printf '%s' \"$2\" | curl -sS -w ' %{{http_code}}\\n' --data-binary @- {url}$1; }}; {script}",
            program.get_program().display(),
            config.display(),
            self.service.dir.path().display(),
        );
        let mut command = self.service.command(&["run", "--quiet", "--", "sh", "-c", &script]).unwrap();
        said(&command.env("CI_TOKEN", self.token_of_job()).stdin(Stdio::null()).output().unwrap())
    }

    pub fn listed(&self, all: bool) -> Vec<Value> {
        let args = ["approvals", "ls", "--json", "--all"];
        let out = self.service.output(&args[..if all { 4 } else { 3 }]).unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    /// The only question that is open.
    pub fn open(&self) -> (String, String) {
        until("somebody is asked", || self.listed(false).len() == 1);
        let one = self.listed(false).remove(0);
        (one["id"].as_str().unwrap().to_owned(), one["seen"].as_str().unwrap().to_owned())
    }

    pub fn says(&self, token: &str, verb: &str, (id, seen): &(String, String)) -> String {
        let args = ["approvals", verb, id, "--seen", seen, "--reason", "as announced"];
        let mut command = self.service.command(&args).unwrap();
        let text = said(&command.env("ENFORCER_APPROVER_TOKEN", token).output().unwrap());
        // Errors are broken into lines.
        text.split_whitespace().filter(|word| *word != "\u{2502}").collect::<Vec<_>>().join(" ")
    }

    pub fn yes(&self, who: &str, asked: &(String, String)) -> String {
        self.says(&self.token_of(who, &["ops"]), "approve", asked)
    }

    pub fn taken(&self, line: &str, bodies: &[&str]) {
        let want: Vec<Vec<u8>> = bodies.iter().map(|body| body.as_bytes().to_vec()).collect();
        assert_eq!(self.bodies(line), want);
    }

    /// Of the requests that have reached the upstream with this line.
    pub fn bodies(&self, line: &str) -> Vec<Vec<u8>> {
        let all = self.sink.taken().into_iter().filter(|taken| taken.line == line);
        all.map(|taken| taken.body).collect()
    }

    pub fn runs<'scope, 'env>(
        &'env self,
        threads: &'scope Scope<'scope, 'env>,
        script: &'env str,
    ) -> ScopedJoinHandle<'scope, String> {
        threads.spawn(move || self.job(script))
    }
}

pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}
