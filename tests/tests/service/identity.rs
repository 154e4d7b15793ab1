//! Who a job is: tokens on `job.sock`, in a real cgroup, of an issuer of our own.

mod act;
mod gitlab;
mod hooks;
mod layers;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use enforcer::net::ipc::Channel;
use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::issuer::{Issuer, Signer, unsigned};
use enforcer_tests::service::{NOBODY, Service, Upstream};
use enforcer_tests::wait::{until, until_said};
use serde_json::{Value, json};

use super::{NAME, POLICY, has};

const ISSUER: &str = "issuer.test";
const AUDIENCE: &str = "https://enforcer.test";
/// One path for everybody, all others for the jobs of a repository.
const OWN: &str = r#"
version: 1
name: test
rules:
  - {id: open, when: {host: upstream.test, path: /open}, allow: true, addresses: [loopback]}
  - {id: own, when: {host: upstream.test, identity: {repository: octo/app}}, allow: true, addresses: [loopback]}
"#;

struct World {
    upstream: Upstream,
    issuer: Issuer,
    service: Service,
}

impl World {
    fn new() -> Self {
        Self::with(POLICY)
    }

    fn with(policy: &str) -> Self {
        let upstream = Upstream::start(NAME, "hello\n".to_owned()).unwrap();
        let issuer = Issuer::start(ISSUER).unwrap();
        let roots = format!("{}{}", upstream.ca_pem, issuer.ca_pem);
        let names = [(NAME, upstream.address.ip()), (ISSUER, issuer.address.ip())];
        let mut service = Service::start_by(&[], &names, &roots, policy).unwrap();
        service.stop_daemon().unwrap();
        let config = service.dir.path().join("config.toml");
        let mut config = std::fs::OpenOptions::new().append(true).open(config).unwrap();
        writeln!(
            config,
            "[[identity.issuer]]\nname = \"test\"\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\nprofile = \"github\"",
            issuer.url
        )
        .unwrap();
        service.start_daemon().unwrap();
        Self { upstream, issuer, service }
    }

    /// The same, started again with layers of policy.
    fn with_layers(mut self, layers: &Path) -> Self {
        self.service.stop_daemon().unwrap();
        let path = self.service.dir.path().join("config.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        let setting = format!("[policy]\nlayers = {:?}\n", layers.display().to_string());
        assert!(config.contains("[policy]\n"), "{config}");
        std::fs::write(&path, config.replacen("[policy]\n", &setting, 1)).unwrap();
        self.service.start_daemon().unwrap();
        self
    }

    fn token_but(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        self.issuer.token(&claims)
    }

    fn claims(&self) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": self.issuer.url, "aud": AUDIENCE, "sub": "repo:octo/app:ref:refs/heads/main", "jti": "one",
            "iat": now, "nbf": now, "exp": now + 300, "repository": "octo/app", "repository_id": "7",
            "ref": "refs/heads/main", "ref_protected": "true", "sha": "1234", "workflow": "build",
            "event_name": "push", "run_id": "424242", "run_attempt": "1", "check_run_id": "777777", "actor": "mona",
        })
    }

    fn token(&self) -> String {
        self.token_but("jti", "one".into())
    }

    /// How a job calls the program.
    fn inside(&self) -> String {
        let program = self.service.command(&[]).unwrap();
        let config = self.service.dir.path().join("config.toml");
        format!("{} --config {}", program.get_program().display(), config.display())
    }

    fn url(&self) -> String {
        format!("https://{NAME}:{}", self.upstream.address.port())
    }

    /// What a process says that comes into this cgroup and has this token.
    fn in_cgroup(&self, cgroup: &Path, token: &str, script: &str) -> String {
        let script = format!(
            "exec 2>&1; echo $$ > '{}/cgroup.procs'; E='{}'; {script}",
            cgroup.display(),
            self.inside()
        );
        said(
            &Command::new("sh")
                .args(["-c", &script])
                .env("CI_TOKEN", token)
                .stdin(Stdio::null())
                .output()
                .unwrap(),
        )
    }

    /// A job that has this token in a variable, in which `$E` is the program.
    fn job(&self, token: &str, script: &str) -> String {
        let script = format!("exec 2>&1; E='{}'; {script}", self.inside());
        let mut command = self.service.command(&["run", "--quiet", "--", "sh", "-c", &script]).unwrap();
        said(&command.env("CI_TOKEN", token).stdin(Stdio::null()).output().unwrap())
    }
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[test]
fn a_token_says_who_the_job_is_in_all_that_is_recorded() {
    let world = World::new();
    let url = format!("https://{NAME}:{}", world.upstream.address.port());
    let token = world.token();
    let script = format!(
        "$E job ls; $E job start --token-env CI_TOKEN && $E job ls --json; curl -sS {url}/x; sleep 0.3; \
         touch {0}/now; until [ -e {0}/seen ]; do sleep 0.05; done; $E job end; $E job ls",
        world.service.dir.path().display()
    );
    let (now, seen) = (world.service.dir.path().join("now"), world.service.dir.path().join("seen"));
    let text = std::thread::scope(|threads| {
        let job = threads.spawn(|| world.job(&token, &script));
        until("the job is known", || now.exists() || job.is_finished());
        let status = said(&world.service.output(&["status"]).unwrap());
        std::fs::write(&seen, "").unwrap();
        let text = job.join().unwrap();
        assert!(status.contains("oidc: octo/app refs/heads/main 424242 777777 mona"), "{status}{text}");
        text
    });
    assert!(text.contains("known by `oidc`") && text.contains("\"run_id\": \"424242\""), "{text}");
    assert_eq!(text.matches("assurance     none").count(), 2, "{text}");
    let written = world.service.written().unwrap();
    for part in [
        &b"\"event\":\"identity\""[..],
        b"\"event\":\"identity-ended\"",
        b"\"repository\":\"octo/app\"",
        b"\"job_id\":\"777777\"",
    ] {
        assert!(has(&written, part), "{}", String::from_utf8_lossy(part));
    }
    // In the session of the workload and in that of its connection, at the least.
    let text = String::from_utf8_lossy(&written);
    assert!(text.matches("\"run_id\":\"424242\"").count() >= 2);
    assert!(!has(&written, token.as_bytes()) && !has(&written, token.rsplit_once('.').unwrap().1.as_bytes()));
}

#[test]
fn a_token_is_not_taken_from_another_job_nor_when_it_is_not_ours() {
    let world = World::new();
    let start = "$E job start --token-env CI_TOKEN";
    let token = world.token();
    // A later stage of the same job may present it again.
    let text = world.job(&token, &format!("{start}; sh -c \"{start}\""));
    assert_eq!(text.matches("known by `oidc`").count(), 2, "{text}");
    // The cgroup is gone, and a new one has its name.
    let text = world.job(&token, &format!("{start}; $E job ls"));
    assert!(text.contains("presented by another job") && text.contains("assurance     none"), "{text}");
    for (name, value, says) in [
        ("exp", json!(1_000_000), "expired"),
        ("aud", json!("https://else.test"), "not for us"),
        ("iss", json!("https://else.test"), "no issuer that is known"),
    ] {
        let text = world.job(&world.token_but(name, value), &format!("{start}; echo code $?"));
        assert!(text.contains(says) && text.contains("code 1"), "{name}: {text}");
    }
    let kid = world.issuer.signer().kid;
    let none = unsigned(&json!({"alg": "none", "kid": kid}), &world.claims());
    let stranger = Signer::rsa("another").unwrap().token(&world.claims());
    let thief = Signer::rsa(&kid).unwrap().token(&world.claims());
    for (token, says) in [
        ("x.y.z", "no signed token"),
        (&*format!("{none}."), "not accepted with the algorithm `none`"),
        (&stranger, "no key like the one"),
        (&thief, "was not signed by"),
    ] {
        let text = world.job(token, &format!("{start}; echo code $?; $E job ls"));
        assert!(
            text.contains(says) && text.contains("code 1") && text.contains("assurance     none"),
            "{says}: {text}"
        );
    }
    // Presented from outside it is nobody's, and stays who ever presents it first.
    let two = world.token_but("jti", "two".into());
    let mut outside = world.service.command(&["job", "start", "--token-env", "CI_TOKEN"]).unwrap();
    let text = said(&outside.env("CI_TOKEN", &two).stdin(Stdio::null()).output().unwrap());
    assert!(text.contains("in no tagged cgroup"), "{text}");
    assert!(world.job(&two, start).contains("known by `oidc`"));
    let written = world.service.written().unwrap();
    for reason in [
        "token-of-another-job",
        "expired",
        "audience",
        "unknown-issuer",
        "no-token",
        "algorithm",
        "unknown-key",
        "signature",
    ] {
        assert!(has(&written, format!("\"reason\":\"{reason}\"").as_bytes()), "{reason}");
    }
}

#[test]
fn what_a_job_says_of_itself_is_not_more_than_that() {
    let world = World::new();
    let ci = "GITHUB_ACTIONS=true GITHUB_REPOSITORY=octo/app GITHUB_RUN_ID=9";
    let text = world.job("", &format!("env {ci} $E job start; {ci} $E job ls --json"));
    assert!(text.contains("id-token: write") && text.contains("known by `attested`"), "{text}");
    assert!(text.contains("\"assurance\": \"attested\"") && text.contains("octo/app"), "{text}");
    // Until a token proves it.
    let both =
        format!("env {ci} $E job start; $E job start --token-env CI_TOKEN; env {ci} $E job start; $E job ls");
    let text = world.job(&world.token(), &both);
    assert!(text.trim_end().ends_with("mona") && text.contains("assurance     oidc"), "{text}");
}

#[test]
fn root_in_a_tagged_cgroup_has_no_say_but_says_who_it_is() {
    let world = World::new();
    let text = world.job("", "id -u; $E status; $E job ls");
    assert!(text.starts_with("0\n"), "{text}");
    assert!(text.contains("a process in a tagged cgroup has no say here"), "{text}");
    assert!(text.contains("job           run\nassurance     none"), "{text}");
    // Outside it is the other way round.
    let out = world.service.output(&["job", "ls"]).unwrap();
    assert!(
        said(&out).contains("in no tagged cgroup") && said(&out).contains("enforcer run"),
        "{}",
        said(&out)
    );
    assert_eq!(out.status.code(), Some(3));
    assert_eq!(world.service.output(&["status"]).unwrap().status.code(), Some(0));
    // Everybody may ask.
    let mut command = world.service.command_of_all(&["job", "ls"]).unwrap();
    let out = command.uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null()).output().unwrap();
    assert!(said(&out).contains("in no tagged cgroup"), "{}", said(&out));
    let mut command = world.service.command_of_all(&["run", "--", "/bin/sh", "-c"]).unwrap();
    let copy = world.service.dir.path().join("enforcer");
    let config = world.service.dir.path().join("config.toml");
    let script = format!("{} --config {} job ls", copy.display(), config.display());
    let command = command.arg(script).uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null());
    assert!(said(&command.output().unwrap()).contains("job           run"));
}

#[test]
fn a_new_proxy_knows_who_jobs_are_and_whose_tokens_are_whose() {
    let world = World::new();
    let token = world.token();
    let dir = world.service.dir.path().to_owned();
    let script = format!(
        "$E job start --token-env CI_TOKEN; touch {0}/bound; until [ -e {0}/killed ]; do sleep 0.05; done; $E job ls",
        dir.display()
    );
    std::thread::scope(|threads| {
        let job = threads.spawn(|| world.job(&token, &script));
        until("the job is known", || dir.join("bound").exists() || job.is_finished());
        world.service.kill_proxy().unwrap();
        world.service.wait_whole().unwrap();
        let other = world.job(&token, "$E job start --token-env CI_TOKEN");
        std::fs::write(dir.join("killed"), "").unwrap();
        let text = job.join().unwrap();
        assert!(text.trim_end().ends_with("mona"), "{text}");
        assert!(other.contains("presented by another job"), "{other}");
    });
}

/// What anybody may send, and how it ends.
const HOSTILE: &str = r#"
import socket, sys, time
def ask(data):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    s.connect(sys.argv[1])
    try:
        if data is not None:
            s.send(data)
        return s.recv(200000).decode()
    except OSError as error:
        return str(error)
for data in [b'{"type":"status"}', b'{"type":"release"}', b'{"type":"ls","tag":1}', b'{', b'\xff' * 9, b'[' * 90000,
             b'{"type":"start","claims":{"provider":"github","assurance":"oidc"}}']:
    print(ask(data))
silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]
for s in silent: s.connect(sys.argv[1])
time.sleep(0.2)
print('busy', '"ok"' not in ask(b'{"type":"ls"}'))
time.sleep(2.5)
print('again', '"ok":true' in ask(b'{"type":"ls"}'))
"#;

#[test]
fn what_is_sent_to_the_socket_can_be_anything() {
    let world = World::new();
    let socket = world.service.dir.path().join("run/job.sock");
    let script = world.service.dir.path().join("hostile.py");
    std::fs::write(&script, HOSTILE).unwrap();
    let text = world.job("", &format!("python3 {} {}", script.display(), socket.display()));
    assert_eq!(text.matches("not understood").count(), 7, "{text}");
    assert!(text.contains("busy True") && text.contains("again True"), "{text}");
    // From outside, too; and one that keeps another workload's turn does not exist.
    let out = Command::new("python3").arg(&script).arg(&socket).output().unwrap();
    assert!(said(&out).contains("again False"), "{}", said(&out));
    let silent: Vec<Channel> = (0..20).map(|_| Channel::connect(&socket).unwrap()).collect();
    let text = world.job(&world.token(), "$E job start --token-env CI_TOKEN");
    assert!(text.contains("known by `oidc`"), "{text}");
    drop(silent);
}

/// By transfers of files in between, which wait until somebody writes to them.
const KEPT: &str = r#"
mkfifo $D/one $D/two; : >$D/out
OUT='-o /dev/null'
curl -sS -w '%{stderr}%{scheme} %{http_code} %{num_connects}\n' $OUT $OUT $OUT $OUT $OUT $OUT $OUT \
    $URL/open $URL/x file://$D/one $URL/x $URL/open file://$D/two $URL/x 2>$D/out &
lines() { until [ "$(grep -c HTTPS $D/out)" -ge $1 ]; do sleep 0.05; done; }
lines 2; $E job start --token-env CI_TOKEN >/dev/null; echo >$D/one
lines 4; $E job end >/dev/null; echo >$D/two
wait; grep HTTPS $D/out
"#;

#[test]
fn a_rule_for_a_repository_holds_between_start_and_end_on_one_connection() {
    let world = World::with(OWN);
    let script =
        KEPT.replace("$D", &world.service.dir.path().display().to_string()).replace("$URL", &world.url());
    let text = world.job(&world.token(), &script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["HTTPS 200 1", "HTTPS 403 0", "HTTPS 200 0", "HTTPS 200 0", "HTTPS 403 0"], "{text}");
    // What the job says of itself opens nothing, and another repository's token neither.
    let get = format!("curl -sS {}/x", world.url());
    let ci = "GITHUB_ACTIONS=true GITHUB_REPOSITORY=octo/app GITHUB_RUN_ID=9";
    let text = world.job("", &format!("env {ci} $E job start; {get}"));
    assert!(text.contains("known by `attested`") && text.contains("policy-default-deny"), "{text}");
    let mut claims = world.claims();
    (claims["repository"], claims["jti"]) = ("octo/app2".into(), "two".into());
    let text = world.job(&world.issuer.token(&claims), &format!("$E job start --token-env CI_TOKEN; {get}"));
    assert!(text.contains("known by `oidc`") && text.contains("policy-default-deny"), "{text}");
    // The same as `explain` has it.
    let explain = |identity: &[&str]| {
        let ask = ["policy", "explain", "--host", NAME, "--path", "/x"];
        said(&world.service.output(&[&ask[..], identity].concat()).unwrap())
    };
    let text = explain(&["--identity", "repository=octo/app"]);
    assert!(text.contains("allow by test/own (policy-allow), by who the job is: oidc"), "{text}");
    let text = explain(&["--identity", "repository=octo/app", "--identity", "assurance=attested"]);
    assert!(text.contains("because of identity (who the job is: attested)"), "{text}");
    assert!(
        text.trim_end().ends_with("deny (policy-default-deny)") && explain(&[]).contains("deny ("),
        "{text}"
    );
    let text = explain(&["--identity", "repositry=octo/app"]);
    assert!(text.contains("repositry") && text.contains("repository"), "{text}");
}

#[test]
fn a_cgroup_that_was_deleted_and_made_again_has_nothing_of_the_one_before() {
    let world = World::with(OWN);
    let ci = world.service.cgroup.child("ci").unwrap();
    let added = world.service.output(&["scope", "add", "ci", "--cgroup", "/ci/job-*"]).unwrap();
    assert!(added.status.success(), "{}", said(&added));
    let roots = world.service.dir.path().join("ca/ca.pem");
    let get = format!("curl -sS --max-time 20 --cacert {} {}/x", roots.display(), world.url());
    let job = || -> Cgroup {
        let cgroup = ci.child("job-1").unwrap();
        until_said("assurance", || world.in_cgroup(cgroup.path(), "", "$E job ls"));
        cgroup
    };
    let mut token = world.token();
    for round in 0..4 {
        let first = job();
        let start = format!("$E job start --token-env CI_TOKEN; {get}");
        let text = world.in_cgroup(first.path(), &token, &start);
        assert!(text.contains("known by `oidc`") && text.trim_end().ends_with("hello"), "{round}: {text}");
        drop(first);
        if round == 2 {
            // What is kept for the next proxy is not for the next cgroup either.
            world.service.kill_proxy().unwrap();
            world.service.wait_whole().unwrap();
        }
        let again = job();
        let text = world.in_cgroup(again.path(), &token, &format!("$E job ls; {get}; {start}; $E job ls"));
        assert_eq!(text.matches("assurance     none").count(), 2, "{round}: {text}");
        assert_eq!(text.matches("\"status\":403").count(), 2, "{round}: {text}");
        assert!(text.contains("presented by another job"), "{round}: {text}");
        token = world.token_but("jti", format!("round {round}").into());
        drop(again);
    }
    let status = said(&world.service.output(&["status"]).unwrap());
    assert!(!status.contains("octo/app"), "{status}");
}

#[test]
fn an_issuer_may_change_its_keys_at_any_time() {
    let world = World::new();
    let start = "$E job start --token-env CI_TOKEN";
    let old = world.issuer.signer();
    assert!(world.job(&world.token(), start).contains("known by `oidc`"));
    world.issuer.rotate(Signer::rsa("second").unwrap());
    let token = world.token_but("jti", "two".into());
    assert!(world.job(&token, start).contains("known by `oidc`"));
    let mut claims = world.claims();
    claims["jti"] = "three".into();
    let text = world.job(&old.token(&claims), start);
    assert!(text.contains("no key like the one"), "{text}");
}
