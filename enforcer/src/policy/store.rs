//! The policy in force, and its replacement.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use tokio::sync::watch;

use super::{Policy, PolicyError};

/// How long a folder has to be quiet before it is read again: an editor writes
/// in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// Holds one policy; a reload replaces it whole or not at all.
pub struct PolicyStore {
    dir: Option<PathBuf>,
    current: ArcSwap<Policy>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    /// Why the folder as it is now is not in force.
    problem: Mutex<Option<String>>,
}

impl PolicyStore {
    /// A policy that does not change.
    pub fn fixed(policy: Policy) -> Self {
        Self::new(None, policy)
    }

    /// The policy of a folder. If it does not load, what was `kept` of it is in force
    /// until it does, and without that everything is denied; the error says why.
    pub fn open(dir: &Path, kept: Option<&[(String, String)]>) -> (Self, Result<(), PolicyError>) {
        match Policy::load_dir(dir) {
            Ok(policy) => (Self::new(Some(dir.to_path_buf()), policy), Ok(())),
            Err(error) => {
                let kept = kept.and_then(|files| Policy::compile(files).ok());
                let store = Self::new(Some(dir.to_path_buf()), kept.unwrap_or_else(Policy::deny_all));
                store.failed(&error);
                (store, Err(error))
            }
        }
    }

    fn new(dir: Option<PathBuf>, policy: Policy) -> Self {
        Self {
            dir,
            current: ArcSwap::from_pointee(policy),
            generation: AtomicU64::new(1),
            changed: watch::Sender::new(1),
            problem: Mutex::default(),
        }
    }

    /// Why the folder as it is now is not in force, and what is instead.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, error: &PolicyError) {
        let instead =
            if self.current().is_missing() { "everything is denied" } else { "the last good policy stays" };
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let problem = format!("{instead}: {error}{cause}");
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    /// The policy in force now; each statement asks anew.
    pub fn current(&self) -> Arc<Policy> {
        self.current.load_full()
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
        let Some(dir) = &self.dir else { return Ok(self.current()) };
        let policy = Arc::new(Policy::load_dir(dir).inspect_err(|error| self.failed(error))?);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if policy.hash() != self.current().hash() {
            self.current.store(Arc::clone(&policy));
            let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
            self.changed.send_replace(generation);
        }
        Ok(policy)
    }

    /// Reloads when a file of the folder changes, until the store is gone;
    /// `report` is told how each reload went.
    pub fn watch(
        self: &Arc<Self>,
        report: impl Fn(Result<Arc<Policy>, PolicyError>) + Send + 'static,
    ) -> Result<(), PolicyError> {
        let Some(dir) = self.dir.clone() else { return Ok(()) };
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
        let store = Arc::downgrade(self);
        let body = move || {
            let _watcher = watcher;
            while woken.recv().is_ok() {
                while woken.recv_timeout(QUIET).is_ok() {}
                let Some(store) = store.upgrade() else { return };
                report(store.reload());
            }
        };
        std::thread::Builder::new()
            .name("policy-watch".to_owned())
            .spawn(body)
            .map_err(|error| failed(notify::Error::io(error)))?;
        Ok(())
    }
}
