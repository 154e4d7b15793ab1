//! `enforcer mask`, as an operator calls it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn enforcer(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
    command.args(args).env("A_PASSWORD", "correct horse battery");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command whose arguments are wrong does not read.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

#[test]
fn a_text_is_tested_and_no_secret_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deploy");
    fs::write(&file, "of-the-operator\n").unwrap();
    let secret = format!("DEPLOY={}", file.display());
    let args = ["mask", "test", "-", "--secret", &secret, "--secret-env", "A_PASSWORD"];
    let input =
        "{\"a\": [\"of-the-operator\"],\n \"b\": \"correct horse battery\", \"c\": \"me@example.org\"}";
    let out = enforcer(&args, input);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("-:1:9  DEPLOY  by exact:DEPLOY") && text.contains("$.a[0]"), "{text}");
    assert!(text.contains("-:2:8  A_PASSWORD") && text.contains("1 EMAIL"), "{text}");

    let out = enforcer(&[&args[..], &["-o", "json"]].concat(), input);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["findings"][1]["line"], 2);
    assert_eq!(json["counts"]["DEPLOY"], 1);
    for shown in [text, json.to_string()] {
        assert!(!shown.contains("operator") && !shown.contains("horse") && !shown.contains("me@"), "{shown}");
    }

    let out = enforcer(&["mask", "test", "-", "--select", "secrets"], input);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("nothing would be masked"));
    let out = enforcer(&["mask", "test", "-", "--exit-zero"], input);
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn what_cannot_be_tested_has_another_exit_code() {
    for (args, why) in [
        (&["-", "--select", "SECRETZ"][..], "known sets"),
        (&["/nonexistent"], "/nonexistent"),
        (&["-", "--secret", "NAME"], "NAME=FILE"),
        (&["-", "--secret-env", "NOT_THERE"], "no such environment variable"),
    ] {
        let out = enforcer(&[&["mask", "test"], args].concat(), "x");
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

const ACME: &str = "\
version: 1
detectors:
  - id: acme-token
    entity: ACME_TOKEN
    set: acme
    pattern: 'acme_[a-z0-9]{8}'
    examples: [acme_a1b2c3d4]
    counter_examples: [acme_A1B2C3D4]
";

#[test]
fn detectors_of_ones_own_are_checked_and_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (own, policies) = (dir.path().join("detectors.d"), dir.path().join("policies.d"));
    fs::create_dir_all(&own).unwrap();
    fs::create_dir_all(&policies).unwrap();
    let path = own.join("acme.yaml");
    fs::write(&path, ACME).unwrap();
    let (path, folder) = (path.to_str().unwrap(), own.to_str().unwrap());
    let out = enforcer(&["mask", "check", folder], "");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1 detectors load\n", "{out:?}");
    let args = ["mask", "test", "-", "--select", "acme", "--detectors", path];
    let text = String::from_utf8(enforcer(&args, "a acme_z9y8x7w6").stdout).unwrap();
    assert!(text.contains("ACME_TOKEN  by acme-token") && !text.contains("z9y8"), "{text}");
    let out = enforcer(&["mask", "test", "-", "--select", "acme"], "x");
    assert_eq!(out.status.code(), Some(2), "nobody knows this set without them");
    // A policy of the same configuration can name them.
    let config = dir.path().join("config.toml");
    fs::write(&config, format!("[mask]\ndetectors_dir = '{folder}'\n")).unwrap();
    let policy = "version: 1\nname: p\nrules: [{id: r, allow: true, mask: {request: [ACME_TOKEN]}}]\n";
    fs::write(policies.join("p.yaml"), policy).unwrap();
    let check = ["policy", "check", "--dir", policies.to_str().unwrap()];
    let out = enforcer(&[&["--config", config.to_str().unwrap()], &check[..]].concat(), "");
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert_eq!(enforcer(&check, "").status.code(), Some(2));
    fs::write(path, ACME.replace("acme_a1b2c3d4", "acme_a1b2")).unwrap();
    let out = enforcer(&["mask", "check", path], "");
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(error.contains("does not find this example") && error.contains("acme_a1b2"), "{error}");
}

#[test]
fn detectors_are_listed() {
    let out = enforcer(&["mask", "list"], "");
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.lines().any(|line| line.contains("secrets") && line.contains("GITHUB_TOKEN")), "{text}");
}

#[test]
fn what_the_documentation_shows_loads() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/masking.md")).unwrap();
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    let [mask, detectors] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    let dir = tempfile::tempdir().unwrap();
    let rule: String = mask.lines().map(|line| format!("    {line}\n")).collect();
    let policy = format!("version: 1\nname: p\nrules:\n  - id: r\n    allow: true\n{rule}");
    fs::write(dir.path().join("p.yaml"), policy).unwrap();
    let out = enforcer(&["policy", "check", "--dir", dir.path().to_str().unwrap()], "");
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let file = dir.path().join("detectors");
    fs::write(&file, detectors).unwrap();
    let out = enforcer(&["mask", "check", file.to_str().unwrap()], "");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1 detectors load\n", "{out:?}");
}
