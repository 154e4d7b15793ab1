//! Jobs see no Unix socket of the host: neither those that are there when they begin, nor
//! those that daemons make later where they make them.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use enforcer_tests::service::{NOBODY, Service, Upstream};

use crate::{NAME, POLICY};

/// Becomes the service, in a mount namespace with a /run of its own where somebody listens
/// on sockets; and later, when a file `make` is there, on others.
const HOST: &str = r"
import ctypes, os, resource, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def done(result):
    assert result == 0, os.strerror(ctypes.get_errno())
done(libc.unshare(0x20000))
done(libc.mount(b'none', b'/', None, 0x44000, None))
done(libc.mount(b'none', b'/run', b'tmpfs', 0, b'mode=755'))
os.makedirs('/dev/net', exist_ok=True)
done(libc.mount(b'none', b'/dev/net', b'tmpfs', 0, b'mode=755'))
os.mknod('/dev/net/tun', 0o020666, os.makedev(10, 200))
os.chmod('/dev/net/tun', 0o666)
place, before, later = sys.argv[1], sys.argv[2].split(','), sys.argv[3].split(',')
kept = []
def listen(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.unlink(path)
    it = socket.socket(socket.AF_UNIX)
    it.bind(path)
    os.chmod(path, 0o777)
    it.listen(64)
    kept.append(it)
for folder in ('resolve', 'plain', 'lock'):
    os.makedirs('/run/systemd/' + folder)
open('/run/systemd/resolve/stub-resolv.conf', 'w').write('nameserver 127.0.0.53\n')
open('/run/systemd/plain/file', 'w').write('before\n')
os.chmod('/run/systemd/lock', 0o1777)
ready, tell = os.pipe()
if os.fork() == 0:
    libc.prctl(1, 9, 0, 0, 0)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for path in before:
        if path.startswith('many:'):
            for number in range(int(path[5:])):
                listen(place + '/many/' + str(number))
        else:
            listen(path)
    os.write(tell, b'x')
    while not os.path.exists(place + '/make'):
        time.sleep(0.02)
    for path in later:
        listen(path)
    open('/run/systemd/plain/file', 'w').write('later\n')
    open(place + '/made', 'w')
    time.sleep(1000000)
os.close(tell)
assert os.read(ready, 1) == b'x'
os.execv(sys.argv[4], sys.argv[4:])
";

/// Says which of these it reaches.
const TRY: &str = r"
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print(path)
    except OSError:
        pass
";

/// Keeps the host's bpffs there, which a service in mounts of its own has to share with process
/// 1: one that a service has mounted goes with the last that uses it.
struct Bpffs(PathBuf);

impl Bpffs {
    fn keep() -> Self {
        static KEPT: AtomicUsize = AtomicUsize::new(0);
        let number = KEPT.fetch_add(1, Ordering::Relaxed);
        let at = PathBuf::from(format!("/sys/fs/bpf/test-{}-{number}", std::process::id()));
        if std::fs::create_dir(&at).is_err() {
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), flags, Some("mode=700")).unwrap();
            std::fs::create_dir(&at).unwrap();
        }
        Self(at)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).unwrap();
    }
}

struct Host {
    _bpffs: Bpffs,
    place: tempfile::TempDir,
    before: Vec<String>,
    later: Vec<String>,
    _upstream: Upstream,
}

impl Host {
    /// A service on a host with these sockets; `{}` is a folder of the test's own.
    fn start(before: &[&str], later: &[&str]) -> (Self, Service) {
        let bpffs = Bpffs::keep();
        let place = tempfile::tempdir().unwrap();
        let at = place.path().display().to_string();
        for folder in ["", "mixed", "many"] {
            let folder = place.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(&folder, mode).unwrap();
            std::fs::write(folder.join("file"), "plain\n").unwrap();
        }
        let named =
            |paths: &[&str]| -> Vec<String> { paths.iter().map(|path| path.replace("{}", &at)).collect() };
        let (before, later) = (named(before), named(later));
        let upstream = Upstream::start(NAME, "hello\n".to_owned()).unwrap();
        let names = [(NAME, upstream.address.ip())];
        let wrapper = ["python3", "-c", HOST, &at, &before.join(","), &later.join(",")];
        let service = Service::start_by(&wrapper, &names, &upstream.ca_pem, POLICY).unwrap();
        (Self { _bpffs: bpffs, place, before, later, _upstream: upstream }, service)
    }

    fn reached(command: &mut Command) -> String {
        let out = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Without a job.
    fn outside(service: &Service, paths: &[String]) -> String {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &service.daemon_pid().unwrap().to_string(), "python3", "-c", TRY]);
        Self::reached(command.args(paths))
    }

    fn inside(service: &Service, options: &[&str], uid: u32, paths: &[String]) -> String {
        let words = [&["run"], options, &["--", "/usr/bin/python3", "-c", TRY]].concat();
        let mut command = service.command_of_all(&words).unwrap();
        Self::reached(command.args(paths).uid(uid).gid(uid).current_dir("/"))
    }

    fn make_more(&self) -> String {
        let at = self.place.path().display();
        format!("touch {at}/make; until [ -e {at}/made ]; do sleep 0.05; done")
    }
}

fn lines(paths: &[String]) -> String {
    paths.iter().map(|path| format!("{path}\n")).collect()
}

const BEFORE: [&str; 9] = [
    "/run/docker.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/systemd/notify",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/user/65534/bus",
    "/run/of-nobody-known/deep/a.sock",
    "{}/mixed/relay",
    "{}/tmux/default",
];
/// Some of them by a daemon that was started again.
const LATER: [&str; 7] = [
    "/run/docker.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/run/containerd/containerd.sock",
    "/run/made-later.sock",
    "/run/user/65534/systemd/private",
    "{}/tmux/second",
];

#[test]
fn a_job_reaches_no_socket_that_was_there_before_it_nor_one_that_a_daemon_makes_later() {
    let (host, service) = Host::start(&BEFORE, &LATER);
    assert_eq!(Host::outside(&service, &host.before), lines(&host.before), "the attempt proves nothing");
    for uid in [0, NOBODY] {
        assert_eq!(Host::inside(&service, &[], uid, &host.before), "", "as {uid}");
    }
    let all: Vec<String> = host.before.iter().chain(&host.later).cloned().collect();
    let script = service.dir.path().join("try.py");
    std::fs::write(&script, TRY).unwrap();
    // What is a file is read as before, and as it changes; a job has a folder of its own
    // where its user has one.
    let job = format!(
        "cat /run/systemd/resolve/stub-resolv.conf /run/systemd/plain/file; {}; cat /run/systemd/plain/file; \
         touch /run/systemd/lock/x; test -c /dev/net/tun; echo $?; python3 {} {}",
        host.make_more(),
        script.display(),
        all.join(" ")
    );
    let (text, code) = service.job(&job).unwrap();
    assert_eq!((text.as_str(), code), ("nameserver 127.0.0.53\nbefore\nlater\n1\n", Some(0)));
    assert_eq!(Host::outside(&service, &all), lines(&all), "the attempt proves nothing");
    let mut command = service
        .command_of_all(&[
            "run",
            "--",
            "sh",
            "-c",
            "stat -c '%a %u' /run/user/65534; touch /run/user/65534/x",
        ])
        .unwrap();
    assert_eq!(Host::reached(command.uid(NOBODY).gid(NOBODY).current_dir("/")), "700 65534\n");
}

#[test]
fn what_is_exposed_is_seen_and_what_is_hidden_is_told() {
    let (host, mut service) = Host::start(&BEFORE, &[]);
    let at = host.place.path().display().to_string();
    let chosen = ["/run/user/65534/bus".to_owned(), format!("{at}/mixed/relay")];
    let mut options: Vec<&str> = chosen.iter().flat_map(|path| ["--expose", path]).collect();
    assert_eq!(Host::inside(&service, &options, NOBODY, &host.before), lines(&chosen));
    options.push("--verbose=json");
    let command = |options: &[&str]| {
        let out = service.output(&[&["run"], options, &["--", "true"]].concat()).unwrap();
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let told: serde_json::Value = serde_json::from_str(&command(&options)).unwrap();
    let list = |name: &str| told["sockets"][name].as_array().unwrap().clone();
    assert!(list("in_run").contains(&"/run/docker.sock".into()), "{told:#}");
    assert!(list("covered").contains(&format!("{at}/tmux").into()), "{told:#}");
    assert_eq!(list("exposed"), chosen.map(serde_json::Value::from), "{told:#}");
    assert!(told["domain"].is_boolean(), "{told:#}");
    let text = command(&["-v"]);
    assert!(text.contains("hidden: /run/docker.sock\n") && text.contains("abstract sockets"), "{text}");
    for (wrong, says) in [("bus", "no path from the root"), ("/run", "no socket"), ("/run/../x/y", "`..`")] {
        let text = command(&["--expose", wrong]);
        assert!(text.contains(says), "{wrong}: {text}");
    }
    // For all jobs.
    let config = service.dir.path().join("config.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    for (line, reached) in [
        ("expose = [\"/run/docker.sock\"]", "/run/docker.sock\n".to_owned()),
        ("hide_sockets = false", lines(&host.before)),
    ] {
        service.stop_daemon().unwrap();
        std::fs::write(&config, before.replace("[run]\n", &format!("[run]\n{line}\n"))).unwrap();
        service.start_daemon().unwrap();
        assert_eq!(Host::inside(&service, &[], NOBODY, &host.before), reached, "{line}");
    }
}

#[test]
fn a_job_whose_sockets_cannot_all_be_hidden_does_not_start() {
    const FITS: &str = "many:3900";
    for (sockets, starts) in [(FITS, true), ("many:4097", false)] {
        let (_host, service) = Host::start(&[sockets], &[]);
        let (text, code) = service.job("echo started").unwrap();
        assert_eq!(text.contains("started"), starts, "{text}");
        assert!(starts || code == Some(125) && text.contains("more than 4096 of them"), "{code:?} {text}");
    }
}
