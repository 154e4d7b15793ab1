//! Every command of the README is run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use enforcer_tests::origin::{Content, Origin};
use enforcer_tests::service::Service;
use enforcer_tests::wait::until;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const POLICY: &str = "
version: 1
name: readme
rules:
  - id: all
    when: {host: example.com}
    addresses: [loopback]
    allow: true
";

/// The lines of the shell blocks, without comments.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => found.push(line.split(" # ").next().unwrap_or_default().trim().to_owned()),
            _ => {}
        }
    }
    found.retain(|line| !line.is_empty());
    found
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let commands = commands();
    let (build, use_it): (Vec<_>, Vec<_>) = commands.iter().partition(|line| line.starts_with("cargo "));
    // Those set up, build and test: this suite is one of them, and the CI runs all.
    let ci = std::fs::read_to_string(Path::new(ROOT).join(".ci/run")).unwrap();
    for command in build {
        assert!(
            ci.lines().any(|line| line.ends_with(&format!(" {command}"))),
            "the CI does not run `{command}`"
        );
    }
    assert!(use_it.len() > 10, "{use_it:?}");
    let content = tempfile::tempdir().unwrap();
    let content = Content { token: String::new(), folder: content.path().to_owned() };
    let origin = Origin::start_at("127.0.0.9:443", "example.com", content).unwrap();
    let mut service = Service::start_for("example.com", origin.address, &origin.ca_pem, POLICY).unwrap();
    let program = PathBuf::from(service.command(&[]).unwrap().get_program());
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let config = service.dir.path().join("config.toml");
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", &path).env("ENFORCER_CONFIG", &config).current_dir(ROOT);
        command.stdin(Stdio::null());
        command
    };
    // The job that one of the commands releases.
    let mut agent = shell("exec enforcer run --name agent sleep 300").spawn().unwrap();
    until("the job begins", || {
        assert!(agent.try_wait().unwrap().is_none(), "the job has ended");
        service.status().unwrap().to_string().contains("\"agent\"")
    });
    for line in use_it {
        let newest = shell("enforcer sessions ls -o json -n 1").output().unwrap();
        let newest: serde_json::Value = serde_json::from_slice(&newest.stdout).unwrap();
        let line = line.replace(" ID", &format!(" {}", newest[0]["id"].as_str().unwrap_or_default()));
        let out = shell(&line).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        // Something is missing on most hosts, and is told.
        let told = line == "enforcer doctor" && out.status.code() == Some(1) && text.contains("NOT held");
        assert!(out.status.success() || told, "`{line}` ended with {}: {text}", out.status);
        println!("$ {line}\n{text}");
    }
    service.wait_lifted().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn the_policy_of_the_documentation_loads_and_holds_its_tests() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/policy.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [policies @ .., tests] = &blocks[..] else { panic!("no block of YAML") };
    assert_eq!(policies.len(), 9, "{policies:?}");
    let dir = tempfile::tempdir().unwrap();
    for policy in policies {
        let name = policy.lines().find_map(|line| line.strip_prefix("name: ")).unwrap();
        std::fs::write(dir.path().join(format!("{name}.yaml")), policy).unwrap();
    }
    std::fs::write(dir.path().join("web-team.test.yaml"), tests).unwrap();
    let program = enforcer_tests::service::program().unwrap();
    let out = Command::new(program).args(["policy", "test", "--dir"]).arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("11 passed, 0 failed"), "{said}");
}
