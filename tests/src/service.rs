//! The whole service in a cgroup of its own, with an upstream of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Cgroup;
use crate::netns::{Cable, PEER4};
use crate::origin::certified;
use crate::store::Store;
use crate::wait::{PATIENCE, within};
use enforcer::net::sys;

/// The user and the group that tests run jobs and the proxy as.
pub const NOBODY: u32 = 65534;

const HTTPS: u16 = 443;

/// How many ports the services of tests have between them.
const PORTS: u16 = 10_000;

static TURN: Mutex<()> = Mutex::new(());
/// How many services this process has started.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A TLS server that answers every request with the same text.
pub struct Upstream {
    pub address: SocketAddr,
    /// TCP connections that came.
    pub accepted: Arc<AtomicUsize>,
    pub ca_pem: String,
}

impl Upstream {
    /// Serves `name` on a loopback address that is not the proxy's.
    pub fn start(name: &str, answer: String) -> Result<Self> {
        Self::serve(TcpListener::bind("127.0.0.2:0")?, name, answer)
    }

    /// Serves `name` at the far end of the cable, where browsers look for it.
    pub fn at_peer(cable: &Cable, name: &str, answer: String) -> Result<Self> {
        Self::serve(cable.peer.run(|| TcpListener::bind((PEER4, HTTPS)))??, name, answer)
    }

    /// Serves `name` on this listener, which may belong to another network namespace.
    pub fn serve(listener: TcpListener, name: &str, answer: String) -> Result<Self> {
        let (config, ca_pem) = certified(&[name])?;
        let config = Arc::new(config);
        let address = listener.local_addr()?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (config, answer) = (Arc::clone(&config), answer.clone());
                std::thread::spawn(move || serve(stream, config, &answer));
            }
        });
        Ok(Self { address, accepted, ca_pem })
    }
}

/// Requests without a body, until the client goes.
fn serve(stream: TcpStream, config: Arc<rustls::ServerConfig>, answer: &str) -> Option<()> {
    let connection = rustls::ServerConnection::new(config).ok()?;
    let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        stream.get_mut().write_all((head + answer).as_bytes()).ok()?;
    }
}

/// A running daemon; dropping it lifts enforcement and removes everything.
pub struct Service {
    pub dir: tempfile::TempDir,
    pub cgroup: Cgroup,
    /// What the daemon is started by: words before its own command line.
    pub wrapper: Vec<String>,
    /// In place of systemd: where it stores descriptors from one start to the next.
    pub store: Option<Store>,
    daemon: Option<Child>,
    _turn: MutexGuard<'static, ()>,
}

impl Service {
    /// Starts it with this policy for `name` at the upstream's address.
    pub fn start(name: &str, upstream: &Upstream, policy: &str) -> Result<Self> {
        Self::start_for(name, upstream.address, &upstream.ca_pem, policy)
    }

    /// The same for any server, with the roots by which its certificate is verified.
    pub fn start_for(name: &str, address: SocketAddr, ca_pem: &str, policy: &str) -> Result<Self> {
        Self::start_by(&[], &[(name, address.ip())], ca_pem, policy)
    }

    /// Starts it at the near end of the cable, by way of `wrapper`, for `name` at the far end.
    pub fn start_at(cable: &Cable, wrapper: &[&str], name: &str, ca_pem: &str, policy: &str) -> Result<Self> {
        let netns = format!("--net=/run/netns/{}", cable.work.name());
        let wrapper = [&["nsenter", &netns], wrapper].concat();
        Self::start_by(&wrapper, &[(name, IpAddr::V4(PEER4))], ca_pem, policy)
    }

    /// Starts it by way of another program that becomes it (as `nsenter` and
    /// `unshare` do), with these names.
    pub fn start_by(wrapper: &[&str], names: &[(&str, IpAddr)], ca_pem: &str, policy: &str) -> Result<Self> {
        Self::start_with(wrapper, names, ca_pem, policy, &[])
    }

    /// The same with values that are registered as secrets, each under its name.
    pub fn start_with(
        wrapper: &[&str],
        names: &[(&str, IpAddr)],
        ca_pem: &str,
        policy: &str,
        secrets: &[(&str, &str)],
    ) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "these tests need root");
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        crate::signals::as_in_the_foreground()?;
        let dir = tempfile::tempdir()?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        // A name of its own: if the last one's cgroup stays, that is not this one's end too.
        let nth = STARTED.fetch_add(1, Ordering::Relaxed);
        let group = format!("enf-service-{}-{nth}", std::process::id());
        let cgroup = Cgroup::at_root(&group)?;
        std::fs::create_dir(dir.path().join("policies"))?;
        std::fs::write(dir.path().join("policies/test.yaml"), policy)?;
        if !secrets.is_empty() {
            std::fs::create_dir(dir.path().join("secrets.d"))?;
        }
        for (name, value) in secrets {
            std::fs::write(dir.path().join("secrets.d").join(name), value)?;
        }
        std::fs::write(dir.path().join("upstream.pem"), ca_pem)?;
        let path = dir.path().display();
        let ports = free_ports(nth)?;
        let names: String = names.iter().map(|(name, ip)| format!("\"{name}\" = [\"{ip}\"]\n")).collect();
        let object = std::env::var("ENFORCER_BPF_OBJECT").context("run the tests by `cargo xtask test`")?;
        let config = format!(
            "[cgroup]\nattach = \"/{group}\"\nown = \"/{group}/own\"\njobs = \"/{group}/jobs\"\n\
             scopes_dir = \"{path}/scopes.d\"\n[listen]\ntcp_port = {}\ndns_port = {}\n[proxy]\nuser = \"nobody\"\n\
             [policy]\ndir = \"{path}/policies\"\n[recording]\ndir = \"{path}/sessions\"\n[ca]\ndir = \"{path}/ca\"\n\
             [dns.names]\n{names}[upstream]\nca_file = \"{path}/upstream.pem\"\n\
             [mask]\nsecrets_dir = \"{path}/secrets.d\"\nsurrogate_key_file = \"{path}/surrogates.key\"\n[run]\ndir = \"{path}/run\"\ngroup = \"nogroup\"\n\
             [kernel]\npins = \"/sys/fs/bpf/{group}\"\nobject = \"{object}\"\n",
            ports[0], ports[1],
        );
        std::fs::write(dir.path().join("config.toml"), config)?;
        let mut service = Self {
            dir,
            cgroup,
            wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(),
            store: None,
            daemon: None,
            _turn: turn,
        };
        service.start_daemon()?;
        Ok(service)
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start_daemon(&mut self) -> Result<()> {
        let ready = self.spawn_daemon()?.recv().ok();
        if ready.as_deref() != Some("enforcer: ready") {
            bail!("the daemon said {ready:?} and {}", std::fs::read_to_string(self.log())?);
        }
        Ok(())
    }

    /// Starts the daemon; what it says comes line by line.
    pub fn spawn_daemon(&mut self) -> Result<mpsc::Receiver<String>> {
        let daemon = self.command(&["daemon"])?;
        let mut command = match self.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(daemon.get_program()).args(daemon.get_args());
                command
            }
            None => daemon,
        };
        if let Some(store) = &self.store {
            command = given(&command, store)?;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        self.daemon = Some(child);
        let (say, said) = mpsc::channel();
        // Read to its end, whether anybody listens or not, so that it never blocks.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(say.send(line))));
        Ok(said)
    }

    /// Whether the daemon that was started last runs.
    pub fn daemon_runs(&mut self) -> Result<bool> {
        self.daemon.as_mut().map_or(Ok(false), |daemon| Ok(daemon.try_wait()?.is_none()))
    }

    /// The program with this service's configuration.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.arg("--config").arg(self.dir.path().join("config.toml")).args(args);
        Ok(command)
    }

    /// The same for a user who may not enter the folder that cargo builds in.
    pub fn command_of_all(&self, args: &[&str]) -> Result<Command> {
        let copy = self.dir.path().join("enforcer");
        std::fs::copy(program()?, &copy)?;
        let mut command = Command::new(copy);
        command.arg("--config").arg(self.dir.path().join("config.toml")).args(args);
        Ok(command)
    }

    pub fn output(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args)?.stdin(Stdio::null()).output()?)
    }

    /// Runs a shell command as a job; its standard output and error, and its code.
    pub fn job(&self, script: &str) -> Result<(String, Option<i32>)> {
        let script = format!("exec 2>&1; {script}");
        let out = self.output(&["run", "--quiet", "--", "sh", "-c", &script])?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        Ok((text, out.status.code()))
    }

    /// What the daemon and its children say.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn sessions(&self) -> PathBuf {
        self.dir.path().join("sessions")
    }

    /// Where the daemon pins: what the configuration says by now.
    pub fn pins(&self) -> Result<PathBuf> {
        let text = std::fs::read_to_string(self.dir.path().join("config.toml"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("pins = ")).context("no pins")?;
        Ok(PathBuf::from(line.trim_matches('"')))
    }

    pub fn status(&self) -> Result<serde_json::Value> {
        let out = self.output(&["status", "--json"])?;
        serde_json::from_slice(&out.stdout).context("no status")
    }

    pub fn kill_proxy(&self) -> Result<()> {
        let pid = self.status()?["proxy_pid"].as_i64().context("no proxy")?;
        Ok(kill9(i32::try_from(pid)?)?)
    }

    pub fn daemon_pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.daemon.as_ref().context("no daemon")?.id())?)
    }

    pub fn kill_daemon(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("no daemon")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// Ends it as systemd does, and waits for its end.
    pub fn stop_daemon(&mut self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.daemon_pid()?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let status = self.daemon.take().context("no daemon")?.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }

    /// Waits until the service answers and is whole.
    pub fn wait_whole(&self) -> Result<()> {
        let whole = || self.status().is_ok_and(|status| status["healthy"] == true);
        let serves = || self.job("true").is_ok_and(|(_, code)| code == Some(0));
        ensure!(within(PATIENCE, || whole() && serves()).is_some(), "the service did not come back");
        Ok(())
    }

    /// Everything that the enforcer wrote, as bytes.
    pub fn written(&self) -> Result<Vec<u8>> {
        fn all(dir: &Path, into: &mut Vec<u8>) -> Result<()> {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    all(&path, into)?;
                } else if path.is_file() {
                    into.extend(std::fs::read(path)?);
                }
            }
            Ok(())
        }
        let mut bytes = Vec::new();
        all(self.dir.path(), &mut bytes)?;
        Ok(bytes)
    }

    /// Waits for the end of a daemon that was told to lift enforcement.
    pub fn wait_lifted(&mut self) -> Result<()> {
        let status = self.daemon.take().context("no daemon")?.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        ensure!(!self.dir.path().join("run").exists(), "the folder of the sockets stays");
        Ok(())
    }

    /// Lifts enforcement and waits for the daemon's end.
    pub fn release(&mut self) -> Result<()> {
        let out = self.output(&["release", "--all"])?;
        ensure!(out.status.success(), "release: {}", String::from_utf8_lossy(&out.stderr));
        if self.daemon.is_some() { self.wait_lifted() } else { Ok(()) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.daemon.is_some()
            && let Err(error) = self.release()
        {
            eprintln!("the service is not lifted: {error:#}");
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the end of the daemon's log:");
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The command as systemd starts it: with what is stored as its descriptors from 3 on.
fn given(command: &Command, store: &Store) -> Result<Command> {
    let (names, fds): (Vec<String>, Vec<OwnedFd>) = store.copies()?.into_iter().unzip();
    // The number of the process is known only in it.
    let script = "export LISTEN_PID=$$; exec \"$@\"";
    let mut whole = Command::new("bash");
    whole.args(["-c", script, "bash"]).arg(command.get_program()).args(command.get_args());
    whole.env("NOTIFY_SOCKET", &store.path);
    if !fds.is_empty() {
        whole.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    }
    sys::before_exec(&mut whole, move || {
        for (fd, to) in fds.iter().zip(3..) {
            // By way of a number that is not among them.
            sys::duplicate_to(sys::duplicate_above(fd.as_raw_fd(), 200)?, to)?;
        }
        Ok(())
    });
    Ok(whole)
}

/// Two ports that nobody has, so that suites may run beside each other, for the `nth` service of
/// this process. They are none of those that the kernel gives to whoever connects
/// (ip_local_port_range, ip(7)): a daemon that is started again finds its own free.
fn free_ports(nth: u32) -> Result<[u16; 2]> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let end: u16 = range.split_whitespace().next().context("no range of ports")?.parse()?;
    let first = end.checked_sub(PORTS).context("the kernel gives ports from the lowest on")?;
    // Processes begin at ports far from each other, and their services beside each other.
    let from = std::process::id().wrapping_mul(97).wrapping_add(nth * 2);
    let mut free = (0..u32::from(PORTS))
        .filter_map(|step| Some(first + u16::try_from(from.wrapping_add(step) % u32::from(PORTS)).ok()?))
        .filter(|port| TcpListener::bind(("::", *port)).is_ok() && UdpSocket::bind(("::", *port)).is_ok());
    Ok([free.next().context("no port is free")?, free.next().context("no port is free")?])
}

pub fn kill9(pid: i32) -> nix::Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
}

/// The program under test, which cargo builds beside the tests.
pub fn program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let mut folders = this.ancestors().skip(1).take(2).map(|folder| folder.join("enforcer"));
    folders
        .find(|path| path.is_file())
        .context("enforcer is not built: run this by `cargo xtask test` or `demo`")
}
