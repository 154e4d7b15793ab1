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
    command.args(["suite", "--quick", "--only", "h1", "--repetitions", "1", "--seconds", "2"]);
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
        // How many is for the machine to say.
        assert!(row["median"].as_f64().unwrap() > 1.0, "{row}");
    }
    let of = |metric: &str| summary.iter().find(|row| row["target"] == "enforcer" && row["metric"] == metric);
    assert!(of("cpu_us").unwrap()["median"].as_f64().unwrap() > 1.0, "the proxy's CPU time is not seen");
}

#[test]
fn the_cost_in_the_kernel_is_measured_for_tagged_and_untagged_processes() {
    let bench = Path::new(env!("CARGO_BIN_EXE_enforcer-bench"));
    let object = std::env::var("ENFORCER_BPF_OBJECT").expect("run the tests by `cargo xtask test`");
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(bench);
    command.args(["suite", "--quick", "--only", "kernel", "--repetitions", "1", "--object", &object]);
    command.arg("--enforcer").arg(bench.with_file_name("enforcer")).arg("--dir").arg(dir.path());
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let results = std::fs::read(dir.path().join("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_slice(&results).unwrap();
    let rows = results["kernel"]["rows"].as_array().unwrap();
    let least = |family: &str, who: &str, what: &str| {
        let row = rows.iter().find(|it| it["family"] == family && it["who"] == who && it["what"] == what);
        let row = row.unwrap_or_else(|| panic!("no {family} {who} {what}"));
        let values = row["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        values.fold(f64::INFINITY, f64::min)
    };
    for family in ["IPv4", "IPv6"] {
        let [tagged, untagged] = ["tagged", "untagged"].map(|who| least(family, who, "all-hooks"));
        assert!(untagged > 0.0 && tagged > untagged, "{family}: {tagged} {untagged}");
        assert!(tagged < least(family, "tagged", "connect"), "{family}: more than the whole");
        assert!(least(family, "outside", "connect") > 0.0 && least(family, "untagged", "packet") > 0.0);
    }
    // Each half of the picture is there: the workload's side, and that of who accepts.
    for program in ["sock_create", "connect4", "egress", "root_egress", "own_getsockopt"] {
        let is_it = |it: &&serde_json::Value| it["who"] == "tagged" && it["what"]["runs"] == program;
        assert!(rows.iter().any(|it| is_it(&it)), "{program} did not run");
    }
}
