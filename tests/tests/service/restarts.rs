//! One service follows another as planned, under load: nobody is refused, and nobody
//! waits for ever if the next one does not come.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use enforcer_tests::bpf::debug_object;
use enforcer_tests::netns::Netns;
use enforcer_tests::service::kill9;
use enforcer_tests::sniffer::contains;
use enforcer_tests::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deaths::Stays;
use crate::world::*;

/// What `[listen] hold_ms` is unless it is set.
const HOLD: Duration = Duration::from_secs(2);
/// Instead of it where nothing may be refused, however slow the machine is just then.
const LONG: Duration = Duration::from_secs(20);
/// On top of a limit, for a machine that does other things.
const SLACK: Duration = Duration::from_secs(2);

/// Of the load.
const THREADS: usize = 4;

/// Requests, one after the other in each of four threads: how each ended, and after how long.
const LOAD: &str = r"
import http.client, ssl, sys, threading, time
context = ssl._create_unverified_context()
def load(number):
    while True:
        begun = time.time()
        try:
            connection = http.client.HTTPSConnection('upstream.test', 443, timeout=30, context=context)
            connection.request('GET', '/')
            said = 'ok' if connection.getresponse().read() == b'hello\n' else 'something else'
        except Exception as error:
            said = type(error).__name__
        sys.stdout.write('%s %d %d\n' % (said, (time.time() - begun) * 1000, number))
        sys.stdout.flush()
        # All of them ask for fewer names a second than a workload may.
        time.sleep(0.05)
for number in range(4):
    threading.Thread(target=load, args=(number,), daemon=True).start()
time.sleep(300)
";

/// What must not leave: over UDP, and to a port that no rule allows.
const LEAK: &str = r"
import socket, threading, time
def over(kind, family, address):
    while True:
        try:
            s = socket.socket(family, kind)
            s.settimeout(5)
            s.connect(address)
            s.send(b'PROBE-SECRET')
        except OSError:
            pass
        time.sleep(0.005)
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    for family, address in (socket.AF_INET, '10.77.0.2'), (socket.AF_INET6, 'fd77::2'):
        threading.Thread(target=over, args=(kind, family, (address, 4444)), daemon=True).start()
time.sleep(300)
";

/// Somebody untagged, over and over.
const BYSTANDER: &str = r"
import socket, sys, time
while True:
    try:
        s = socket.create_connection(('10.77.0.2', 4444), 5)
        s.send(b'untagged')
        said = 'ok' if s.recv(9) == b'REAL' else 'something else'
    except OSError as error:
        said = type(error).__name__
    sys.stdout.write('%s 0 0\n' % said)
    sys.stdout.flush()
    time.sleep(0.01)
";

/// How something ended, after how long, and in which thread of the client.
type Line = (String, Duration, usize);

/// A process that goes on, and what it says.
struct Client {
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
    reader: JoinHandle<()>,
}

impl Client {
    fn job(world: &World, script: &str) -> Self {
        Self::of(world.service.command(&["run", "--", "python3", "-c", script]).unwrap())
    }

    fn untagged(world: &World, script: &str) -> Self {
        let netns = format!("--net=/run/netns/{}", world.cable.work.name());
        let mut command = Command::new("nsenter");
        command.args([&netns, "sh", "-c", "echo $$ > $0/cgroup.procs; exec python3 -c \"$1\""]);
        command.arg(world.outside.path()).arg(script);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
        let into = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                // What a killed process has written of its last line is none.
                if let [how, millis, thread] = words[..]
                    && let (Ok(millis), Ok(thread)) = (millis.parse(), thread.parse())
                {
                    into.lock().unwrap().push((how.to_owned(), Duration::from_millis(millis), thread));
                }
            }
        });
        Self { child, lines, reader }
    }

    /// Waits until each thread has come to two more ends.
    fn wait_for_more(&self) {
        let before = self.lines.lock().unwrap().len();
        let until = Instant::now() + LONG + SLACK;
        let enough = |lines: &[Line]| (0..THREADS).all(|n| lines.iter().filter(|it| it.2 == n).count() > 1);
        while !enough(&self.lines.lock().unwrap()[before..]) {
            let lines = self.lines.lock().unwrap();
            assert!(Instant::now() < until, "somebody does not go on: {:?}", &lines[before..]);
            drop(lines);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end: what it said.
    fn said(mut self) -> Vec<Line> {
        self.reader.join().unwrap();
        self.child.wait().unwrap();
        Arc::try_unwrap(self.lines).unwrap().into_inner().unwrap()
    }

    fn end(mut self) -> Vec<Line> {
        self.child.kill().unwrap();
        self.said()
    }
}

fn wait_for_a_job(world: &World) {
    let until = Instant::now() + LONG;
    while world.service.status().unwrap()["jobs"].as_array().is_none_or(Vec::is_empty) {
        assert!(Instant::now() < until, "no job");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All jobs end, those of an earlier service too.
fn end_jobs(world: &World) {
    for group in std::fs::read_dir(world.service.cgroup.path().join("jobs")).unwrap().flatten() {
        if group.path().is_dir() {
            std::fs::write(group.path().join("cgroup.kill"), "1").unwrap();
        }
    }
}

fn set(world: &World, line: &str, after: &str) {
    let config = world.service.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(after, &format!("{after}{line}\n"))).unwrap();
}

/// With a service that holds listeners for as long as that, and what it is started by.
fn world(hold: Duration, store: bool) -> World {
    let mut world = World::new();
    set(&world, &format!("hold_ms = {}", hold.as_millis()), "[listen]\n");
    if store {
        world.service.store = Some(Store::start(world.service.dir.path()).unwrap());
    }
    world.service.stop_daemon().unwrap();
    world.service.start_daemon().unwrap();
    world.sniffer.clear().unwrap();
    world
}

fn holders(world: &World) -> Vec<i32> {
    let own = format!("{}/own", world.service.cgroup.path().display());
    let own = own.split_once("/enf-service").map(|(_, rest)| format!("/enf-service{rest}")).unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        if words.get(1) == Some(&&b"holder"[..]) && words.contains(&own.as_bytes()) {
            found.extend(entry.file_name().to_string_lossy().parse::<i32>().ok());
        }
    }
    found
}

/// Under load from tagged and untagged clients; returns how much longer the longest request
/// took than what is done.
fn under_load(world: &mut World, act: impl FnOnce(&mut World)) -> Duration {
    let (load, leak) = (Client::job(world, LOAD), Client::job(world, LEAK));
    let other = Client::untagged(world, BYSTANDER);
    load.wait_for_more();
    let begun = Instant::now();
    act(world);
    let took = begun.elapsed();
    load.wait_for_more();
    world.service.wait_whole().unwrap();
    end_jobs(world);
    let load = load.said();
    leak.said();
    let other = other.end();
    let wrong = |said: &[Line]| said.iter().filter(|it| it.0 != "ok").cloned().collect::<Vec<_>>();
    assert_eq!(wrong(&load), Vec::new(), "of {} requests", load.len());
    assert_eq!(wrong(&other), Vec::new(), "of {} of others", other.len());
    assert!(other.len() > THREADS, "nobody else did anything");
    let packets = world.leaked();
    let secret = packets.iter().filter(|it| contains(&it.bytes, PAYLOAD)).count();
    assert_eq!(secret, 0, "payloads that left");
    let longest = load.iter().map(|it| it.1).max().unwrap();
    println!("{} requests, {} of others, the longest took {longest:?} of {took:?}", load.len(), other.len());
    longest.saturating_sub(took)
}

fn restart(world: &mut World) {
    world.service.stop_daemon().unwrap();
    world.service.start_daemon().unwrap();
}

#[test]
fn a_planned_restart_refuses_nobody_and_makes_nobody_wait_for_longer_than_it_takes() {
    let mut world = world(LONG, false);
    let more = (0..3).map(|_| under_load(&mut world, restart)).min().unwrap();
    // Less than it takes a client to send a lost SYN twice.
    assert!(more < SLACK, "{more:?}");
    assert_eq!(holders(&world), Vec::<i32>::new());
}

/// Whoever asks the service something as it ends gets no answer, and nobody else notices.
#[test]
fn a_question_that_comes_too_late_does_not_keep_the_proxy_from_its_drain() {
    let mut world = world(LONG, false);
    under_load(&mut world, |world| {
        let status = world.service.status().unwrap();
        let proxy = Pid::from_raw(i32::try_from(status["proxy_pid"].as_i64().unwrap()).unwrap());
        // Requests and the question come to a proxy that takes them when its loader has
        // said goodbye.
        let pause = || std::thread::sleep(Duration::from_millis(300));
        kill(proxy, Signal::SIGSTOP).unwrap();
        pause();
        let mut asks = world.service.command(&["status"]).unwrap();
        let mut asks = asks.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause();
        let goes_on = std::thread::spawn(move || {
            pause();
            kill(proxy, Signal::SIGCONT).unwrap();
        });
        restart(world);
        goes_on.join().unwrap();
        asks.wait().unwrap();
    });
    let log = std::fs::read_to_string(world.service.log()).unwrap();
    assert!(!log.contains("proxy: "), "the proxy did not end by itself: {log}");
}

/// The listeners of other network namespaces wait with those of the service's.
#[test]
fn in_another_network_namespace_nobody_is_refused_either() {
    let mut world = world(LONG, false);
    let job = Stays::start(&world);
    let there = Netns::new("there").unwrap();
    let served = "until curl -sk -m 5 https://upstream.test/; do sleep 0.1; done >/dev/null";
    let load = Client::of(world.tagged_in_command(&there, &format!("{served}; exec python3 -c \"{LOAD}\"")));
    load.wait_for_more();
    for _ in 0..3 {
        restart(&mut world);
        load.wait_for_more();
    }
    // The loader stays, and the proxy is another one.
    let signer = world.service.status().unwrap()["signer_pid"].as_i64().unwrap();
    kill9(i32::try_from(signer).unwrap()).unwrap();
    load.wait_for_more();
    job.end(&world);
    let load = load.end();
    let wrong: Vec<&Line> = load.iter().filter(|it| it.0 != "ok").collect();
    assert!(wrong.is_empty(), "of {} requests: {wrong:?}", load.len());
    world.service.wait_whole().unwrap();
}

/// As under systemd: what holds beside its store dies with the unit's cgroup, and the
/// enforcer's own cgroup is a new one.
#[test]
fn a_store_of_descriptors_alone_is_as_good_and_the_own_cgroup_may_be_a_new_one() {
    let mut world = world(LONG, true);
    for _ in 0..2 {
        under_load(&mut world, |world| {
            world.service.stop_daemon().unwrap();
            let [holder] = holders(world)[..] else { panic!("not one holder") };
            kill9(holder).unwrap();
            std::fs::remove_dir(world.service.cgroup.path().join("own")).unwrap();
            assert_eq!(world.service.store.as_ref().unwrap().len(), 4);
            world.service.start_daemon().unwrap();
        });
        let store = world.service.store.as_ref().unwrap();
        assert!(store.is_empty() && store.most() == 4, "{} are left in the store", store.len());
        assert_eq!(world.service.status().unwrap()["healthy"], true);
    }
}

#[test]
fn with_a_store_and_a_holder_the_holder_gives_and_the_store_is_emptied() {
    let mut world = world(LONG, true);
    under_load(&mut world, restart);
    assert!(world.service.store.as_ref().unwrap().is_empty());
    assert_eq!(holders(&world), Vec::<i32>::new());
}

/// Both ways, with the programs of another build.
#[test]
fn an_upgrade_and_a_downgrade_of_the_kernel_half_refuse_nobody_and_let_nothing_out() {
    let mut world = world(LONG, false);
    let before = std::env::var("ENFORCER_BPF_OBJECT").unwrap();
    let after = debug_object().unwrap().display().to_string();
    let config = world.service.dir.path().join("config.toml");
    under_load(&mut world, |world| {
        for (from, to) in [(&before, &after), (&after, &before)] {
            let text = std::fs::read_to_string(&config).unwrap();
            assert!(text.contains(from.as_str()));
            std::fs::write(&config, text.replace(from.as_str(), to)).unwrap();
            restart(world);
            world.service.wait_whole().unwrap();
        }
    });
}

/// The proxy has nothing to do with it, and is ended with it.
#[test]
fn a_signer_that_dies_is_replaced_and_nobody_is_refused() {
    let mut world = world(LONG, false);
    under_load(&mut world, |world| {
        let status = world.service.status().unwrap();
        kill9(i32::try_from(status["signer_pid"].as_i64().unwrap()).unwrap()).unwrap();
        let until = Instant::now() + LONG;
        while !world.service.status().is_ok_and(|now| now["proxy_pid"] != status["proxy_pid"]) {
            assert!(Instant::now() < until, "no others were started");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn when_the_next_one_does_not_come_who_waits_is_reset_and_who_comes_then_is_refused() {
    for store in [false, true] {
        let mut world = world(HOLD, store);
        let job = Client::job(&world, "import time; time.sleep(300)");
        wait_for_a_job(&world);
        world.sniffer.clear().unwrap();
        world.service.stop_daemon().unwrap();
        let (stopped, mut waited) = (Instant::now(), 0);
        loop {
            let said = world.tagged(&format!("{PROBE} tcp 10.77.0.2:4444"));
            assert!(!said.contains("REAL") && !said.contains("PROXY"), "{said}");
            if said.starts_with("error 111 ") {
                break;
            }
            waited += 1;
            assert!(stopped.elapsed() < HOLD + SLACK, "{said} after {:?}", stopped.elapsed());
        }
        assert!(waited > 0, "nothing was held");
        let packets = world.leaked();
        assert!(!packets.iter().any(|it| contains(&it.bytes, PAYLOAD)), "{packets:?}");
        // The late one begins with listeners of its own.
        world.service.start_daemon().unwrap();
        world.service.wait_whole().unwrap();
        end_jobs(&world);
        job.said();
    }
}

/// Nothing is kept of what was not planned: the store is empty, and nobody holds.
#[test]
fn a_killed_service_leaves_nothing_that_could_wait() {
    let mut world = world(LONG, true);
    world.service.kill_daemon().unwrap();
    assert_eq!(holders(&world), Vec::<i32>::new());
    assert!(world.service.store.as_ref().unwrap().is_empty());
    world.service.start_daemon().unwrap();
    world.service.wait_whole().unwrap();
}

/// Asks the holder as the next loader does, for some seconds.
const TAKE: &str = r#"
import os, socket, sys, time
until = time.time() + 4
while time.time() < until:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(1)
    try:
        s.connect(sys.argv[1])
        s.send(b'"take"')
        data, fds, _, _ = socket.recv_fds(s, 4096, 16)
        if fds:
            print('got', len(fds), flush=True)
            break
        print('nothing', flush=True)
    except ConnectionResetError:
        print('nothing', flush=True)
    except OSError:
        pass
    time.sleep(0.02)
"#;

#[test]
fn a_root_in_a_job_gets_no_listener_from_the_holder() {
    let mut world = world(LONG, false);
    let socket: PathBuf = world.service.dir.path().join("run/holder.sock");
    let mut command = world.service.command(&["run", "--", "python3", "-c", TAKE]).unwrap();
    let mut job = command.arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_a_job(&world);
    world.service.stop_daemon().unwrap();
    let mut said = String::new();
    job.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    job.wait().unwrap();
    assert!(said.contains("nothing") && !said.contains("got"), "{said}");
    world.service.start_daemon().unwrap();
    world.service.wait_whole().unwrap();
}

/// A proxy that takes no message gives its listeners all the same.
#[test]
fn a_proxy_that_is_stuck_is_replaced_and_who_connects_waits_for_the_next_one() {
    let world = world(LONG, false);
    let proxy = world.service.status().unwrap()["proxy_pid"].as_i64().unwrap();
    // Refusals are what it is told until it takes no more.
    let flood = "while :; do echo x > /dev/udp/192.0.2.1/9; done 2> /dev/null";
    let flood = world.service.command(&["run", "--", "bash", "-c", flood]).unwrap();
    let flood = Client::of(flood);
    wait_for_a_job(&world);
    kill(Pid::from_raw(i32::try_from(proxy).unwrap()), Signal::SIGSTOP).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !world.service.status().is_ok_and(|now| now["proxy_pid"] != proxy && now["healthy"] == true) {
        let said = world.tagged(&format!("{PROBE} tcp 10.77.0.2:4444"));
        assert!(!said.starts_with("error 111 ") && !said.contains("REAL"), "{said}");
        assert!(Instant::now() < until, "it is not replaced");
    }
    end_jobs(&world);
    flood.said();
    world.service.wait_whole().unwrap();
}
