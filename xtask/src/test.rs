//! All tests, with their set-up.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::run::{root, run};
use crate::{ebpf, setup};

/// Sets up, builds and runs all tests, or those whose name contains `filter`.
pub fn all(filter: Option<&str>) -> Result<()> {
    ensure!(is_root()?, "the tests attach programs to cgroups: run them as root");
    setup::all()?;
    let object = ebpf::build()?;
    let mut command = Command::new("cargo");
    command.current_dir(root()).env("ENFORCER_BPF_OBJECT", object).args(["test", "--workspace", "--locked"]);
    if let Some(filter) = filter {
        command.arg(filter);
    }
    run(&mut command)
}

fn is_root() -> Result<bool> {
    let out = Command::new("id").arg("-u").output()?;
    Ok(out.stdout.trim_ascii() == b"0")
}
