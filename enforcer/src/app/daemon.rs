//! The loader: the one process with privileges. It loads the kernel half, opens
//! listeners, starts the signer and the proxy, and starts jobs.
//!
//! ```text
//!             +-- signer (user, no capability, the CA's key)
//!   loader ---+
//!             +-- proxy  (user, no capability, parses everything)
//!
//!   a child dies --> both are stopped and started again, with new listeners
//! ```
//!
//! **Invariant**: it holds no listening socket while no proxy runs: a connection
//! would hang in the backlog instead of being refused.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::{Kernel, KernelConfig, Refusal, cgroup2_mount};
use crate::net::ipc::{Channel, Listener};
use crate::net::sys;
use crate::secret::SecretText;
use crate::tls::ca::Ca;
use crate::workload::wire::{FromProxy, Refused, SecretValue, Setup, ToProxy, WorkloadSpec};

use super::config::Config;
use super::jobs;
use super::trust::Trust;
use crate::admin::request::{AdminReply, AdminRequest};

/// How often the loader looks after its children and the kernel's refusals.
const TICK: Duration = Duration::from_millis(100);
/// How long a proxy may take to begin.
const BEGIN: Duration = Duration::from_secs(20);

/// The loader's state, shared by its threads.
pub struct Daemon {
    config: Config,
    mount: PathBuf,
    jobs: PathBuf,
    trust: Trust,
    ca: Ca,
    kernel: Mutex<Option<Kernel>>,
    proxy: Mutex<Option<Link>>,
    workloads: Mutex<HashMap<u64, WorkloadSpec>>,
    adopted: Mutex<Vec<(u64, u64, PathBuf)>>,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Result<(), String>>>>,
    stop: AtomicBool,
    release: AtomicBool,
}

/// The running proxy.
struct Link {
    channel: Channel,
    pid: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file without a name, for what is passed to a child.
pub(super) fn memory_file(name: &str) -> Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(File::from(rustix::fs::memfd_create(name, flags)?))
}

/// Gives a child descriptors under fixed numbers, from 10 on.
pub(super) fn pass(command: &mut Command, fds: Vec<(RawFd, RawFd)>) {
    sys::before_exec(command, move || {
        // Twice: a number that is a source must not be overwritten as a target.
        let mut copies = [-1; 4];
        for (copy, (from, _)) in copies.iter_mut().zip(&fds) {
            *copy = sys::duplicate_above(*from, 100)?;
        }
        for (copy, (_, to)) in copies.iter().zip(&fds) {
            sys::duplicate_to(*copy, *to)?;
        }
        Ok(())
    });
}

/// Runs the service until it is told to stop.
pub fn run(config: Config) -> Result<()> {
    ensure!(nix::unistd::Uid::effective().is_root(), "the service needs root: sudo enforcer daemon");
    let mount = cgroup2_mount()?;
    let place = |path: &Path| mount.join(path.strip_prefix("/").unwrap_or(path));
    let (attach, own, jobs) =
        (place(&config.cgroup.attach), place(&config.cgroup.own), place(&config.cgroup.jobs));
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    fs::create_dir_all(&jobs).with_context(|| format!("making {}", jobs.display()))?;
    let before = own_cgroup(&mount)?;
    fs::write(own.join("cgroup.procs"), "0").context("moving to the enforcer's own cgroup")?;
    fs::create_dir_all(&config.run.dir)?;
    let ca = Ca::load_or_create(&config.ca.dir)?;
    let trust = Trust::build(&config.run.dir.join("trust"), ca.certificate_pem())?;
    let kernel = Kernel::load_or_adopt(KernelConfig {
        object: config.object(),
        pins: config.kernel.pins.clone(),
        attach,
        own: own.clone(),
        jobs: jobs.clone(),
        tcp_port: config.listen.tcp_port,
        dns_port: config.listen.dns_port,
    })?;
    let daemon = Arc::new(Daemon {
        mount,
        jobs,
        trust,
        ca,
        kernel: Mutex::new(Some(kernel)),
        proxy: Mutex::default(),
        workloads: Mutex::default(),
        adopted: Mutex::default(),
        waiting: Mutex::default(),
        stop: AtomicBool::new(false),
        release: AtomicBool::new(false),
        config,
    });
    daemon.adopt_jobs()?;
    daemon.serve_sockets()?;
    let watched = daemon.watch_signals();
    watched.context("signals")?;
    let done = daemon.supervise();
    if daemon.release.load(Ordering::Acquire) {
        daemon.lift(&own, &before)?;
    }
    done
}

fn own_cgroup(mount: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2")?;
    Ok(mount.join(path))
}

impl Daemon {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn mount(&self) -> &Path {
        &self.mount
    }

    pub fn jobs(&self) -> &Path {
        &self.jobs
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    fn with_kernel<T>(
        &self,
        act: impl FnOnce(&mut Kernel) -> Result<T, crate::kernel::KernelError>,
    ) -> Result<T> {
        let mut kernel = lock(&self.kernel);
        let kernel = kernel.as_mut().context("enforcement has been lifted")?;
        Ok(act(kernel)?)
    }

    /// What a job that is root must not reach: pins, the CA's key, recordings.
    pub fn hidden(&self) -> Vec<PathBuf> {
        let pins = self.config.kernel.pins.parent().map(Path::to_path_buf);
        pins.into_iter().chain([self.config.ca.dir.clone(), self.config.recording.dir.clone()]).collect()
    }

    /// Whether a process is in a tagged cgroup. One that is gone is an error: it
    /// may have connected from a job and left the socket to another.
    pub fn is_tagged(&self, pid: u32) -> Result<bool> {
        let tagged = self.with_kernel(|kernel| Ok(kernel.tag_of_process(pid)?.is_some()))?;
        ensure!(
            tagged || Path::new("/proc").join(pid.to_string()).exists(),
            "the process that asked is gone"
        );
        Ok(tagged)
    }

    pub fn tag(&self, path: &Path, tag: u64) -> Result<u64> {
        self.with_kernel(|kernel| kernel.tag(path, tag, 0))
    }

    /// Tells the proxy of a workload and waits until it knows it.
    pub fn register(&self, spec: WorkloadSpec, patience: Duration) -> Result<()> {
        let (told, tell) = mpsc::channel();
        let tag = spec.tag;
        lock(&self.waiting).insert(tag, told);
        lock(&self.workloads).insert(tag, spec.clone());
        self.tell(&ToProxy::Workload(Box::new(spec)), &[]).context("the proxy is not running")?;
        let answer = tell.recv_timeout(patience);
        lock(&self.waiting).remove(&tag);
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => bail!("the proxy does not take the job: {message}"),
            Err(_) => bail!("the proxy did not answer within {} s", patience.as_secs()),
        }
    }

    /// A job has ended.
    pub fn forget(&self, tag: u64, cgroup: u64, exit_code: Option<i32>) {
        // What the kernel refused it stands in the workload's own session.
        self.forward_refusals();
        lock(&self.workloads).remove(&tag);
        if let Err(error) = self.with_kernel(|kernel| kernel.untag(cgroup)) {
            tracing::warn!(%error, "the tag of a job that has ended");
        }
        self.say(&ToProxy::WorkloadEnded { tag, exit_code });
    }

    fn tell(&self, message: &ToProxy, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let link = lock(&self.proxy);
        let link = link.as_ref().context("no proxy runs")?;
        Ok(link.channel.send(message, fds)?)
    }

    /// Tells the proxy what it can live without.
    fn say(&self, message: &ToProxy) {
        if let Err(error) = self.tell(message, &[]) {
            tracing::warn!(%error, "the proxy was not told");
        }
    }

    /// Jobs of an earlier loader: those that still run are known again, the
    /// others are forgotten. Labels are lost with the loader that knew them.
    fn adopt_jobs(&self) -> Result<()> {
        let tags: HashMap<u64, u64> =
            self.with_kernel(|kernel| kernel.tags())?.into_iter().map(|(id, tag)| (id, tag.id)).collect();
        for entry in fs::read_dir(&self.jobs)? {
            let path = entry?.path();
            if !path.is_dir() {
                continue;
            }
            let cgroup = crate::kernel::cgroup_id(&path)?;
            let Some(tag) = tags.get(&cgroup).copied() else { continue };
            let spec = jobs::adopted(self, &path, tag, cgroup)?;
            lock(&self.workloads).insert(tag, spec);
            lock(&self.adopted).push((tag, cgroup, path));
        }
        self.end_adopted();
        Ok(())
    }

    /// Adopted jobs have no waiting parent: an empty cgroup is their end.
    fn end_adopted(&self) {
        let mut adopted = std::mem::take(&mut *lock(&self.adopted));
        adopted.retain(|(tag, cgroup, path)| {
            let empty = fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty());
            let ended = empty && fs::remove_dir(path).is_ok();
            if ended {
                self.forget(*tag, *cgroup, None);
            }
            !ended
        });
        lock(&self.adopted).extend(adopted);
    }

    fn serve_sockets(self: &Arc<Self>) -> Result<()> {
        let group = nix::unistd::Group::from_name(&self.config.run.group)?;
        let run = Listener::bind(&self.config.run_socket())?;
        fs::set_permissions(self.config.run_socket(), fs::Permissions::from_mode(0o660))?;
        chown(self.config.run_socket(), Some(0), Some(group.map_or(0, |group| group.gid.as_raw())))?;
        let admin = Listener::bind(&self.config.admin_socket())?;
        fs::set_permissions(self.config.admin_socket(), fs::Permissions::from_mode(0o600))?;
        let daemon = Arc::clone(self);
        std::thread::spawn(move || {
            while let Ok((channel, peer)) = run.accept() {
                let daemon = Arc::clone(&daemon);
                std::thread::spawn(move || jobs::serve(&daemon, &channel, peer));
            }
        });
        let daemon = Arc::clone(self);
        std::thread::spawn(move || {
            while let Ok((channel, peer)) = admin.accept() {
                let reply = daemon.administer(&channel, peer.pid);
                let reply = reply.unwrap_or_else(|error| AdminReply {
                    ok: false,
                    message: format!("{error:#}"),
                    status: serde_json::Value::Null,
                });
                if let Err(error) = channel.send(&reply, &[]) {
                    tracing::debug!(%error, "an administrator is gone");
                }
            }
        });
        Ok(())
    }

    fn administer(&self, channel: &Channel, pid: u32) -> Result<AdminReply> {
        let (request, _) = channel.recv::<AdminRequest>()?.context("no request came")?;
        ensure!(!self.is_tagged(pid)?, "a process in a tagged cgroup has no say here");
        let fine = |message: &str| AdminReply {
            ok: true,
            message: message.to_owned(),
            status: serde_json::Value::Null,
        };
        match request {
            AdminRequest::Status => Ok(AdminReply { status: self.status()?, ..fine("") }),
            AdminRequest::Reload => {
                self.tell(&ToProxy::Reload, &[])?;
                Ok(fine(
                    "the proxy reads its policy again; `enforcer policy check` says what is wrong with it",
                ))
            }
            AdminRequest::Release => {
                self.say(&ToProxy::Released { scope: "all".to_owned(), by_uid: 0 });
                self.release.store(true, Ordering::Release);
                self.stop.store(true, Ordering::Release);
                Ok(fine("enforcement is being lifted; the service ends"))
            }
        }
    }

    fn status(&self) -> Result<serde_json::Value> {
        let health = self.with_kernel(|kernel| kernel.health())?;
        let pins: Vec<_> = health
            .links
            .iter()
            .map(|link| serde_json::json!({ "name": link.name, "problem": link.problem }))
            .collect();
        let jobs: Vec<_> = lock(&self.workloads)
            .values()
            .map(|job| serde_json::json!({ "name": job.name, "cgroup": job.cgroup_path, "uid": job.uid, "labels": job.labels }))
            .collect();
        Ok(serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "healthy": health.is_good() && lock(&self.proxy).is_some(),
            "proxy_pid": lock(&self.proxy).as_ref().map(|link| link.pid),
            "pins": pins,
            "jobs": jobs,
        }))
    }

    fn watch_signals(self: &Arc<Self>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let daemon = Arc::clone(self);
        std::thread::spawn(move || {
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let kinds = (SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup());
                let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
                    (signal(kinds.0), signal(kinds.1), signal(kinds.2))
                else {
                    return;
                };
                loop {
                    tokio::select! {
                        _ = term.recv() => break,
                        _ = int.recv() => break,
                        _ = hup.recv() => daemon.say(&ToProxy::Reload),
                    }
                }
                daemon.stop.store(true, Ordering::Release);
            });
        });
        Ok(())
    }

    /// Starts the children, again and again, until the end.
    fn supervise(self: &Arc<Self>) -> Result<()> {
        let mut pause = Duration::from_millis(100);
        while !self.stop.load(Ordering::Acquire) {
            let begun = std::time::Instant::now();
            match self.start_children() {
                Ok((signer, proxy)) => {
                    println!("enforcer: ready");
                    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
                    self.look_after(signer, proxy);
                }
                Err(error) => tracing::error!("{error:#}"),
            }
            *lock(&self.proxy) = None;
            if begun.elapsed() > Duration::from_secs(10) {
                pause = Duration::from_millis(100);
            }
            if !self.stop.load(Ordering::Acquire) {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
        Ok(())
    }

    fn forward_refusals(&self) {
        let refusals = lock(&self.kernel).as_mut().map(Kernel::poll_refusals).unwrap_or_default();
        for refusal in refusals {
            self.say(&ToProxy::Refused(Box::new(refused(refusal))));
        }
    }

    fn look_after(&self, mut signer: Child, mut proxy: Child) {
        loop {
            self.forward_refusals();
            self.end_adopted();
            let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
            let ended = gone(&mut signer) || gone(&mut proxy);
            if ended || self.stop.load(Ordering::Acquire) {
                for child in [&mut proxy, &mut signer] {
                    if let Err(error) = child.kill().and_then(|()| child.wait()) {
                        tracing::warn!(%error, "a child that does not end");
                    }
                }
                if ended {
                    tracing::error!("the proxy or the signer has ended; both are started again");
                }
                return;
            }
            std::thread::sleep(TICK);
        }
    }

    fn start_children(self: &Arc<Self>) -> Result<(Child, Child)> {
        let user = nix::unistd::User::from_name(&self.config.proxy.user)?.with_context(|| {
            let user = &self.config.proxy.user;
            format!("there is no user `{user}`: useradd --system --no-create-home {user}")
        })?;
        let recording = &self.config.recording.dir;
        fs::create_dir_all(recording)?;
        fs::set_permissions(recording, fs::Permissions::from_mode(0o700))?;
        chown(recording, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let (to_signer, signer_end) = UnixStream::pair()?;
        let (ours, theirs) = Channel::pair()?;
        let mut keys = memory_file("keys")?;
        keys.write_all(self.ca.certificate_pem().as_bytes())?;
        keys.write_all(self.ca.key_pem().as_bytes())?;
        keys.rewind()?;
        let signer = child(&user, "signer", &[signer_end.as_raw_fd(), keys.as_raw_fd()])?;
        let proxy = child(&user, "proxy", &[theirs.as_fd().as_raw_fd()])?;
        drop((signer_end, keys, theirs));
        ours.send(&ToProxy::Setup(Box::new(self.setup()?)), &[to_signer.as_fd()])?;
        let listeners = self.with_kernel(|kernel| kernel.open_listeners(None))?;
        let netns = listeners.netns;
        let fds: [OwnedFd; 4] = listeners.into_fds()?;
        ours.send(&ToProxy::Listeners { netns }, &fds.each_ref().map(AsFd::as_fd))?;
        drop(fds);
        let reader = ours.try_clone()?;
        let (ready, begun) = mpsc::channel();
        let daemon = Arc::clone(self);
        std::thread::spawn(move || daemon.listen_to(&reader, &ready));
        let link = Link { channel: ours, pid: proxy.id() };
        *lock(&self.proxy) = Some(link);
        begun.recv_timeout(BEGIN).context("the proxy did not begin; its messages are above")?;
        let known: Vec<WorkloadSpec> = lock(&self.workloads).values().cloned().collect();
        for spec in known {
            self.say(&ToProxy::Workload(Box::new(spec)));
        }
        Ok((signer, proxy))
    }

    fn listen_to(&self, channel: &Channel, ready: &mpsc::Sender<()>) {
        while let Ok(Some((message, _))) = channel.recv::<FromProxy>() {
            let (tag, answer) = match message {
                FromProxy::Ready => {
                    ready.send(()).ok();
                    continue;
                }
                FromProxy::Reloaded { message } => {
                    match message {
                        None => tracing::info!("the policy was read again"),
                        Some(message) => tracing::error!("the last good policy stays: {message}"),
                    }
                    continue;
                }
                FromProxy::WorkloadReady { tag } => (tag, Ok(())),
                FromProxy::WorkloadFailed { tag, message } => (tag, Err(message)),
            };
            if let Some(waiting) = lock(&self.waiting).get(&tag) {
                waiting.send(answer).ok();
            }
        }
    }

    fn setup(&self) -> Result<Setup> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Setup {
            host_id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            policy_dir: self.config.policy.dir.clone(),
            recording_dir: self.config.recording.dir.clone(),
            body_limit: self.config.recording.body_limit,
            ca_pem: self.ca.certificate_pem().to_owned(),
            upstream_ca: self.config.upstream.ca_file.clone(),
            static_names: self.config.dns.names.clone(),
            secrets: registered(&self.config.mask.secrets_dir)?,
            workers: if self.config.proxy.workers == 0 { workers } else { self.config.proxy.workers },
        })
    }

    /// A host as it was: no link, pin, map, cgroup or mount.
    fn lift(&self, own: &Path, before: &Path) -> Result<()> {
        if let Some(kernel) = lock(&self.kernel).take() {
            kernel.release()?;
        }
        fs::write(before.join("cgroup.procs"), "0").context("leaving the enforcer's own cgroup")?;
        for job in fs::read_dir(&self.jobs)?.flatten().filter(|entry| entry.path().is_dir()) {
            // One with somebody in it stays.
            fs::remove_dir(job.path()).ok();
        }
        for path in [own, &self.jobs] {
            if let Err(error) = fs::remove_dir(path) {
                tracing::warn!(%error, cgroup = %path.display(), "it stays: jobs still run in it, without enforcement");
            }
        }
        fs::remove_dir_all(&self.config.run.dir)?;
        Ok(())
    }
}

/// The files of the folder: the name is the entity, the content the value.
fn registered(dir: &Path) -> Result<Vec<SecretValue>> {
    let mut values = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return Ok(values) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let value = fs::read_to_string(entry.path())?.trim().to_owned();
            let entity = entry.file_name().to_string_lossy().into_owned();
            values.push(SecretValue { entity, value: SecretText::new(value) });
        }
    }
    Ok(values)
}

/// A child of this program under another user, without any privilege, that ends
/// with its parent; its descriptors are 10 and so on.
fn child(user: &nix::unistd::User, verb: &str, fds: &[RawFd]) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(verb).env_clear();
    for name in ["RUST_LOG", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    pass(&mut command, fds.iter().copied().zip(10..).collect());
    let (uid, gid) = (user.uid, user.gid);
    let parent = nix::unistd::getpid();
    let locks_memory = verb == "signer";
    sys::before_exec(&mut command, move || {
        if locks_memory {
            // Without the right to raise it, what is allowed already has to do; the
            // signer says so if it does not.
            let all = nix::libc::RLIM_INFINITY;
            let _refused =
                nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK, all, all)
                    .is_err();
        }
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        nix::sys::prctl::set_no_new_privs()?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The parent may have died before that took effect.
        if nix::unistd::getppid() != parent {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        }
        Ok(())
    });
    command.spawn().with_context(|| format!("starting the {verb}"))
}

fn refused(refusal: Refusal) -> Refused {
    Refused {
        at_unix_ms: refusal.at_unix_ms,
        tag: refusal.tag,
        pid: refusal.pid,
        comm: refusal.comm,
        hook: refusal.hook.to_owned(),
        reason: refusal.reason.to_owned(),
        family: refusal.family,
        protocol: refusal.protocol,
        destination: refusal.destination,
        detail: refusal.detail,
        suppressed: refusal.suppressed,
    }
}
