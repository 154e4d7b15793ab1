//! Scopes that are added, removed, or described otherwise while the service runs.
//!
//! **Invariant**: a cgroup that one scope gives up and another takes is tagged all the
//! time: the new tag takes the place of the old one.

use std::mem;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::daemon::{Daemon, lock};
use super::{Earlier, Known, MAX_SCOPES, Scope, ScopeReport, Scopes, definition, report};

/// How long whoever adds a scope waits until it is swept; it goes on afterwards.
const SWEPT_WITHIN: Duration = Duration::from_secs(2);

impl Daemon {
    /// Adds a scope, or says only what it would match now.
    pub(in super::super) fn add_scope(&self, scope: Scope, dry_run: bool, by: u32) -> Result<ScopeReport> {
        let name = scope.name().to_owned();
        {
            let mut scopes = lock(&self.scopes);
            ensure!(
                scopes.known.iter().all(|known| known.scope.name() != name),
                "there is a scope `{name}` already: remove it first (`enforcer scope rm {name}`)",
            );
            ensure!(scopes.known.len() < MAX_SCOPES, "there are {MAX_SCOPES} scopes, and more cannot be");
            let known = Known::new(scope, true);
            let survey = self.survey(&scopes, &known, by);
            if dry_run {
                return Ok(survey);
            }
            let refused: Vec<_> =
                survey.matches.iter().filter_map(|it| Some((&it.cgroup, it.problems.first()?))).collect();
            if let Some((cgroup, why)) = refused.first()
                && (!known.scope.force || refused.len() == survey.matches.len())
            {
                bail!("{cgroup} is no place for a scope: {why}");
            }
            definition::keep(&self.config.cgroup.scopes_dir, &known.scope).context("keeping the scope")?;
            scopes.known.push(known);
            self.scan(&mut scopes);
            self.follow(&mut scopes);
        }
        self.wait_swept(&name, SWEPT_WITHIN);
        self.list_scopes().into_iter().find(|it| it.name == name).context("the scope is gone")
    }

    /// Removes a scope that was added by command, and lifts what it has tagged.
    pub(in super::super) fn remove_scope(&self, name: &str) -> Result<String> {
        let mut scopes = lock(&self.scopes);
        let at = scopes.known.iter().position(|known| known.scope.name() == name);
        let at = at.with_context(|| format!("there is no scope `{name}`: `enforcer scope ls` lists them"))?;
        ensure!(
            scopes.known[at].by_command,
            "`{name}` stands in the configuration: remove it there, and then `enforcer reload`"
        );
        definition::forget(&self.config.cgroup.scopes_dir, name).context("forgetting the scope")?;
        let known = scopes.known.remove(at);
        let had = known.matches.len();
        let freed = self.pass_on(&mut scopes, vec![known]);
        Ok(format!(
            "{freed} cgroup(s) of `{name}` are free{}; connections that are open stay with the proxy",
            if freed < had { ", the others are in other scopes" } else { "" }
        ))
    }

    /// Whether these could be the scopes of the configuration, beside those by command.
    pub(in super::super) fn may_configure(&self, configured: &[Scope]) -> Result<()> {
        Self::check_beside(&lock(&self.scopes), configured)
    }

    fn check_beside(scopes: &Scopes, configured: &[Scope]) -> Result<()> {
        let by_command = scopes.known.iter().filter(|known| known.by_command);
        for known in by_command.clone() {
            ensure!(
                configured.iter().all(|scope| scope.name() != known.scope.name()),
                "two scopes are called `{0}`: one was added by command; rename one, or `enforcer scope rm {0}`",
                known.scope.name()
            );
        }
        ensure!(
            configured.len() + by_command.count() <= MAX_SCOPES,
            "there would be more than {MAX_SCOPES} scopes"
        );
        Ok(())
    }

    /// Puts these in the place of those that the configuration had; what was added by
    /// command stays. An error changes nothing.
    pub(in super::super) fn configure_scopes(&self, configured: Vec<Scope>) -> Result<String> {
        let mut scopes = lock(&self.scopes);
        Self::check_beside(&scopes, &configured)?;
        let (mut by_command, mut before): (Vec<Known>, Vec<Known>) =
            mem::take(&mut scopes.known).into_iter().partition(|known| known.by_command);
        let mut added = 0;
        for scope in configured {
            let same = before.iter().position(|known| known.scope == scope);
            let known = same.map(|at| before.remove(at));
            added += usize::from(known.is_none());
            scopes.known.push(known.unwrap_or_else(|| Known::new(scope, false)));
        }
        scopes.known.append(&mut by_command);
        let removed = before.len();
        let freed = self.pass_on(&mut scopes, before);
        Ok(format!(
            "{} scope(s), of which {added} are new, {removed} gone; {freed} cgroup(s) are free",
            scopes.known.len()
        ))
    }

    /// What these had goes to those that mean it now, or is freed: how many that are.
    fn pass_on(&self, scopes: &mut Scopes, gone: Vec<Known>) -> usize {
        for known in gone {
            let labels = known.labels();
            for (cgroup, found) in known.matches {
                let earlier =
                    Earlier { note: found.note, sweep: Some(found.sweep), labels: Some(labels.clone()) };
                scopes.earlier.insert(cgroup, earlier);
            }
        }
        self.scan(scopes);
        self.follow(scopes);
        self.end_earlier(scopes)
    }

    /// What is left of those that were tagged before is meant by nobody. While somebody's
    /// name cannot be looked up nobody knows that, and they keep their tags.
    pub(super) fn end_earlier(&self, scopes: &mut Scopes) -> usize {
        if !scopes.earlier.is_empty()
            && let Some(known) = scopes.known.iter().find(|known| !known.problems.is_empty())
        {
            let (scope, kept) = (known.scope.name(), scopes.earlier.len());
            tracing::warn!(scope, kept, "cgroups stay tagged until it is known whom the scope means");
            return 0;
        }
        let earlier = mem::take(&mut scopes.earlier);
        earlier.values().for_each(|it| self.end_match(&it.note));
        earlier.len()
    }

    pub(in super::super) fn list_scopes(&self) -> Vec<ScopeReport> {
        let lifted = self.lifted_tags();
        report::of_all(&self.scopes.lock().unwrap_or_else(PoisonError::into_inner), &lifted)
    }
}
