//! What was connected before the tag, and goes on or comes later.

use super::*;

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
