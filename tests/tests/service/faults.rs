//! What goes wrong around the service, or is made to go wrong: it goes on, or comes back.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use enforcer_tests::service::{Service, Upstream};
use enforcer_tests::wait::{until, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{NAME, POLICY, start};

/// From four processes with eight threads each: connections that say nothing.
const FLOOD: &str = r"
import os, socket, sys, threading, time
def flood():
    held = []
    while True:
        try:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            s.connect(sys.argv[1])
            held.append(s)
            if len(held) > 100:
                held.pop(0).close()
        except OSError:
            time.sleep(0.001)
os.fork(), os.fork()
threads = [threading.Thread(target=flood) for _ in range(8)]
[thread.start() for thread in threads]
print('flooding', flush=True)
";

#[test]
fn a_job_that_floods_a_socket_of_the_service_keeps_nobody_from_it() {
    let (_upstream, service, _) = start();
    for socket in ["admin.sock", "run.sock"] {
        let socket = service.dir.path().join("run").join(socket);
        let mut command = service.command(&["run", "--", "python3", "-c", FLOOD]).unwrap();
        let mut job = command.arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        job.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        let ends = || {
            let table = std::fs::read_to_string("/proc/net/unix").unwrap();
            table.lines().filter(|line| line.ends_with(socket.to_str().unwrap())).count()
        };
        until("the socket is flooded", || ends() > 8);
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(service.status().unwrap()["healthy"], true);
            assert_eq!(service.job("true").unwrap().1, Some(0));
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
        job.kill().unwrap();
        job.wait().unwrap();
    }
    let log = std::fs::metadata(service.log()).unwrap().len();
    assert!(log < 64 * 1024, "a job wrote {log} bytes into the log");
}

#[test]
fn a_reader_that_is_gone_and_a_log_that_is_full_do_not_end_the_service() {
    let upstream = Upstream::start(NAME, "hello\n".to_owned()).unwrap();
    let names = [(NAME, upstream.address.ip())];
    let wrapper = ["bash", "-c", "exec \"$@\" > >(head -1) 2> /dev/full", "bash"];
    let service = Service::start_by(&wrapper, &names, &upstream.ca_pem, POLICY).unwrap();
    let daemon = service.daemon_pid().unwrap();
    for _ in 0..2 {
        service.kill_proxy().unwrap();
        service.wait_whole().unwrap();
    }
    assert_eq!(service.daemon_pid().unwrap(), daemon);
    kill(Pid::from_raw(daemon), None).unwrap();
}

/// The sessions that are told of.
fn sessions(service: &Service) -> Vec<serde_json::Value> {
    let listed = service.output(&["sessions", "ls", "-o", "json"]).unwrap();
    serde_json::from_slice(&listed.stdout).unwrap()
}

/// Any user of the host can be refused as often as they like.
const KNOCK: &str = r"
import socket, sys, time
until, knocks = time.time() + 4, 0
while time.time() < until:
    try:
        socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)
        print('connected')
    except PermissionError:
        knocks += 1
print(knocks)
";

#[test]
fn somebody_who_is_no_job_does_not_fill_the_recording() {
    let (_upstream, service, url) = start();
    let config = std::fs::read_to_string(service.dir.path().join("config.toml")).unwrap();
    let port = config.lines().find_map(|line| line.strip_prefix("tcp_port = ")).unwrap();
    let outside = service.cgroup.child("outside").unwrap();
    let size = || {
        let files = std::fs::read_dir(service.sessions()).unwrap().flatten();
        files.map(|it| it.metadata().unwrap().len()).sum::<u64>()
    };
    let before = size();
    let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", outside.path().display());
    let mut knock = Command::new("sh");
    knock.args(["-c", &script, "sh", "python3", "-c", KNOCK, port]).stdin(Stdio::null());
    let out = knock.output().unwrap();
    let knocks: usize = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap();
    assert!(knocks > 100, "{knocks} prove nothing");
    until("the first of them is recorded", || size() > before);
    // What is written of a job is written after all of them.
    let later = service.output(&["run", "--name", "witness", "--", "curl", "-sS", &format!("{url}/x")]);
    assert!(String::from_utf8_lossy(&later.unwrap().stdout).contains("the token"));
    let of_witness = |it: &&serde_json::Value| it["workload"] == "witness";
    until("a later session is recorded", || sessions(&service).iter().any(|it| of_witness(&it)));
    let grown = size() - before;
    assert!(grown < 16 * 1024, "{knocks} knocks are {grown} bytes");
    let all = sessions(&service);
    assert!(all.iter().filter(|it| !of_witness(it)).count() <= 1, "{all:?}");
}

/// Children of the daemon in this state; Z is of those that ended and are not waited for.
fn children(service: &Service, state: char) -> usize {
    let daemon = service.daemon_pid().unwrap().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|it| std::fs::read_to_string(it.path().join("stat")).ok());
    // The name, in parentheses, may hold anything.
    let fields = stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()));
    fields.filter(|it| it.starts_with(state) && it.split(' ').nth(1) == Some(&daemon)).count()
}

#[test]
fn a_port_that_is_taken_is_waited_for_and_leaves_no_dead_children() {
    let (_upstream, service, _) = start();
    let config = std::fs::read_to_string(service.dir.path().join("config.toml")).unwrap();
    let port = config.lines().find_map(|line| line.strip_prefix("tcp_port = ")).unwrap();
    let port: u16 = port.parse().unwrap();
    // Where no enforcer is there to refuse it: the service is started anew.
    let mut service = service;
    service.release().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let log = service.log();
    let attempts = || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.matches(&format!("listening on {port}")).count()
    };
    let before = attempts();
    let says = service.spawn_daemon().unwrap();
    // Each attempt has children of its own.
    until("it is tried again", || attempts() >= before + 3);
    drop(taken);
    assert_eq!(says.recv().unwrap(), "enforcer: ready");
    service.wait_whole().unwrap();
    assert_eq!(children(&service, 'Z'), 0);
}

/// What it is told has to fill its socket first.
const REPLACED: Duration = Duration::from_secs(60);

#[test]
fn a_proxy_that_takes_no_message_is_replaced_and_keeps_nobody_waiting() {
    let (_upstream, mut service, _) = start();
    let script = "echo; while :; do echo x > /dev/udp/192.0.2.1/9; done 2> /dev/null";
    let mut command = service.command(&["run", "--", "bash", "-c", script]).unwrap();
    let mut job = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    job.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = |service: &Service| service.status().unwrap()["proxy_pid"].as_i64().unwrap();
    let proxy = pid(&service);
    kill(Pid::from_raw(i32::try_from(proxy).unwrap()), Signal::SIGSTOP).unwrap();
    let replaced = || service.status().is_ok_and(|it| it["proxy_pid"] != proxy && it["healthy"] == true);
    assert!(within(REPLACED, replaced).is_some(), "it is waited for");
    // One that has just been stopped is not asked for long before all is lifted.
    kill(Pid::from_raw(i32::try_from(pid(&service)).unwrap()), Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    service.release().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    job.kill().unwrap();
    job.wait().unwrap();
}

/// The environment of a job is not where its user is read from, either.
#[test]
fn a_job_is_not_taken_for_another_users_after_the_service_was_killed() {
    let (_upstream, mut service, _) = start();
    let hide =
        "import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); time.sleep(60)";
    let mut command =
        service.command_of_all(&["run", "--name", "hides", "--", "python3", "-c", hide]).unwrap();
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    let mut job = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    job.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    service.kill_daemon().unwrap();
    job.wait().unwrap();
    service.start_daemon().unwrap();
    let jobs = service.status().unwrap()["jobs"].clone();
    assert_eq!((&jobs[0]["name"], &jobs[0]["uid"]), (&"hides".into(), &65534.into()));
    for group in std::fs::read_dir(service.cgroup.path().join("jobs")).unwrap().flatten() {
        if group.path().is_dir() {
            std::fs::write(group.path().join("cgroup.kill"), "1").unwrap();
        }
    }
}
