//! Tagged processes in other network namespaces than the service's: the first connect is
//! refused, from then on they are served, and when they are gone so are the listeners.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use enforcer_tests::frame::{Frames, PORT};
use enforcer_tests::netns::{Cable, Netns};
use enforcer_tests::service::kill9;
use enforcer_tests::sniffer::Sniffer;
use enforcer_tests::wait::{PATIENCE, until, until_said, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deaths::Stays;
use crate::world::*;

const GET: &str = "curl -sk -m 5 https://upstream.test/";
/// The most namespaces that one workload has served.
const MOST: usize = 64;

/// A namespace with a cable of its own, and a sniffer at its far end.
struct Elsewhere {
    sniffer: Sniffer,
    cable: Cable,
}

impl Elsewhere {
    fn new() -> Self {
        let cable = Cable::new().unwrap();
        let listener = cable.peer.run(|| TcpListener::bind(("::", 4444)).unwrap()).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let sniffer = Sniffer::start(&cable).unwrap();
        sniffer.clear().unwrap();
        Self { sniffer, cable }
    }

    fn netns(&self) -> &Netns {
        &self.cable.work
    }

    #[track_caller]
    fn nothing_left(&self) {
        let packets = self.sniffer.packets().unwrap();
        assert!(packets.is_empty(), "{packets:?}");
    }
}

/// Somebody tagged who stays in a namespace: where nobody is seen at two looks, the listeners
/// are closed, also between two that are there for a moment each.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(world: &World, there: &Elsewhere) -> Self {
        Self(world.tagged_in_command(there.netns(), "exec sleep 300").spawn().unwrap())
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn namespaces(world: &World) -> u64 {
    let status = world.service.status().unwrap();
    let jobs = status["jobs"].as_array().unwrap();
    jobs.iter().map(|job| job["namespaces"].as_u64().unwrap()).sum()
}

fn wait_for_namespaces(world: &World, many: u64) {
    let come = within(PATIENCE, || namespaces(world) == many);
    assert!(come.is_some(), "{} are served, not {many}", namespaces(world));
}

#[test]
fn the_first_connect_is_refused_and_those_after_it_are_served() {
    let world = World::new();
    let job = Stays::start(&world);
    let there = Elsewhere::new();
    let first = world.tagged_in(there.netns(), &format!("{PROBE} until-served 192.0.2.7:4444"));
    let stays = Inhabitant::of(&world, &there);
    wait_for_namespaces(&world, 1);
    let told: Vec<&str> = first.split_whitespace().collect();
    // None if somebody looked in between: it is served at sight, too.
    let refused: u32 = told[1].strip_prefix("refused=").unwrap().parse().unwrap();
    assert!(refused < 1000 && told[0] == "ok", "{first}");
    println!("{first}");
    assert_eq!(world.tagged_in(there.netns(), GET), "hello");
    assert_eq!(namespaces(&world), 1);
    for to in ["10.77.0.2", "[fd77::2]", "[2001:db8::7]"] {
        let said = world.tagged_in(there.netns(), &format!("curl -sg -m 5 http://{to}:4444/"));
        assert!(said.contains("policy"), "{to}: {said}");
    }
    for technique in ["udp-sendto", "quic", "icmp-dgram"] {
        let said = world.tagged_in(there.netns(), &format!("{PROBE} {technique} 10.77.0.2:4444"));
        assert!(said.starts_with(REFUSED), "{technique}: {said}");
    }
    there.nothing_left();
    // An untagged one goes where it likes, so the cable shows what leaves.
    world.in_netns(world.outside.path(), there.netns(), &format!("{PROBE} tcp 10.77.0.2:4444"));
    assert!(!there.sniffer.packets().unwrap().is_empty());
    let list = world.service.output(&["sessions", "ls"]).unwrap();
    assert!(!String::from_utf8_lossy(&list.stdout).contains("unknown-workload"));
    drop(stays);
    job.end(&world);
}

/// Whoever connects while the listeners are being made is refused, redirected, or waits.
#[test]
fn nothing_leaves_while_the_listeners_are_made() {
    let world = World::new();
    let job = Stays::start(&world);
    for _ in 0..2 {
        let there = Elsewhere::new();
        let once = format!("{PROBE} until-served 10.77.0.2:4444; {PROBE} until-served [fd77::2]:4444");
        let script = format!("for i in 1 2 3 4 5 6 7 8; do ({once}) & done; wait");
        let said = world.tagged_in(there.netns(), &script);
        assert!(said.matches("ok refused=").count() == 16 && !said.contains("REAL"), "{said}");
        there.nothing_left();
    }
    job.end(&world);
}

#[test]
fn namespaces_that_processes_make_for_themselves_are_served() {
    let world = World::new();
    let job = Stays::start(&world);
    let get = format!("ip link set lo up; until {GET}; do sleep 0.02; done");
    assert_eq!(world.tagged(&format!("timeout 20 unshare -n sh -c '{get}'")), "hello");
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let said = world.tagged(&format!("timeout 20 {nobody} unshare -Urn sh -c '{get}'"));
    assert_eq!(said, "hello");
    // While `lo` is down nothing arrives, and nobody sets it up but who is there: then
    // IPv6 is there as well.
    let script = format!(
        "timeout 20 unshare -n sh -c '{PROBE} tcp 192.0.2.7:1; \
         until said=$({PROBE} tcp 192.0.2.7:1); case $said in *101*) true;; *) false;; esac; do sleep 0.02; done; \
         echo $said; ip link set lo up; curl -sg -m 5 http://[2001:db8::7]:80/'"
    );
    let said = world.tagged(&script);
    let lines: Vec<&str> = said.lines().collect();
    let down = "error 101 ";
    assert!(lines[0].starts_with(REFUSED) || lines[0].starts_with(down), "{said}");
    assert!(lines[1].starts_with(down), "{said}");
    assert!(said.contains("policy"), "{said}");
    job.end(&world);
}

/// A listener keeps a namespace alive, and with it what its interfaces lead to.
#[test]
fn a_namespace_goes_with_its_last_process() {
    let world = World::new();
    let job = Stays::start(&world);
    let script = "exec unshare -n sh -c 'ip link set lo up; echo $$; exec sleep 300'";
    let mut shell = world.tagged_command(script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = first_line(&mut shell);
    let peer = &world.cable.peer;
    peer.ip(&["link", "add", "gone0", "type", "veth", "peer", "name", "gone1", "netns", &pid]).unwrap();
    let has_cable = || peer.ip(&["link", "show", "gone0"]).is_ok();
    assert!(has_cable());
    let inside = format!("nsenter -t {pid} -n {PROBE} until-served 192.0.2.7:4444");
    assert!(world.tagged(&inside).starts_with("ok"));
    wait_for_namespaces(&world, 1);
    // It stays as long as somebody is there, while another one goes.
    let other = world.tagged_command(script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut other = other.unwrap();
    let number = first_line(&mut other);
    assert!(
        world
            .tagged(&format!("nsenter -t {number} -n {PROBE} until-served 192.0.2.7:4444"))
            .starts_with("ok")
    );
    wait_for_namespaces(&world, 2);
    other.kill().unwrap();
    other.wait().unwrap();
    wait_for_namespaces(&world, 1);
    assert_eq!(world.tagged(&format!("nsenter -t {pid} -n {GET}")), "hello");
    assert!(has_cable() && namespaces(&world) == 1);
    kill9(pid.parse().unwrap()).unwrap();
    shell.wait().unwrap();
    let took = until("the namespace goes", || !has_cable());
    println!("gone after {took:?}");
    assert_eq!(namespaces(&world), 0);
    job.end(&world);
}

fn first_line(child: &mut Child) -> String {
    use std::io::{BufRead, BufReader};
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
fn namespaces_in_use_are_served_again_by_the_next_proxy_and_the_next_loader() {
    let mut world = World::new();
    let job = Stays::start(&world);
    let there = [Elsewhere::new(), Elsewhere::new()];
    let stay: Vec<Inhabitant> = there.iter().map(|it| Inhabitant::of(&world, it)).collect();
    for it in &there {
        until_said("hello", || world.tagged_in(it.netns(), GET));
    }
    for with_loader in [false, true] {
        let proxy = world.service.status().unwrap()["proxy_pid"].as_i64().unwrap();
        if with_loader {
            world.service.kill_daemon().unwrap();
        } else {
            let loader = Pid::from_raw(world.service.daemon_pid().unwrap());
            kill(loader, Signal::SIGSTOP).unwrap();
            kill9(i32::try_from(proxy).unwrap()).unwrap();
        }
        for it in &there {
            // A killed process has its listener a moment longer.
            until_said("error 111 ", || world.tagged_in(it.netns(), &format!("{PROBE} tcp 10.77.0.2:4444")));
        }
        if with_loader {
            world.service.start_daemon().unwrap();
        } else {
            kill(Pid::from_raw(world.service.daemon_pid().unwrap()), Signal::SIGCONT).unwrap();
            until_said("another", || match world.service.status() {
                Ok(now) if now["proxy_pid"].as_i64().is_some_and(|pid| pid != proxy) => "another".to_owned(),
                other => format!("{other:?}"),
            });
        }
        world.service.wait_whole().unwrap();
        for it in &there {
            assert_eq!(world.tagged_in(it.netns(), GET), "hello", "with the loader: {with_loader}");
            it.nothing_left();
        }
    }
    drop(stay);
    wait_for_namespaces(&world, 0);
    job.end(&world);
}

#[test]
fn a_workload_has_so_many_namespaces_and_no_more() {
    let world = World::new();
    let job = Stays::start(&world);
    let served = format!("{PROBE} until-served 192.0.2.7:4444");
    let hold = |script: &str| {
        let script = format!("exec unshare -n sh -c 'ip link set lo up; {script}; exec sleep 300'");
        world.tagged_command(&script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut holders: Vec<Child> = (0..MOST).map(|_| hold(&served)).collect();
    for holder in &mut holders {
        assert!(first_line(holder).starts_with("ok"), "one of {MOST} was not served");
    }
    assert_eq!(namespaces(&world), MOST as u64);
    let mut more = hold(&format!("{PROBE} tcp 192.0.2.7:4444"));
    assert!(first_line(&mut more).starts_with(REFUSED));
    until_said("netns-limit", || String::from_utf8_lossy(&world.service.written().unwrap()).into_owned());
    assert_eq!(namespaces(&world), MOST as u64);
    let mut last = holders.pop().unwrap();
    last.kill().unwrap();
    last.wait().unwrap();
    let served = format!("nsenter -t {} -n {served}", more.id());
    assert!(world.tagged(&served).starts_with("ok"));
    for mut child in holders.into_iter().chain([more]) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    job.end(&world);
}

#[test]
fn ports_of_somebody_else_stay_theirs_and_the_connects_refused() {
    let world = World::new();
    let job = Stays::start(&world);
    let there = Elsewhere::new();
    let config = std::fs::read_to_string(world.service.dir.path().join("config.toml")).unwrap();
    let port = config.lines().find_map(|line| line.strip_prefix("tcp_port = ")).unwrap();
    let mut thief = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", there.netns().name()))
        .args([PROBE, "hold", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut thief), "ready");
    std::io::Write::write_all(thief.stdin.as_mut().unwrap(), b"\n").unwrap();
    assert_eq!(first_line(&mut thief), "listening");
    until_said("netns-ports-taken", || {
        let said = world.tagged_in(there.netns(), &format!("{PROBE} tcp 10.77.0.2:4444"));
        assert!(said.starts_with(REFUSED), "{said}");
        String::from_utf8_lossy(&world.service.written().unwrap()).into_owned()
    });
    there.nothing_left();
    assert_eq!(namespaces(&world), 0);
    thief.kill().unwrap();
    thief.wait().unwrap();
    until_said("hello", || world.tagged_in(there.netns(), GET));
    there.nothing_left();
    job.end(&world);
}

/// The same source in two namespaces is two connections of two workloads.
#[test]
fn workloads_with_the_same_source_are_told_apart() {
    let world = World::new();
    let jobs = [Stays::named(&world, "one"), Stays::named(&world, "other")];
    let there = [Elsewhere::new(), Elsewhere::new()];
    for (name, it) in ["one", "other"].iter().zip(&there) {
        let get = "curl -sk -m 5 --local-port 41234 https://upstream.test/";
        until_said("hello", || world.in_netns(&world.cgroup_of(name), it.netns(), get));
    }
    let list = world.service.output(&["sessions", "ls"]).unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for name in ["one", "other"] {
        let mine = list.lines().filter(|line| line.contains(name) && line.contains("1 allow"));
        assert!(mine.count() >= 1, "{name}: {list}");
    }
    for job in jobs {
        job.end(&world);
    }
}

/// Before anybody connects, and without it.
#[test]
fn a_namespace_is_served_at_sight() {
    let world = World::new();
    let job = Stays::start(&world);
    let there = Elsewhere::new();
    let stays = Inhabitant::of(&world, &there);
    wait_for_namespaces(&world, 1);
    assert_eq!(world.tagged_in(there.netns(), GET), "hello");
    there.nothing_left();
    drop(stays);
    wait_for_namespaces(&world, 0);
    job.end(&world);
}

/// How many interfaces are guarded.
fn guarded(world: &World) -> u64 {
    let interfaces = world.service.status().unwrap()["interfaces"].clone();
    interfaces["guarded"].as_u64().unwrap_or_else(|| panic!("{interfaces}"))
}

#[test]
fn frames_of_tagged_processes_leave_by_no_interface() {
    let world = World::new();
    let job = Stays::start(&world);
    assert_eq!(guarded(&world), 1);
    let home = &world.cable.work;
    home.ip(&["link", "add", "more0", "type", "veth", "peer", "name", "more1"]).unwrap();
    until_said("3", || guarded(&world).to_string());
    home.ip(&["link", "del", "more0"]).unwrap();
    until_said("1", || guarded(&world).to_string());
    world.sniffer.clear().unwrap();
    let frame = format!("{PROBE} frame 10.77.0.2:4444");
    // ENOBUFS, or EPERM where not even the socket is allowed.
    let refused = |said: &str| said.starts_with("error 105 ") || said.starts_with(REFUSED);
    let said = world.tagged(&frame);
    assert!(refused(&said), "{said}");
    assert_eq!(world.leaked().len(), 0);
    let there = Elsewhere::new();
    let stays = Inhabitant::of(&world, &there);
    assert!(world.tagged_in(there.netns(), &format!("{PROBE} until-served 192.0.2.7:1")).starts_with("ok"));
    let said = world.tagged_in(there.netns(), &frame);
    assert!(refused(&said), "{said}");
    there.nothing_left();
    assert_eq!(world.untagged(&frame), "ok sent");
    assert_eq!(world.leaked().len(), 1);
    drop(stays);
    job.end(&world);
}

/// A namespace in which everybody is tagged, with a cable into the service's.
struct Container {
    process: Child,
    pid: String,
    frames: Frames,
    host: UdpSocket,
}

impl Container {
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

    fn start(world: &World) -> Self {
        let script = "exec unshare -n sh -c 'ip link set lo up; echo $$; exec sleep 300'";
        let mut process =
            world.tagged_command(script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = first_line(&mut process);
        let home = &world.cable.work;
        let cable = ["link", "add", "host0", "type", "veth", "peer", "name", "inside0", "netns", &pid];
        home.ip(&cable).unwrap();
        home.ip(&["address", "add", "10.78.0.1/24", "dev", "host0"]).unwrap();
        home.ip(&["link", "set", "host0", "up"]).unwrap();
        enter(&pid, &["ip", "link", "set", "inside0", "up"]);
        let netns = File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let frames = Frames::open_in(&netns, "inside0").unwrap();
        let host = home.run(move || UdpSocket::bind((Self::HOST, PORT)).unwrap()).unwrap();
        host.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { process, pid, frames, host }
    }

    /// Whether something that passes no hook comes out of it.
    fn wait_for(&self, what: &str) {
        until_said(what, || {
            self.frames.send(Ipv4Addr::new(10, 78, 0, 2), Self::HOST, PAYLOAD).unwrap();
            if self.host.recv(&mut [0; 64]).is_ok() { "arrives" } else { "dropped" }.to_owned()
        });
    }

    /// Somebody untagged is in it for a while.
    fn with_another(&self) {
        let stays = ["-t", &self.pid, "-n", "sleep", "300"];
        let mut other = Command::new("nsenter").args(stays).spawn().unwrap();
        self.wait_for("arrives");
        other.kill().unwrap();
        other.wait().unwrap();
        self.wait_for("dropped");
    }

    fn end(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn enter(pid: &str, command: &[&str]) {
    assert!(Command::new("nsenter").args(["-t", pid, "-n"]).args(command).status().unwrap().success());
}

/// What comes out of a namespace in which everybody is tagged is dropped by the host,
/// however it was sent; and not where somebody else is in it, too.
#[test]
fn a_container_has_a_wall_around_it_while_nobody_else_is_in_it() {
    let world = World::new();
    let job = Stays::start(&world);
    let container = Container::start(&world);
    container.wait_for("dropped");
    assert_eq!(world.service.status().unwrap()["interfaces"]["walled"], 1);
    container.with_another();
    // When it is gone, so is what was made for it.
    container.end();
    wait_for_namespaces(&world, 0);
    until_said("1", || guarded(&world).to_string());
    let pins = std::fs::read_dir(world.service.pins().unwrap()).unwrap().flatten();
    let walls = pins.filter(|pin| pin.file_name().to_string_lossy().contains("tc_wall"));
    assert_eq!(walls.count(), 0);
    job.end(&world);
}

/// Who is in a namespace is looked at also while nobody serves it.
#[test]
fn a_wall_is_lifted_for_others_while_there_is_no_proxy() {
    let world = World::new();
    let job = Stays::start(&world);
    let container = Container::start(&world);
    container.wait_for("dropped");
    // No proxy begins without a folder for its recording.
    let recording = world.service.dir.path().join("sessions");
    let aside = world.service.dir.path().join("aside");
    std::fs::rename(&recording, &aside).unwrap();
    std::fs::write(&recording, "").unwrap();
    world.service.kill_proxy().unwrap();
    until_said("null", || world.service.status().unwrap()["proxy_pid"].to_string());
    container.with_another();
    assert_eq!(world.service.status().unwrap()["proxy_pid"].as_i64(), None, "the test proves nothing");
    std::fs::remove_file(&recording).unwrap();
    std::fs::rename(&aside, &recording).unwrap();
    container.end();
    job.end(&world);
}

/// What a namespace passes on for others is not the workload's that is in it, too.
#[test]
fn what_forwards_for_others_has_no_wall() {
    let world = World::new();
    let job = Stays::start(&world);
    let container = Container::start(&world);
    container.wait_for("dropped");
    let others = Netns::new("others").unwrap();
    let forward = |on: &str| {
        enter(&container.pid, &["sh", "-c", &format!("echo {on} > /proc/sys/net/ipv4/ip_forward")])
    };
    // By one way out nobody is forwarded.
    forward("1");
    container.with_another();
    let cable = ["ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", others.name()];
    enter(&container.pid, &cable);
    container.wait_for("arrives");
    forward("0");
    container.wait_for("dropped");
    container.end();
    job.end(&world);
}
