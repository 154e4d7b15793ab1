//! What the container tests need: podman, runc, and an image of stock Debian with curl
//! and pip in it, as an image store in `target/containers`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::clients::once;
use crate::run::{root, run};
use crate::setup;

const PACKAGES: &[(&str, &str)] = &[
    ("podman", "containers in tests"),
    ("runc", "runs them, also where cgroup v1 is mounted beside v2"),
    ("containernetworking-plugins", "their bridges"),
    ("uidmap", "containers of users other than root"),
    ("debootstrap", "makes the image"),
];

/// The name that tests run.
const IMAGE: &str = "localhost/enforcer-test:1";

/// Installs what is missing and makes the image, unless it is there.
pub fn install() -> Result<()> {
    setup::packages(PACKAGES)?;
    let list = root().join("tests/containers/packages.txt");
    once("container image (one or two minutes, about 100 MB are fetched)", &list, &folder(), |folder| {
        let begun = Instant::now();
        let rootfs = folder.join("rootfs");
        let packages = fs::read_to_string(&list)?.split_whitespace().collect::<Vec<_>>().join(",");
        run(Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={packages}"), "bookworm"])
            .arg(&rootfs)
            .stdout(Stdio::null()))?;
        import(&rootfs, &folder.join("store")).context("importing the image")?;
        println!("setup: the container image took {} s", begun.elapsed().as_secs());
        Ok(())
    })
}

fn folder() -> std::path::PathBuf {
    root().join("target/containers")
}

/// `tar | podman import`: the files stay as their packages have them.
fn import(rootfs: &Path, store: &Path) -> Result<()> {
    let mut packed =
        Command::new("tar").arg("-C").arg(rootfs).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
    let out = packed.stdout.take().context("no output of tar")?;
    let imported = Command::new("podman")
        .arg("--root")
        .arg(store)
        .arg("--runroot")
        .arg(store.with_file_name("run"))
        .args(["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "import", "--quiet", "-", IMAGE])
        .stdin(out)
        .status()?;
    ensure!(packed.wait()?.success() && imported.success(), "the image was not made");
    Ok(())
}
