//! Containers: processes of tagged cgroups whose root is not the host's. They get what
//! `enforcer run` gives to jobs, from outside: the CA in the stores of their image, and
//! listeners in their network namespace, if they have one.
//!
//! ```text
//!   a cgroup appears ──▶ fresh ──▶ its process has another root ──▶ served
//!                          │                                          │ failed, some times
//!                          ▼ nothing came                             ▼
//!                       forgotten (found by the sweep, later)     given up, with a warning
//! ```
//!
//! Usually all of this is over before the first program of the container runs: the
//! runtime makes the cgroup and the root, and starts the program at the end. Until then,
//! and if it fails, the container is redirected or refused all the same; what it lacks
//! is trust, or its network.

mod watch;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::launch::roots::{Given, RootsSpec};

use super::children::{PROGRAM, memory_file, pass};
use super::daemon::{Daemon, lock};
use watch::Most;

/// How often a cgroup that has just appeared is looked at.
const FRESH: Duration = Duration::from_millis(2);
/// How long that goes on.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How often until it is forgotten.
const YOUNG: Duration = Duration::from_millis(50);
/// How long a runtime may take from the cgroup to the container's root.
const YOUNG_FOR: Duration = Duration::from_secs(15);
/// How often all tagged cgroups are looked at, for what appeared in one that was there.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a container may take to give its stores away.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often one is tried.
const TRIES: u32 = 3;
/// The most processes of a cgroup that are looked at.
const MAX_PROCESSES: usize = 256;
/// The most containers that are given the CA at a time. One that lets its turn pass keeps
/// its place until its process has ended.
const MOST_AT_ONCE: Most = Most { all: 32, of_each: 4 };
/// The most cgroups that are looked at because they are new; others wait for the sweep.
const MOST_YOUNG: Most = Most { all: 1024, of_each: 64 };
/// More of the kernel's list of mounts is not read, in bytes.
const MAX_MOUNTS: u64 = 1 << 20;

/// A namespace, as long as the cgroup lives: the number alone is used again.
type Key = (u64, PathBuf);

/// What is known of containers.
pub struct Containers {
    watch: watch::Watch,
    trust: Mutex<HashMap<Key, State>>,
    /// Network namespaces that were served before anybody asked.
    networks: Mutex<HashSet<Key>>,
    /// Processes that were killed, and have not ended, with the tagged cgroup.
    stuck: Mutex<Vec<(PathBuf, Child)>>,
}

enum State {
    /// In this tagged cgroup.
    Busy(PathBuf),
    Served,
    Failed {
        tries: u32,
        at: Instant,
    },
}

impl Containers {
    pub fn new() -> Self {
        let (trust, networks, stuck) = Default::default();
        Self { watch: watch::Watch::new(watch::MOST), trust, networks, stuck }
    }

    /// Why new cgroups are looked for again and again: nobody tells of all of them.
    pub fn unwatched(&self) -> Option<String> {
        self.watch.problem()
    }

    /// For `enforcer status`: those whose stores of roots were looked at.
    pub fn list(&self) -> Vec<serde_json::Value> {
        let state = |state: &State| match state {
            State::Busy(_) => "is given the CA",
            State::Served => "has the CA, or no store of roots",
            State::Failed { .. } => "does not have the CA",
        };
        let trust = lock(&self.trust);
        let mut all: Vec<_> = trust.iter().map(|((_, path), it)| (path.clone(), state(it))).collect();
        all.sort();
        let entry = |(path, state): (PathBuf, &str)| serde_json::json!({ "cgroup": path, "state": state });
        all.into_iter().map(entry).collect()
    }

    /// A cgroup was tagged: what appears in it and below it is looked at.
    pub fn watch(&self, path: &Path) {
        if !self.watch.add(path) {
            tracing::warn!(
                limit = watch::MOST.all,
                limit_of_each = watch::MOST.of_each,
                cgroup = %path.display(),
                "too many cgroups to watch: containers in it get the CA when they are refused for the first time"
            );
        }
    }
}

/// Looks after containers for as long as the service runs.
pub(super) fn serve(daemon: &Arc<Daemon>) -> Result<()> {
    let host = Namespaces::of("self").context("the host's own namespaces")?;
    let daemon = Arc::clone(daemon);
    std::thread::Builder::new().name("containers".to_owned()).spawn(move || {
        let mut young = Young::new();
        let mut swept = Instant::now();
        while !daemon.stop.load(Ordering::Acquire) {
            let newest = young.values().map(|(since, _)| since.elapsed()).min();
            let pause = match newest {
                Some(age) if age < FRESH_FOR => FRESH,
                Some(_) => YOUNG,
                None => SWEEP.saturating_sub(swept.elapsed()),
            };
            match daemon.containers.watch.made(pause) {
                Ok(made) => {
                    made.into_iter().for_each(|path| add_young(&daemon.containers.watch, &mut young, path));
                }
                Err(error) => {
                    tracing::error!(%error, "what appears is found a second later");
                    std::thread::sleep(SWEEP);
                }
            }
            young.retain(|path, (since, _)| {
                let age = since.elapsed();
                age < YOUNG_FOR && path.is_dir() && !look_at(&daemon, path, Some(age), &host)
            });
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                sweep(&daemon, &host);
            }
        }
    })?;
    Ok(())
}

/// Cgroups that have just appeared: since when, and the tagged one that they are in.
type Young = HashMap<PathBuf, (Instant, PathBuf)>;

fn add_young(watch: &watch::Watch, young: &mut Young, path: PathBuf) {
    let owner = watch.owner(&path);
    if MOST_YOUNG.admit(young.values().map(|(_, owner)| owner), &owner) {
        young.insert(path, (Instant::now(), owner));
    }
}

fn sweep(daemon: &Arc<Daemon>, host: &Namespaces) {
    lock(&daemon.containers.stuck).retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
    let mut alive = HashSet::new();
    for path in daemon.containers.watch.all() {
        look_at(daemon, &path, None, host);
        alive.insert(path);
    }
    let lives = |path: &Path| alive.contains(path) || path.is_dir();
    lock(&daemon.containers.trust).retain(|(_, path), _| lives(path));
    lock(&daemon.containers.networks).retain(|(_, path)| lives(path));
}

/// Looks at the processes of one cgroup, which may have appeared just now; true when a
/// container in it has all that it gets.
fn look_at(daemon: &Arc<Daemon>, cgroup: &Path, age: Option<Duration>, host: &Namespaces) -> bool {
    let Ok(text) = fs::read_to_string(cgroup.join("cgroup.procs")) else { return false };
    let mut served = false;
    let mut seen = HashSet::new();
    for pid in text.lines().take(MAX_PROCESSES) {
        let Some(namespaces) = Namespaces::of(pid) else { continue };
        if namespaces.mount == host.mount || !seen.insert((namespaces.mount, namespaces.network)) {
            continue;
        }
        let contained = has_other_root(pid, &host.root);
        let mut network = true;
        if namespaces.network != host.network && (contained || age.is_some()) {
            // The runtime is in it before the container's root is made.
            network = give_network(daemon, cgroup, pid, age, namespaces.network);
        }
        if contained {
            served |= give_roots(daemon, cgroup, pid, namespaces.mount) && network;
        }
    }
    served
}

/// Listeners for its network; true when they are there.
fn give_network(daemon: &Daemon, cgroup: &Path, pid: &str, age: Option<Duration>, namespace: u64) -> bool {
    let key = (namespace, cgroup.to_owned());
    if lock(&daemon.containers.networks).contains(&key) {
        return true;
    }
    // While its loopback is being brought up, `::1` could be missing, and stay so.
    if age.is_some_and(|age| age < FRESH_FOR) && !has_loopback6(pid) {
        return false;
    }
    let served = pid.parse().map_err(anyhow::Error::from).and_then(|pid| daemon.serve_namespace_of(pid));
    match served {
        Ok(cookie) => {
            tracing::debug!(cookie, cgroup = %cgroup.display(), "a container's network is served");
            lock(&daemon.containers.networks).insert(key)
        }
        Err(error) => {
            // Its first connect asks for the same, and a failure is told there.
            tracing::debug!(cgroup = %cgroup.display(), "a container's network is not served yet: {error:#}");
            false
        }
    }
}

/// Whether the namespace of a process has `::1`. One without IPv6 never has.
fn has_loopback6(pid: &str) -> bool {
    let addresses = fs::read_to_string(Path::new("/proc").join(pid).join("net/if_inet6"));
    addresses.is_ok_and(|text| text.lines().any(|line| line.ends_with(" lo")))
}

/// By which a process is known to be in a container.
struct Namespaces {
    mount: u64,
    network: u64,
    /// Device and folder of its root.
    root: Option<String>,
}

impl Namespaces {
    fn of(pid: &str) -> Option<Self> {
        let process = Path::new("/proc").join(pid);
        let inode = |name: &str| fs::metadata(process.join("ns").join(name)).ok().map(|found| found.ino());
        let root = if pid == "self" { root_of(&process) } else { None };
        Some(Self { mount: inode("mnt")?, network: inode("net")?, root })
    }
}

/// As the kernel tells it: a file system of the container's own is not asked.
fn root_of(process: &Path) -> Option<String> {
    let mut text = Vec::new();
    fs::File::open(process.join("mountinfo")).ok()?.take(MAX_MOUNTS).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The last one covers those before it. Fields: id, parent, device, root, mount point.
    text.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (device, root, place) = (fields.next()?, fields.next()?, fields.next()?);
        (place == "/").then(|| format!("{device} {root}"))
    })
}

/// A runtime's own process has the host's root until the container's is ready.
fn has_other_root(pid: &str, host: &Option<String>) -> bool {
    let root = root_of(&Path::new("/proc").join(pid));
    root.is_some() && root != *host
}

/// Starts to give it the CA; true when that has been done.
fn give_roots(daemon: &Arc<Daemon>, cgroup: &Path, pid: &str, namespace: u64) -> bool {
    let Ok(pid) = pid.parse::<u32>() else { return false };
    let key = (namespace, cgroup.to_owned());
    let owner = daemon.containers.watch.owner(cgroup);
    let tries = {
        let mut trust = lock(&daemon.containers.trust);
        let tries = match trust.get(&key) {
            Some(State::Served) => return true,
            Some(State::Busy(_)) => return false,
            Some(State::Failed { tries, at }) if *tries >= TRIES || at.elapsed() < SWEEP => return false,
            Some(State::Failed { tries, .. }) => *tries,
            None => 0,
        };
        let stuck = lock(&daemon.containers.stuck);
        let busy = trust.values().filter_map(|state| match state {
            State::Busy(owner) => Some(owner),
            _ => None,
        });
        if !MOST_AT_ONCE.admit(busy.chain(stuck.iter().map(|(owner, _)| owner)), &owner) {
            return false;
        }
        drop(stuck);
        trust.insert(key.clone(), State::Busy(owner.clone()));
        tries
    };
    let (begun, daemon) = (Arc::clone(daemon), Arc::clone(daemon));
    let done = key.clone();
    let thread = std::thread::Builder::new().name("container roots".to_owned()).spawn(move || {
        let given = begin(&begun, &done.1, owner, pid);
        let state = told(&done.1, given, tries);
        lock(&begun.containers.trust).insert(done, state);
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "no thread for a container");
        lock(&daemon.containers.trust).insert(key, State::Failed { tries: tries + 1, at: Instant::now() });
    }
    false
}

/// Says what came of it.
fn told(cgroup: &Path, given: Result<Given>, tries: u32) -> State {
    let cgroup = cgroup.display();
    match given {
        Ok(Given::Mounted { places }) => tracing::info!(%cgroup, ?places, "a container trusts the CA"),
        Ok(Given::There) => tracing::debug!(%cgroup, "a container has the CA already"),
        Ok(Given::NoStore) => {
            tracing::info!(%cgroup, "a container has no store of roots: its image has none")
        }
        Err(error) => {
            let tries = tries + 1;
            if tries == TRIES {
                tracing::warn!(%cgroup, "a container does not get the CA: {error:#}");
            } else {
                tracing::debug!(%cgroup, tries, "a container does not have the CA yet: {error:#}");
            }
            return State::Failed { tries, at: Instant::now() };
        }
    }
    State::Served
}

/// Has it done by a process of its own, and waits for that.
fn begin(daemon: &Daemon, cgroup: &Path, owner: PathBuf, pid: u32) -> Result<Given> {
    let spec = RootsSpec {
        pid,
        cgroup: format!("/{}", cgroup.strip_prefix(daemon.mount()).unwrap_or(cgroup).display()),
        ca_pem: daemon.ca.certificate_pem().to_owned(),
        hash_link: daemon.trust().hash_link(),
        scratch: daemon.config.run.dir.clone(),
    };
    let mut file = memory_file("roots")?;
    file.write_all(&serde_json::to_vec(&spec)?)?;
    file.rewind()?;
    let mut command = Command::new(PROGRAM);
    command.args(["roots-exec", "--spec-fd", "10"]).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    pass(&mut command, vec![(file.as_raw_fd(), 10)]);
    let mut child = command.spawn().context("starting roots-exec")?;
    let until = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
            // A file system of the container's may hold it for as long as it likes: until it
            // has ended it counts for those who are in that cgroup, and nobody waits for it.
            lock(&daemon.containers.stuck).push((owner, child));
            tracing::warn!(cgroup = %cgroup.display(), "a container holds up who would give it the CA");
            bail!("it did not give its stores away within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(FRESH);
    }
    let mut told = Vec::new();
    child.stdout.take().context("no output")?.read_to_end(&mut told)?;
    let told: Result<Given, String> = serde_json::from_slice(&told).context("roots-exec said nothing")?;
    told.map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_new_cgroups_one_workload_has_so_many_and_others_have_room() {
        let watch = watch::Watch::new(watch::MOST);
        let mut young = Young::new();
        let mut make = |name: &str, many: usize| {
            let owner = Path::new("/nowhere").join(name);
            watch.add(&owner);
            (0..many).for_each(|number| add_young(&watch, &mut young, owner.join(number.to_string())));
            young.keys().filter(|it| it.starts_with(&owner)).count()
        };
        assert_eq!(make("hostile", MOST_YOUNG.of_each + 1), MOST_YOUNG.of_each);
        assert_eq!(make("other", 1), 1);
        let others = MOST_YOUNG.all / MOST_YOUNG.of_each;
        let all: usize = (0..others).map(|other| make(&other.to_string(), MOST_YOUNG.of_each)).sum();
        assert_eq!(all + MOST_YOUNG.of_each + 1, MOST_YOUNG.all);
    }

    #[test]
    fn of_those_who_get_the_ca_at_a_time_one_workload_has_so_many() {
        let (hostile, other) = (PathBuf::from("/hostile"), PathBuf::from("/other"));
        let busy = |many: usize| std::iter::repeat_n(&hostile, many);
        assert!(MOST_AT_ONCE.admit(busy(MOST_AT_ONCE.of_each - 1), &hostile));
        assert!(!MOST_AT_ONCE.admit(busy(MOST_AT_ONCE.of_each), &hostile));
        assert!(MOST_AT_ONCE.admit(busy(MOST_AT_ONCE.of_each), &other));
        assert!(!MOST_AT_ONCE.admit(busy(MOST_AT_ONCE.all), &other));
    }

    #[test]
    fn this_process_has_the_root_of_the_host_and_no_other() {
        let host = Namespaces::of("self").unwrap();
        assert!(host.root.is_some());
        let pid = std::process::id().to_string();
        assert_eq!(Namespaces::of(&pid).unwrap().mount, host.mount);
        assert!(!has_other_root(&pid, &host.root));
        // Somebody whose root is a folder below it.
        assert!(has_other_root(&pid, &Some("0:0 /elsewhere".to_owned())));
        // One that is gone has none.
        assert!(!has_other_root("0", &host.root));
    }
}
