//! Whoever of the service is killed: tagged processes are refused at once, nothing
//! leaves, nobody else notices, and everything comes back by itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use enforcer_tests::bpf::Objects;
use enforcer_tests::netns::PEER4;
use enforcer_tests::service::kill9;
use enforcer_tests::sniffer::contains;
use enforcer_tests::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::*;

/// From the death on: a refusal later than this is a timeout of somebody and none at once. How
/// soon it really comes is what the soak measures.
const AT_ONCE: Duration = Duration::from_secs(3);
/// On top of it for a proxy whose loader alone was killed: it ends what is open, and who asks its
/// resolver meanwhile waits for that.
const DRAIN: Duration = Duration::from_secs(1);
const ECONNRESET: &str = "error 104 ";
const ECONNREFUSED: &str = "error 111 ";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victims {
    Proxy,
    Signer,
    Loader,
    LoaderAndProxy,
    All,
}

impl Victims {
    fn with_loader(self) -> bool {
        matches!(self, Self::Loader | Self::LoaderAndProxy | Self::All)
    }
}

/// A job that stays, so that there is a tagged cgroup with somebody in it.
pub struct Stays(Child);

impl Stays {
    pub fn start(world: &World) -> Self {
        Self::doing(world, "exec sleep 300")
    }

    pub fn doing(world: &World, script: &str) -> Self {
        Self::of(world, "job", script)
    }

    pub fn named(world: &World, name: &str) -> Self {
        Self::of(world, name, "exec sleep 300")
    }

    fn of(world: &World, name: &str, script: &str) -> Self {
        let script = format!("echo; {script}");
        let mut command = world.service.command(&["run", "--name", name, "--", "sh", "-c", &script]).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }

    pub fn end(mut self, world: &World) {
        for job in std::fs::read_dir(world.service.cgroup.path().join("jobs")).unwrap().flatten() {
            if job.path().is_dir() {
                std::fs::write(job.path().join("cgroup.kill"), "1").unwrap();
            }
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Somebody untagged, whose connection was there before and is there after.
fn bystander(world: &World) -> TcpStream {
    let stream = world.cable.work.run(|| TcpStream::connect((PEER4, ECHO_PORT)).unwrap()).unwrap();
    stream.set_read_timeout(Some(AT_ONCE)).unwrap();
    stream
}

fn still_talks(mut stream: &TcpStream) {
    let mut answer = [0; 5];
    stream.write_all(b"again").unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"again");
}

/// Returns the proxy and the signer that were.
fn strike(world: &mut World, victims: Victims) -> [i32; 2] {
    let status = world.service.status().unwrap();
    let pid = |name: &str| i32::try_from(status[name].as_i64().unwrap()).unwrap();
    let (loader, proxy, signer) = (world.service.daemon_pid().unwrap(), pid("proxy_pid"), pid("signer_pid"));
    if !victims.with_loader() {
        // So that it does not start the next one while we look.
        kill(Pid::from_raw(loader), Signal::SIGSTOP).unwrap();
    }
    match victims {
        Victims::Proxy => kill9(proxy).unwrap(),
        Victims::Signer => kill9(signer).unwrap(),
        Victims::Loader => world.service.kill_daemon().unwrap(),
        Victims::LoaderAndProxy => {
            kill9(proxy).unwrap();
            world.service.kill_daemon().unwrap();
        }
        Victims::All => {
            kill9(signer).unwrap();
            kill9(proxy).unwrap();
            world.service.kill_daemon().unwrap();
        }
    }
    [proxy, signer]
}

/// Whoever dies, both are new afterwards.
fn wait_for_others(world: &World, before: [i32; 2]) {
    let is_old = |status: &serde_json::Value| {
        let pids = ["proxy_pid", "signer_pid"].map(|name| status[name].as_i64());
        pids.iter().zip(before).any(|(now, before)| now.is_none_or(|now| now == i64::from(before)))
    };
    until("others are started", || world.service.status().is_ok_and(|status| !is_old(&status)));
    world.service.wait_whole().unwrap();
}

/// Both families are refused within the time, and so is all the rest.
fn refused_at_once(world: &World, victims: Victims) {
    let death = Instant::now();
    let tcp4 = format!("{PROBE} tcp 10.77.0.2:4444");
    for script in [&tcp4, &tcp4.replace("10.77.0.2", "[fd77::2]")] {
        loop {
            let said = world.tagged(script);
            assert!(!said.contains("REAL"), "{victims:?}: {said}");
            assert!(death.elapsed() < AT_ONCE, "{victims:?}: {said} after {:?}", death.elapsed());
            if said.starts_with(ECONNREFUSED) || said.starts_with(REFUSED) {
                break;
            }
            // A killed process has its listener a moment longer, and a proxy whose loader
            // was killed dies of that a moment later.
            assert!(said.starts_with(ECONNRESET) || victims == Victims::Loader, "{victims:?}: {said}");
        }
    }
    for technique in ["udp-sendto", "quic", "icmp-dgram"] {
        let said = world.tagged(&format!("{PROBE} {technique} 10.77.0.2:4444"));
        assert!(said.starts_with(REFUSED), "{victims:?}: {technique}: {said}");
    }
    let begun = Instant::now();
    let said = world.tagged("curl -sk -m 5 https://upstream.test/; echo $?");
    assert!(said == "6" || said == "7", "{victims:?}: {said}");
    let limit = if victims == Victims::Loader { AT_ONCE + DRAIN } else { AT_ONCE };
    assert!(begun.elapsed() < limit, "{victims:?}: {said} after {:?}", begun.elapsed());
}

/// Without a signer the proxy still stands in the way, until the loader sees it.
fn denied_as_ever(world: &World) {
    let said = world.tagged(&format!("{PROBE} tcp 10.77.0.2:4444"));
    assert!(!said.contains("REAL"), "{said}");
    let said = world
        .tagged("curl -sk -m 1 --resolve new.test:443:10.77.0.2 https://new.test/ -o /dev/null; echo $?");
    assert_ne!(said, "0", "a leaf for a new name without a signer");
}

/// Returns what of BPF the service had then.
fn survives(world: &mut World, victims: Victims) -> Objects {
    let job = Stays::start(world);
    let other = bystander(world);
    still_talks(&other);
    world.sniffer.clear().unwrap();
    let before = strike(world, victims);
    if victims == Victims::Signer {
        denied_as_ever(world)
    } else {
        refused_at_once(world, victims)
    }
    let packets = world.leaked();
    let secret = packets.iter().any(|it| contains(&it.bytes, PAYLOAD));
    assert!(!secret && packets.iter().all(is_old_connection), "{victims:?}: {packets:?}");
    still_talks(&other);
    let said = world.untagged(&format!("{PROBE} tcp 10.77.0.2:4444"));
    assert!(said.ends_with("REAL"), "{victims:?}: {said}");

    if victims.with_loader() {
        world.service.start_daemon().unwrap();
    } else {
        kill(Pid::from_raw(world.service.daemon_pid().unwrap()), Signal::SIGCONT).unwrap();
    }
    wait_for_others(world, before);
    assert_eq!(world.job("curl -sS -m 5 https://upstream.test/"), "hello", "{victims:?}");
    let said = world.tagged("curl -sk -m 5 https://upstream.test/");
    assert_eq!(said, "hello", "{victims:?}: the job that ran on");
    let seen = world.leaked();
    let job_payload = |packet: &&enforcer_tests::sniffer::Packet| contains(&packet.bytes, PAYLOAD);
    // The one of the untagged process above.
    assert!(seen.iter().filter(job_payload).count() <= 1, "{victims:?}: {seen:?}");
    still_talks(&other);
    let out = world.service.output(&["sessions", "verify"]).unwrap();
    assert!(out.status.success(), "{victims:?}: {}", String::from_utf8_lossy(&out.stdout));
    let objects = Objects::of(&world.service.pins().unwrap()).unwrap();
    assert!(!objects.links.is_empty() && !objects.maps.is_empty(), "{objects:?}");
    job.end(world);
    objects
}

#[test]
fn whoever_is_killed_nothing_leaves_and_everything_comes_back() {
    let mut world = World::new();
    let mut objects = Objects::of(&world.service.pins().unwrap()).unwrap();
    for victims in [Victims::Proxy, Victims::Signer, Victims::Loader, Victims::LoaderAndProxy, Victims::All] {
        objects.add(survives(&mut world, victims));
    }
    world.service.release().unwrap();
    objects.wait_gone().unwrap();
}

/// A proxy serves nobody before it knows the jobs that run on: what they connect
/// meanwhile waits, and is not turned away as a stranger's.
#[test]
fn a_new_proxy_knows_the_jobs_that_run_on_before_it_serves_them() {
    let mut world = World::new();
    let job = Stays::doing(
        &world,
        "while :; do for i in 1 2 3 4; do curl -skm 20 --resolve upstream.test:443:10.77.0.2 \
         https://upstream.test/ -o /dev/null & done; wait; sleep 0.05; done",
    );
    for victims in [Victims::Proxy, Victims::Loader, Victims::Proxy] {
        let before = strike(&mut world, victims);
        if victims.with_loader() {
            world.service.start_daemon().unwrap();
        } else {
            kill(Pid::from_raw(world.service.daemon_pid().unwrap()), Signal::SIGCONT).unwrap();
        }
        wait_for_others(&world, before);
    }
    let out = world.service.output(&["sessions", "ls"]).unwrap();
    let list = String::from_utf8_lossy(&out.stdout);
    assert!(list.contains("1 allow"), "the job reached nobody: {list}");
    let strangers: Vec<_> = list.lines().filter(|line| line.contains("unknown-workload")).collect();
    assert!(strangers.is_empty(), "{strangers:#?}");
    job.end(&world);
}

/// A mount that is gone with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn bpffs(at: PathBuf) -> Self {
        std::fs::create_dir(&at).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("bpf"), &at, Some("bpf"), flags, None::<&str>).unwrap();
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// Moves the pins to a folder of the test's own, and the service into private mounts.
fn into_private_mounts(world: &mut World) -> PathBuf {
    world.service.release().unwrap();
    let place = world.service.dir.path().join("bpf");
    let config = world.service.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let at = text.find("pins = ").unwrap();
    let end = at + text[at..].find('\n').unwrap();
    let text = text.replace(&text[at..end], &format!("pins = \"{}/enforcer\"", place.display()));
    std::fs::write(&config, text).unwrap();
    world.service.wrapper.extend(["unshare", "--mount", "--propagation", "private"].map(str::to_owned));
    place
}

#[test]
fn a_service_in_a_private_mount_namespace_is_no_less_safe() {
    let mut world = World::new();
    let place = into_private_mounts(&mut world);
    let mounted = Mounted::bpffs(place.clone());
    world.service.start_daemon().unwrap();
    let mut objects = Objects::default();
    for victims in [Victims::Proxy, Victims::Signer, Victims::Loader, Victims::LoaderAndProxy, Victims::All] {
        objects.add(survives(&mut world, victims));
    }
    // The pins are where everybody sees them, and go with the release.
    assert!(place.join("enforcer").is_dir());
    world.service.release().unwrap();
    assert!(!place.join("enforcer").exists());
    objects.wait_gone().unwrap();
    drop(mounted);
}

/// Without a bpffs that it could share: the one of process 1 gets the pins, or nothing
/// begins and the message says what to do.
#[test]
fn a_service_in_a_private_mount_namespace_never_pins_where_nobody_looks() {
    let mut world = World::new();
    let place = into_private_mounts(&mut world);
    if std::fs::metadata("/proc/1/root").is_ok() {
        world.service.start_daemon().unwrap();
        survives(&mut world, Victims::All);
        world.service.release().unwrap();
        return;
    }
    let daemon = world.service.command(&["daemon"]).unwrap();
    let mut command = Command::new("unshare");
    let out = command
        .args(["--mount", "--propagation", "private"])
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("mount a bpffs on"), "{said}");
    assert!(!place.join("enforcer").exists());
    assert_ne!(world.service.job("true").unwrap().1, Some(0), "a job began");
}
