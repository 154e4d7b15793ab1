//! How many connections may be open, and whose turn it is when it gets tight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::Limits;

/// Counts the connections of the process.
#[derive(Debug, Default)]
pub struct Admission {
    open: Arc<AtomicUsize>,
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The process is full.
    Process,
    /// The workload has its share.
    Workload,
}

impl Refused {
    pub fn reason(self) -> &'static str {
        match self {
            Refused::Process => "too-many-connections",
            Refused::Workload => "too-many-connections-of-workload",
        }
    }
}

/// One admitted connection; counts down when dropped.
#[derive(Debug)]
pub struct Permit {
    process: Arc<AtomicUsize>,
    workload: Arc<AtomicUsize>,
}

impl Admission {
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Admits one more connection of a workload. Above nine tenths of the
    /// process's limit, a workload that has more than an equal share waits.
    pub fn admit(
        &self,
        workload: &Arc<AtomicUsize>,
        workloads: usize,
        limits: &Limits,
    ) -> Result<Permit, Refused> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let own = workload.fetch_add(1, Ordering::Relaxed);
        let permit = Permit { process: Arc::clone(&self.open), workload: Arc::clone(workload) };
        if open >= limits.max_connections {
            return Err(Refused::Process);
        }
        let tight = open >= limits.max_connections / 10 * 9;
        let share = limits.max_connections / workloads.max(1);
        if own >= limits.max_connections_per_workload || (tight && workloads > 1 && own >= share) {
            return Err(Refused::Workload);
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.process.fetch_sub(1, Ordering::Relaxed);
        self.workload.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: usize, each: usize) -> Limits {
        Limits { max_connections: all, max_connections_per_workload: each, ..Limits::default() }
    }

    #[test]
    fn the_limit_and_one_past_it() {
        let (admission, one) = (Admission::default(), Arc::default());
        let limits = limits(100, 3);
        let permits: Vec<_> = (0..3).map(|_| admission.admit(&one, 1, &limits).unwrap()).collect();
        assert_eq!(admission.admit(&one, 1, &limits).unwrap_err(), Refused::Workload);
        drop(permits);
        assert_eq!(admission.open(), 0);
        assert!(admission.admit(&one, 1, &limits).is_ok());
    }

    #[test]
    fn a_greedy_workload_leaves_room_for_others() {
        let (admission, greedy, modest) = (Admission::default(), Arc::default(), Arc::default());
        let limits = limits(20, 20);
        let mut permits = Vec::new();
        while let Ok(permit) = admission.admit(&greedy, 2, &limits) {
            permits.push(permit);
        }
        assert_eq!(permits.len(), 18);
        assert!(admission.admit(&modest, 2, &limits).is_ok());
    }

    #[test]
    fn a_full_process_refuses_everybody() {
        let (admission, one, two) = (Admission::default(), Arc::default(), Arc::default());
        let limits = limits(2, 20);
        let _first = admission.admit(&one, 1, &limits).unwrap();
        let _second = admission.admit(&one, 1, &limits).unwrap();
        assert_eq!(admission.admit(&two, 2, &limits).unwrap_err(), Refused::Process);
    }
}
