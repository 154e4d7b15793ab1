//! Tagged cgroups and what is known about them.
//!
//! **Invariant**: nothing here comes from the job itself. The loader says it, and
//! the kernel's record says which connection belongs to which tag. Who the job is
//! beyond that is in [`identity`], with how far it is known.

pub mod identity;
pub mod wire;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use crate::mask::ExactValue;

/// A tagged cgroup: one job, one agent, one container.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The tag that the kernel's record carries; never used twice on one boot.
    pub tag: u64,
    pub cgroup: u64,
    pub cgroup_path: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub uid: u32,
    pub command: Vec<String>,
    /// Values that must never be recorded, and that policy may mask on the wire.
    pub secrets: Vec<ExactValue>,
}

/// All workloads that may speak now.
#[derive(Debug, Default)]
pub struct WorkloadStore {
    by_tag: RwLock<HashMap<u64, Arc<Workload>>>,
}

impl WorkloadStore {
    /// Registers a workload; one with the same tag is replaced and returned.
    pub fn insert(&self, workload: Arc<Workload>) -> Option<Arc<Workload>> {
        let mut map = self.by_tag.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(workload.tag, workload)
    }

    pub fn get(&self, tag: u64) -> Option<Arc<Workload>> {
        self.by_tag.read().unwrap_or_else(PoisonError::into_inner).get(&tag).cloned()
    }

    pub fn remove(&self, tag: u64) -> Option<Arc<Workload>> {
        self.by_tag.write().unwrap_or_else(PoisonError::into_inner).remove(&tag)
    }

    pub fn len(&self) -> usize {
        self.by_tag.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
