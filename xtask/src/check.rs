//! What must hold of the sources, beside the tests.

use std::process::Command;

use anyhow::Result;

use crate::run::{root, run};
use crate::{setup, tidy};

/// Formatting, lints, tidiness, and what dependencies may be.
pub fn all() -> Result<()> {
    run(Command::new("cargo").current_dir(root()).args(["fmt", "--all", "--check"]))?;
    run(Command::new("cargo").current_dir(root()).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    tidy::all()?;
    // Known vulnerabilities are not among it: the database is fetched from the
    // network, and a check that fails with the weather is soon ignored.
    run(Command::new(setup::cargo_deny()?)
        .current_dir(root())
        .args(["--log-level", "error", "--locked", "check"])
        .args(["bans", "licenses", "sources"]))
}
