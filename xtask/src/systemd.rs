//! Boots a Debian whose process 1 is systemd in qemu, and takes the package there from
//! its installation to its removal, attached at the true cgroup root.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{root, run};
use crate::{dist, setup, vm};

/// What the guest runs.
const SCRIPT: &str = include_str!("systemd.sh");

/// What the guest has beside Debian's smallest.
const PACKAGES: &str = "--include=systemd,systemd-sysv,dbus,curl,ca-certificates,python3,iproute2,openssl,\
                        linux-image-cloud-amd64,initramfs-tools";

const UNIT: &str = "[Unit]
After=multi-user.target
[Service]
ExecStart=/root/test.sh
StandardOutput=file:/dev/ttyS0
StandardError=inherit
[Install]
WantedBy=multi-user.target
";

/// Installs, uses and removes the package in a guest.
pub fn all() -> Result<()> {
    setup::packages(setup::VM)?;
    setup::packages(setup::GUEST)?;
    let deb = dist::all(false)?;
    let folder = root().join("target/vm/systemd");
    let guest = folder.join("root");
    if !folder.join("complete").exists() {
        if guest.exists() {
            fs::remove_dir_all(&guest)?;
        }
        fs::create_dir_all(&folder)?;
        println!("vm: making a Debian (about 150 MB are fetched)");
        let mut made = Command::new("debootstrap");
        run(made.args(["--variant=minbase", PACKAGES, "bookworm"]).arg(&guest))?;
        fs::write(folder.join("complete"), "")?;
    }
    fs::copy(&deb, guest.join("root/enforcer.deb"))?;
    fs::write(guest.join("root/test.sh"), SCRIPT)?;
    run(Command::new("chmod").arg("755").arg(guest.join("root/test.sh")))?;
    fs::write(guest.join("etc/systemd/system/test.service"), UNIT)?;
    fs::write(guest.join("etc/fstab"), "/dev/vda / ext4 defaults 0 1\n")?;
    run(Command::new("systemctl").arg("--root").arg(&guest).args(["--quiet", "enable", "test.service"]))?;
    let disk = folder.join("disk");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    run(Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&guest).arg(&disk).arg("1500M"))?;
    let drive = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
    let words =
        "root=/dev/vda rw loglevel=3 systemd.show_status=false systemd.mask=serial-getty@ttyS0.service";
    vm::boot(&boot_file(&guest, "vmlinuz")?, &boot_file(&guest, "initrd.img")?, words, &["-drive", &drive])
}

/// The kernel or its initramfs, by how its name begins.
fn boot_file(guest: &Path, begins: &str) -> Result<std::path::PathBuf> {
    fs::read_dir(guest.join("boot"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begins)))
        .with_context(|| format!("the guest has no {begins}"))
}
