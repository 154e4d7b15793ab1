//! git and package managers in depth: what they verify by hash arrives unchanged,
//! what they only show is masked, and every request stands in the recording.

use std::path::{Path, PathBuf};
use std::process::Command;

use enforcer_tests::origin::token;
use enforcer_tests::sniffer::contains;

use super::matrix::script_of;
use super::world::{NAME, Outcome, World};

/// A push of more than `http.postBuffer` over HTTP/2 can wait for ever: libcurl asks for more
/// once all is sent, and git waits for its own child then (git/git#1608). Here a slow build
/// of the proxy is enough for that.
const PUSH: &str = "git -c http.version=HTTP/1.1 push";

/// Its commits need an author.
const COMMIT: &str = "git -c user.name=t -c user.email=t@t.test commit -q";

fn content(world: &World, path: &str) -> PathBuf {
    world.folder.path().join("content").join(path)
}

/// Everything that reached the server is in the recording, and nothing else is.
fn whole(outcome: &Outcome, wanted: &str) {
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    assert!(outcome.text.contains(wanted), "{}", outcome.text);
    assert!(outcome.reached > 0);
    assert_eq!(outcome.recorded, outcome.reached as u64, "{}", outcome.text);
}

/// The paths that the recording has of a job, by `sessions show`.
fn recorded_paths(world: &World, job: &str) -> String {
    let json = |args: &[&str]| -> serde_json::Value {
        let out = world.service.output(args).unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"))
    };
    let list = json(&["sessions", "ls", "-o", "json", "--limit", "1000", "--workload", job]);
    let ids = list.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned());
    let shown = ids.map(|id| world.service.output(&["sessions", "show", &id]).unwrap().stdout);
    shown.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
}

fn hash(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8_lossy(&out.stdout)[..64].to_owned()
}

#[test]
fn packs_of_some_megabytes_go_both_ways_in_protocol_2() {
    let world = World::start();
    let script = format!(
        "set -e; git clone -q $URL/git/app.git a; cd a; head -c 6000000 /dev/urandom > more; git add more; \
         {COMMIT} -m more; {PUSH} -q; cd ..; git clone -q $URL/git/app.git b; cd b; git fsck --full; \
         test $(git rev-parse HEAD:more) = $(git -C ../a rev-parse HEAD:more); cmp more ../a/more; \
         {COMMIT} --allow-empty -m next; git push -q; cd ../a; GIT_TRACE_PACKET=1 git fetch -q > trace 2>&1; \
         grep -m1 -o 'version 2' trace; git merge -q --ff-only @{{u}}; git log --format=%s; echo done"
    );
    let outcome = world.run("git", &script, true);
    whole(&outcome, "version 2\nnext\nmore\nfirst\ndone\n");
    let bare = content(&world, "git/app.git");
    let subject = Command::new("git").args(["log", "-1", "--format=%s"]).current_dir(bare).output().unwrap();
    assert_eq!(subject.stdout, b"next\n");
    let paths = recorded_paths(&world, "git");
    for path in ["info/refs?service=git-upload-pack", "git-upload-pack", "git-receive-pack"] {
        assert!(paths.contains(path), "no {path} in the recording\n{paths}");
    }
}

#[test]
fn a_denied_push_is_explained_whatever_its_size() {
    let world = World::start();
    let (from, to) = (content(&world, "git/app.git"), content(&world, "git/protected.git"));
    assert!(Command::new("cp").arg("-r").args([&from, &to]).status().unwrap().success());
    let before = Command::new("git").args(["rev-parse", "main"]).current_dir(&to).output().unwrap();
    let script = format!(
        "git clone -q $URL/git/protected.git p && cd p && head -c 6000000 /dev/urandom > more && git add more && \
         {COMMIT} -m more && git fetch && echo fetched; {PUSH}; echo code $?; \
         git -c http.postBuffer=64000 -c http.version=HTTP/1.1 push; echo code $?; \
         curl -sS -H 'Content-Type: application/x-git-receive-pack-request' --data-binary @more \
           $URL/git/protected.git/git-receive-pack | tr -d '\\000'"
    );
    let outcome = world.run("push", &script, true);
    let said = outcome.text.matches("remote: enforcer: pushes go through review").count();
    assert!(outcome.text.contains("fetched") && said == 2, "{}", outcome.text);
    assert!(outcome.text.contains("clients/no-push"), "{}", outcome.text);
    assert_eq!(outcome.text.matches("code 128\n").count(), 2, "{}", outcome.text);
    // Whoever begins in the middle reads it in the answer to the push itself.
    assert!(outcome.text.contains("\x02enforcer: pushes go through review"), "{}", outcome.text);
    let after = Command::new("git").args(["rev-parse", "main"]).current_dir(&to).output().unwrap();
    assert_eq!(before.stdout, after.stdout);
}

#[test]
fn what_a_hash_protects_is_unchanged_and_what_is_shown_is_masked() {
    let world = World::start();
    let packument = content(&world, "files/npm/probe-pkg/index.json");
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&packument).unwrap()).unwrap();
    let description = format!("use {} to publish", token());
    value["description"] = description.clone().into();
    value["versions"]["1.0.0"]["description"] = description.into();
    std::fs::write(&packument, value.to_string()).unwrap();
    let page = content(&world, "files/simple/probe-pkg/index.html");
    let text = std::fs::read_to_string(&page).unwrap() + &format!("<!-- {} -->", token());
    std::fs::write(&page, text).unwrap();

    let script = script_of("npm install").to_owned()
        + " && npm view --registry $URL/files/npm/ probe-pkg description && \
           npm pack --silent --registry $URL/files/npm/ probe-pkg && sha256sum probe-pkg-1.0.0.tgz";
    let outcome = world.run("npm", &script, true);
    whole(&outcome, "hello from the registry");
    assert!(outcome.text.contains("use [MASKED:GITHUB_TOKEN] to publish"), "{}", outcome.text);
    let tarball = hash(&content(&world, "files/npm/tarballs/probe-pkg-1.0.0.tgz"));
    assert!(outcome.text.contains(&tarball), "{}", outcome.text);
    assert!(recorded_paths(&world, "npm").contains("/files/npm/tarballs/probe-pkg-1.0.0.tgz"));

    let script = script_of("pip install").to_owned()
        + " && $PYTHON -m pip download -q --disable-pip-version-check --no-cache-dir --no-deps \
           --index-url $URL/files/simple/ probe-pkg && sha256sum *.whl && curl -sS $URL/files/simple/probe-pkg/";
    let outcome = world.run("pip", &script, true);
    whole(&outcome, "hello from the index");
    assert!(outcome.text.contains("<!-- [MASKED:GITHUB_TOKEN] -->"), "{}", outcome.text);
    let wheel = hash(&content(&world, "files/wheels/probe_pkg-1.0-py3-none-any.whl"));
    assert!(outcome.text.contains(&wheel), "{}", outcome.text);

    let script = script_of("cargo build").to_owned() + " && sha256sum cargo-home/registry/cache/*/*.crate";
    let outcome = world.run("cargo", &script, true);
    whole(&outcome, "hello from the crate");
    let file = hash(&content(&world, "files/cargo/crates/probe-crate-1.0.0.crate"));
    assert!(outcome.text.contains(&file), "{}", outcome.text);
    assert!(!contains(&world.service.written().unwrap(), token().as_bytes()));
}

/// What stays beside a policy that is written for the registries.
const SITE: &str = r#"
version: 1
name: site
rules:
  - id: this-machine
    when: {host: upstream.test}
    mask: {request: [secrets], response: [secrets]}
    addresses: [loopback]
"#;

#[test]
fn a_policy_written_from_the_hosts_configuration_lets_fetch_and_not_publish() {
    let world = World::start();
    let (url, root) = (world.url(), world.folder.path().join("host"));
    let put = |path: &str, text: String| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("etc/pip.conf", format!("[global]\nindex-url = {url}/files/simple/\n"));
    put("etc/npmrc", format!("registry={url}/files/npm/\n"));
    put(".cargo/config.toml", format!("[registries.local]\nindex = \"sparse+{url}/files/cargo/index/\"\n"));
    let policies = world.service.dir.path().join("policies");
    // It is read first: the rules that are written decide.
    std::fs::remove_file(policies.join("test.yaml")).unwrap();
    std::fs::write(policies.join("a-site.yaml"), SITE).unwrap();
    let file = policies.join("registries.yaml");
    let out = world
        .service
        .command(&["policy", "init", "registries", "--root", root.to_str().unwrap(), "--output"])
        .unwrap()
        .arg(&file)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let policy = std::fs::read_to_string(&file).unwrap();
    assert!(policy.contains(&format!("host: \"{NAME}\"")), "{policy}");
    assert!(world.service.output(&["policy", "test"]).unwrap().status.success());
    assert!(world.service.output(&["reload"]).unwrap().status.success());

    for (tool, seen) in
        [("pip install", "the index"), ("npm install", "the registry"), ("cargo build", "the crate")]
    {
        let outcome = world.run(&tool.replace(' ', "-"), script_of(tool), true);
        whole(&outcome, seen);
    }
    let publish = "printf '{\"name\":\"own\",\"version\":\"1.0.0\"}' > package.json; \
                   npm publish --registry $URL/files/npm/ --//$(echo $URL | cut -c9-)/files/npm/:_authToken=none; \
                   echo code $?; curl -sS -X DELETE $URL/files/npm/own";
    let outcome = world.run("publish", publish, true);
    assert!(outcome.text.contains("403") && outcome.text.contains("code 1"), "{}", outcome.text);
    assert!(outcome.text.contains("policy-default-deny"), "{}", outcome.text);
    assert!(recorded_paths(&world, "publish").contains("PUT"), "{}", outcome.text);
}
