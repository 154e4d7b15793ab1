//! Builds the kernel half for bpfel-unknown-none.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::run::{root, run};
use crate::toolchain::Toolchain;

/// Builds the object and says where it is.
pub fn build() -> Result<PathBuf> {
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
        .arg(&target_dir))?;
    let object = root.join("target/bpf/enforcer.bpf.o");
    fs::create_dir_all(root.join("target/bpf"))?;
    fs::copy(target_dir.join("bpfel-unknown-none/release/enforcer-ebpf"), &object)
        .context("the build left no object")?;
    Ok(object)
}
