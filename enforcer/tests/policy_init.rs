//! `enforcer policy init registries`, as an operator calls it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn enforcer(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_enforcer")).args(args).output().unwrap()
}

fn init(root: &Path, output: &Path, force: bool) -> Output {
    let (root, output) = (root.to_str().unwrap(), output.to_str().unwrap());
    let mut args = vec!["policy", "init", "registries", "--root", root, "--output", output];
    args.extend(force.then_some("--force"));
    enforcer(&args)
}

#[test]
fn what_is_written_loads_passes_its_tests_and_is_not_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let (root, policies) = (dir.path().join("host"), dir.path().join("policies.d"));
    fs::create_dir_all(root.join("etc/apt")).unwrap();
    fs::create_dir_all(&policies).unwrap();
    fs::write(root.join("etc/apt/sources.list"), "deb http://10.1.2.3/debian stable main\n").unwrap();
    fs::write(root.join("etc/pip.conf"), "[global]\nindex-url = https://10.1.2.3/simple\n").unwrap();

    let file = policies.join("registries.yaml");
    let out = init(&root, &file, false);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let folder = policies.to_str().unwrap();
    let out = enforcer(&["policy", "check", "--dir", folder]);
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("2 rules"), "{out:?}");
    let out = enforcer(&["policy", "test", "--dir", folder]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "4 passed, 0 failed\n2 of 2 rules matched in a test\n");

    fs::write(root.join("etc/pip.conf"), "").unwrap();
    let before = fs::read(&file).unwrap();
    let out = init(&root, &file, false);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("--force"), "{out:?}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(init(&root, &file, true).status.success());
    assert_ne!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(&policies).unwrap().count(), 2, "something else was left there");

    for name in ["registries.yml", "registries.test.yaml", ".yaml"] {
        assert!(!init(&root, &policies.join(name), false).status.success(), "{name}");
    }
    let out = enforcer(&["policy", "init", "registries", "--root", root.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&out.stdout).contains("id: apt-1"), "{out:?}");
}
