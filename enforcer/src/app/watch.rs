//! Looks twice a second whether what was attached and pinned still is.
//!
//! ```text
//!   whole --somebody detaches, replaces or unpins--> tampered --enforcer reload--> whole
//! ```
//!
//! What was changed is put back at once. Until an operator has looked at it tagged
//! cgroups have no network (and are frozen, if so configured): that is kept in the
//! kernel, and so over the death of the loader. Between a change and the next look
//! a connection may have been made that is not undone by this.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::kernel::{Foreign, Health};
use crate::workload::wire::ToProxy;

use super::config::OnTamper;
use super::daemon::{Daemon, lock};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// Somebody who goes on changing things fills neither log nor recording.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What was told already.
#[derive(Default)]
struct Told {
    changes: Option<(String, Instant)>,
    foreign: BTreeSet<u32>,
}

impl Daemon {
    /// Looks again and again, on a thread of its own, until the service ends.
    pub(super) fn watch_pins(self: &Arc<Self>) {
        let daemon = Arc::clone(self);
        std::thread::spawn(move || {
            let mut told = Told::default();
            while !daemon.stop.load(Ordering::Acquire) {
                if let Err(error) = daemon.look(&mut told) {
                    tracing::warn!("what is attached cannot be looked at: {error:#}");
                }
                std::thread::sleep(LOOK);
            }
        });
    }

    fn look(&self, told: &mut Told) -> Result<()> {
        // One hold of the kernel half for both: whoever lifts enforcement meanwhile is
        // not taken for somebody else.
        let (health, failed) = {
            let mut kernel = lock(&self.kernel);
            let Some(kernel) = kernel.as_mut().filter(|_| !self.release.load(Ordering::Acquire)) else {
                return Ok(());
            };
            let health = kernel.health()?;
            let changed = health.problems().any(|it| it.changed);
            if changed {
                kernel.deny_until_forgiven()?;
            }
            let failed = if changed { kernel.restore() } else { Vec::new() };
            (health, failed)
        };
        if health.problems().any(|it| it.changed) {
            self.tampered(&health, told);
        }
        for error in failed {
            tracing::error!("it could not be put back: {error}");
        }
        for program in health.foreign.iter().filter(|it| !it.before) {
            if told.foreign.insert(program.id) {
                tracing::error!("a program of somebody else: {}", shown(program));
            }
        }
        // An upgrade of systemd replaces it.
        lock(&self.kernel).as_mut().map_or(Ok(()), crate::kernel::Kernel::know_executor)?;
        Ok(())
    }

    fn tampered(&self, health: &Health, told: &mut Told) {
        let changed = health.problems().filter(|it| it.changed);
        let what: Vec<_> =
            changed.map(|it| format!("{}: {}", it.name, it.problem.as_deref().unwrap_or_default())).collect();
        let what = what.join("; ");
        let freeze = self.config.kernel.on_tamper == OnTamper::Freeze;
        if freeze {
            self.freeze(true);
        }
        *lock(&self.changed) = Some(what.clone());
        let again =
            told.changes.as_ref().is_some_and(|(before, at)| *before == what && at.elapsed() < TOLD_EVERY);
        if again {
            return;
        }
        told.changes = Some((what.clone(), Instant::now()));
        let reaction = if freeze {
            "put back; tagged cgroups are frozen and have no network until `enforcer reload`"
        } else {
            "put back; tagged cgroups have no network until `enforcer reload`"
        };
        tracing::error!("somebody changed what is attached: {what}; {reaction}");
        self.say(&ToProxy::Tampered { what, reaction: reaction.to_owned() });
    }

    /// The operator knows: tagged cgroups go on, if all is whole. What was done, in words.
    pub(super) fn forgive(&self) -> Result<Option<&'static str>> {
        let forgiven = {
            let mut kernel = lock(&self.kernel);
            let Some(kernel) = kernel.as_mut() else { return Ok(None) };
            let health = kernel.health()?;
            if !health.tampered {
                return Ok(None);
            }
            let problem = health.problems().next().map(|it| format!("{it:?}"));
            ensure!(
                problem.is_none(),
                "tagged cgroups stay without network: {} is not as it was",
                problem.unwrap_or_default()
            );
            kernel.forgive()
        };
        forgiven?;
        *lock(&self.changed) = None;
        self.freeze(false);
        Ok(Some("tagged cgroups have a network again"))
    }

    /// Stops all workloads where they are, or lets them go on.
    fn freeze(&self, freeze: bool) {
        let paths: Vec<PathBuf> = lock(&self.workloads)
            .values()
            .map(|it| self.mount().join(it.cgroup_path.trim_start_matches('/')))
            .collect();
        for path in paths {
            if let Err(error) = fs::write(path.join("cgroup.freeze"), if freeze { "1" } else { "0" })
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::error!(%error, cgroup = %path.display(), freeze, "a cgroup was not frozen or thawed");
            }
        }
    }

    /// For `enforcer status`: what was changed, and how it ends.
    pub(super) fn what_was_changed(&self, health: &Health) -> Option<String> {
        let what = lock(&self.changed).clone();
        let what = what.unwrap_or_else(|| "before the service was started again".to_owned());
        health.tampered.then_some(what)
    }
}

/// In words.
pub(super) fn shown(program: &Foreign) -> String {
    let Foreign { id, name, attach_type, cgroup, .. } = program;
    format!("program {id} ({name}) is attached to {} for {attach_type}", cgroup.display())
}
