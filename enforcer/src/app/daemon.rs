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
//! **Invariant**: while no proxy runs nobody holds a listening socket, where a connection
//! would hang in the backlog instead of being refused; but between two proxies of which
//! one follows the other as planned, for `[listen] hold_ms` at most (see [`super::hold`]).

use std::collections::HashMap;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::stat::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kernel::{Kernel, KernelConfig, Refusals, TierState, cgroup2_mount};
use crate::launch::sockets::Hiding;
use crate::net::ipc::Channel;
use crate::policy::Kept;
use crate::tls::ca::Ca;
use crate::workload::identity::replay::Replay;
use crate::workload::wire::{RefusedTo, ToProxy, WorkloadSpec};

use super::children::{self, TICK};
use super::config::Config;
use super::containers::{self, Containers};
use super::hold::{self, Hold};
use super::namespaces::Table;
use super::release::Lifted;
use super::scopes::{self, Scopes};
use super::trust::Trust;
use super::{jobs, release, sockets, web};

/// How long the proxy may take to answer a question of an administrator.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Where `enforcer approvals login` keeps what is root's.
const LOGINS_OF_ROOT: &str = "/root/.local/state/enforcer";
/// How long it may take to answer what a job's end waits for.
const SOON: Duration = Duration::from_secs(2);

/// The loader's state, shared by its threads.
pub struct Daemon {
    pub(super) config: Config,
    mount: PathBuf,
    jobs: PathBuf,
    trust: Trust,
    pub(super) ca: Ca,
    pub(super) containers: Containers,
    pub(super) kernel: Mutex<Option<Kernel>>,
    /// Read by one at a time: by the thread that waits for them, and at a job's end.
    pub(super) refusals: Mutex<Refusals>,
    pub(super) namespaces: Mutex<Table>,
    pub(super) hold: Arc<Mutex<Hold>>,
    pub(super) proxy: Mutex<Option<Link>>,
    pub(super) workloads: Mutex<HashMap<u64, WorkloadSpec>>,
    /// Who workloads are, by tag, as their proxy wrote it down for the next one.
    pub(super) identities: Mutex<HashMap<u64, String>>,
    /// Tokens that jobs presented: those of jobs that have ended are not for others either.
    pub(super) tokens: Mutex<Replay>,
    /// Names and texts of the last policy that was in force.
    pub(super) policy: Mutex<Option<Kept>>,
    adopted: Mutex<Vec<(u64, u64, PathBuf)>>,
    /// What somebody changed of what is attached, until an operator has looked at it.
    pub(super) changed: Mutex<Option<String>>,
    /// Workloads whose enforcement is lifted for a while, by tag.
    pub(super) lifted: Mutex<HashMap<u64, Lifted>>,
    pub(super) scopes: Mutex<Scopes>,
    /// Somebody is to be swept, or has been.
    pub(super) swept: Condvar,
    /// Who waits for which answer of the proxy.
    waiting: Mutex<HashMap<u64, mpsc::Sender<Answer>>>,
    questions: AtomicU64,
    /// The newest tag.
    newest: AtomicU64,
    /// The proxy does not take messages any more.
    pub(super) stuck: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) release: AtomicBool,
}

/// What the proxy said to a question, or why it failed.
pub(super) type Answer = Result<serde_json::Value, String>;

/// The running children.
pub(super) struct Link {
    pub channel: Channel,
    pub proxy: u32,
    pub signer: u32,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the service until it is told to stop.
pub fn run(config: Config) -> Result<()> {
    ensure!(nix::unistd::Uid::effective().is_root(), "the service needs root: sudo enforcer daemon");
    // First of all: until they are taken from systemd nobody counts their time.
    let stored = hold::stored();
    as_many_descriptors_as_allowed().context("the limit of descriptors")?;
    // It has the CA's key and passes secrets of jobs on.
    crate::secret::process::close_to_others().context("closing the process to others")?;
    // Whatever ours is: others must not write where the sockets and the roots are.
    nix::sys::stat::umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let mount = cgroup2_mount()?;
    let place = |path: &Path| mount.join(path.strip_prefix("/").unwrap_or(path));
    let (attach, own, jobs) =
        (place(&config.cgroup.attach), place(&config.cgroup.own), place(&config.cgroup.jobs));
    can_work(&config, [&attach, &own, &jobs])?;
    let made = Made::of([&own, &jobs, &config.run.dir], &config.kernel.pins);
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    fs::create_dir_all(&jobs).with_context(|| format!("making {}", jobs.display()))?;
    let before = own_cgroup(&mount)?;
    fs::write(own.join("cgroup.procs"), "0").context("moving to the enforcer's own cgroup")?;
    fs::create_dir_all(&config.run.dir)?;
    let scopes = Scopes::new(attach.clone(), own.clone(), jobs.clone());
    let mut kernel = load(&config, attach, &own, &jobs).inspect_err(|_| made.undo(&before))?;
    // After the lock on the pins, which a second loader does not get.
    let ca = Ca::load_or_create(&config.ca.dir)?;
    let trust = Trust::build(&config.run.dir.join("trust"), ca.certificate_pem())?;
    let daemon = Arc::new(Daemon {
        mount,
        jobs,
        trust,
        ca,
        containers: Containers::new(),
        refusals: Mutex::new(kernel.refusals().context("somebody else reads the refusals")?),
        kernel: Mutex::new(Some(kernel)),
        namespaces: Mutex::default(),
        hold: Arc::default(),
        proxy: Mutex::default(),
        workloads: Mutex::default(),
        identities: Mutex::default(),
        tokens: Mutex::default(),
        policy: Mutex::default(),
        adopted: Mutex::default(),
        changed: Mutex::default(),
        lifted: Mutex::default(),
        scopes: Mutex::new(scopes),
        swept: Condvar::new(),
        waiting: Mutex::default(),
        questions: AtomicU64::new(0),
        newest: AtomicU64::new(0),
        stuck: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        release: AtomicBool::new(false),
        config,
    });
    daemon.adopt_jobs()?;
    scopes::serve(&daemon)?;
    containers::serve(&daemon)?;
    daemon.inherit(stored)?;
    sockets::serve(&daemon)?;
    daemon.watch_signals().context("signals")?;
    daemon.pass_on_program_log();
    daemon.watch_namespaces().context("waiting for refusals")?;
    daemon.watch_pins();
    web::supervise(&daemon).context("the web page")?;
    daemon.supervise();
    if daemon.release.load(Ordering::Acquire) { daemon.lift_all(&before) } else { Ok(()) }
}

/// What no waiting would put right is said before anything is made.
fn can_work(config: &Config, [attach, own, jobs]: [&Path; 3]) -> Result<()> {
    ensure!(
        jobs.starts_with(attach) && jobs != attach,
        "`jobs` of [cgroup] is {}, which is not below `attach`, {}: no job would be enforced",
        config.cgroup.jobs.display(),
        config.cgroup.attach.display()
    );
    ensure!(
        !jobs.starts_with(own) && !own.starts_with(jobs),
        "`jobs` and `own` of [cgroup], {} and {}, are one within the other: jobs are enforced, the service is not",
        config.cgroup.jobs.display(),
        config.cgroup.own.display()
    );
    children::user(&config.proxy.user)?;
    let object = config.object();
    ensure!(
        object.is_file(),
        "the kernel half is not at {}: install the package, build it (`cargo xtask ebpf`), or name it in `object` \
         of [kernel]",
        object.display()
    );
    Ok(())
}

/// What was not there before.
struct Made {
    /// Cgroups and folders.
    folders: Vec<PathBuf>,
    pins: Option<PathBuf>,
}

impl Made {
    fn of(folders: [&Path; 3], pins: &Path) -> Self {
        let missing = |path: &Path| -> Vec<PathBuf> {
            path.ancestors().take_while(|it| !it.exists()).map(Path::to_path_buf).collect()
        };
        let pins = (!pins.exists()).then(|| pins.to_path_buf());
        Self { folders: folders.into_iter().flat_map(missing).collect(), pins }
    }

    /// A start that failed leaves nothing behind.
    fn undo(&self, before: &Path) {
        if let Some(error) = self.pins.as_ref().and_then(|pins| crate::kernel::release(pins).err()) {
            tracing::warn!(%error, "`enforcer release --all` removes what is pinned");
        }
        if let Err(error) = fs::write(before.join("cgroup.procs"), "0") {
            tracing::debug!(%error, "the service ends where it is");
        }
        for path in &self.folders {
            if let Err(error) = fs::remove_dir(path) {
                tracing::debug!(%error, path = %path.display(), "it stays");
            }
        }
    }
}

fn load(config: &Config, attach: PathBuf, own: &Path, jobs: &Path) -> Result<Kernel> {
    let mut lsm = config.kernel.lsm();
    // Jobs say there who they are.
    lsm.unix_allow.push(config.job_socket().display().to_string());
    let kernel = Kernel::load_or_adopt(KernelConfig {
        object: config.object(),
        pins: config.kernel.pins.clone(),
        attach,
        own: own.to_owned(),
        jobs: jobs.to_owned(),
        tcp_port: config.listen.tcp_port,
        dns_port: config.listen.dns_port,
        lsm,
        tc: config.kernel.tc,
    })?;
    for tier in kernel.tiers() {
        if let TierState::Unavailable { why } = tier.state {
            tracing::warn!(tier = tier.name, why, "a part of the enforcement cannot be had");
        }
    }
    Ok(kernel)
}

/// A job takes some, and a shell gives a thousand at first. Jobs have their callers' limit.
fn as_many_descriptors_as_allowed() -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

fn own_cgroup(mount: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2")?;
    Ok(mount.join(path))
}

impl Daemon {
    /// At the end: nothing of enforcement is left, and this process is where it was before.
    fn lift_all(&self, before: &Path) -> Result<()> {
        if let Some(kernel) = lock(&self.kernel).take() {
            kernel.release()?;
        }
        fs::write(before.join("cgroup.procs"), "0").context("leaving the enforcer's own cgroup")?;
        release::clear(&self.mount, &self.config)
    }

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

    pub(super) fn with_kernel<T>(
        &self,
        act: impl FnOnce(&mut Kernel) -> Result<T, crate::kernel::KernelError>,
    ) -> Result<T> {
        let mut kernel = lock(&self.kernel);
        let kernel = kernel.as_mut().context("enforcement has been lifted")?;
        Ok(act(kernel)?)
    }

    /// What a job that is root must not reach: pins, the CA's key, recordings, the
    /// values that are masked, and the logins of those who decide as root.
    pub fn hidden(&self) -> Vec<PathBuf> {
        let config = &self.config;
        let pins = config.kernel.pins.parent().map(Path::to_path_buf);
        let ours =
            [&config.ca.dir, &config.recording.dir, &config.mask.secrets_dir, &config.cgroup.scopes_dir];
        let approvals = config.approvals.as_ref().map(|approvals| approvals.dir.clone());
        let logins = PathBuf::from(LOGINS_OF_ROOT);
        pins.into_iter().chain(approvals).chain(ours.map(PathBuf::clone)).chain([logins]).collect()
    }

    /// How the host's sockets are hidden from a job that asks for these.
    pub fn hiding(&self, asked: &[PathBuf]) -> Option<Hiding> {
        let run = &self.config.run;
        let expose = run.expose.iter().chain(asked).cloned().collect();
        run.hide_sockets.then(|| Hiding { expose, own: run.dir.clone() })
    }

    /// What a job that is root must not change: its policy, and what it trusts.
    pub fn read_only(&self) -> Vec<PathBuf> {
        let policy = &self.config.policy;
        let dirs = [Some(&policy.dir), policy.layers.as_ref(), Some(&self.config.run.dir)];
        dirs.into_iter().flatten().cloned().collect()
    }

    /// A tag that was never used: the time, unless the clock was set back.
    pub fn new_tag(&self, now: Duration) -> u64 {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let next = |newest: u64| newest.saturating_add(1).max(now);
        self.newest
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |newest| Some(next(newest)))
            .map_or(now, next)
    }

    pub fn tag(&self, path: &Path, tag: u64) -> Result<u64> {
        let cgroup = self.with_kernel(|kernel| kernel.tag(path, tag, 0))?;
        self.containers.watch(path);
        Ok(cgroup)
    }

    /// Tells the proxy of a workload and waits until it knows it.
    pub fn register(&self, spec: WorkloadSpec, patience: Duration) -> Result<()> {
        lock(&self.workloads).insert(spec.tag, spec.clone());
        let told = self.ask(patience, |id| ToProxy::Workload { id, spec: Box::new(spec) });
        told.map(|_| ()).context("the proxy does not take the job")
    }

    /// The cgroup of a process.
    pub(super) fn cgroup_of(&self, pid: u32) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        Some(self.mount.join(path))
    }

    /// Asks the proxy something and waits for its answer.
    pub(super) fn ask(
        &self,
        patience: Duration,
        question: impl FnOnce(u64) -> ToProxy,
    ) -> Result<serde_json::Value> {
        let (told, tell) = mpsc::channel();
        let id = self.questions.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.waiting).insert(id, told);
        let sent = self.tell(&question(id), &[]);
        let answer = sent.map(|()| tell.recv_timeout(patience));
        lock(&self.waiting).remove(&id);
        match answer? {
            Ok(answer) => answer.map_err(|message| anyhow!(message)),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the proxy ended before it answered"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the proxy did not answer within {} s", patience.as_secs())
            }
        }
    }

    /// Whoever still waits for the proxy that has ended waits no longer.
    pub(super) fn nobody_answers(&self) {
        lock(&self.waiting).clear();
    }

    /// Passes an answer of the proxy on; false if nobody waits for it.
    pub(super) fn answered(&self, id: u64, answer: Answer) -> bool {
        lock(&self.waiting).get(&id).is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// What the proxy says of itself.
    pub(super) fn ask_status(&self) -> Result<serde_json::Value> {
        self.ask(ANSWER, |id| ToProxy::Status { id })
    }

    /// How often the rules in force had a say.
    pub(super) fn ask_hits(&self) -> Result<serde_json::Value> {
        self.ask(ANSWER, |id| ToProxy::Hits { id })
    }

    /// Where a workload was not let go so far, as far as anybody knows.
    pub(super) fn refused_to(&self, tag: u64) -> RefusedTo {
        self.forward_refusals();
        let told = self.ask(SOON, |id| ToProxy::RefusedTo { id, tag });
        told.and_then(|told| Ok(serde_json::from_value(told)?)).unwrap_or_else(|error| {
            tracing::debug!("what a job was refused is not told: {error:#}");
            RefusedTo::default()
        })
    }

    /// A job has ended.
    pub fn forget(&self, tag: u64, cgroup: u64, exit_code: Option<i32>) {
        self.leave(tag);
        if let Err(error) = self.with_kernel(|kernel| kernel.untag(cgroup)) {
            tracing::warn!(%error, "the tag of a job that has ended");
        }
        self.say(&ToProxy::WorkloadEnded { tag, exit_code });
    }

    /// The cgroup that had this tag has another by now.
    pub(super) fn end_workload(&self, tag: u64) {
        self.leave(tag);
        self.say(&ToProxy::WorkloadEnded { tag, exit_code: None });
    }

    fn leave(&self, tag: u64) {
        // What the kernel refused it stands in the workload's own session.
        self.forward_refusals();
        lock(&self.workloads).remove(&tag);
        lock(&self.identities).remove(&tag);
        self.forget_lifted(tag);
    }

    pub(super) fn tell(&self, message: &ToProxy, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let link = lock(&self.proxy);
        let link = link.as_ref().context("no proxy runs")?;
        link.channel.send(message, fds).map_err(|error| {
            if error.kind() == std::io::ErrorKind::WouldBlock {
                self.stuck.store(true, Ordering::Release);
            }
            error.into()
        })
    }

    /// Tells the proxy what it can live without.
    pub(super) fn say(&self, message: &ToProxy) {
        if let Err(error) = self.tell(message, &[]) {
            tracing::warn!(%error, "the proxy was not told");
        }
    }

    /// Jobs of an earlier loader: those that still run are known again, the
    /// others are forgotten. Labels are lost with the loader that knew them.
    fn adopt_jobs(&self) -> Result<()> {
        let tags: HashMap<u64, u64> =
            self.with_kernel(|kernel| kernel.tags())?.into_iter().map(|(id, tag)| (id, tag.id)).collect();
        self.newest.store(tags.values().copied().max().unwrap_or(0), Ordering::Release);
        for entry in fs::read_dir(&self.jobs)? {
            let path = entry?.path();
            if !path.is_dir() {
                continue;
            }
            let cgroup = crate::kernel::cgroup_id(&path)?;
            let lifted = self.lifted_before(&path);
            let Some(tag) = tags.get(&cgroup).copied().or(lifted) else { continue };
            let spec = jobs::adopted(self, &path, tag, cgroup)?;
            lock(&self.workloads).insert(tag, spec);
            self.containers.watch(&path);
            lock(&self.adopted).push((tag, cgroup, path));
        }
        self.end_adopted();
        Ok(())
    }

    /// Has a job that is not gone when its time is over looked after like an adopted one.
    pub(super) fn end_later(&self, tag: u64, cgroup: u64, path: PathBuf) {
        lock(&self.adopted).push((tag, cgroup, path));
    }

    /// Adopted jobs have no waiting parent: an empty cgroup is their end.
    pub(super) fn end_adopted(&self) {
        let mut adopted = std::mem::take(&mut *lock(&self.adopted));
        adopted.retain(|(tag, cgroup, path)| {
            let empty = fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty());
            let gone = |removed: std::io::Result<()>| match removed {
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
                Ok(()) => true,
            };
            let ended = !path.exists() || empty && gone(jobs::remove_cgroup(path));
            if ended {
                self.forget(*tag, *cgroup, None);
            }
            !ended
        });
        lock(&self.adopted).extend(adopted);
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
                        _ = hup.recv() => daemon.reload_and_log(),
                    }
                }
                daemon.stop.store(true, Ordering::Release);
            });
        });
        Ok(())
    }

    /// A debug build of the kernel half logs: its lines come to our log, by a
    /// thread that holds up nobody else.
    fn pass_on_program_log(self: &Arc<Self>) {
        let Some(mut log) = lock(&self.kernel).as_mut().and_then(Kernel::program_log) else { return };
        tracing::warn!(
            "the kernel half is a debug build: RUST_LOG=enforcer_ebpf=debug shows what it decides"
        );
        let daemon = Arc::clone(self);
        std::thread::spawn(move || {
            while !daemon.stop.load(Ordering::Acquire) {
                if let Err(error) = log.wait(TICK) {
                    return tracing::warn!(%error, "the log of the programs ends");
                }
            }
        });
    }
}
