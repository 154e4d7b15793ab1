//! Cgroups of others: tagged because they were described, now and from now on.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::PEER4;
use enforcer_tests::sniffer::contains;
use serde_json::Value;

use crate::world::*;

/// How long something may take that takes milliseconds on a quiet machine.
const SOON: Duration = Duration::from_secs(15);

impl World {
    fn scope(&self, args: &[&str]) -> (bool, String) {
        let out = self.service.output(&[&["scope"], args].concat()).unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.success(), text)
    }

    #[track_caller]
    fn scope_done(&self, args: &[&str]) -> String {
        let (done, text) = self.scope(args);
        assert!(done, "{args:?}: {text}");
        text
    }

    fn scopes(&self) -> Value {
        serde_json::from_str(&self.scope_done(&["ls", "-o", "json"])).unwrap()
    }

    /// The match of a scope at this cgroup.
    fn found(&self, scope: &str, cgroup: &str) -> Option<Value> {
        let scopes = self.scopes();
        let scope = scopes.as_array().unwrap().iter().find(|it| it["name"] == scope)?;
        scope["matches"].as_array().unwrap().iter().find(|it| it["cgroup"] == cgroup).cloned()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, holds: impl Fn() -> bool) {
        self.wait_long_for(SOON, what, holds);
    }

    #[track_caller]
    fn wait_long_for(&self, patience: Duration, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + patience;
        while !holds() {
            assert!(Instant::now() < until, "{what}: {}", self.scopes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn cgroup(&self, name: &str) -> Cgroup {
        self.service.cgroup.child(name).unwrap()
    }

    /// Whether a process that comes into this cgroup reaches somebody at the far end.
    fn is_free(&self, cgroup: &Path) -> bool {
        let said = self.in_cgroup(cgroup, &format!("{PROBE} tcp {PEER4}:4444"));
        let packets = self.leaked();
        let sent = packets.iter().any(|packet| contains(&packet.bytes, PAYLOAD));
        assert_eq!(sent, said.ends_with("REAL"), "{said}: {packets:?}");
        sent
    }

    /// By way of the proxy and its policy.
    fn asks(&self, cgroup: &Path) -> String {
        // What `enforcer run` mounts is not here: the operator of a scope sees to it.
        let roots = self.service.dir.path().join("ca/ca.pem");
        self.in_cgroup(
            cgroup,
            &format!("curl -sS --max-time 20 --cacert {} https://{NAME}/ 2>&1", roots.display()),
        )
    }
}

#[test]
fn a_scope_is_enforced_from_now_on_until_it_is_removed() {
    let world = World::new();
    let ci = world.cgroup("ci");
    let (first, other) = (ci.child("job-1").unwrap(), ci.child("other").unwrap());
    assert!(world.is_free(first.path()));
    let add = ["add", "ci", "--cgroup", "/ci/job-*", "--label", "team=web"];
    let said = world.scope_done(&[&add[..], &["--dry-run"]].concat());
    assert!(said.contains("/ci/job-1") && !said.contains("other"), "{said}");
    assert!(world.is_free(first.path()) && world.scopes() == serde_json::json!([]));
    let said = world.scope_done(&add);
    assert!(said.contains("/ci/job-1"), "{said}");
    assert!(!world.is_free(first.path()) && world.is_free(other.path()));
    assert!(world.in_cgroup(first.path(), &format!("{PROBE} udp-sendto {PEER4}:4444")).starts_with(REFUSED));
    assert_eq!(world.asks(first.path()), "hello");
    world.leaked();
    // What comes later is found, too.
    let second = ci.child("job-2").unwrap();
    world.wait_for("a new match", || world.found("ci", "/ci/job-2").is_some());
    assert!(!world.is_free(second.path()));
    // Policy knows it by its scope, and by nothing that a job may say of itself.
    let policy = world.service.dir.path().join("policies/test.yaml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let when = "when: {workload: {labels: {scope: ci, team: web}}, host:";
    std::fs::write(&policy, text.replace("when: {host:", when)).unwrap();
    assert!(world.service.output(&["reload"]).unwrap().status.success());
    assert_eq!(world.asks(second.path()), "hello");
    assert_ne!(world.job(&format!("curl -sS https://{NAME}/")), "hello");
    let out = world.service.output(&["run", "--label", "scope=ci", "--label", "team=web", "true"]).unwrap();
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("label `scope`"));
    let status = world.service.status().unwrap();
    assert_eq!((&status["scopes"][0]["cgroups"], &status["healthy"]), (&2.into(), &true.into()));
    assert!(status["pins"].as_array().unwrap().iter().all(|pin| pin["problem"].is_null()));
    // A tagged process has no say over scopes.
    let program = world.service.command(&[]).unwrap();
    let config = world.service.dir.path().join("config.toml");
    let rm = format!("{} --config {} scope rm ci 2>&1", program.get_program().display(), config.display());
    assert!(world.in_cgroup(first.path(), &rm).contains("no say"));
    let (done, said) = world.scope(&["rm", "nothing"]);
    assert!(!done && said.contains("no scope `nothing`"), "{said}");
    world.leaked();
    world.scope_done(&["rm", "ci"]);
    assert!(world.is_free(first.path()) && world.is_free(second.path()));
    let out = world.service.output(&["sessions", "verify"]).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn what_must_not_be_cut_off_is_no_scope() {
    let world = World::new();
    let (system, init) = (world.cgroup("system.slice"), world.cgroup("init.scope"));
    let ssh = system.child("ssh.service").unwrap();
    for (pattern, says) in [
        ("/", "whole host"),
        ("ci", "begins with"),
        ("/own", "the enforcer itself"),
        ("/jobs", "enforcer run"),
        ("/init.scope", "process 1"),
        ("/system.slice", "services"),
        ("/system.slice/*", "administrators"),
        ("/*", "no place"),
    ] {
        let (done, said) = world.scope(&["add", "x", "--cgroup", pattern]);
        assert!(!done && said.contains(says), "{pattern}: {said}");
    }
    for wrong in
        [&["add", "x"][..], &["add", "x", "--cgroup", "/a", "--uid", "7"], &["add", "x", "--uid", "root"]]
    {
        assert!(!world.scope(wrong).0, "{wrong:?}");
    }
    assert_eq!(world.scopes(), serde_json::json!([]));
    assert!(world.is_free(ssh.path()) && world.is_free(init.path()));
    // Who says so twice gets it, but for what could never work.
    let said = world.scope_done(&["add", "x", "--cgroup", "/*", "--force"]);
    assert!(said.contains("/own is not tagged") && said.contains("/system.slice"), "{said}");
    assert!(!world.is_free(ssh.path()) && world.is_free(init.path()));
    assert!(world.service.status().unwrap()["healthy"] == true);
}

#[test]
fn units_and_users_are_found_where_systemd_puts_them() {
    let world = World::new();
    let said = world.scope_done(&["add", "runners", "--unit", "actions-runner@*.service"]);
    assert!(said.contains("matches nothing"), "{said}");
    world.scope_done(&["add", "shell", "--uid", "4242"]);
    let system = world.cgroup("system.slice");
    let instances = system.child("system-actions\\x2drunner.slice").unwrap();
    let runner = instances.child("actions-runner@1.service").unwrap();
    let at = "/system.slice/system-actions\\x2drunner.slice/actions-runner@1.service";
    world.wait_for("an instance", || world.found("runners", at).is_some());
    assert!(!world.is_free(runner.path()) && world.is_free(system.path()));
    // A folder of that name in what somebody else has been given is no unit.
    let users = world.cgroup("user.slice");
    let stranger = users.child("user-7.slice").unwrap();
    let fake = stranger.child("user@7.service").unwrap().path().to_owned();
    let fake = Cgroup::at(&fake).or_else(|_| Cgroup::at(&fake.with_extension("x"))).unwrap();
    // `su` puts its session here, by way of PAM.
    let user = users.child("user-4242.slice").unwrap();
    world.wait_for("the user's slice", || world.found("shell", "/user.slice/user-4242.slice").is_some());
    let session = user.child("session-c1.scope").unwrap();
    assert!(!world.is_free(session.path()) && world.is_free(fake.path()) && world.is_free(stranger.path()));
}

#[test]
fn a_delegated_subtree_is_tagged_where_it_begins() {
    let world = World::new();
    let service = world.cgroup("runner.service");
    let job = service.child("job").unwrap();
    std::os::unix::fs::chown(service.path(), Some(65534), None).unwrap();
    world.scope_done(&["add", "runner", "--cgroup", "/runner.service/job"]);
    assert!(world.found("runner", "/runner.service").is_some(), "{}", world.scopes());
    // So its user gains nothing by moving.
    let beside = service.child("beside").unwrap();
    assert!(!world.is_free(job.path()) && !world.is_free(beside.path()));
}

#[test]
fn a_tag_dies_with_its_cgroup_and_scopes_outlive_the_service() {
    let mut world = World::new();
    let ci = world.cgroup("ci");
    let (one, two) = (ci.child("job-1").unwrap(), ci.child("job-2").unwrap());
    world.scope_done(&["add", "ci", "--cgroup", "/ci/job-*", "--label", "team=web"]);
    world.scope_done(&["add", "gone", "--cgroup", "/gone"]);
    let tag = |world: &World, cgroup: &str| world.found("ci", cgroup).map(|it| it["tag"].as_u64().unwrap());
    let before = (tag(&world, "/ci/job-1").unwrap(), tag(&world, "/ci/job-2").unwrap());
    let path = one.path().to_owned();
    drop(one);
    world.wait_for("the end of a match", || tag(&world, "/ci/job-1").is_none());
    let one = Cgroup::at(&path).unwrap();
    world.wait_for("the next one", || tag(&world, "/ci/job-1").is_some());
    assert_ne!(tag(&world, "/ci/job-1").unwrap(), before.0, "another cgroup has the tag");
    assert!(!world.is_free(one.path()));
    // While there is no service, what is tagged has no network.
    let gone = world.cgroup("gone");
    world.wait_for("a match of the other", || world.found("gone", "/gone").is_some());
    let newest = tag(&world, "/ci/job-1").unwrap();
    world.service.kill_daemon().unwrap();
    assert!(!world.is_free(two.path()) && !world.is_free(gone.path()));
    std::fs::remove_file(world.service.dir.path().join("scopes.d/gone.toml")).unwrap();
    drop(one);
    let three = ci.child("job-3").unwrap();
    world.service.start_daemon().unwrap();
    // The same workload as before, a new one, one that has ended, and one that is meant no more.
    assert_eq!(tag(&world, "/ci/job-2"), Some(before.1));
    assert!(tag(&world, "/ci/job-3").is_some_and(|tag| tag > newest) && tag(&world, "/ci/job-1").is_none());
    assert!(!world.is_free(two.path()) && !world.is_free(three.path()) && world.is_free(gone.path()));
    let written = String::from_utf8_lossy(&world.service.written().unwrap()).into_owned();
    assert!(written.contains("ci/job-2"), "the recording names the workload");
    assert_eq!(world.asks(two.path()), "hello");
    world.service.wait_whole().unwrap();
}

#[test]
fn a_scope_of_the_configuration_is_enforced_from_the_start_and_released_for_a_while() {
    let mut world = World::new();
    let agents = world.cgroup("agents");
    let config = world.service.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[[scope]]\nname = \"agents\"\ncgroup = \"agents\"\n")).unwrap();
    let said = String::from_utf8(world.service.output(&["scope", "ls"]).unwrap().stderr).unwrap();
    let line = text.lines().count() + 4;
    assert!(said.contains("begins with") && said.contains(&format!("config.toml:{line}:")), "{said}");
    std::fs::write(&config, format!("{text}\n[[scope]]\nname = \"agents\"\ncgroup = \"/agents\"\n")).unwrap();
    world.service.kill_daemon().unwrap();
    world.service.start_daemon().unwrap();
    assert!(!world.is_free(agents.path()));
    let (done, said) = world.scope(&["rm", "agents"]);
    assert!(!done && said.contains("configuration"), "{said}");
    let out = world.service.output(&["release", "agents", "--for", "3s"]).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(world.is_free(agents.path()));
    let status = String::from_utf8(world.service.output(&["status"]).unwrap().stdout).unwrap();
    assert!(status.contains("agents") && status.contains("NOT ENFORCED for"), "{status}");
    world.service.kill_daemon().unwrap();
    world.service.start_daemon().unwrap();
    world.wait_for("the end of the release", || !world.is_free(agents.path()));
    assert!(world.scope_done(&["ls"]).contains("/agents"));
}

/// A process that has connected before anybody enforced anything.
struct Connected {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Connected {
    /// Connects in one cgroup and then goes to another; says what came of its write
    /// when it is told to.
    fn start(world: &World, from: &Path, to: &Path, device: &str) -> Self {
        Self::start_by(world, from, to, device, "")
    }

    /// The same; once it has connected it is somebody else by this command.
    fn start_by(world: &World, from: &Path, to: &Path, device: &str, wrapper: &str) -> Self {
        let script = format!(
            "echo $$ > {from}/cgroup.procs; exec 3<>/dev/{device}; exec {wrapper} bash -c '
             echo $$ > {to}/cgroup.procs; echo ready
             while read -r line; do echo PROBE-SECRET >&3 && echo sent || echo failed; done'",
            from = from.display(),
            to = to.display(),
        );
        Self::run(world, &["bash", "-c", &script])
    }

    fn run(world: &World, words: &[&str]) -> Self {
        let netns = format!("--net=/run/netns/{}", world.cable.work.name());
        let mut command = Command::new("nsenter");
        command.arg(&netns).args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, output };
        assert_eq!(this.hears(), "ready");
        this
    }

    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn sends(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.hears()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn what_was_connected_before_the_tag_is_closed_and_sends_nothing() {
    let world = World::new();
    let ci = world.cgroup("ci");
    let (job, outside) = (ci.child("job").unwrap(), world.outside.path().to_owned());
    let (tcp, udp) = (format!("tcp/{PEER4}/{ECHO_PORT}"), format!("udp/{PEER4}/4444"));
    let start = |from: &Path, device: &str| Connected::start(&world, from, job.path(), device);
    let mut before = [&tcp, &udp].map(|device| [start(&outside, device), start(job.path(), device)]);
    for one in before.iter_mut().flatten() {
        assert_eq!(one.sends(), "sent");
    }
    assert!(world.leaked().iter().any(|packet| contains(&packet.bytes, PAYLOAD)));
    let mut bystander = Connected::start(&world, &outside, &outside, &tcp);
    world.scope_done(&["add", "ci", "--cgroup", "/ci"]);
    let closed = || world.found("ci", "/ci").unwrap()["sockets_closed"].as_u64().unwrap();
    world.wait_for("sockets from before", || closed() == 4);
    world.leaked();
    for one in before.iter_mut().flatten() {
        let said = one.sends();
        assert!(said != "sent" || !world.leaked().iter().any(|it| contains(&it.bytes, PAYLOAD)), "{said}");
    }
    // Brought along later, as `su` would.
    let mut later = [&tcp, &udp].map(|device| start(&outside, device));
    world.wait_for("sockets that were brought along", || closed() == 6);
    world.leaked();
    for one in &mut later {
        one.sends();
    }
    let packets = world.leaked();
    assert!(!packets.iter().any(|packet| contains(&packet.bytes, PAYLOAD)), "{packets:?}");
    // What was made under the hooks stays, and so does what others have.
    assert_eq!(world.asks(job.path()), "hello");
    assert_eq!(bystander.sends(), "sent");
    assert!(world.leaked().iter().any(|packet| contains(&packet.bytes, PAYLOAD)));
}

/// What sends by a socket that it has taken along sends nothing.
#[track_caller]
fn is_closed(world: &World, mut one: Connected, sockets: u64) {
    let closed = || world.found("ci", "/ci").unwrap()["sockets_closed"].as_u64().unwrap();
    world.wait_for("a socket that was brought along", || closed() == sockets);
    world.leaked();
    one.sends();
    let packets = world.leaked();
    assert!(!packets.iter().any(|packet| contains(&packet.bytes, PAYLOAD)), "{packets:?}");
}

/// A socket belongs to the namespace in which it was made, wherever its process is now.
#[test]
fn what_was_connected_in_another_network_namespace_is_closed_too() {
    let world = World::new();
    let ci = world.cgroup("ci");
    world.scope_done(&["add", "ci", "--cgroup", "/ci"]);
    let (tcp, udp) = (format!("tcp/{PEER4}/{ECHO_PORT}"), format!("udp/{PEER4}/4444"));
    for (sockets, device) in [(1, &tcp), (2, &udp)] {
        let outside = world.outside.path();
        let elsewhere = Connected::start_by(&world, outside, ci.path(), device, "unshare --net");
        is_closed(&world, elsewhere, sockets);
    }
}

/// Connects in a thread that has taken its own table of descriptors.
const BY_THREAD: &str = r"
import ctypes, os, socket, sys, threading
outside, inside, peer, port = sys.argv[1:5]
go = threading.Semaphore(0)
def enter(cgroup):
    open(f'{cgroup}/cgroup.procs', 'w').write(str(os.getpid()))
def run():
    ctypes.CDLL(None).unshare(0x400)
    s = socket.create_connection((peer, int(port)))
    enter(inside)
    print('ready', flush=True)
    while go.acquire():
        try:
            s.sendall(b'PROBE-SECRET')
            print('sent', flush=True)
        except OSError:
            print('failed', flush=True)
enter(outside)
threading.Thread(target=run, daemon=True).start()
for line in sys.stdin:
    go.release()
";

#[test]
fn what_a_thread_has_connected_that_shares_no_descriptors_is_closed_too() {
    let world = World::new();
    let ci = world.cgroup("ci");
    world.scope_done(&["add", "ci", "--cgroup", "/ci"]);
    let (outside, inside) = (world.outside.path().display().to_string(), ci.path().display().to_string());
    let (peer, port) = (PEER4.to_string(), ECHO_PORT.to_string());
    let thread = Connected::run(&world, &["python3", "-c", BY_THREAD, &outside, &inside, &peer, &port]);
    is_closed(&world, thread, 1);
}

/// Many processes that share many sockets, and go to another cgroup.
const CROWD: &str = r"
import os, resource, socket, sys
inside, peer, sockets, processes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (sockets + 64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
for n in range(sockets):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((peer, 4444))
    held.append(s)
wait, end = os.pipe()
pids = []
for n in range(processes):
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.read(wait, 1)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    open(f'{inside}/cgroup.procs', 'w').write(str(pid))
print('ready', flush=True)
sys.stdin.read()
";

/// What one cgroup holds is no reason for another to wait for its tag.
#[test]
fn while_a_crowd_is_swept_others_are_tagged_and_it_is_told() {
    const SOCKETS: u64 = 4_000;
    let world = World::new();
    let (ci, crowd) = (world.cgroup("ci"), world.cgroup("crowd"));
    world.scope_done(&["add", "ci", "--cgroup", "/ci/job-*"]);
    world.scope_done(&["add", "crowd", "--cgroup", "/crowd"]);
    let state = || world.found("crowd", "/crowd").unwrap()["state"].as_str().unwrap().to_owned();
    world.wait_for("a cgroup without processes", || state() == "enforced");
    let (inside, peer) = (crowd.path().display().to_string(), PEER4.to_string());
    let (sockets, processes) = (SOCKETS.to_string(), "20".to_owned());
    let mut held = Connected::run(&world, &["python3", "-c", CROWD, &inside, &peer, &sockets, &processes]);
    world.wait_for("a sweep", || state() == "sweeping");
    // In one and the same answer: the crowd is being swept, and somebody new is tagged.
    let (mut jobs, mut seen) = (Vec::new(), false);
    while !seen && state() != "enforced" {
        jobs.push(ci.child(&format!("job-{}", jobs.len())).unwrap());
        let name = format!("/ci/job-{}", jobs.len() - 1);
        let (mut tagged, mut sweeping) = (false, true);
        while !tagged && sweeping {
            let scopes = world.scopes();
            let all = scopes.as_array().unwrap();
            let matches = |name: &str| all.iter().find(|it| it["name"] == name).unwrap()["matches"].clone();
            sweeping = matches("crowd")[0]["state"] == "sweeping";
            tagged = matches("ci").as_array().unwrap().iter().any(|it| it["cgroup"] == name);
        }
        seen = tagged && sweeping;
    }
    assert!(seen, "nobody was tagged while the crowd was swept: {}", world.scopes());
    assert!(world.scope_done(&["ls"]).contains("SWEEPING") || state() == "enforced");
    world.wait_long_for(4 * SOON, "the end of the sweep", || state() == "enforced");
    let closed = world.found("crowd", "/crowd").unwrap()["sockets_closed"].as_u64().unwrap();
    assert_eq!(closed, SOCKETS);
    drop(held.child.stdin.take());
    held.child.wait().unwrap();
}

/// Whoever is in a network namespace of his own when the tag comes is served before he
/// connects anywhere.
#[test]
fn a_network_namespace_in_a_scope_is_served_ahead_of_time() {
    let world = World::new();
    let ci = world.cgroup("ci");
    let script = format!(
        "echo $$ > {}/cgroup.procs; ip link set lo up; echo ready; read -r go; {PROBE} tcp {PEER4}:4444",
        ci.path().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    world.scope_done(&["add", "ci", "--cgroup", "/ci"]);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    child.wait().unwrap();
    // Redirected: the proxy takes the connection, and then does not like what is said.
    assert!(!line.starts_with(REFUSED) && !line.contains("unreachable"), "{line}");
}

/// Makes a cgroup, starts a process in it (as systemd does, without a move), which
/// connects at once; and so on.
const BURST: &str = r"
import ctypes, os, socket, struct, sys
parent, peer, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
CLONE3, INTO_CGROUP, SIGCHLD = 435, 0x200000000, 17
libc = ctypes.CDLL(None, use_errno=True)
def start(path):
    folder = os.open(path, os.O_RDONLY)
    args = struct.pack('11Q', INTO_CGROUP, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, folder)
    pid = libc.syscall(CLONE3, args, len(args))
    assert pid >= 0, os.strerror(ctypes.get_errno())
    return pid
for n in range(many):
    path = f'{parent}/job-{n}'
    os.mkdir(path)
    if start(path) == 0:
        try:
            s = socket.create_connection((peer, 4444), 5)
            s.settimeout(1)
            s.sendall(b'PROBE-SECRET')
            said = b'REAL' if s.recv(9) == b'REAL' else b'none'
        except OSError:
            said = b'refused'
        os.write(1, said + b'\n')
        os._exit(0)
for n in range(many):
    os.wait()
";

/// How many of them came through, and how many had a payload on the wire.
fn burst(world: &World, parent: &Path, many: usize) -> (usize, usize) {
    let netns = format!("--net=/run/netns/{}", world.cable.work.name());
    let (parent, peer, count) = (parent.display().to_string(), PEER4.to_string(), many.to_string());
    let out = Command::new("nsenter")
        .args([&netns, "python3", "-c", BURST, &parent, &peer, &count])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text.lines().count(), many, "{}", String::from_utf8_lossy(&out.stderr));
    let through = text.lines().filter(|line| *line == "REAL").count();
    let leaked = world.leaked().iter().filter(|packet| contains(&packet.bytes, PAYLOAD)).count();
    (through, leaked)
}

#[test]
fn of_many_cgroups_at_once_each_is_tagged_and_none_comes_through_where_the_parent_is() {
    const MANY: usize = 200;
    let world = World::new();
    let (alone, held) = (world.cgroup("alone"), world.cgroup("held"));
    // By inotify: a process may be quicker than its tag.
    world.scope_done(&["add", "alone", "--cgroup", "/alone/job-*"]);
    // All children: the parent is tagged too, and nothing is ever without a tag.
    world.scope_done(&["add", "held", "--cgroup", "/held/*"]);
    let count = |name: &str| {
        let scopes = world.scopes();
        let scope = scopes.as_array().unwrap().iter().find(|it| it["name"] == name).cloned().unwrap();
        usize::try_from(scope["count"].as_u64().unwrap()).unwrap()
    };
    assert_eq!((count("alone"), count("held")), (0, 1));
    let (through, leaked) = burst(&world, held.path(), MANY);
    assert_eq!((through, leaked), (0, 0), "below a tagged parent");
    world.wait_for("all of them", || count("held") == MANY + 1);
    let (through, leaked) = burst(&world, alone.path(), MANY);
    println!("by inotify alone {through} of {MANY} processes were quicker than their tag, {leaked} payloads");
    assert!(through < MANY, "inotify tells nothing");
    world.wait_for("all of them", || count("alone") == MANY);
    for parent in [&alone, &held] {
        let paths: Vec<PathBuf> =
            (0..MANY).step_by(MANY - 1).map(|n| parent.path().join(format!("job-{n}"))).collect();
        assert!(paths.iter().all(|path| !world.is_free(path)));
    }
    assert!(world.service.status().unwrap()["healthy"] == true);
}

/// Root's instances, or its watches, are used up by others. Unheard of is only how soon
/// a match is found.
fn found_by_looking(call: &str, errno: nix::errno::Errno, setting: &str) {
    const MANY: usize = 10;
    /// As many looks as one every five seconds would take much longer.
    const AT_MOST: Duration = Duration::from_secs(25);
    let world = World::started_by(&[PROBE, "refuses", call, &(errno as i32).to_string()]);
    let ci = world.cgroup("ci");
    world.scope_done(&["add", "ci", "--cgroup", "/ci/job-*"]);
    let begun = Instant::now();
    for n in 0..MANY {
        let job = ci.child(&format!("job-{n}")).unwrap();
        world.wait_for("a new match", || world.found("ci", &format!("/ci/job-{n}")).is_some());
        if n == 0 {
            assert!(!world.is_free(job.path()));
        }
    }
    assert!(begun.elapsed() < AT_MOST, "{:?}", begun.elapsed());
    let told = world.service.status().unwrap()["unwatched"].to_string();
    assert!(told.contains(setting), "{told}");
    assert!(world.scope_done(&["ls"]).contains(setting));
    let shown = world.service.output(&["status"]).unwrap().stdout;
    assert!(String::from_utf8_lossy(&shown).contains(setting));
}

#[test]
fn without_an_instance_of_inotify_new_matches_are_found_by_looking() {
    found_by_looking("inotify_init1", nix::errno::Errno::EMFILE, "max_user_instances");
}

#[test]
fn without_watches_new_matches_are_found_by_looking() {
    found_by_looking("inotify_add_watch", nix::errno::Errno::ENOSPC, "max_user_watches");
}

/// The service's configuration with these scopes at its end.
struct Written {
    path: PathBuf,
    before: String,
}

impl Written {
    fn of(world: &World) -> Self {
        let path = world.service.dir.path().join("config.toml");
        let before = std::fs::read_to_string(&path).unwrap();
        Self { path, before }
    }

    fn with(&self, scopes: &str) {
        std::fs::write(&self.path, format!("{}{scopes}", self.before)).unwrap();
    }
}

fn reload(world: &World) -> (bool, String) {
    let out = world.service.output(&["reload"]).unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    // As it was before it was broken into lines.
    let words = text.split_whitespace().filter(|word| *word != "│");
    (out.status.success(), words.collect::<Vec<_>>().join(" "))
}

#[test]
fn scopes_of_the_configuration_are_read_again_and_a_broken_one_changes_nothing() {
    let world = World::new();
    let (one, two, three) = (world.cgroup("one"), world.cgroup("two"), world.cgroup("three"));
    let config = Written::of(&world);
    let scope = |name: &str, cgroup: &str| format!("[[scope]]\nname = '{name}'\ncgroup = '/{cgroup}'\n");
    world.scope_done(&["add", "three", "--cgroup", "/three"]);
    config.with(&(scope("one", "one") + &scope("two", "two")));
    let (done, said) = reload(&world);
    assert!(done && said.contains("2 are new, 0 gone"), "{said}");
    assert!([&one, &two, &three].iter().all(|it| !world.is_free(it.path())));
    let tag = |name: &str, cgroup: &str| world.found(name, cgroup).map(|it| it["tag"].as_u64().unwrap());
    let kept = tag("one", "/one").unwrap();
    let good = std::fs::read_to_string(&config.path).unwrap();
    for (wrong, says) in [
        ("[[scope]]\nname = 'x'\ncgroup = 'x'\n".to_owned(), "begins with"),
        (scope("three", "x"), "added by command"),
        (scope("x", "x") + &scope("x", "y"), "called `x` too"),
        ("[scopes]\n".to_owned(), "unknown field"),
    ] {
        config.with(&wrong);
        let (done, said) = reload(&world);
        assert!(!done && said.contains(says) && said.contains("as they were"), "{said}");
        std::fs::write(&config.path, &good).unwrap();
        assert_eq!(tag("one", "/one"), Some(kept), "{said}");
    }
    // Another name for what is tagged: another workload, with its own tag.
    config.with(&(scope("one", "one") + &scope("second", "two") + "[limits]\n"));
    let (done, said) = reload(&world);
    assert!(done && said.contains("1 are new, 1 gone; 0 cgroup(s) are free"), "{said}");
    assert!(said.contains("started again"), "{said}");
    assert_eq!(tag("one", "/one"), Some(kept));
    assert!(tag("second", "/two").is_some_and(|tag| tag > kept) && tag("two", "/two").is_none());
    assert!(!world.is_free(two.path()));
    // By SIGHUP: nobody is told, but what is not meant any more is free.
    config.with("");
    let daemon = nix::unistd::Pid::from_raw(world.service.daemon_pid().unwrap());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGHUP).unwrap();
    world.wait_for("the end of the scopes", || tag("one", "/one").is_none());
    assert!(world.is_free(one.path()) && world.is_free(two.path()) && !world.is_free(three.path()));
    assert!(world.service.status().unwrap()["healthy"] == true);
}

/// From one scope to another the tag of a cgroup changes, and it is never without one.
#[test]
fn what_goes_from_one_scope_to_another_is_enforced_all_the_time() {
    const CHANGES: usize = 10;
    let world = World::new();
    let ci = world.cgroup("ci");
    let config = Written::of(&world);
    let scope = |label: usize| {
        format!("[[scope]]\nname = 'ci'\ncgroup = '/ci'\nlabels = {{change = 'number{label}'}}\n")
    };
    config.with(&scope(0));
    assert!(reload(&world).0);
    world.leaked();
    let script = format!("while :; do {PROBE} tcp {PEER4}:4444; done");
    let mut busy = world.command_in_cgroup(ci.path(), &script).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(busy.stdout.take().unwrap()).lines();
    for number in 1..=CHANGES {
        config.with(&scope(number));
        let (done, text) = reload(&world);
        assert!(done && text.contains("1 are new, 1 gone; 0 cgroup(s) are free"), "{text}");
        // It has tried before, and after.
        said.next().unwrap().unwrap();
    }
    busy.kill().unwrap();
    busy.wait().unwrap();
    let packets = world.leaked();
    assert!(!packets.iter().any(|packet| contains(&packet.bytes, PAYLOAD)), "{packets:?}");
}

#[test]
fn there_are_so_many_scopes_and_so_many_matches_are_listed_and_no_more() {
    const MAX_SCOPES: usize = 256;
    const MAX_LISTED: usize = 64;
    let world = World::new();
    let many = world.cgroup("many");
    let config = Written::of(&world);
    let scopes = |count: usize| -> String {
        (0..count).map(|n| format!("[[scope]]\nname = 's{n}'\ncgroup = '/none-{n}'\n")).collect()
    };
    config.with(&scopes(MAX_SCOPES + 1));
    let (done, said) = reload(&world);
    assert!(!done && said.contains("more than 256"), "{said}");
    config.with(&scopes(MAX_SCOPES - 1));
    assert!(reload(&world).0);
    let _children: Vec<_> = (0..MAX_LISTED).map(|n| many.child(&format!("c{n}")).unwrap()).collect();
    world.scope_done(&["add", "many", "--cgroup", "/many/c*"]);
    assert_eq!(world.scopes().as_array().unwrap().len(), MAX_SCOPES);
    let (done, said) = world.scope(&["add", "more", "--cgroup", "/more"]);
    assert!(!done && said.contains("more cannot be"), "{said}");
    let (done, said) = {
        config.with(&scopes(MAX_SCOPES));
        reload(&world)
    };
    assert!(!done && said.contains("more than 256"), "with the one by command: {said}");
    let listed = || {
        let scopes = world.scopes();
        let scope = scopes.as_array().unwrap().iter().find(|it| it["name"] == "many").unwrap().clone();
        (scope["count"].as_u64().unwrap(), scope["matches"].as_array().unwrap().len())
    };
    assert_eq!(listed(), (64, MAX_LISTED));
    assert!(!world.scope_done(&["ls"]).contains("and 1 more"));
    let _last = many.child("c-last").unwrap();
    world.wait_for("one more", || listed() == (65, MAX_LISTED));
    assert!(world.scope_done(&["ls"]).contains("and 1 more"));
}
