//! All tests, with their set-up.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::run::{root, run};
use crate::{ebpf, setup};

/// Sets up, builds and runs all tests, or those whose name contains `filter`.
pub fn all(filter: Option<&str>) -> Result<()> {
    ensure!(is_root()?, "the tests attach programs to cgroups: run them as root");
    setup::for_tests()?;
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(["test", "--workspace", "--locked"]);
    command.env("ENFORCER_BPF_OBJECT", ebpf::build()?);
    command.env("ENFORCER_BPF_DEBUG_OBJECT", ebpf::build_debug()?);
    if let Some(filter) = filter {
        command.arg(filter);
    }
    run(&mut command)
}

/// Sets up, builds and runs the demonstration.
pub fn demo() -> Result<()> {
    ensure!(is_root()?, "the demonstration attaches programs to a cgroup: run it as root");
    setup::with_clients()?;
    let object = ebpf::build()?;
    run(Command::new("cargo").current_dir(root()).args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        "enforcer",
        "--package",
        "enforcer-tests",
        "--bins",
    ]))?;
    run(Command::new(root().join("target/debug/enforcer-demo")).env("ENFORCER_BPF_OBJECT", object))
}

/// Whether this runs as root.
pub fn is_root() -> Result<bool> {
    let out = Command::new("id").arg("-u").output()?;
    Ok(out.stdout.trim_ascii() == b"0")
}
