//! The policy in force, and its replacement.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use tokio::sync::watch;

use super::layers::{self, Kept, LayerProblem, LayersFrom};
use super::{Clock, Hits, MAX_LISTED, MAX_LISTED_LIMITS, MAX_NAME_BYTES, Meters, Policy, PolicyError};

/// How long a folder has to be quiet before it is read again: an editor writes
/// in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// Problems of layers that are told; of more, how many there are.
const MAX_TOLD: usize = 8;

/// Characters of one of them: what stands in a file is said by its own people.
const MAX_TOLD_CHARS: usize = 400;
/// Bytes of the names of broken layers that are told.
const MAX_BROKEN_BYTES: usize = 32 * 1024;

/// For a line of a status.
fn told(problem: &LayerProblem) -> String {
    let text = problem.to_string();
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut told: String = text.chars().take(MAX_TOLD_CHARS).map(plain).collect();
    told.extend((told.len() < text.len()).then_some("..."));
    told
}

/// The folders of a policy.
#[derive(Debug, Clone)]
pub struct PolicyFrom {
    /// That of the host's layer.
    pub dir: PathBuf,
    pub layers: Option<LayersFrom>,
}

impl PolicyFrom {
    /// Loads all layers. Of those below the host's, one that does not load is as it was `before`,
    /// or as it was `kept`, or denies everything to its own jobs.
    pub fn load(
        &self,
        before: Option<&Policy>,
        kept: Option<&Kept>,
    ) -> Result<(Policy, Vec<LayerProblem>), PolicyError> {
        self.over(Policy::load_dir(&self.dir)?, before, kept)
    }

    fn over(
        &self,
        host: Policy,
        before: Option<&Policy>,
        kept: Option<&Kept>,
    ) -> Result<(Policy, Vec<LayerProblem>), PolicyError> {
        let Some(from) = &self.layers else { return Ok((host, Vec::new())) };
        let before = before.and_then(|before| before.layers.as_deref());
        let (layers, problems) = layers::load(from, before, kept)?;
        Ok((host.over(layers), problems))
    }
}

/// Holds one policy; a reload replaces it whole or not at all, but for layers of its own each.
pub struct PolicyStore {
    from: Option<PolicyFrom>,
    current: ArcSwap<Policy>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    /// Why the folder as it is now is not in force.
    problem: Mutex<Problem>,
    /// Whoever reads the folders puts into force what it has read before another does.
    reloading: Mutex<()>,
    /// What was used of the limits of rules, whichever policy they are of.
    meters: Arc<Meters>,
}

#[derive(Debug, Default)]
struct Problem {
    /// Of all.
    whole: Option<String>,
    /// Of single layers, and the names of those that are not what their folder says.
    layers: Vec<String>,
    broken: Vec<String>,
}

impl PolicyStore {
    /// A policy that does not change.
    pub fn fixed(policy: Policy) -> Self {
        Self::new(None, policy)
    }

    /// The policy of a folder, without layers below the host's.
    pub fn open(dir: &Path, kept: Option<&Kept>) -> (Self, Result<(), PolicyError>) {
        Self::open_all(PolicyFrom { dir: dir.to_path_buf(), layers: None }, kept)
    }

    /// The policy of folders. If it does not load, what was `kept` of it is in force
    /// until it does, and without that everything is denied; the error says why.
    pub fn open_all(from: PolicyFrom, kept: Option<&Kept>) -> (Self, Result<(), PolicyError>) {
        match from.load(None, kept) {
            Ok((policy, problems)) => {
                let store = Self::new(Some(from), policy);
                store.told(&problems);
                (store, Ok(()))
            }
            Err(error) => {
                let host = kept.and_then(|kept| Policy::compile(kept.host()).ok());
                let policy = host.and_then(|host| match (&from.layers, kept) {
                    // Without the layers of its jobs the host's could be wider.
                    (Some(layers), Some(kept)) => Some(host.over(layers::kept(layers, kept)?)),
                    _ => Some(host),
                });
                let store = Self::new(Some(from), policy.unwrap_or_else(Policy::deny_all));
                store.failed(&error);
                (store, Err(error))
            }
        }
    }

    fn new(from: Option<PolicyFrom>, policy: Policy) -> Self {
        Self {
            from,
            current: ArcSwap::from_pointee(policy),
            generation: AtomicU64::new(1),
            changed: watch::Sender::new(1),
            problem: Mutex::default(),
            reloading: Mutex::default(),
            meters: Arc::default(),
        }
    }

    /// With another clock for windows of limits.
    #[must_use]
    pub fn timed(self, clock: Clock) -> Self {
        Self { meters: Arc::new(Meters::new(clock)), ..self }
    }

    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    fn problems(&self) -> MutexGuard<'_, Problem> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the folders as they are now are not in force, and what is instead.
    pub fn problem(&self) -> Option<String> {
        let problem = self.problems();
        let (said, more) = problem.layers.split_at(problem.layers.len().min(MAX_TOLD));
        let mut told: Vec<String> = problem.whole.iter().chain(said).cloned().collect();
        told.extend((!more.is_empty()).then(|| format!("{} more", more.len())));
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Whether the host's layer is as its folder says.
    pub fn is_whole(&self) -> bool {
        self.problems().whole.is_none()
    }

    /// Layers that are not as their folders say, by their names; as many as fit into a message.
    pub fn broken(&self) -> Vec<String> {
        let mut bytes = 0;
        let fits = |name: &&String| {
            bytes += name.len();
            bytes <= MAX_BROKEN_BYTES
        };
        self.problems().broken.iter().take_while(fits).cloned().collect()
    }

    fn failed(&self, error: &PolicyError) {
        let instead =
            if self.current().is_missing() { "everything is denied" } else { "the last good policy stays" };
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        self.problems().whole = Some(format!("{instead}: {error}{cause}"));
    }

    fn told(&self, problems: &[LayerProblem]) {
        let layers = problems.iter().map(told).collect();
        let broken = problems.iter().filter(|it| it.is_of_layer()).map(|it| it.name.clone()).collect();
        *self.problems() = Problem { whole: None, layers, broken };
    }

    /// The policy in force now; each statement asks anew.
    pub fn current(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// How often rules had a say, and how much is used of their limits.
    pub fn hits(&self) -> Hits {
        let policy = self.current();
        let mut limits = self.meters.used(&policy, MAX_LISTED_LIMITS);
        // Names of layers may be long, and all has to fit into a message.
        let mut room = MAX_LISTED_LIMITS * (2 * MAX_NAME_BYTES + 1);
        limits.retain(|used| {
            let fits = used.rule.len() <= room;
            room = room.saturating_sub(used.rule.len());
            fits
        });
        Hits { limits, ..policy.hits(MAX_LISTED) }
    }

    /// How often the policy has been replaced, beginning at 1.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Says when there is another policy.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads the folder again. If anything is wrong, the last good policy stays.
    pub fn reload(&self) -> Result<Arc<Policy>, PolicyError> {
        let Some(from) = &self.from else { return Ok(self.current()) };
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = from.load(Some(&self.current()), None).inspect_err(|error| self.failed(error))?;
        let (policy, problems) = (Arc::new(loaded.0), loaded.1);
        self.told(&problems);
        if policy.hash() != self.current().hash() {
            self.current.store(Arc::clone(&policy));
            self.meters.retain(&policy);
            let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
            self.changed.send_replace(generation);
        }
        Ok(policy)
    }

    /// Reloads when a file of the folder changes, until the store is gone;
    /// `report` is told how each reload went.
    pub fn watch(
        self: &Arc<Self>,
        report: impl Fn(&Self, Result<Arc<Policy>, PolicyError>) + Send + 'static,
    ) -> Result<(), PolicyError> {
        let Some(from) = self.from.clone() else { return Ok(()) };
        let dir = from.dir;
        let failed = |source| PolicyError::Watch { path: dir.clone(), source };
        let (wake, woken) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the folder is an event too.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            // The thread is gone when the store is.
            wake.send(()).ok();
        })
        .map_err(failed)?;
        watcher.watch(&dir, RecursiveMode::NonRecursive).map_err(failed)?;
        if let Some(layers) = &from.layers {
            let failed = |source| PolicyError::Watch { path: layers.dir.clone(), source };
            watcher.watch(&layers.dir, RecursiveMode::Recursive).map_err(failed)?;
        }
        let store = Arc::downgrade(self);
        let body = move || {
            let _watcher = watcher;
            while woken.recv().is_ok() {
                while woken.recv_timeout(QUIET).is_ok() {}
                let Some(store) = store.upgrade() else { return };
                report(&store, store.reload());
            }
        };
        std::thread::Builder::new()
            .name("policy-watch".to_owned())
            .spawn(body)
            .map_err(|error| failed(notify::Error::io(error)))?;
        Ok(())
    }
}
