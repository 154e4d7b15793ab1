//! The signer and the proxy: started together, stopped together, started again.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::kernel::netns_cookie;
use crate::mask::Custom;
use crate::net::ipc::Channel;
use crate::net::sys;
use crate::policy::Kept;
use crate::secret::SecretText;
use crate::workload::wire::{FromProxy, InForce, LayersSetup, SecretValue, Setup, ToProxy, WorkloadSpec};

use super::daemon::{Daemon, Link, lock};
use super::pause::Pause;

/// This very program: in a folder that the children's user may not enter it is
/// found all the same, and after an upgrade it is still the one that runs.
pub(super) const PROGRAM: &str = "/proc/self/exe";
/// How often the loader looks after its children.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How long a proxy may take to begin: one that is slow because the machine is busy is not there
/// sooner for being started anew.
const BEGIN: Duration = Duration::from_mins(1);
/// How long it may take to take a message; after that it is started again.
const TAKES: Duration = Duration::from_secs(2);
/// How long a proxy may take to end, before it is killed.
const END: Duration = Duration::from_secs(3);
/// The same for one whose signer has died: nobody gets a new connection until it is gone.
const CUT: Duration = Duration::from_millis(300);

impl Daemon {
    /// Starts the children, again and again, until the end.
    pub(super) fn supervise(self: &Arc<Self>) {
        let mut pause = Pause::default();
        while !self.stop.load(Ordering::Acquire) {
            let wait = match self.start_children() {
                Ok((signer, proxy)) => {
                    let begun = Instant::now();
                    // A reader that is gone, or a full disk, is no reason to end.
                    if let Err(error) = writeln!(std::io::stdout(), "enforcer: ready") {
                        tracing::debug!(%error, "nobody is told");
                    }
                    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
                    self.look_after(signer, proxy);
                    pause.after_death(begun.elapsed())
                }
                Err(error) => {
                    tracing::error!("{error:#}");
                    pause.after_failure()
                }
            };
            *lock(&self.proxy) = None;
            self.nobody_answers();
            self.serve_nobody();
            self.pause_for(wait);
        }
    }

    /// Waits before another attempt, unless the service is to end.
    pub(super) fn pause_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.stop.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    fn look_after(&self, mut signer: Child, mut proxy: Child) {
        let ends: Vec<OwnedFd> = [&signer, &proxy].into_iter().filter_map(end_of).collect();
        loop {
            self.end_adopted();
            self.end_lifted();
            let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
            let stuck = self.stuck.load(Ordering::Acquire);
            let ended = gone(&mut signer) || gone(&mut proxy);
            let stop = self.stop.load(Ordering::Acquire);
            if ended || stuck || stop {
                self.before_the_end(&mut proxy, stop);
                self.end_proxy(&mut proxy, if stop { END } else { CUT });
                end([&mut proxy, &mut signer]);
                if stuck {
                    tracing::error!(
                        "the proxy took no message for {} s; it is started again",
                        TAKES.as_secs()
                    );
                } else if ended {
                    tracing::error!("the proxy or the signer has ended; both are started again");
                }
                return;
            }
            wait_for_any(&ends, TICK);
        }
    }

    /// A proxy that is ended on purpose leaves its listeners to the next one. What a dead
    /// one had is closed: connections are refused until there is another.
    fn before_the_end(&self, proxy: &mut Child, stop: bool) {
        if self.release.load(Ordering::Acquire) || !matches!(proxy.try_wait(), Ok(None)) {
            return;
        }
        if stop {
            self.hand_on_listeners(proxy.id());
        } else {
            self.keep_listeners(proxy.id());
        }
    }

    /// The end of its control link is what a proxy drains for: open statements come
    /// to their end, within the deadline, and sessions are closed.
    fn end_proxy(&self, proxy: &mut Child, patience: Duration) {
        if let Some(link) = lock(&self.proxy).take() {
            link.channel.shut();
        }
        ended_within(proxy, patience);
    }

    pub(super) fn proxy_user(&self) -> Result<nix::unistd::User> {
        user(&self.config.proxy.user)
    }

    fn start_children(self: &Arc<Self>) -> Result<(Child, Child)> {
        let user = self.proxy_user()?;
        let approvals = self.config.approvals.as_ref().map(|approvals| &approvals.dir);
        for dir in approvals.into_iter().chain([&self.config.recording.dir]) {
            fs::create_dir_all(dir)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        let (to_signer, signer_end) = UnixStream::pair()?;
        let (ours, theirs) = Channel::pair()?;
        ours.set_patience_to_send(TAKES)?;
        self.stuck.store(false, Ordering::Release);
        let mut keys = memory_file("keys")?;
        keys.write_all(self.ca.certificate_pem().as_bytes())?;
        keys.write_all(self.ca.key_pem().as_bytes())?;
        keys.rewind()?;
        let mut signer = child(&user, "signer", &[signer_end.as_raw_fd(), keys.as_raw_fd()])?;
        let mut proxy =
            child(&user, "proxy", &[theirs.as_fd().as_raw_fd()]).inspect_err(|_| end([&mut signer]))?;
        drop((signer_end, keys, theirs));
        let begun = self.begin(ours, to_signer, [&proxy, &signer]);
        if let Err(error) = begun {
            // Nothing of a beginning that failed is left: it may hold the ports.
            *lock(&self.proxy) = None;
            end([&mut proxy, &mut signer]);
            return Err(error);
        }
        Ok((signer, proxy))
    }

    /// Gives the children what they need, and waits until they have begun.
    fn begin(
        self: &Arc<Self>,
        ours: Channel,
        to_signer: UnixStream,
        [proxy, signer]: [&Child; 2],
    ) -> Result<()> {
        let kept = self.kept_policy().context("the last good policy")?;
        let spent = file_of("tokens", &lock(&self.tokens).spent(now())).context("the tokens")?;
        let fds = [to_signer.as_fd(), spent.as_fd()].into_iter().chain(kept.as_ref().map(AsFd::as_fd));
        let fds: Vec<_> = fds.collect();
        ours.send(&ToProxy::Setup(Box::new(self.setup()?)), &fds)?;
        let here = netns_cookie(&File::open("/proc/self/ns/net")?)?;
        // Open from here on, and served last: what comes meanwhile waits. What is held
        // already is taken last, since its time is counted until then.
        let opened = if self.holds_listeners() { None } else { Some(self.listeners(here, None)?) };
        let reader = ours.try_clone()?;
        let (ready, begun) = mpsc::channel();
        let daemon = Arc::clone(self);
        std::thread::spawn(move || daemon.listen_to(&reader, &ready));
        let link = Link { channel: ours, proxy: proxy.id(), signer: signer.id() };
        *lock(&self.proxy) = Some(link);
        begun.recv_timeout(BEGIN).context("the proxy did not begin; its messages are above")?;
        let known: Vec<WorkloadSpec> = lock(&self.workloads).values().cloned().collect();
        for spec in known {
            self.say(&ToProxy::Workload { id: 0, spec: Box::new(spec) });
        }
        for (tag, kept) in lock(&self.identities).clone() {
            self.say(&ToProxy::Identity { tag, kept });
        }
        let listeners = opened.map_or_else(|| self.listeners(here, None), Ok)?;
        let netns = listeners.netns;
        let fds: [OwnedFd; 4] = listeners.into_fds()?;
        // A job that runs on would be refused by a proxy that does not know it yet.
        self.tell(&ToProxy::Listeners { netns }, &fds.each_ref().map(AsFd::as_fd))
            .context("the proxy did not take the listeners")?;
        self.serve_again(netns)?;
        self.drop_held();
        Ok(())
    }

    fn listen_to(&self, channel: &Channel, ready: &mpsc::Sender<()>) {
        while let Ok(Some((message, _))) = channel.recv::<FromProxy>() {
            match message {
                FromProxy::Ready { policy } => {
                    policy.iter().for_each(|policy| self.keep_policy(policy));
                    ready.send(()).ok();
                }
                FromProxy::Reloaded { policy: Ok(policy) } => {
                    tracing::info!("the policy was read again");
                    if let Some(problem) = &policy.problem {
                        tracing::error!("the policy: {problem}");
                    }
                    self.keep_policy(&policy);
                }
                FromProxy::Reloaded { policy: Err(message) } => {
                    tracing::error!("the policy that was in force stays: {message}");
                }
                FromProxy::Bound { tag, kept, spent } => {
                    lock(&self.tokens).know(&spent, now());
                    // Held, so that one that ends meanwhile leaves nothing behind.
                    let workloads = lock(&self.workloads);
                    let mut identities = lock(&self.identities);
                    match kept.filter(|_| workloads.contains_key(&tag)) {
                        Some(kept) => drop(identities.insert(tag, kept)),
                        None => drop(identities.remove(&tag)),
                    }
                }
                FromProxy::Answer { id, answer } => {
                    let failed = answer.as_ref().err().cloned();
                    if !self.answered(id, answer)
                        && let Some(message) = failed
                    {
                        tracing::error!("the proxy: {message}");
                    }
                }
            }
        }
    }

    /// The files of the policy that is in force, for a proxy that begins when they have an
    /// error. They are read here, so that no proxy says what the next one obeys.
    fn keep_policy(&self, loaded: &InForce) {
        let (dir, layers) = (&self.config.policy.dir, self.config.policy.layers.as_deref());
        let before = lock(&self.policy).clone();
        match Kept::read(dir, layers, &loaded.broken, before.as_ref()) {
            Ok(files) if files.hash().as_str() == loaded.policy => *lock(&self.policy) = Some(files),
            // They are read again, and this is told again.
            Ok(_) => tracing::debug!("the policy has changed since it was read"),
            Err(error) => tracing::debug!(%error, "the policy has changed since it was read"),
        }
    }

    fn kept_policy(&self) -> Result<Option<File>> {
        let Some(files) = lock(&self.policy).clone() else { return Ok(None) };
        file_of("policy", &files).map(Some)
    }

    fn setup(&self) -> Result<Setup> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let detectors = super::detectors::files(&self.config.mask.detectors_dir)?;
        // Whoever starts the service is told, and not its log.
        Custom::load(&detectors)?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Setup {
            host_id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            policy_dir: self.config.policy.dir.clone(),
            layers: self.config.policy.layers.clone().map(|dir| {
                let assurance = self.config.policy.layers_assurance;
                LayersSetup { dir, assurance }
            }),
            recording_dir: self.config.recording.dir.clone(),
            body_limit: self.config.recording.body_limit,
            ca_pem: self.ca.certificate_pem().to_owned(),
            upstream_ca: self.config.upstream.ca_file.clone(),
            static_names: self.config.dns.names.clone(),
            identity: self.config.identity.clone(),
            approvals: serde_json::to_value(&self.config.approvals)?,
            webhooks: super::webhooks::secrets(self.config.approvals.as_ref()),
            forges: super::webhooks::tokens(self.config.approvals.as_ref()),
            host: read("/proc/sys/kernel/hostname"),
            site: super::webhooks::site(&self.config),
            page: self.config.web.as_ref().map(|web| web.listen),
            tcp_port: self.config.listen.tcp_port,
            limits: serde_json::to_value(&self.config.limits)?,
            secrets: registered(&self.config.mask.secrets_dir)?,
            detectors,
            surrogate_key: super::surrogates::key(&self.config.mask.surrogate_key_file)?,
            workers: if self.config.proxy.workers == 0 { workers } else { self.config.proxy.workers },
        })
    }
}

/// For a child that begins.
fn file_of(name: &str, value: &impl serde::Serialize) -> Result<File> {
    let mut file = memory_file(name)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.rewind()?;
    Ok(file)
}

/// In seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The user that the children run as.
pub(super) fn user(name: &str) -> Result<nix::unistd::User> {
    let user = nix::unistd::User::from_name(name)?;
    user.with_context(|| {
        format!("there is no user `{name}`: useradd --system --user-group --no-create-home {name}")
    })
}

pub(super) fn end<const N: usize>(children: [&mut Child; N]) {
    for child in children {
        if let Err(error) = child.kill().and_then(|()| child.wait()) {
            tracing::warn!(%error, "a child that does not end");
        }
    }
}

/// Waits for the end of a child, but not longer than that; whether it came.
fn ended_within(child: &mut Child, longest: Duration) -> bool {
    let ends: Vec<OwnedFd> = end_of(child).into_iter().collect();
    let until = Instant::now() + longest;
    while matches!(child.try_wait(), Ok(None)) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        wait_for_any(&ends, left.min(TICK));
    }
    true
}

/// What becomes readable when a child ends.
fn end_of(child: &Child) -> Option<OwnedFd> {
    let opened = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    opened.inspect_err(|error| tracing::warn!(%error, "the end of a child is noticed late")).ok()
}

/// Waits until one of them is readable, but not longer than that.
fn wait_for_any(fds: &[OwnedFd], longest: Duration) {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::ZERO);
    if fds.is_empty() || poll(&mut polled, timeout).is_err() {
        std::thread::sleep(longest);
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

/// Whether a process goes on when its parent has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lives {
    WithItsParent,
    On,
}

/// A child that ends with its parent.
fn child(user: &nix::unistd::User, verb: &str, fds: &[RawFd]) -> Result<Child> {
    let started = command(user, verb, Lives::WithItsParent, fds).spawn();
    started.with_context(|| format!("starting the {verb}"))
}

/// This program under another user, without any privilege; its descriptors are 10 and so on.
pub(super) fn command(user: &nix::unistd::User, verb: &str, lives: Lives, fds: &[RawFd]) -> Command {
    let mut command = Command::new(PROGRAM);
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
        let mut capability = 0;
        while sys::drop_bounding(capability)? {
            capability += 1;
        }
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        nix::sys::prctl::set_no_new_privs()?;
        if lives == Lives::On {
            return Ok(());
        }
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The parent may have died before that took effect.
        if nix::unistd::getppid() != parent {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        }
        Ok(())
    });
    command
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
