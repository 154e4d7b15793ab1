//! Whether what was attached and pinned still is, and putting it back if not.

use std::collections::BTreeSet;
use std::path::Path;

use enforcer_common::cfg;

use super::foreign::{self, Foreign};
use super::links::Problem;
use super::{Kernel, Mode, Result, io_error};

/// Whether what is pinned still holds.
#[derive(Clone, Debug)]
pub struct Health {
    pub links: Vec<LinkHealth>,
    pub maps: Vec<LinkHealth>,
    /// Programs of others at our cgroups.
    pub foreign: Vec<Foreign>,
    pub mode: Mode,
    /// Somebody changed what was attached, and no operator has looked at it since.
    pub tampered: bool,
    pub tags: usize,
}

/// One link or one map.
#[derive(Clone, Debug)]
pub struct LinkHealth {
    pub name: String,
    /// What is wrong, in words; `None` is good.
    pub problem: Option<String>,
    /// It is certain that somebody changed it.
    pub changed: bool,
}

impl LinkHealth {
    pub(super) fn of(name: String, problem: Option<Problem>) -> Self {
        let changed = problem.as_ref().is_some_and(|problem| problem.certain);
        Self { name, problem: problem.map(|problem| problem.text), changed }
    }
}

impl Health {
    pub fn is_good(&self) -> bool {
        self.mode == Mode::Redirect
            && !self.tampered
            && self.problems().next().is_none()
            && self.foreign.iter().all(|program| program.before)
    }

    /// Links and maps with which something is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &LinkHealth> {
        self.links.iter().chain(&self.maps).filter(|it| it.problem.is_some())
    }
}

impl Kernel {
    /// Compares every pin with what was attached. A link whose cgroup is gone,
    /// or that somebody detached, is still pinned but attached to cgroup 0.
    pub fn health(&self) -> Result<Health> {
        let pins = &self.pins;
        let links = self.attachments.iter().map(|it| LinkHealth::of(it.name.to_owned(), it.problem(pins)));
        let maps = self.maps.iter().map(|it| LinkHealth::of(it.name.to_owned(), it.problem(pins)));
        let mut foreign = self.others()?;
        for program in &mut foreign {
            program.before = self.known.contains(&program.id);
        }
        Ok(Health {
            links: links
                .chain(self.packet.health(pins))
                .chain(self.interfaces.health(pins, self.home))
                .chain(self.lsm.health(pins))
                .collect(),
            maps: maps.collect(),
            foreign,
            mode: if self.setting(cfg::MODE)? == cfg::MODE_DENY { Mode::Deny } else { Mode::Redirect },
            tampered: self.setting(cfg::TAMPERED)? != 0,
            tags: self.tags()?.len(),
        })
    }

    /// Somebody changed what was attached: nobody tagged has a network until an
    /// operator says so, over the death of this loader too.
    pub fn deny_until_forgiven(&mut self) -> Result<()> {
        self.set(cfg::TAMPERED, 1)?;
        self.look_at_the_root()?;
        self.set_mode(Mode::Deny)
    }

    /// The operator knows: tagged cgroups are redirected again.
    pub fn forgive(&mut self) -> Result<()> {
        self.set_mode(Mode::Redirect)?;
        self.set(cfg::TAMPERED, 0)
    }

    /// Attaches and pins again what is not as it was; the errors of what cannot be.
    pub fn restore(&mut self) -> Vec<super::KernelError> {
        let mut failed = Vec::new();
        for attachment in &mut self.attachments {
            if attachment.problem(&self.pins).is_some() {
                failed.extend(attachment.restore(&self.pins).err());
            }
        }
        for map in &self.maps {
            if map.problem(&self.pins).is_some() {
                failed.extend(map.restore(&self.pins).err());
            }
        }
        failed.extend(self.packet.restore(&self.pins).err());
        failed.extend(self.lsm.restore(&self.pins));
        failed
    }

    /// What others have attached by now was there before us.
    pub(super) fn know_others(&mut self) -> Result<()> {
        self.known = self.others()?.into_iter().map(|program| program.id).collect();
        Ok(())
    }

    fn others(&self) -> Result<Vec<Foreign>> {
        let places: BTreeSet<&Path> =
            self.attachments.iter().map(|it| it.place.as_path()).chain(self.packet.places()).collect();
        let ours = self.attachments.iter().map(|it| it.program_id()).chain(self.packet.program_ids());
        foreign::find(&places, &ours.collect())
            .map_err(io_error("asking for attached programs", &self.config.attach))
    }
}
