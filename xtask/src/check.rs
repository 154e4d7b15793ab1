//! What must hold of the sources, beside the tests.

use std::process::Command;

use anyhow::Result;

use crate::run::{root, run};
use crate::tidy;

/// Formatting, lints and tidiness.
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
    tidy::all()
}
