//! Containers that try to get out: what arrives at the far end of the cable decides.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use enforcer_tests::service::kill9;
use enforcer_tests::sniffer::contains;
use enforcer_tests::wait;
use serde_json::{Value, json};

use crate::world::*;

const PAYLOAD: &[u8] = b"PROBE-SECRET";
/// By every family and protocol that a container's root has, one after the other.
const ATTEMPTS: &[&str] = &[
    "udp-sendto 10.77.0.2:4444",
    "udp-sendto [fd77::2]:4444",
    "udp-sendmmsg 10.77.0.2:4444",
    "tcp 10.77.0.2:4444",
    "tcp [fd77::2]:4444",
    "tcp [::ffff:10.77.0.2]:4444",
    "fastopen 10.77.0.2:4444",
    "uring 10.77.0.2:4444",
    "icmp-raw 10.77.0.2:0",
    "icmp-raw [fd77::2]:0",
    "mptcp 10.77.0.2:4444",
];
/// As Docker's containers have it.
const RAW: &str = "--cap-add=NET_RAW";
const SERVER: u16 = 4444;

fn probe() -> String {
    format!("--volume={}:/probe:ro", env!("CARGO_BIN_EXE_enforcer-probe"))
}

/// All at once, beginning with one of them.
fn script(first: usize) -> String {
    let mut order = ATTEMPTS.to_vec();
    order.rotate_left(first);
    order.iter().map(|attempt| format!("/probe {attempt} & ")).collect::<String>() + "wait"
}

/// In the first instruction, and again once the address of IPv6 can be used.
fn rounds(first: usize) -> String {
    format!("exec 2>&1; for round in 1 2 3; do {}; sleep 0.7; done", script(first))
}

/// Takes what comes, at the far end.
fn listen(world: &World) {
    let bind = || std::net::TcpListener::bind(("::", SERVER)).unwrap();
    let listener = world.cable.peer.run(bind).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut std::io::sink()).is_ok());
        }
    });
}

/// Who is in no tagged cgroup sends all of it: the witness sees it. Again and again, since
/// an address of IPv6 is looked for on the bridge for a second before it can be used.
fn give_everything_away(world: &World, bridge: &str) {
    let again = format!("while :; do {}; sleep 0.2; done", script(0));
    let out = world.podman.output(&["run", "--detach", bridge, RAW, &probe(), IMAGE, "sh", "-c", &again]);
    let id = String::from_utf8(out.stdout).unwrap();
    let mut missing = vec![1, 6, 17, 58];
    let until = Instant::now() + Duration::from_secs(30);
    while !missing.is_empty() && Instant::now() < until {
        let seen = world.leaked();
        let sent: Vec<_> =
            seen.iter().filter(|it| contains(&it.bytes, PAYLOAD)).map(|it| it.protocol).collect();
        missing.retain(|protocol| !sent.contains(protocol));
    }
    world.podman.output(&["rm", "--force", "--time=0", id.trim()]);
    assert!(missing.is_empty(), "the protocols {missing:?} prove nothing");
    // What was on its way is not taken for somebody else's.
    while !world.leaked().is_empty() {
        assert!(Instant::now() < until, "it still sends");
    }
}

#[test]
fn root_that_sends_in_its_first_instruction_reaches_nobody() {
    let world = World::start();
    listen(&world);
    let bridge = format!("--network={}", world.podman.bridge());
    give_everything_away(&world, &bridge);
    for (network, first) in [(bridge.as_str(), 0), ("--network=podman", 3), ("--network=host", 8)] {
        let (text, _) = world.podman.run(&[network, RAW, &probe()], &rounds(first));
        let leaked = world.leaked();
        assert!(leaked.is_empty(), "{network}: {text}: {leaked:?}");
    }
}

#[test]
fn who_enters_a_container_is_the_same_workload() {
    let world = World::start();
    listen(&world);
    let id = world.podman.start(&["--network=podman", RAW, &probe()], "sleep 300");
    for user in ["0", "65534"] {
        let out = world.podman.output(&["exec", "--user", user, &id, "sh", "-c", &script(0)]);
        let leaked = world.leaked();
        assert!(leaked.is_empty(), "user {user}: {out:?}: {leaked:?}");
    }
    let (text, code) = world.podman.exec(&id, &until(&format!("curl -sS {}", url("/text"))));
    assert!(code == Some(0) && text.contains("[MASKED:"), "{text}");
    assert!(world.recorded() > 0);
}

#[test]
fn a_killed_container_and_a_killed_proxy_leave_nothing_open() {
    let world = World::start();
    let get = format!("curl -sS -m 5 {}", url("/text"));
    let id =
        world.podman.start(&["--network=podman"], "while :; do curl -sS -m 5 http://10.77.0.2:4444/; done");
    let (text, code) = world.podman.exec(&id, &until(&get));
    assert_eq!(code, Some(0), "{text}");
    kill9(proxy_of(&world)).unwrap();
    // While it is away the answer is no, and prompt.
    let (text, code) = world.podman.exec(&id, &until(&get));
    assert!(code == Some(0) && text.contains("[MASKED:"), "not served again: {text}");
    assert_eq!(served(&world), 1);
    world.podman.output(&["kill", &id]);
    wait::until("listeners are closed in a namespace that nobody is in", || served(&world) == 0);
    let leaked = world.leaked();
    assert!(leaked.is_empty(), "{leaked:?}");
}

fn proxy_of(world: &World) -> i32 {
    i32::try_from(world.service.status().unwrap()["proxy_pid"].as_i64().unwrap()).unwrap()
}

/// Namespaces of the job that have listeners.
fn served(world: &World) -> u64 {
    // A service that starts again does not say.
    let Ok(status) = world.service.status() else { return 1 };
    let jobs = status["jobs"].as_array().unwrap();
    jobs.iter().map(|job| job["namespaces"].as_u64().unwrap_or(0)).sum()
}

/// runc by itself, in a cgroup far below the job's, as a container in a container is.
#[test]
fn a_container_of_runc_in_a_nested_cgroup() {
    let world = World::start();
    let bundle = Bundle::new(&world, &until(&format!("curl -sS {}", url("/text"))));
    let (text, success) = bundle.run();
    assert!(success && text.contains("[MASKED:"), "{text}");
    assert!(world.recorded() > 0);
    let bundle =
        Bundle::new(&world, "curl -sS -m 2 http://10.77.0.2:4444/; ls /etc/ssl/certs/enforcer-ca.pem");
    bundle.run();
    let leaked = world.leaked();
    assert!(leaked.is_empty(), "{leaked:?}");
}

/// What runc is given: the image's files, read-only, and a network namespace of its own.
struct Bundle {
    folder: tempfile::TempDir,
    name: String,
}

impl Bundle {
    fn new(world: &World, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spec = Command::new("runc").arg("spec").current_dir(folder.path()).status();
        assert!(spec.unwrap().success(), "runc spec");
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/containers/rootfs");
        config["root"] = json!({ "path": rootfs.canonicalize().unwrap(), "readonly": true });
        config["process"]["args"] = json!(["sh", "-c", format!("exec 2>&1; {script}")]);
        config["process"]["terminal"] = false.into();
        // It may not raise limits where it has no CAP_SYS_RESOURCE.
        config["process"]["rlimits"] = json!([]);
        let name = folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let parent = world.podman.parent();
        config["linux"]["cgroupsPath"] = format!("{parent}/nested/deep/{name}").into();
        std::fs::write(&path, config.to_string()).unwrap();
        Self { folder, name }
    }

    fn run(&self) -> (String, bool) {
        let state = self.folder.path().join("state");
        let mut command = Command::new("runc");
        command.arg("--root").arg(&state).args(["run", "--bundle"]).arg(self.folder.path()).arg(&self.name);
        let out = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (text, out.status.success())
    }
}
