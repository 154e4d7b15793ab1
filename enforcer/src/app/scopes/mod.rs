//! Scopes: cgroups that the enforcer did not make, and that are tagged because an
//! operator described them. Each match is a workload `<scope>/<name of the cgroup>`
//! with the label `scope=<scope>`, by which policy says what it may do.
//!
//! ```text
//!                 mkdir (inotify, or a look at all)
//!   described ──────────────────────────────────────▶ tagged ──▶ swept, again and again
//!       ▲                                               │
//!       └──── rmdir: its tag dies with it ◀─────────────┤
//!                                      scope rm ◀───────┘
//! ```
//!
//! The tag comes first, then the sockets that no hook has seen. Where all children of a
//! cgroup are meant, it is tagged too: what appears in it is never without a tag.

mod definition;
mod matching;
mod places;
mod report;
mod sweep;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use serde::{Deserialize, Serialize};

use crate::kernel::cgroup_id;
use crate::workload::wire::{ToProxy, WorkloadSpec};

use super::daemon::{Daemon, lock};
use super::inotify;
use definition::MAX_SCOPES;
pub use definition::{LABEL, Scope, User};
use matching::Pattern;
use places::{Places, children};
pub use report::{MatchReport, ScopeReport};
use sweep::{Seen, Since};
use watch::{Change, Watcher};

/// How often is looked whether tagged cgroups are still there, and who is new in them.
const TICK: Duration = Duration::from_millis(500);
/// How often everything is looked at, whatever was told.
const RESCAN: Duration = Duration::from_secs(5);
/// The nice value of the thread that tags.
const URGENT: i32 = -20;

/// All scopes of the host and what is tagged for them.
pub(super) struct Scopes {
    places: Places,
    watcher: Watcher,
    known: Vec<Known>,
    /// What an earlier loader has tagged, until it is known whether a scope means it.
    earlier: HashMap<u64, Note>,
    /// Tagged, and the proxy does not know it yet.
    untold: Vec<WorkloadSpec>,
    /// Tagged, and not swept yet.
    fresh: Vec<u64>,
}

struct Known {
    scope: Scope,
    by_command: bool,
    patterns: Vec<Pattern>,
    problems: Vec<String>,
    /// Matches that are not tagged, and why.
    refused: BTreeMap<PathBuf, String>,
    matches: BTreeMap<u64, Match>,
}

struct Match {
    note: Note,
    /// Why it is not enforced as it should be.
    failed: Option<String>,
    problems: Vec<String>,
    seen: Seen,
}

/// What is kept of a match for the next loader.
#[derive(Clone, Serialize, Deserialize)]
struct Note {
    path: PathBuf,
    cgroup: u64,
    tag: u64,
    since_unix_ms: u64,
    closed: u64,
}

impl Known {
    fn new(scope: Scope, by_command: bool) -> Self {
        let (patterns, problems) = scope.patterns();
        let (refused, matches) = Default::default();
        Self { scope, by_command, patterns, problems, refused, matches }
    }
}

impl Scopes {
    pub fn new(attach: PathBuf, own: PathBuf, jobs: PathBuf) -> Self {
        let watcher = Watcher::new();
        let places = Places { attach, own, jobs };
        let (known, earlier, untold, fresh) = Default::default();
        Self { places, watcher, known, earlier, untold, fresh }
    }

    /// Why new matches are looked for again and again: nobody tells of all of them.
    pub fn unwatched(&self) -> Option<&str> {
        self.watcher.problem().filter(|_| !self.known.is_empty())
    }

    fn held_by(&self, cgroup: u64) -> Option<&str> {
        self.known.iter().find(|it| it.matches.contains_key(&cgroup)).map(|it| it.scope.name())
    }

    fn matched(&mut self, cgroup: u64) -> Option<&mut Match> {
        self.known.iter_mut().find_map(|known| known.matches.get_mut(&cgroup))
    }
}

/// Tags what is described, and follows what comes and goes.
pub(super) fn serve(daemon: &Arc<Daemon>) -> Result<()> {
    daemon.begin_scopes()?;
    daemon.watch_scopes().context("the watch over scopes")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Daemon {
    /// Reads all scopes, takes over what an earlier loader has tagged, and tags what is
    /// there. Nobody is served before.
    fn begin_scopes(&self) -> Result<()> {
        let mut scopes = lock(&self.scopes);
        let dir = &self.config.cgroup.scopes_dir;
        let by_command = definition::read_all(dir).context("scopes that were added by command")?;
        let configured = self.config.scope.iter().map(|scope| (scope.as_ref().clone(), false));
        for (scope, by_command) in configured.chain(by_command.into_iter().map(|scope| (scope, true))) {
            ensure!(
                scopes.known.iter().all(|known| known.scope.name() != scope.name()),
                "two scopes are called `{name}`: one of them is {dir}/{name}.toml",
                name = scope.name(),
                dir = dir.display(),
            );
            scopes.known.push(Known::new(scope, by_command));
        }
        ensure!(scopes.known.len() <= MAX_SCOPES, "there are more than {MAX_SCOPES} scopes");
        scopes.earlier = self.notes();
        self.scan(&mut scopes);
        self.follow(&mut scopes);
        for note in std::mem::take(&mut scopes.earlier).into_values() {
            // Its scope is not described any more, or the cgroup is gone.
            self.end_match(&note);
        }
        Ok(())
    }

    /// Follows what comes and goes, on a thread of its own, until the end.
    fn watch_scopes(self: &Arc<Self>) -> Result<()> {
        let daemon = Arc::clone(self);
        std::thread::Builder::new().name("scopes".to_owned()).spawn(move || {
            // Whoever appears runs at once; on a busy host the tag would come late.
            if let Err(error) = setpriority_process(Some(gettid()), URGENT) {
                tracing::debug!(%error, "the watch over scopes has the priority of all others");
            }
            let (mut ticked, mut scanned, mut took) = (Instant::now(), Instant::now(), Duration::ZERO);
            let (mut fd, mut unwatched) = (None, None);
            while !daemon.stop.load(Ordering::Acquire) {
                let rescan = if unwatched.is_some() { inotify::pause_after(took) } else { RESCAN };
                let patience = TICK.saturating_sub(ticked.elapsed()).min(rescan);
                watch::wait(fd.as_ref(), patience);
                let mut scopes = lock(&daemon.scopes);
                daemon.follow(&mut scopes);
                if ticked.elapsed() >= TICK {
                    daemon.tick(&mut scopes);
                    ticked = Instant::now();
                }
                if scanned.elapsed() >= rescan {
                    let begun = Instant::now();
                    scopes.watcher.open();
                    daemon.scan(&mut scopes);
                    (scanned, took) = (Instant::now(), begun.elapsed());
                }
                fd = fd.or_else(|| scopes.watcher.descriptor());
                let now = scopes.unwatched().map(str::to_owned);
                drop(scopes);
                if let Some(why) = now.as_ref().filter(|_| now != unwatched) {
                    tracing::warn!("not all cgroups of scopes are watched: {why}");
                }
                unwatched = now;
            }
        })?;
        Ok(())
    }

    /// Tags what has appeared. All else comes when there is nothing to tag: the proxy,
    /// which may be slow, and sockets from before.
    fn follow(&self, scopes: &mut Scopes) {
        loop {
            for change in scopes.watcher.changes() {
                match change {
                    Change::Made(path) => self.consider(scopes, &path),
                    Change::Gone(path) => self.end_gone(scopes, Some(&path)),
                    Change::Overflow => self.scan(scopes),
                }
            }
            if let Some(spec) = scopes.untold.pop() {
                self.introduce(scopes, spec);
                continue;
            }
            let Some(cgroup) = scopes.fresh.pop() else { return };
            self.sweep(scopes, cgroup, Since::ThisMoment);
        }
    }

    fn scan(&self, scopes: &mut Scopes) {
        scopes.watcher.forget_problem();
        for known in &mut scopes.known {
            if !known.problems.is_empty() {
                // A user may have been made meanwhile.
                (known.patterns, known.problems) = known.scope.patterns();
            }
            known.refused.clear();
        }
        let attach = scopes.places.attach.clone();
        if !scopes.known.is_empty() {
            self.consider(scopes, &attach);
        }
    }

    /// Looks at a cgroup and at those below it in which a match may be.
    fn consider(&self, scopes: &mut Scopes, path: &Path) {
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let mut descend = false;
            for at in 0..scopes.known.len() {
                let look = scopes.places.look(&scopes.known[at].patterns, &path);
                if look.matched || look.holds_only_matches {
                    self.take(scopes, at, &path, look.matched);
                }
                descend |= look.descend;
            }
            if descend {
                // Before its children are listed: none appears in between unseen.
                scopes.watcher.watch(&path);
                open.extend(children(&path));
            }
        }
    }

    /// Tags a match.
    fn take(&self, scopes: &mut Scopes, at: usize, path: &Path, matched: bool) {
        let place = scopes.places.place(path);
        let refusal = scopes.places.refusal(&place, scopes.known[at].scope.force);
        let Ok(cgroup) = cgroup_id(&place) else { return };
        let why = match (refusal, scopes.held_by(cgroup)) {
            (Some(why), _) => why,
            (None, Some(other)) if other != scopes.known[at].scope.name() => {
                format!("it is in the scope `{other}`")
            }
            (None, Some(_)) => return,
            (None, None) => return self.enforce(scopes, at, place, cgroup),
        };
        if matched {
            scopes.known[at].refused.insert(place, why);
        }
    }

    fn enforce(&self, scopes: &mut Scopes, at: usize, path: PathBuf, cgroup: u64) {
        let since_unix_ms = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        let adopted = scopes.earlier.remove(&cgroup);
        let is_new = adopted.is_none();
        let note = adopted.unwrap_or_else(|| {
            let tag = self.new_tag(now());
            Note { path, cgroup, tag, since_unix_ms, closed: 0 }
        });
        // It may have been lifted for a while.
        let lifted = !is_new && self.lifted_before(&note.path) == Some(note.tag);
        let known = &scopes.known[at];
        let leaf = note.path.file_name().unwrap_or_default().to_string_lossy();
        let mut labels = known.scope.labels.clone();
        labels.insert(LABEL.to_owned(), known.scope.name().to_owned());
        let spec = WorkloadSpec {
            tag: note.tag,
            cgroup,
            cgroup_path: note.path.strip_prefix(self.mount()).unwrap_or(&note.path).display().to_string(),
            name: format!("{}/{leaf}", known.scope.name()),
            labels,
            uid: 0,
            command: Vec::new(),
            secrets: Vec::new(),
            started_unix_ms: note.since_unix_ms,
        };
        let failed = if lifted { None } else { self.tag(&note.path, note.tag).err() };
        if let Some(error) = &failed {
            tracing::error!("{} is not enforced as it should be: {error:#}", note.path.display());
        } else {
            tracing::info!(scope = known.scope.name(), cgroup = %note.path.display(), "tagged");
        }
        scopes.untold.push(spec);
        let failed = failed.map(|error| format!("{error:#}"));
        let found = Match { note, failed, problems: Vec::new(), seen: Seen::default() };
        scopes.known[at].matches.insert(cgroup, found);
        if is_new {
            scopes.fresh.push(cgroup);
        }
    }

    /// Tells the proxy, and the next loader. Whoever connects before is waited for there.
    fn introduce(&self, scopes: &mut Scopes, spec: WorkloadSpec) {
        if let Some(found) = scopes.matched(spec.cgroup) {
            self.write_note(&found.note);
            lock(&self.workloads).insert(spec.tag, spec.clone());
            if let Err(error) = self.tell(&ToProxy::Workload { id: 0, spec: Box::new(spec) }, &[]) {
                tracing::debug!(%error, "a proxy that begins is told of all");
            }
        }
    }

    fn sweep(&self, scopes: &mut Scopes, cgroup: u64, since: Since) {
        let ports = [self.config.listen.tcp_port, self.config.listen.dns_port];
        let Some(found) = scopes.matched(cgroup) else { return };
        if lock(&self.lifted).contains_key(&found.note.tag) {
            return;
        }
        let swept = found.seen.sweep(&found.note.path, since, ports);
        for pid in swept.namespaces.values() {
            // Else their first connect is refused, and then it is served.
            if let Err(error) = self.serve_namespace_of(*pid) {
                tracing::debug!(pid, "the network namespace is served on demand: {error:#}");
            }
        }
        for problem in &swept.problems {
            tracing::warn!(cgroup = %found.note.path.display(), "{problem}");
        }
        found.problems.extend(swept.problems);
        found.problems.sort();
        found.problems.dedup();
        if swept.closed > 0 {
            tracing::info!(cgroup = %found.note.path.display(), closed = swept.closed, "sockets from before");
            found.note.closed += swept.closed;
            self.write_note(&found.note);
        }
    }

    fn tick(&self, scopes: &mut Scopes) {
        self.end_gone(scopes, None);
        let all: Vec<u64> = scopes.known.iter().flat_map(|known| known.matches.keys().copied()).collect();
        for cgroup in all {
            if let Some(found) = scopes.matched(cgroup)
                && found.failed.is_some()
            {
                found.failed =
                    self.tag(&found.note.path, found.note.tag).err().map(|error| format!("{error:#}"));
            }
            self.sweep(scopes, cgroup, Since::Earlier);
            // Nobody waits for a tag because others are swept.
            self.follow(scopes);
        }
    }

    /// A tag dies with its cgroup. With a path it is only looked at this one.
    fn end_gone(&self, scopes: &mut Scopes, path: Option<&Path>) {
        for known in &mut scopes.known {
            known.matches.retain(|cgroup, found| {
                let here = path.is_some_and(|path| path != found.note.path)
                    || cgroup_id(&found.note.path).is_ok_and(|now| now == *cgroup);
                if !here {
                    self.end_match(&found.note);
                }
                here
            });
        }
    }

    fn end_match(&self, note: &Note) {
        self.forget(note.tag, note.cgroup, None);
        let file = self.note_file(note.cgroup);
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %file.display(), "it stays");
        }
    }

    fn note_file(&self, cgroup: u64) -> PathBuf {
        self.config.run.dir.join("scopes").join(cgroup.to_string())
    }

    fn write_note(&self, note: &Note) {
        let file = self.note_file(note.cgroup);
        let written = file.parent().map_or(Ok(()), fs::create_dir_all);
        let text = serde_json::to_vec(note).unwrap_or_default();
        if let Err(error) = written.and_then(|()| fs::write(&file, text)) {
            tracing::warn!(%error, file = %file.display(), "a restart will give this match a new tag");
        }
    }

    /// What an earlier loader wrote down; a note that was cut is none.
    fn notes(&self) -> HashMap<u64, Note> {
        let Ok(entries) = fs::read_dir(self.config.run.dir.join("scopes")) else { return HashMap::new() };
        let texts = entries.flatten().filter_map(|entry| fs::read(entry.path()).ok());
        let notes = texts.filter_map(|text| serde_json::from_slice::<Note>(&text).ok());
        notes.map(|note| (note.cgroup, note)).collect()
    }

    /// Adds a scope, or says only what it would match now.
    pub(super) fn add_scope(&self, scope: Scope, dry_run: bool, by: u32) -> Result<ScopeReport> {
        let mut scopes = lock(&self.scopes);
        ensure!(
            scopes.known.iter().all(|known| known.scope.name() != scope.name()),
            "there is a scope `{}` already: remove it first (`enforcer scope rm {0}`)",
            scope.name()
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
        let name = known.scope.name().to_owned();
        scopes.known.push(known);
        self.scan(&mut scopes);
        self.follow(&mut scopes);
        let added = report::of_all(&scopes, &self.lifted_tags()).into_iter().find(|it| it.name == name);
        added.context("the scope is gone")
    }

    /// Removes a scope that was added by command, and lifts what it has tagged.
    pub(super) fn remove_scope(&self, name: &str) -> Result<String> {
        let mut scopes = lock(&self.scopes);
        let at = scopes.known.iter().position(|known| known.scope.name() == name);
        let at = at.with_context(|| format!("there is no scope `{name}`: `enforcer scope ls` lists them"))?;
        ensure!(
            scopes.known[at].by_command,
            "`{name}` stands in the configuration: remove it there and start the service again"
        );
        definition::forget(&self.config.cgroup.scopes_dir, name).context("forgetting the scope")?;
        let known = scopes.known.remove(at);
        for found in known.matches.values() {
            self.end_match(&found.note);
        }
        // Another scope may mean the same.
        self.scan(&mut scopes);
        self.follow(&mut scopes);
        Ok(format!(
            "{} cgroup(s) of `{name}` are free; connections that are open stay with the proxy",
            known.matches.len()
        ))
    }

    pub(super) fn list_scopes(&self) -> Vec<ScopeReport> {
        let lifted = self.lifted_tags();
        report::of_all(&lock(&self.scopes), &lifted)
    }

    fn lifted_tags(&self) -> HashMap<u64, u64> {
        lock(&self.lifted).iter().map(|(tag, lifted)| (*tag, lifted.until_unix_ms())).collect()
    }
}
