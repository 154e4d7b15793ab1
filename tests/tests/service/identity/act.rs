//! A workflow of GitHub's, run by `act` on this host in a scope, which says who it is by a token
//! that it asks for as on GitHub's runners.

use std::path::Path;
use std::process::Command;

use enforcer::session::read;
use enforcer_tests::wait::until_said;
use serde_json::json;

use super::World;

const POLICY: &str = r#"
version: 1
name: test
rules:
  - {id: tokens, when: {host: issuer.test, path: /job-token}, allow: true, addresses: [loopback]}
  - {id: net, when: {host: upstream.test}, addresses: [loopback]}
  - {id: open, when: {host: upstream.test, path: /open}, allow: true}
  - id: staging
    when: {host: upstream.test, path: /staging, identity: {assurance: attested, repository: octo/app}}
    allow: true
  - id: own
    when: {host: upstream.test, identity: {repository: octo/app, ref: refs/heads/main, event: push}}
    allow: true
"#;

/// What the runner gives the job to ask for tokens with.
const BEARER: &str = "of-the-runner";

/// A repository with the workflow, as it was cloned.
fn repository(folder: &Path) {
    let workflows = folder.join(".github/workflows");
    std::fs::create_dir_all(&workflows).unwrap();
    let workflow = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/act/build.yml");
    std::fs::copy(workflow, workflows.join("build.yml")).unwrap();
    let script = "git init -q -b main . && git remote add origin https://github.com/octo/app.git && git add . && \
                  git -c user.name=t -c user.email=t@t.test commit -q -m first";
    assert!(Command::new("sh").args(["-c", script]).current_dir(folder).status().unwrap().success());
}

#[test]
fn a_workflow_gets_what_its_token_says_and_without_one_what_is_for_those() {
    let world = World::with(POLICY);
    let mut claims = world.claims();
    claims.as_object_mut().unwrap().remove("aud");
    world.issuer.gives(BEARER, claims);
    let folder = tempfile::tempdir().unwrap();
    repository(folder.path());
    let ci = world.service.cgroup.child("ci").unwrap();
    assert!(world.service.output(&["scope", "add", "ci", "--cgroup", "/ci/job-*"]).unwrap().status.success());
    let act = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/clients/act/bin/act");
    let bundle = world.service.dir.path().join("run/trust/current/bundle.pem");
    let (url, request) = (world.url(), format!("{}/job-token?version=1", world.issuer.url));
    for (number, starts, token, codes, known) in [
        (1, "yes", true, ["200", "200", "200"], "oidc"),
        (2, "yes", false, ["200", "200", "403"], "attested"),
        (3, "no", true, ["200", "403", "403"], "none"),
    ] {
        let cgroup = ci.child(&format!("job-{number}")).unwrap();
        until_said("assurance", || world.in_cgroup(cgroup.path(), "", "$E job ls"));
        let asks = match token {
            true => {
                format!("ACTIONS_ID_TOKEN_REQUEST_URL='{request}' ACTIONS_ID_TOKEN_REQUEST_TOKEN={BEARER}")
            }
            false => String::new(),
        };
        let script = format!(
            "cd {repository}; export HOME={repository}/../home-{number} SSL_CERT_FILE={bundle} CURL_CA_BUNDLE={bundle}; \
             mkdir -p $HOME; env {asks} ENFORCER=\"$E\" URL={url} STARTS={starts} timeout 120 {act} push --actor mona \
             --no-cache-server -P ubuntu-latest=-self-hosted --env STARTS={starts}",
            repository = folder.path().display(),
            bundle = bundle.display(),
        );
        let text = world.in_cgroup(cgroup.path(), "", &script);
        for (path, code) in ["open", "staging", "own"].iter().zip(codes) {
            assert!(text.contains(&format!("| {path} {code}")), "{number}, {path}: {text}");
        }
        assert!(text.contains(&format!("assurance     {known}")), "{number}: {text}");
        assert!(text.contains("Job succeeded"), "{number}: {text}");
    }
    recorded(&world);
}

/// Each of the three as what it was known for, where it was let through.
fn recorded(world: &World) {
    let dir = world.service.sessions();
    let mut known = Vec::new();
    for session in read::list(&dir, &read::Filter::default()).unwrap() {
        let (_, entries) = read::show(&dir, &session.id.to_string()).unwrap();
        let asked = |path: &str| entries.iter().any(|entry| entry.payload["path"] == path);
        if !asked("/own") {
            continue;
        }
        let identity = &entries[0].payload["identity"];
        let rules = entries.iter().filter_map(|entry| entry.payload["rule"].as_str());
        let rules: Vec<&str> = rules.collect();
        known.push((identity.clone(), rules.join(" ")));
    }
    let by = |assurance: &str| {
        let all: Vec<_> = known.iter().filter(|(identity, _)| identity["assurance"] == assurance).collect();
        assert_eq!(all.len(), 1, "{assurance}: {known:?}");
        all[0].clone()
    };
    let (identity, rules) = by("oidc");
    // Those of the token, and not those that act sets.
    let want = json!({
        "issuer": world.issuer.url, "repository": "octo/app", "repository_id": "7", "ref": "refs/heads/main",
        "run_id": "424242", "job_id": "777777", "actor": "mona",
    });
    for (name, value) in want.as_object().unwrap() {
        assert_eq!(identity[name], *value, "{name}: {identity}");
    }
    assert!(rules.contains("test/own"), "{rules}");
    let (identity, rules) = by("attested");
    assert_eq!((&identity["repository"], &identity["run_id"]), (&json!("octo/app"), &json!("1")));
    assert!(!rules.contains("test/own"), "{rules}");
    assert_eq!(known.len(), 3, "{known:?}");
    let written = world.service.written().unwrap();
    assert!(!crate::has(&written, BEARER.as_bytes()), "what asks for tokens stands in the recording");
}
