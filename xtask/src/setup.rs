//! Makes a fresh Debian able to build and test: packages and the eBPF toolchain.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::clients;
use crate::containers;
use crate::run::{root, run};
use crate::toolchain::{LLVM, Toolchain};

/// What building and testing needs: each package and why it is wanted.
pub const BUILD: &[(&str, &str)] = &[
    ("build-essential", "the C parts of dependencies"),
    ("cmake", "aws-lc"),
    ("llvm-22-dev", "bpf-linker"),
    ("libpolly-22-dev", "bpf-linker"),
    ("libzstd-dev", "bpf-linker"),
    ("zlib1g-dev", "bpf-linker"),
    ("iproute2", "network namespaces in tests"),
    ("xz-utils", "packed test vectors"),
    ("python3", "test client and server"),
    ("systemd", "`systemd-analyze verify` of the unit"),
    ("openssl", "hash links of roots"),
    ("ca-certificates", "the roots that jobs trust beside the host's CA"),
];

/// The compiler of the kernel half, unless rustup has one that will do.
const COMPILER: &[(&str, &str)] = &[
    ("rustc-web", "a compiler whose library sources are packaged, for core on bpfel"),
    ("rust-web-src", "the sources of core"),
];

/// What the virtual machine needs.
pub const VM: &[(&str, &str)] = &[
    ("qemu-system-x86", "the virtual machine"),
    ("busybox-static", "its user space"),
    ("cpio", "its file system"),
    ("xz-utils", "its kernel's modules"),
];

/// What a guest with a Debian of its own needs.
pub const GUEST: &[(&str, &str)] =
    &[("debootstrap", "the guest's Debian"), ("e2fsprogs", "its disk"), ("systemd", "its units")];

/// The release of bpf-linker that links the kernel half.
const BPF_LINKER: &str = "0.13.0";

/// The release of cargo-deny that looks at licences and sources.
const CARGO_DENY: &str = "0.20.2";

const POLICY_RC: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing, and says what it does.
pub fn all() -> Result<()> {
    match Toolchain::choose()? {
        Toolchain::Debian => packages(&[BUILD, COMPILER].concat())?,
        Toolchain::Nightly(name) => {
            println!("setup: {name} of rustup builds the kernel half");
            packages(BUILD)?;
        }
    }
    bpf_linker()
}

/// The same, and the clients that tests and the demonstration drive.
pub fn with_clients() -> Result<()> {
    all()?;
    clients::install()
}

/// The same, and what the tests of agents and of containers need.
pub fn for_tests() -> Result<()> {
    for_tests_beside(|| Ok(()))
}

/// The same. What is built, once there is a compiler, is built beside what is only fetched:
/// one takes the cores, and the other the network.
pub fn for_tests_beside<T: Send>(build: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    all()?;
    clients::packages()?;
    std::thread::scope(|scope| {
        let fetched = scope.spawn(|| {
            clients::install()?;
            clients::install_agents()?;
            containers::install()
        });
        let built = build();
        fetched.join().map_err(|_| anyhow!("the set-up of the clients panicked"))??;
        built
    })
}

/// Installs those of the packages that are missing.
pub fn packages(wanted: &[(&'static str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(name, _)| !installed(name))
        .map(|(name, why)| {
            println!("setup: {name} is missing ({why})");
            *name
        })
        .collect();
    if missing.is_empty() {
        println!("setup: all packages are there");
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is not Debian: install the counterparts of {} by hand", missing.join(" "));
    }
    run(Command::new("apt-get").args(["update", "-q"]))?;
    let guard = NoServices::new()?;
    let done = run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(&missing));
    drop(guard);
    done
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|out| out.stdout == b"install ok installed")
}

/// Keeps packages from starting services while it lives; leaves a policy of
/// the host's own alone.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        let ours = !Path::new(POLICY_RC).exists();
        if ours {
            fs::write(POLICY_RC, "#!/bin/sh\nexit 101\n").context("cannot write policy-rc.d: run as root")?;
            fs::set_permissions(POLICY_RC, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY_RC)
        {
            eprintln!("setup: cannot remove {POLICY_RC}: {error}");
        }
    }
}

fn bpf_linker() -> Result<()> {
    let tools = root().join("target/tools");
    if tools.join("bin/bpf-linker").exists() {
        println!("setup: bpf-linker is there");
        return Ok(());
    }
    println!("setup: building bpf-linker {BPF_LINKER} (about a minute)");
    run(Command::new("cargo")
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--quiet"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(tools))
}

/// Installs cargo-deny into target/tools and says where it is.
pub fn cargo_deny() -> Result<PathBuf> {
    let tools = root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        println!("setup: building cargo-deny {CARGO_DENY} (one or two minutes)");
        // Not optimised: that takes longer than all that it will ever run.
        run(Command::new("cargo")
            .args(["install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--quiet", "--debug"])
            .arg("--root")
            .arg(tools))?;
    }
    Ok(program)
}
