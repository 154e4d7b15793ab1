//! The CA in a running container: read-only, once, and nowhere else.

use std::path::Path;
use std::process::Command;

use enforcer_tests::wait;

use crate::world::*;

const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A container that waits, once it has the CA.
fn waiting(world: &World, options: &[&str]) -> String {
    let id = world.podman.start(&[&["--network=host"], options].concat(), "sleep 300");
    let (text, code) = world.podman.exec(&id, &until(&format!("test $({MOUNTS}) = 1")));
    assert_eq!(code, Some(0), "{text}");
    id
}

const MOUNTS: &str = "grep -c ' - tmpfs enforcer ' /proc/self/mountinfo";

#[test]
fn it_is_read_only_and_the_image_keeps_its_own_roots() {
    let before = std::fs::read(BUNDLE).unwrap();
    let world = World::start();
    let id = waiting(&world, &[]);
    let script = format!(
        "echo x >> {BUNDLE}; touch /etc/ssl/certs/new; rm /etc/ssl/certs/enforcer-ca.pem; umount /etc/ssl/certs; \
         grep -c BEGIN {BUNDLE}; ls /etc/ssl/certs | wc -l; openssl x509 -in /etc/ssl/certs/enforcer-ca.pem -noout -subject"
    );
    let (text, _) = world.podman.exec(&id, &script);
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    assert!(text.contains("umount"), "{text}");
    let numbers: Vec<usize> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/containers/rootfs");
    let roots = std::fs::read_to_string(image.join(BUNDLE.trim_start_matches('/'))).unwrap();
    let files = std::fs::read_dir(image.join("etc/ssl/certs")).unwrap().count();
    // A root more, and its file with a link.
    assert_eq!(numbers, [roots.matches("BEGIN").count() + 1, files + 2], "{text}");
    assert_eq!(std::fs::read(BUNDLE).unwrap(), before);
    // Who is no workload gets nothing.
    let out = world.podman.output(&["run", "--rm", "--network=none", IMAGE, "sh", "-c", MOUNTS]);
    assert_eq!(out.stdout, b"0\n", "{out:?}");
}

#[test]
fn a_service_that_starts_again_gives_it_to_nobody_twice() {
    let mut world = World::start();
    let id = waiting(&world, &[]);
    world.service.kill_daemon().unwrap();
    world.service.start_daemon().unwrap();
    let log = world.service.log();
    let other = waiting(&world, &["--name=second"]);
    let (text, _) = world.podman.exec(&id, MOUNTS);
    assert_eq!(text, "1\n", "{}", std::fs::read_to_string(log).unwrap());
    let get = format!("curl -sS {}", url("/text"));
    for id in [&id, &other] {
        let (text, code) = world.podman.exec(id, &until(&get));
        assert!(code == Some(0) && text.contains("[MASKED:"), "{text}");
    }
}

/// What a container has in common with the host stays as it is.
#[test]
fn a_store_that_the_host_would_see_changed_is_left_alone() {
    let world = World::start();
    let shared = Shared::new();
    let volume = format!("--volume={}:/etc/ssl/certs:shared", shared.0.path().display());
    let id = world.podman.start(&["--network=host", &volume], "sleep 300");
    let said = || std::fs::read_to_string(world.service.log()).unwrap().contains("is shared with the host");
    wait::until("it is said why the container does not have the CA", said);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" - tmpfs enforcer "), "{mounts}");
    let (text, code) = world.podman.exec(&id, &format!("curl -sS {}", url("/text")));
    assert_eq!(code, Some(60), "{text}");
    assert_eq!(world.origin.take_seen().len(), 0);
}

/// A store of the test's own, mounted so that mounts in it spread.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
        mount(&["--bind", place, place]);
        mount(&["--make-shared", place]);
        std::fs::copy(BUNDLE, folder.path().join("ca-certificates.crt")).unwrap();
        Self(folder)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(gone.is_ok_and(|status| status.success()), "the mount of the test stays");
    }
}
