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

mod reload;
mod sweep;

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
