//! The signer as a process: it signs, and nobody of its user can look into it.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use enforcer::tls::ca::Ca;
use enforcer::tls::leaf::LeafCache;

/// Any user but root: the kernel shows whether a process is closed to its own
/// user by giving its files in /proc to root.
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn the_signer_signs_and_is_closed_to_its_own_user() {
    let ca = Ca::create().unwrap();
    let mut keys = tempfile::tempfile().unwrap();
    write!(keys, "{}{}", ca.certificate_pem(), ca.key_pem()).unwrap();
    keys.rewind().unwrap();
    // The build's folder may be closed to the other user.
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("enforcer");
    fs::copy(env!("CARGO_BIN_EXE_enforcer"), &binary).unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    for fd in [&keys as &dyn std::os::fd::AsFd, &theirs] {
        rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    }
    let mut signer = Command::new(&binary)
        .arg("signer")
        .args(["--socket-fd", &theirs.as_raw_fd().to_string(), "--keys-fd", &keys.as_raw_fd().to_string()])
        .uid(NOBODY)
        .spawn()
        .expect("root, to start the signer as another user");
    drop((theirs, keys));
    let leaves = LeafCache::new(ca.certificate_der().unwrap()).unwrap();
    leaves.replace_signer(ours).await.unwrap();
    let leaf = leaves.get("a.example").await.unwrap();
    assert_eq!(leaf.cert.len(), 2);

    let proc = std::path::PathBuf::from(format!("/proc/{}", signer.id()));
    assert_eq!(File::open(proc.join("stat")).unwrap().metadata().unwrap().uid(), 0, "closed to its user");
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}")), "{status}");
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");

    // It ends with the proxy.
    drop(leaves);
    let ended = tokio::task::spawn_blocking(move || signer.wait());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), ended).await;
    assert!(ended.expect("it ends").unwrap().unwrap().success());
}
