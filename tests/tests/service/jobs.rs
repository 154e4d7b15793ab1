//! What a job is given by its caller and by the service, what it must not be given, and
//! what is left of it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use enforcer_tests::service::{NOBODY, Service, Upstream};
use enforcer_tests::sniffer::contains;
use enforcer_tests::wait::{PATIENCE, until, within};
use nix::sys::signal::Signal;

use crate::world::{PAYLOAD, PROBE, World};
use crate::{NAME, POLICY, start};

/// Starts a process in the cgroup whose folder is named, which needs no more than to
/// open it, and sends from there what is refused to every job.
const INTO_CGROUP: &str = r"
import ctypes, os, socket, sys
fields = 'flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup'
class Args(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in fields.split()]
fd = os.open(sys.argv[1], os.O_RDONLY)
args = Args(flags=0x200000000, exit_signal=17, cgroup=fd)
pid = ctypes.CDLL(None).syscall(435, ctypes.byref(args), ctypes.sizeof(args))
if pid == 0:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.3', 9))
    print('free', flush=True)
    os._exit(0)
";

fn said(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[test]
fn root_in_a_job_does_not_leave_its_cgroup_by_any_mount_of_cgroups() {
    let (_upstream, service, _) = start();
    let (script, second) = (service.dir.path().join("into.py"), service.dir.path().join("cgroups"));
    std::fs::write(&script, INTO_CGROUP).unwrap();
    std::fs::create_dir(&second).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &second, Some("cgroup2"), flags, None::<&str>).unwrap();
    let group = service.cgroup.path();
    let places = [group.to_path_buf(), second.join(group.file_name().unwrap())];
    let done = std::panic::catch_unwind(|| {
        for place in places {
            let free = Command::new("python3").arg(&script).arg(&place).output().unwrap();
            assert_eq!(said(&free), "free\n", "the attempt proves nothing");
            let (text, _) =
                service.job(&format!("python3 {} {}", script.display(), place.display())).unwrap();
            assert!(!text.contains("free"), "{text}");
            let (text, _) = service.job(&format!("echo 0 > {}/cgroup.procs", place.display())).unwrap();
            assert!(!text.is_empty(), "{}: it was written", place.display());
        }
        // Its own it sees as a container does.
        let mount = group.parent().unwrap().display();
        let (text, _) =
            service.job(&format!("cat {mount}/cgroup.procs | wc -l; cat /proc/self/cgroup")).unwrap();
        assert!(text.contains("0::/\n") && !text.starts_with("0\n"), "{text}");
    });
    nix::mount::umount(&second).unwrap();
    done.unwrap();
}

#[test]
fn root_in_a_job_finds_the_pins_by_no_mount_of_theirs() {
    let (_upstream, service, _) = start();
    let second = service.dir.path().join("pins");
    std::fs::create_dir(&second).unwrap();
    let (flags, pins) = (nix::mount::MsFlags::MS_BIND, service.pins().unwrap());
    nix::mount::mount(pins.parent(), &second, None::<&str>, flags, None::<&str>).unwrap();
    let again = second.join(pins.file_name().unwrap());
    assert!(again.join("link_connect4").exists(), "the attempt proves nothing");
    let found = service.job(&format!("rm {0}/link_connect4; ls {0}", again.display()));
    nix::mount::umount(&second).unwrap();
    let (text, _) = found.unwrap();
    assert!(!text.contains("map_") && pins.join("link_connect4").exists(), "{text}");
}

#[test]
fn root_in_a_job_changes_neither_its_policy_nor_what_it_trusts_and_reads_no_registered_secret() {
    let (_upstream, service, _) = start();
    let secrets = service.dir.path().join("secrets.d");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("DEPLOY"), "a registered value").unwrap();
    let dir = service.dir.path().display();
    for attempt in ["touch policies/x.yaml", "rm policies/test.yaml", "touch run/x", "rm run/run.sock"] {
        let (text, code) = service.job(&format!("cd {dir}; {attempt}")).unwrap();
        assert!(text.contains("ead-only") && code == Some(1), "{attempt}: {text}");
    }
    let (text, code) = service.job(&format!("cat {dir}/secrets.d/DEPLOY")).unwrap();
    assert!(!text.contains("registered") && code == Some(1), "{text}");
    assert_eq!(service.job("true").unwrap().1, Some(0));
}

/// A process that is killed comes to the end of its system call, which may go on for
/// long: the tag has to be there until then.
#[test]
fn nothing_leaves_when_a_job_ends_in_the_middle_of_sending() {
    let world = World::new();
    let script = format!("{PROBE} uring-flood 10.77.0.2:4444 & sleep 0.2; kill -9 $!; exit 0");
    world.untagged(&script);
    let seen = world.leaked();
    assert!(seen.iter().any(|it| contains(&it.bytes, PAYLOAD)), "the attempt proves nothing");
    for _ in 0..15 {
        world.nothing_leaves(&format!(
            "for n in 1 2 3; do {PROBE} uring-flood 10.77.0.2:4444 > /dev/null & done; sleep 0.2"
        ));
    }
}

/// Becomes the service in a terminal of its own, which is killed last, ignores signals,
/// has a keyring, and gives everybody every right to its files.
const SURROUNDINGS: &str = r"
import ctypes, fcntl, os, pty, signal, sys, termios
os.setsid()
master, terminal = pty.openpty()
os.set_inheritable(master, True)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for ignored in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(ignored, signal.SIG_IGN)
open('/proc/self/oom_score_adj', 'w').write('-900')
ctypes.CDLL(None).syscall(250, 1, None)
os.umask(0)
os.execv(sys.argv[1], sys.argv[1:])
";

/// In the session keyring: adds a key of this name, or looks for it.
const KEYRING: &str = r"
import ctypes, sys
call = ctypes.CDLL(None).syscall
if sys.argv[1] == 'add':
    print(call(248, b'user', b'shared', b'x', 1, -3) > 0, call(250, 10, -3, b'user', b'shared', 0) > 0)
else:
    print(call(250, 10, -3, b'user', b'shared', 0) > 0)
";

#[test]
fn a_job_has_nothing_of_where_the_service_was_started() {
    let upstream = Upstream::start(NAME, "hello\n".to_owned()).unwrap();
    let names = [(NAME, upstream.address.ip())];
    let wrapper = ["python3", "-c", SURROUNDINGS];
    let service = Service::start_by(&wrapper, &names, &upstream.ca_pem, POLICY).unwrap();
    let (text, _) = service.job(": < /dev/tty && echo a terminal").unwrap();
    assert!(!text.contains("a terminal"), "{text}");
    let (text, _) = service.job("cat /proc/self/oom_score_adj").unwrap();
    assert_eq!(text.trim(), std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim());
    let (text, _) = service.job("exec grep SigIgn /proc/self/status").unwrap();
    let ignored = u64::from_str_radix(text.trim().trim_start_matches("SigIgn:").trim(), 16).unwrap();
    // Those with names.
    assert_eq!(ignored & 0x7fff_ffff, 0, "{text}");
    let (text, _) = service.job("yes | head -1").unwrap();
    assert_eq!(text, "y\n");
    let script = service.dir.path().join("keys.py");
    std::fs::write(&script, KEYRING).unwrap();
    let (added, _) = service.job(&format!("python3 {} add", script.display())).unwrap();
    assert_eq!(added, "True True\n", "the attempt proves nothing");
    let (found, _) = service.job(&format!("python3 {} find", script.display())).unwrap();
    assert_eq!(found, "False\n");
    // Nobody else writes where the sockets and the roots are.
    for path in ["run", "run/trust", "ca"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(service.dir.path().join(path)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o022, 0, "{path}: {mode:o}");
    }
}

#[test]
fn a_job_has_the_groups_and_the_ignored_signals_of_its_caller() {
    let (_upstream, service, _) = start();
    let enforcer = service.command(&["run", "--", "sh", "-c"]).unwrap();
    let args: Vec<_> = enforcer.get_args().collect();
    let out = Command::new("setpriv")
        .args(["--groups", "4711,4712"])
        .arg(enforcer.get_program())
        .args(&args)
        .arg("id -G")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(said(&out), "0 4711 4712\n");
    // As `nohup` has it. Whoever would be told of the first signal has been, when both others came.
    let came = service.dir.path().join("came").display().to_string();
    let hang_up = format!(
        "wait_for() {{ until [ -e {came}.$1 ]; do sleep 0.01; done; }}; trap '' HUP; \"$@\" & client=$!; \
         wait_for begun; kill -HUP $client; kill -USR1 $client; wait_for one; kill -USR2 $client; wait $client"
    );
    let job = format!(
        "trap 'touch {came}.one' USR1; trap 'echo alive; exit' USR2; touch {came}.begun; \
         while :; do sleep 0.01; done"
    );
    let out = Command::new("sh")
        .args(["-c", &hang_up, "sh"])
        .arg(enforcer.get_program())
        .args(&args)
        .arg(job)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(said(&out).contains("alive"), "{}", said(&out));
}

/// Listens on a port with others of the same user. A job then connects there, with
/// twenty listeners of its own, and has the kernel choose the first, which is not its.
const SHARED_PORT: &str = r"
import ctypes, socket, struct, sys, threading
def listen():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(('127.0.0.1', int(sys.argv[2])))
    listener.listen()
    return listener
def serve(listener, answer):
    while True:
        stream, _ = listener.accept()
        stream.recv(99)
        stream.send(answer)
        stream.close()
if sys.argv[1] == 'daemon':
    listener = listen()
    print('ready', flush=True)
    serve(listener, b'reached')
own = [listen() for _ in range(20)]
[threading.Thread(target=serve, args=(it, b'own'), daemon=True).start() for it in own]
program = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0))
for option in (51, 52):
    try:
        own[0].setsockopt(socket.SOL_SOCKET, option, struct.pack('HxxxxxxQ', 1, ctypes.addressof(program)))
    except OSError as error:
        print(error.errno)
for _ in range(10):
    try:
        with socket.create_connection(('127.0.0.1', int(sys.argv[2])), 2) as stream:
            stream.send(b'x')
            print(stream.recv(99).decode())
    except OSError:
        pass
";

#[test]
fn a_port_that_a_job_shares_with_its_user_leads_to_the_job_alone() {
    let (_upstream, service, _) = start();
    let script = service.dir.path().join("shared.py");
    std::fs::write(&script, SHARED_PORT).unwrap();
    // What was chosen stays with the port: each has a daemon of its own.
    let share = |connect: &dyn Fn(&str) -> String| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let mut daemon = Command::new("python3");
        let mut daemon = daemon.arg(&script).args(["daemon", &port]).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(daemon.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
        let said = connect(&port);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        said
    };
    let outside =
        |port: &str| said(&Command::new("python3").arg(&script).args(["job", port]).output().unwrap());
    let text = share(&outside);
    assert!(text.contains("reached"), "the attempt proves nothing: {text}");
    let inside = |port: &str| service.job(&format!("python3 {} job {port}", script.display())).unwrap().0;
    let text = share(&inside);
    assert!(!text.contains("reached") && text.matches("1\n").count() == 2, "{text}");
}

/// Looks into another process in every way there is, and says which of them worked.
const LOOK: &str = r"
import ctypes, os, signal, socket, sys
libc, pid = ctypes.CDLL(None), int(sys.argv[1])
libc.syscall.restype = ctypes.c_long
print('domain' if libc.syscall(444, None, 0, 1) >= 6 else 'none')
def works(name, what):
    try:
        if what() is not False:
            print(name)
    except OSError:
        pass
works('mem', lambda: open(f'/proc/{pid}/mem', 'rb'))
works('environ', lambda: open(f'/proc/{pid}/environ').read())
works('root', lambda: os.listdir(f'/proc/{pid}/root'))
works('descriptor', lambda: libc.syscall(438, os.pidfd_open(pid), 0, 0) >= 0)
works('abstract', lambda: socket.socket(socket.AF_UNIX).connect(chr(0) + sys.argv[2]))
works('attach', lambda: libc.ptrace(16, pid, 0, 0) == 0)
works('signal', lambda: os.kill(pid, signal.SIGKILL))
";

#[test]
fn a_job_has_no_hold_of_other_processes_of_its_user() {
    use std::os::linux::net::SocketAddrExt;
    let (_upstream, service, _) = start();
    let name = format!("relay-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _relay = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let look = |mut command: Command| {
        let mut other = Command::new("sleep").arg("60").uid(NOBODY).gid(NOBODY).spawn().unwrap();
        // Until it is sleep(1), it is a copy of this process.
        let comm = format!("/proc/{}/comm", other.id());
        until("it is sleep(1)", || std::fs::read_to_string(&comm).unwrap().trim() == "sleep");
        command.args(["/usr/bin/python3", "-c", LOOK, &other.id().to_string(), &name]);
        let out = command.uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null()).output().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        said(&out)
    };
    let all = "mem\nenviron\nroot\ndescriptor\nabstract\nattach\nsignal\n";
    let outside = look(Command::new("env"));
    let (domain, worked) = outside.split_once('\n').unwrap();
    assert_eq!(worked, all, "the attempts prove nothing");
    let inside = look(service.command_of_all(&["run", "--"]).unwrap());
    // The README names it as a limit where the kernel has no such domains.
    assert_eq!(inside, if domain == "domain" { "domain\n".to_owned() } else { format!("none\n{all}") });
}

#[test]
fn a_connected_socket_is_no_input_of_a_job() {
    let (upstream, service, _) = start();
    let stream = std::net::TcpStream::connect(upstream.address).unwrap();
    let mut command = service.command(&["run", "--", "cat"]).unwrap();
    let out = command.stdin(std::os::fd::OwnedFd::from(stream)).output().unwrap();
    assert_eq!(out.status.code(), Some(125), "{}", said(&out));
    assert!(said(&out).contains("socket"), "{}", said(&out));
    // Nor is what acts for whoever made it.
    let with_process =
        "import os, sys; os.dup2(os.pidfd_open(os.getpid()), 0); os.execv(sys.argv[1], sys.argv[1:])";
    let enforcer = service.command(&["run", "--", "cat"]).unwrap();
    let mut command = Command::new("python3");
    let out =
        command.args(["-c", with_process]).arg(enforcer.get_program()).args(enforcer.get_args()).output();
    let out = out.unwrap();
    assert_eq!(out.status.code(), Some(125), "{}", said(&out));
    // Pipes and sockets of the host are.
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    (&here).write_all(b"hello").unwrap();
    drop(here);
    let mut command = service.command(&["run", "--", "cat"]).unwrap();
    let out = command.stdin(std::os::fd::OwnedFd::from(there)).output().unwrap();
    assert_eq!(said(&out), "hello");
}

/// Sends messages with more descriptors than there may be.
const RAW_CLIENT: &str = r#"
import json, socket, sys
request = json.dumps({'name': 'raw', 'labels': {}, 'no_env': False}).encode()
for _ in range(20):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(sys.argv[1])
    socket.send_fds(s, [request], [0] * 40)
    s.recv(9999)
"#;

#[test]
fn a_client_of_its_own_making_leaves_no_descriptor_behind() {
    let (_upstream, service, _) = start();
    let socket = service.dir.path().join("run/run.sock");
    let held = || std::fs::read_dir(format!("/proc/{}/fd", service.daemon_pid().unwrap())).unwrap().count();
    let before = held();
    let mut client = Command::new("python3");
    client.args(["-c", RAW_CLIENT]).arg(&socket).stdin(Stdio::null());
    assert_eq!(said(&client.uid(NOBODY).gid(NOBODY).output().unwrap()), "");
    let let_go = within(PATIENCE, || held() <= before + 2);
    assert!(let_go.is_some(), "{} descriptors more are held", held() - before);
    assert_eq!(service.job("true").unwrap().1, Some(0));
}

/// `^C` and `^Z` at a terminal go to all that runs there; a shell that waits for its
/// child would not end, nor stop, by itself.
#[test]
fn what_a_terminal_does_to_the_client_is_done_to_all_of_the_job() {
    let (_upstream, service, _) = start();
    let marker = service.dir.path().join("ticks");
    let script = format!("while :; do echo >> {}; sleep 0.05; done; true", marker.display());
    let nested = format!("bash -c '{script}'; echo the shell goes on");
    let mut command = service.command(&["run", "--", "bash", "-c", &nested]).unwrap();
    let client = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(client.id()).unwrap());
    let send = |signal| nix::sys::signal::kill(pid, signal).unwrap();
    let ticks = || std::fs::metadata(&marker).map_or(0, |it| it.len());
    let goes_on = || {
        let before = ticks();
        until("it goes on with its client", || ticks() > before);
    };
    goes_on();
    let [job] = &jobs(&service)[..] else { panic!("not one job") };
    // Each of its processes, down to the one that waits for the next tick.
    let states = || {
        let procs = std::fs::read_to_string(job.join("cgroup.procs")).unwrap();
        let stats = procs.lines().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")));
        // The state comes after the name, in parentheses.
        stats.flatten().filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect::<String>()
    };
    send(Signal::SIGTSTP);
    until("all of it is stopped with its client", || states().bytes().all(|state| state == b'T'));
    let before = (ticks(), states());
    assert!(before.1.len() > 2, "{before:?}");
    send(Signal::SIGCONT);
    goes_on();
    send(Signal::SIGINT);
    let out = client.wait_with_output().unwrap();
    assert_eq!((out.status.code(), said(&out).as_str()), (Some(130), ""));
    assert_eq!(jobs(&service), [] as [PathBuf; 0]);
}

#[test]
fn long_arguments_are_passed_and_wrong_ones_are_a_failure_of_ours() {
    let (_upstream, service, _) = start();
    let (text, code) = service.job("true").unwrap();
    assert_eq!((text.as_str(), code), ("", Some(0)));
    let long: Vec<String> = (0..40_000).map(|n| format!("argument{n}")).collect();
    let mut command = service.command(&["run", "--", "sh", "-c", "echo $#", "sh"]).unwrap();
    let out = command.args(&long).stdin(Stdio::null()).output().unwrap();
    assert_eq!(said(&out), "40000\n");
    for wrong in [&["run"][..], &["run", "--name"], &["run", "--label", "x", "true"]] {
        assert_eq!(service.output(wrong).unwrap().status.code(), Some(125), "{wrong:?}");
    }
    assert_eq!(service.output(&["run", "--help"]).unwrap().status.code(), Some(0));
}

/// What a job leaves: no process, no cgroup, and nothing that counts as one.
#[test]
fn what_a_job_started_ends_with_it() {
    let (_upstream, service, _) = start();
    let marker = service.dir.path().join("marker");
    let script = format!(
        "(trap '' HUP TERM INT; setsid sh -c 'echo $$ > {0}; exec sleep 300' > /dev/null 2>&1 < /dev/null) & \
         until [ -s {0} ]; do sleep 0.01; done",
        marker.display()
    );
    assert_eq!(service.job(&script).unwrap().1, Some(0));
    assert_eq!(jobs(&service), [] as [PathBuf; 0]);
    let pid = std::fs::read_to_string(&marker).unwrap();
    // One that is dead and that nobody has looked after does not go on.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "it goes on: {stat}");
}

/// The cgroups of the jobs that there are.
fn jobs(service: &Service) -> Vec<PathBuf> {
    let jobs = std::fs::read_dir(service.cgroup.path().join("jobs")).unwrap().flatten();
    jobs.map(|it| it.path()).filter(|path| path.is_dir()).collect()
}
