//! Which compiler builds the kernel half: `core` for BPF has to be built from
//! source, and rustup's stable comes without its sources.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// The newest LLVM whose bitcode `bpf-linker` reads: it is built against this one.
pub const LLVM: u32 = 22;

/// A compiler with the sources of `core`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// A nightly of rustup with `rust-src`, by its name there.
    Nightly(String),
    /// Debian's `rustc-web` with `rust-web-src`; stable, so it is told that it may.
    Debian,
}

impl Toolchain {
    /// Debian's if it is installed; else a nightly that is fit for it; else Debian's
    /// again, which then has to be installed. `ENFORCER_BPF_TOOLCHAIN=nightly|debian`
    /// decides otherwise.
    pub fn choose() -> Result<Self> {
        match std::env::var("ENFORCER_BPF_TOOLCHAIN").as_deref() {
            Ok("debian") => return Ok(Self::Debian),
            Ok("nightly") => match nightly() {
                Some(found) => return Ok(found),
                None => bail!(
                    "no nightly of rustup has rust-src and LLVM {LLVM} at most: `rustup toolchain install nightly \
                     --component rust-src`"
                ),
            },
            Ok(other) => bail!("ENFORCER_BPF_TOOLCHAIN is `{other}`: it may be `nightly` or `debian`"),
            Err(_) => {}
        }
        if Path::new("/usr/bin/rustc").exists() && debian_sources().is_some() {
            return Ok(Self::Debian);
        }
        Ok(nightly().unwrap_or(Self::Debian))
    }

    /// `cargo` of this toolchain, ready for its arguments.
    pub fn cargo(&self) -> Command {
        match self {
            Self::Nightly(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, "cargo"]).env_remove("RUSTC").env_remove("CARGO");
                command
            }
            Self::Debian => {
                let mut command = Command::new("cargo");
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }
}

/// The sources of Debian's compiler.
fn debian_sources() -> Option<PathBuf> {
    sources(&sysroot(Command::new("/usr/bin/rustc"))?)
}

fn nightly() -> Option<Toolchain> {
    let listed = output(Command::new("rustup").args(["toolchain", "list"]))?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let fit = |name: &&str| {
        let rustc = || {
            let mut command = Command::new("rustup");
            command.args(["run", name, "rustc"]);
            command
        };
        let version = output(rustc().arg("-vV")).unwrap_or_default();
        llvm_of(&version).is_some_and(|llvm| llvm <= LLVM)
            && sysroot(rustc()).is_some_and(|root| sources(&root).is_some())
    };
    let mut nightlies = names.filter(|name| name.starts_with("nightly"));
    nightlies.find(fit).map(|name| Toolchain::Nightly(name.to_owned()))
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    output(rustc.args(["--print", "sysroot"])).map(|text| PathBuf::from(text.trim()))
}

fn sources(sysroot: &Path) -> Option<PathBuf> {
    Some(sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs")).filter(|path| path.exists())
}

fn output(command: &mut Command) -> Option<String> {
    let out = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The major number in what `rustc -vV` prints.
fn llvm_of(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_read() {
        assert_eq!(
            llvm_of("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"),
            Some(22)
        );
        assert_eq!(llvm_of("rustc 1.97.0-nightly\n"), None);
    }
}
