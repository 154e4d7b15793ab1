//! Builds the kernel half for bpfel-unknown-none.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{root, run};

/// Builds the object and says where it is.
///
/// Debian's `rustc-web` is used because its library sources come as a package;
/// rustup's stable has none, and `core` for BPF has to be built from source.
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
    run(Command::new("cargo")
        .current_dir(&root)
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
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
