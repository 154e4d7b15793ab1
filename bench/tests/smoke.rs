//! The suite measures direct and both durabilities of the enforcer, as root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

#[test]
fn a_second_of_requests_is_measured_through_the_enforcer() {
    let bench = Path::new(env!("CARGO_BIN_EXE_enforcer-bench"));
    let object = std::env::var("ENFORCER_BPF_OBJECT").expect("run the tests by `cargo xtask test`");
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let mut command = Command::new(bench);
    command.args(["suite", "--quick", "--only", "h1", "--repetitions", "1", "--seconds", "0.5"]);
    command.args(["--left-out", "squid=it is not installed"]);
    command.args(["--peer", "nginx=/bin/false", "--object", &object, "--enforcer"]);
    command.arg(bench.with_file_name("enforcer")).arg("--dir").arg(dir.path()).arg("--json").arg(&json);
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("squid is left out: it is not installed"), "{text}");
    assert!(text.contains("nginx is left out: does not start"), "{text}");
    let results: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let summary = results["summary"].as_array().unwrap();
    for target in ["direct", "enforcer", "enforcer fsync"] {
        let row = summary.iter().find(|row| row["target"] == target && row["metric"] == "per_s").unwrap();
        assert!(row["median"].as_f64().unwrap() > 100.0, "{row}");
    }
    let of = |metric: &str| summary.iter().find(|row| row["target"] == "enforcer" && row["metric"] == metric);
    assert!(of("cpu_us").unwrap()["median"].as_f64().unwrap() > 1.0, "the proxy's CPU time is not seen");
}
