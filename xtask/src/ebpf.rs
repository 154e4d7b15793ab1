//! Builds the kernel half for bpfel-unknown-none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::run::{root, run};
use crate::toolchain::Toolchain;

/// The map of what a debug build logs.
const LOG_MAP: &[u8] = b"AYA_LOGS";

/// Builds the object and says where it is.
pub fn build() -> Result<PathBuf> {
    let object = compile(&[], "enforcer.bpf.o")?;
    ensure!(!names_log(&object)?, "{} would log: that is for debugging", object.display());
    Ok(object)
}

/// Builds the object whose programs log what they decide: for debugging, never for hosts.
pub fn build_debug() -> Result<PathBuf> {
    let object = compile(&["--features", "log"], "enforcer.debug.bpf.o")?;
    ensure!(names_log(&object)?, "{} does not log", object.display());
    Ok(object)
}

fn names_log(object: &Path) -> Result<bool> {
    Ok(fs::read(object)?.windows(LOG_MAP.len()).any(|bytes| bytes == LOG_MAP))
}

fn compile(features: &[&str], name: &str) -> Result<PathBuf> {
    let root = root();
    let linker = root.join("target/tools/bin/bpf-linker");
    ensure!(linker.exists(), "bpf-linker is missing: run `cargo xtask setup`");
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Cpanic=abort".to_owned(),
    ]
    .join("\x1f");
    let target_dir = root.join("target/bpf-build");
    let toolchain = Toolchain::choose()?;
    run(toolchain
        .cargo()
        .current_dir(&root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["build", "--quiet", "--package", "enforcer-ebpf", "--release", "--locked"])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(&target_dir)
        .args(features))?;
    let object = root.join("target/bpf").join(name);
    fs::create_dir_all(root.join("target/bpf"))?;
    fs::copy(target_dir.join("bpfel-unknown-none/release/enforcer-ebpf"), &object)
        .context("the build left no object")?;
    Ok(object)
}
