//! One job: its cgroup, its tag, its processes, its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use crate::launch::{DEFAULT_UMASK, FAILED, JobSpec, LaunchSpec};
use crate::net::ipc::{Channel, Peer};
use crate::net::sys::{self, Caller};
use crate::secret::SecretText;
use crate::workload::wire::{JobReply, JobRequest, RefusedTo, SecretValue, ToProxy, WorkloadSpec};

use super::daemon::Daemon;
use super::follow::Running;
use super::scopes::LABEL;
use crate::admin::request::{MAX_SPEC, RunIdentity, RunReply, RunRequest};

/// How long the proxy may take to know a workload.
const READY: Duration = Duration::from_secs(10);
/// How long what is killed may take to be gone; after that its end is looked for again and again.
const GONE: Duration = Duration::from_secs(2);
/// How long it may take to know who a job is: an issuer may have to be asked for its keys.
const KNOWN: Duration = Duration::from_secs(20);
/// The longest name of a job, in bytes.
const MAX_NAME: usize = 64;
/// The longest name of a command that is recorded, in bytes.
const MAX_COMMAND: usize = 4096;
/// The most sockets that are exposed to one job.
const MAX_EXPOSED: usize = 64;
/// Shorter values are not masked: they would match everywhere.
const MIN_SECRET: usize = 8;

/// Serves one `enforcer run`, from its request to its job's end.
pub fn serve(daemon: &Arc<Daemon>, channel: &Channel, peer: Peer) {
    let reply = match start(daemon, channel, peer) {
        Ok((code, refused)) => RunReply::Exited { code, refused },
        Err(error) => RunReply::Failed { code: FAILED, message: format!("{error:#}") },
    };
    if let Err(error) = channel.send(&reply, &[]) {
        tracing::debug!(%error, "the client of a job is gone");
    }
}

/// What a client asked for, once it is checked.
struct Asked {
    request: RunRequest,
    job: JobSpec,
    stdio: [OwnedFd; 3],
    cwd: OwnedFd,
    caller: Caller,
    groups: Vec<u32>,
}

fn receive(daemon: &Daemon, channel: &Channel, peer: Peer) -> Result<Asked> {
    let heard = daemon.heard::<RunRequest>(channel, peer)?;
    let (request, fds) = heard.context("a process in a tagged cgroup starts no jobs")?;
    let [stdin, stdout, stderr, cwd, spec]: [OwnedFd; 5] =
        fds.try_into().map_err(|_| anyhow::anyhow!("the request has not the five descriptors"))?;
    for fd in [&stdin, &stdout, &stderr] {
        let kind = nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT;
        // From a folder of the host's mount namespace `..` leads out of the job's; and
        // what has no kind (a ring, a process) acts for whoever made it.
        ensure!(
            matches!(kind, libc::S_IFREG | libc::S_IFIFO | libc::S_IFCHR | libc::S_IFBLK | libc::S_IFSOCK),
            "a folder, a ring or a process is no input or output for a job"
        );
        // What is connected already passes no hook of ours.
        ensure!(
            kind != libc::S_IFSOCK || socket_domain(fd)? == AddressFamily::UNIX,
            "a socket of the network is no input or output for a job"
        );
    }
    let name = &request.name;
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    ensure!(
        (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with('.'),
        "a job's name has at most {MAX_NAME} letters, digits, `-`, `_` and `.`"
    );
    // Policy gives a scope's rights by it.
    ensure!(
        !request.labels.contains_key(LABEL),
        "the label `{LABEL}` says which scope a workload is in: give the job another one"
    );
    exposable(&request.expose)?;
    let mut file = File::from(spec);
    file.rewind()?;
    let mut text = Vec::new();
    file.take(MAX_SPEC + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= MAX_SPEC, "arguments and environment are longer than {MAX_SPEC} bytes");
    let job = serde_json::from_slice(&text)?;
    let caller = channel.with_peer(peer, sys::caller)??;
    let groups = sys::groups_of_peer(channel.as_fd())?;
    Ok(Asked { request, job, stdio: [stdin, stdout, stderr], cwd, caller, groups })
}

/// Whoever asks could use these sockets himself: a job gets no more than its caller has.
fn exposable(paths: &[PathBuf]) -> Result<()> {
    ensure!(paths.len() <= MAX_EXPOSED, "at most {MAX_EXPOSED} sockets are exposed to a job");
    for path in paths {
        super::config::check_exposed(path).map_err(|why| anyhow::anyhow!("--expose: {why}"))?;
    }
    Ok(())
}

fn start(daemon: &Arc<Daemon>, channel: &Channel, peer: Peer) -> Result<(i32, RefusedTo)> {
    let mut asked = receive(daemon, channel, peer)?;
    let identity = asked.request.identity.take();
    let job = Job::make(daemon, &asked, peer)?;
    if let Some(Err(error)) = identity.map(|identity| job.is(identity)) {
        job.end(None);
        return Err(error);
    }
    let code = job.run(channel, asked, peer);
    let refused = daemon.refused_to(job.tag);
    job.end(code.as_ref().ok().copied());
    Ok((code?, refused))
}

fn kill_all(cgroup: &Path) {
    if let Err(error) = fs::write(cgroup.join("cgroup.kill"), "1")
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, cgroup = %cgroup.display(), "the rest of a job cannot be killed");
    }
}

struct Job<'a> {
    daemon: &'a Arc<Daemon>,
    path: PathBuf,
    tag: u64,
    cgroup: u64,
}

impl<'a> Job<'a> {
    /// Cgroup, tag, and the proxy's word that it knows the workload, in this order.
    fn make(daemon: &'a Arc<Daemon>, asked: &Asked, peer: Peer) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let tag = daemon.new_tag(now);
        let path = daemon.jobs().join(format!("{}-{tag:x}", asked.request.name));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        let cgroup = daemon.tag(&path, tag).inspect_err(|_| {
            if let Err(error) = fs::remove_dir(&path) {
                tracing::warn!(%error, cgroup = %path.display(), "the cgroup of no job stays");
            }
        })?;
        let job = Self { daemon, path, tag, cgroup };
        let spec = WorkloadSpec {
            tag,
            cgroup,
            cgroup_path: job.path.strip_prefix(daemon.mount()).unwrap_or(&job.path).display().to_string(),
            name: asked.request.name.clone(),
            labels: asked.request.labels.clone(),
            uid: peer.uid,
            command: shown(&asked.job.argv),
            secrets: secrets(&daemon.config().mask.env, &asked.job),
            started_unix_ms: u64::try_from(now.as_millis())?,
        };
        if let Err(error) = daemon.register(spec, READY) {
            job.end(None);
            return Err(error);
        }
        Ok(job)
    }

    /// Says who it is as the job itself would, by a connection that is passed on to the proxy: before
    /// its first process there is nobody else in it who could.
    fn is(&self, RunIdentity { token, api, claims }: RunIdentity) -> Result<()> {
        let (ours, theirs) = Channel::pair()?;
        ours.set_patience(Some(KNOWN))?;
        ours.send(&JobRequest::Start { token, api, claims, anew: false }, &[])?;
        self.daemon.tell(&ToProxy::Job { tag: Some(self.tag), problem: None }, &[theirs.as_fd()])?;
        drop(theirs);
        let reply = ours.recv::<JobReply>().context("the service did not say who the job is")?;
        let (reply, _) = reply.context("the service is busy with other jobs: try again")?;
        ensure!(reply.ok, "it is not known whose job this is, so that it is not started: {}", reply.message);
        Ok(())
    }

    /// Starts the command and waits for its end; on an error nothing of it is left.
    fn run(&self, channel: &Channel, asked: Asked, peer: Peer) -> Result<i32> {
        let mut child = self.launch(asked, peer)?;
        // A client that is gone is noticed by the thread that follows it.
        channel.send(&RunReply::Started { pid: child.id() }, &[]).ok();
        let status = match self.follow(channel, &child) {
            Ok(running) => running.wait(&mut child)?,
            Err(error) => {
                kill_all(&self.path);
                child.wait()?;
                return Err(error);
            }
        };
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Without its client a job does not go on.
    fn follow(&self, channel: &Channel, child: &Child) -> Result<Arc<Running>> {
        let channel = channel.try_clone()?;
        let running = Arc::new(Running::of(child)?);
        let (followed, cgroup) = (Arc::clone(&running), self.path.clone());
        std::thread::Builder::new().spawn(move || {
            followed.follow(&channel);
            kill_all(&cgroup);
        })?;
        Ok(running)
    }

    fn launch(&self, asked: Asked, peer: Peer) -> Result<Child> {
        let trust = self.daemon.trust();
        let variables = if asked.request.no_env { Vec::new() } else { trust.variables() };
        let java_home = asked.job.env.iter().find(|(name, _)| name == b"JAVA_HOME");
        let java_home = java_home.map(|(_, home)| PathBuf::from(std::ffi::OsStr::from_bytes(home)));
        let spec = LaunchSpec {
            cgroup: self.path.clone(),
            mounts: trust.mounts(java_home.as_deref()),
            job: asked.job,
            variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            hidden: self.daemon.hidden(),
            sockets: self.daemon.hiding(&asked.request.expose),
            read_only: self.daemon.read_only(),
            uid: peer.uid,
            gid: peer.gid,
            groups: asked.groups,
            caller: asked.caller,
        };
        let mut file = super::children::memory_file("launch")?;
        file.write_all(&serde_json::to_vec(&spec)?)?;
        file.rewind()?;
        let [stdin, stdout, stderr] = asked.stdio;
        let (spec_fd, cwd_fd) = (file.as_raw_fd(), asked.cwd.as_raw_fd());
        let mut command = Command::new(super::children::PROGRAM);
        command
            .args(["launch-exec", "--spec-fd", "10", "--cwd-fd", "11"])
            .env_clear()
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        // A session of its own: in ours it would have the terminal that the service
        // may have been started from, and could type into it.
        sys::before_exec(&mut command, || Ok(nix::unistd::setsid().map(drop)?));
        super::children::pass(&mut command, vec![(spec_fd, 10), (cwd_fd, 11)]);
        let child = command.spawn().context("starting the job")?;
        drop((file, asked.cwd));
        Ok(child)
    }

    /// The tag is the last thing to go: whoever is killed in the middle of a system
    /// call comes to its end before that, and may send something until then.
    fn end(&self, exit_code: Option<i32>) {
        kill_all(&self.path);
        let removed = wait_empty(&self.path, GONE).and_then(|()| remove_cgroup(&self.path));
        match removed {
            Ok(()) => return self.daemon.forget(self.tag, self.cgroup, exit_code),
            // Something in it takes long to die, or somebody has come.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
            Err(error) => {
                tracing::warn!(%error, cgroup = %self.path.display(), "the cgroup of a job stays");
            }
        }
        self.daemon.end_later(self.tag, self.cgroup, self.path.clone());
    }
}

/// Waits until nobody is in a cgroup or below it; busy is who is not within the time.
fn wait_empty(cgroup: &Path, longest: Duration) -> std::io::Result<()> {
    let mut events = File::open(cgroup.join("cgroup.events"))?;
    let until = Instant::now() + longest;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::ResourceBusy.into());
        }
        // The kernel says so of what has changed since it was read.
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], left) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes a cgroup, with those that its processes have made below it.
pub(super) fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// A job that an earlier loader started, as far as the kernel still knows it.
/// Values of secrets are never written down: they are read from its processes.
pub(super) fn adopted(daemon: &Daemon, path: &Path, tag: u64, cgroup: u64) -> Result<WorkloadSpec> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned());
    let mut job = JobSpec { argv: Vec::new(), env: Vec::new(), umask: DEFAULT_UMASK, report: None };
    let mut uid = 0;
    for pid in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
        let process = Path::new("/proc").join(pid);
        // The owner of the folder would be root where a process says that it is not dumpable.
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let real = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
        uid = real.and_then(|real| real.parse().ok()).unwrap_or(uid);
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        for variable in environment.split(|byte| *byte == 0) {
            if let Some(at) = variable.iter().position(|byte| *byte == b'=') {
                job.env.push((variable[..at].to_vec(), variable[at + 1..].to_vec()));
            }
        }
    }
    Ok(WorkloadSpec {
        tag,
        cgroup,
        cgroup_path: path.strip_prefix(daemon.mount()).unwrap_or(path).display().to_string(),
        name,
        labels: BTreeMap::new(),
        uid,
        command: Vec::new(),
        secrets: secrets(&daemon.config().mask.env, &job),
        started_unix_ms: tag / 1_000_000,
    })
}

/// The command without its arguments, which may be longer than a message. A name is
/// not cut: what is left of a secret in it would not be masked.
fn shown(argv: &[Vec<u8>]) -> Vec<String> {
    let name = argv.first().map_or(&b""[..], Vec::as_slice);
    let name = if name.len() > MAX_COMMAND { &b"..."[..] } else { name };
    vec![String::from_utf8_lossy(name).into_owned()]
}

/// The values of variables that are named like secrets.
fn secrets(patterns: &[String], job: &JobSpec) -> Vec<SecretValue> {
    let mut found = BTreeMap::new();
    for (name, value) in &job.env {
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { continue };
        if value.len() >= MIN_SECRET && patterns.iter().any(|pattern| matches(pattern, name)) {
            found.insert(format!("ENV_{}", name.to_ascii_uppercase()), value.to_owned());
        }
    }
    found.into_iter().map(|(entity, value)| SecretValue { entity, value: SecretText::new(value) }).collect()
}

/// `*` is any run of characters; case does not count.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_uppercase(), name.to_ascii_uppercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_sockets_are_exposed_and_not_one_more() {
        let paths = |count| vec![PathBuf::from("/run/a.sock"); count];
        exposable(&paths(MAX_EXPOSED)).unwrap();
        exposable(&paths(MAX_EXPOSED + 1)).unwrap_err();
        for wrong in ["a.sock", "/run/../a.sock", "/", "/run", "/proc/1/root/run/a.sock"] {
            exposable(&[wrong.into()]).unwrap_err();
        }
    }

    #[test]
    fn variables_are_matched_by_name() {
        for (pattern, name, want) in [
            ("*TOKEN*", "GITHUB_TOKEN", true),
            ("*TOKEN*", "token", true),
            ("*_KEY", "API_KEY", true),
            ("*_KEY", "API_KEYS", false),
            ("A*B*C", "AxBxC", true),
            ("A*B*C", "AxC", false),
            ("HOME", "HOME", true),
            ("HOME", "HOMES", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
