//! Lifting enforcement on purpose: of one scope or of all, for a while or for good.
//!
//! ```text
//!   enforced --release SCOPE [--for]--> lifted --the time is over--> enforced
//!      |                                  |
//!      +--release --all--> nothing        +--its processes have ended--> gone
//! ```
//!
//! What is lifted for a while stands in a file too: a loader that starts in between
//! takes it up, and what was to come back comes back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::mask::Masker;
use crate::session::{Event, Outcome, Recording, RecordingOptions, SessionHeader, SessionKind};
use crate::workload::wire::{ToProxy, WorkloadSpec};

use super::config::Config;
use super::daemon::{Daemon, lock};
use super::scopes::LABEL;

/// How often the processes of a cgroup are moved out of it, before it stays: one
/// may start others meanwhile.
const MOVES: usize = 100;
/// Between two of them.
const BETWEEN_MOVES: Duration = Duration::from_millis(10);

/// A workload whose enforcement is lifted for a while.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Lifted {
    tag: u64,
    path: PathBuf,
    /// For people to read.
    until_unix_ms: u64,
    /// By a clock that nobody sets, and that a suspended host does not stop.
    #[serde(default)]
    until_boot_ms: u64,
}

impl Lifted {
    pub(super) fn until_unix_ms(&self) -> u64 {
        self.until_unix_ms
    }
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the host was started.
pub(super) fn now_boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

impl Daemon {
    /// Lifts the enforcement of the jobs with this name, or of all.
    pub(super) fn lift(&self, scope: Option<&str>, period: Option<Duration>, by_uid: u32) -> Result<String> {
        let meant: Vec<WorkloadSpec> = {
            let known = lock(&self.workloads);
            known.values().filter(|job| scope.is_none_or(|scope| is_meant(job, scope))).cloned().collect()
        };
        let name = scope.unwrap_or("all");
        ensure!(!meant.is_empty(), "no job or scope is called `{name}`: `enforcer status` lists them");
        let millis = period.map(|period| u64::try_from(period.as_millis()).unwrap_or(u64::MAX));
        let until_unix_ms = millis.map(|millis| now_unix_ms().saturating_add(millis));
        // It is written down first: what cannot be recorded is not done.
        let tags = meant.iter().map(|job| job.tag).collect();
        self.tell(&ToProxy::Released { scope: name.to_owned(), tags, by_uid, until_unix_ms }, &[])
            .context("a release has to be recorded; `enforcer release --all` works without the proxy")?;
        if period.is_some_and(|period| period.is_zero()) {
            return self.end_early(&meant);
        }
        for job in &meant {
            if let (Some(until_unix_ms), Some(millis)) = (until_unix_ms, millis) {
                let path = self.mount().join(job.cgroup_path.trim_start_matches('/'));
                let until_boot_ms = now_boot_ms().saturating_add(millis);
                self.note_lifted(Lifted { tag: job.tag, path, until_unix_ms, until_boot_ms })?;
            }
            self.with_kernel(|kernel| kernel.untag(job.cgroup))?;
        }
        let many = meant.len();
        Ok(match period {
            Some(period) => format!(
                "{many} workload(s) run without enforcement for {} s; connections that are open stay with the proxy",
                period.as_secs()
            ),
            None => format!(
                "{many} workload(s) run without enforcement until they end; connections that are open stay with the proxy"
            ),
        })
    }

    /// Enforces again what was lifted, for a while or not.
    fn end_early(&self, meant: &[WorkloadSpec]) -> Result<String> {
        let tagged = self.with_kernel(|kernel| kernel.tags())?;
        let is_tagged = |job: &&WorkloadSpec| tagged.iter().any(|(cgroup, _)| *cgroup == job.cgroup);
        let lifted: Vec<&WorkloadSpec> = meant.iter().filter(|job| !is_tagged(job)).collect();
        for job in &lifted {
            let path = self.mount().join(job.cgroup_path.trim_start_matches('/'));
            self.note_lifted(Lifted { tag: job.tag, path, until_unix_ms: now_unix_ms(), until_boot_ms: 0 })?;
        }
        self.end_lifted();
        let still = lock(&self.lifted).clone();
        let not: Vec<&str> =
            lifted.iter().filter(|job| still.contains_key(&job.tag)).map(|job| job.name.as_str()).collect();
        ensure!(not.is_empty(), "not enforced again: {} (the log says why)", not.join(", "));
        Ok(format!("{} workload(s) are enforced again", lifted.len()))
    }

    fn note_lifted(&self, lifted: Lifted) -> Result<()> {
        let file = self.lifted_file(&lifted.path);
        fs::create_dir_all(file.parent().context("no folder")?)?;
        fs::write(&file, serde_json::to_vec(&lifted)?).context("noting when enforcement comes back")?;
        lock(&self.lifted).insert(lifted.tag, lifted);
        Ok(())
    }

    fn lifted_file(&self, cgroup: &Path) -> PathBuf {
        let dir = self.config.run.dir.join("lifted");
        match cgroup.strip_prefix(self.mount()) {
            // Names of cgroups beside the jobs are not unique.
            Ok(below) if !cgroup.starts_with(self.jobs()) => {
                dir.join(below.display().to_string().replace('%', "%25").replace('/', "%2F"))
            }
            _ => dir.join(cgroup.file_name().unwrap_or_default()),
        }
    }

    /// A job whose enforcement an earlier loader lifted for a while, by its cgroup:
    /// its tag. Whether the time is over is seen later.
    pub(super) fn lifted_before(&self, cgroup: &Path) -> Option<u64> {
        let text = fs::read(self.lifted_file(cgroup)).ok()?;
        let lifted: Lifted = serde_json::from_slice(&text).ok()?;
        let tag = lifted.tag;
        lock(&self.lifted).insert(tag, lifted);
        Some(tag)
    }

    /// A job that has ended has nothing that could come back.
    pub(super) fn forget_lifted(&self, tag: u64) {
        if let Some(lifted) = lock(&self.lifted).remove(&tag) {
            remove(&self.lifted_file(&lifted.path));
        }
    }

    /// Takes up enforcement where the time is over.
    pub(super) fn end_lifted(&self) {
        let now = now_boot_ms();
        let over: Vec<Lifted> =
            lock(&self.lifted).values().filter(|lifted| lifted.until_boot_ms <= now).cloned().collect();
        for lifted in over {
            let known = lock(&self.workloads).get(&lifted.tag).map(|job| job.cgroup);
            if known.is_some() && crate::kernel::cgroup_id(&lifted.path).ok() != known {
                // It is gone, and what has its path now is another.
                self.forget_lifted(lifted.tag);
                continue;
            }
            match self.tag(&lifted.path, lifted.tag) {
                Ok(_) => tracing::info!(cgroup = %lifted.path.display(), "enforced again"),
                Err(error) if !lifted.path.exists() => {
                    tracing::debug!(%error, "a job ended while its enforcement was lifted");
                }
                Err(error) => {
                    // Tried again at the next look.
                    tracing::error!(%error, cgroup = %lifted.path.display(), "not enforced again");
                    continue;
                }
            }
            self.forget_lifted(lifted.tag);
        }
    }
}

/// By its scope; else by the job's name, or by the name of its cgroup, which is unique.
fn is_meant(job: &WorkloadSpec, scope: &str) -> bool {
    if let Some(own) = job.labels.get(LABEL) {
        // One match of several alone would still be in the tag of its parent.
        return own == scope;
    }
    job.name == scope || Path::new(&job.cgroup_path).file_name().is_some_and(|name| name == scope)
}

fn remove(file: &Path) {
    if let Err(error) = fs::remove_file(file)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %file.display(), "it stays");
    }
}

/// Removes what the kernel's links and pins leave: cgroups and the folder of the
/// sockets. Processes that still run are moved to where enforcement was attached.
pub fn clear(mount: &Path, config: &Config) -> Result<()> {
    let place = |path: &Path| mount.join(path.strip_prefix("/").unwrap_or(path));
    let target = place(&config.cgroup.attach);
    for path in [place(&config.cgroup.jobs), place(&config.cgroup.own)] {
        if path.is_dir() {
            empty(&path, &target).with_context(|| format!("removing the cgroup {}", path.display()))?;
        }
    }
    // What had to be made for a place further down; one that is in use stays.
    let own = place(&config.cgroup.own);
    for above in own.ancestors().skip(1).take_while(|above| *above != target) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    match fs::remove_dir_all(&config.run.dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Moves all processes below `path` to `target`, and removes it.
fn empty(path: &Path, target: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            empty(&entry.path(), target)?;
        }
    }
    for _ in 0..MOVES {
        for pid in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
            match fs::write(target.join("cgroup.procs"), pid) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
                other => other?,
            }
        }
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(BETWEEN_MOVES);
            }
            other => return other,
        }
    }
    Err(io::Error::from(io::ErrorKind::ResourceBusy))
}

/// Lifts everything where no service runs. The recording is written as the user
/// whose it is; what cannot be recorded is told, not withheld: the host would stay
/// without network.
pub fn offline(config: &Config) -> Result<()> {
    ensure!(nix::unistd::Uid::effective().is_root(), "lifting enforcement needs root");
    let mount = crate::kernel::cgroup2_mount()?;
    let had = config.kernel.pins.exists();
    if had && let Err(error) = record(config) {
        eprintln!("the release is not recorded: {error:#}");
    }
    crate::kernel::release(&config.kernel.pins)?;
    clear(&mount, config)
}

fn record(config: &Config) -> Result<()> {
    if !config.recording.dir.exists() {
        return Ok(());
    }
    let name = &config.proxy.user;
    let user = nix::unistd::User::from_name(name)?.with_context(|| format!("there is no user `{name}`"))?;
    let root = nix::unistd::Uid::effective();
    nix::unistd::seteuid(user.uid)?;
    let done = record_as_owner(&config.recording.dir, root.as_raw());
    nix::unistd::seteuid(root)?;
    done
}

fn record_as_owner(dir: &Path, by_uid: u32) -> Result<()> {
    let masker = Masker::builtin_all()?;
    let text = |text: &str| masker.text(text).0;
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let options = RecordingOptions {
        host_id: read("/etc/machine-id"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        ..RecordingOptions::default()
    };
    let session = Recording::open(dir, options)?.begin(SessionHeader {
        started_unix_ms: now_unix_ms(),
        kind: SessionKind::Workload,
        workload: text("host"),
        facts: None,
        tag: 0,
        cgroup: 0,
        uid: by_uid,
        pid: std::process::id(),
        comm: text("enforcer"),
        client: None,
        destination: None,
        policy: String::new(),
        identity: None,
    })?;
    session.record(Event::Released { scope: text("all"), by_uid, until_unix_ms: None })?;
    Ok(session.close(Outcome::Completed)?)
}
