//! Makes the Debian package: `target/dist/enforcer_VERSION_ARCH.deb`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{root, run};
use crate::{ebpf, setup};

/// The completion scripts, by shell: where Debian looks for them.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/enforcer"),
    ("zsh", "usr/share/zsh/vendor-completions/_enforcer"),
    ("fish", "usr/share/fish/vendor_completions.d/enforcer.fish"),
];

/// Files that are installed as they are: from, to, mode.
const FILES: &[(&str, &str, u32)] = &[
    ("enforcer/dist/enforcer.service", "usr/lib/systemd/system/enforcer.service", 0o644),
    ("enforcer/dist/sysusers.conf", "usr/lib/sysusers.d/enforcer.conf", 0o644),
    ("enforcer/dist/tmpfiles.conf", "usr/lib/tmpfiles.d/enforcer.conf", 0o644),
    ("enforcer/dist/config.toml", "etc/enforcer/config.toml", 0o644),
    ("enforcer/dist/debian/conffiles", "DEBIAN/conffiles", 0o644),
    ("enforcer/dist/debian/postinst", "DEBIAN/postinst", 0o755),
    ("enforcer/dist/debian/prerm", "DEBIAN/prerm", 0o755),
    ("enforcer/dist/debian/postrm", "DEBIAN/postrm", 0o755),
    ("LICENSE", "usr/share/doc/enforcer/copyright", 0o644),
    ("CHANGELOG.md", "usr/share/doc/enforcer/changelog", 0o644),
    ("README.md", "usr/share/doc/enforcer/README.md", 0o644),
];

/// Hooks of runners, which call the program: from and to are the same below these folders.
const HOOKS: (&str, &str) = ("enforcer/dist/hooks", "usr/lib/enforcer/hooks");

/// Builds everything and packs it; `release` is what is meant for hosts.
pub fn all(release: bool) -> Result<PathBuf> {
    setup::all()?;
    let object = ebpf::build()?;
    let mut build = Command::new("cargo");
    build.current_dir(root()).args(["build", "--locked", "--package", "enforcer"]);
    if release {
        build.arg("--release");
    }
    run(&mut build)?;
    let program = root().join("target").join(if release { "release" } else { "debug" }).join("enforcer");
    let deb = pack(&program, &object)?;
    println!("dist: {}", deb.display());
    Ok(deb)
}

fn pack(program: &Path, object: &Path) -> Result<PathBuf> {
    let dist = root().join("target/dist");
    let stage = dist.join("root");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    put(program, &stage.join("usr/bin/enforcer"), 0o755)?;
    put(object, &stage.join("usr/lib/enforcer/enforcer.bpf.o"), 0o644)?;
    for (from, to, mode) in FILES {
        put(&root().join(from), &stage.join(to), *mode)?;
    }
    put_programs(&root().join(HOOKS.0), &stage.join(HOOKS.1))?;
    for entry in fs::read_dir(root().join("policies"))? {
        let path = entry?.path();
        let name = path.file_name().context("a policy without a name")?;
        put(&path, &stage.join("usr/share/doc/enforcer/policies").join(name), 0o644)?;
    }
    let man = stage.join("usr/share/man/man1");
    said(program, &["man", "--dir", &man.display().to_string()])?;
    for (shell, to) in COMPLETIONS {
        write(&stage.join(to), &said(program, &["completion", shell])?)?;
    }
    let arch = String::from_utf8(said(Path::new("dpkg"), &["--print-architecture"])?)?;
    let (arch, version) = (arch.trim(), env!("CARGO_PKG_VERSION"));
    let control = fs::read_to_string(root().join("enforcer/dist/debian/control"))?;
    let control = control.replace("@VERSION@", version).replace("@ARCH@", arch);
    write(&stage.join("DEBIAN/control"), control.as_bytes())?;
    let deb = dist.join(format!("enforcer_{version}_{arch}.deb"));
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zxz", "--build"]).arg(&stage).arg(&deb))?;
    Ok(deb)
}

fn said(program: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let out = Command::new(program).args(args).output()?;
    ensure!(out.status.success(), "`{} {}` failed", program.display(), args.join(" "));
    Ok(out.stdout)
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().context("no folder")?)?;
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// All that is in a folder, and in those below it.
fn put_programs(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let to = to.join(path.file_name().context("a hook without a name")?);
        if path.is_dir() {
            put_programs(&path, &to)?;
        } else {
            put(&path, &to, 0o755)?;
        }
    }
    Ok(())
}

fn write(to: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(to.parent().context("no folder")?)?;
    fs::write(to, bytes)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o644))?)
}
