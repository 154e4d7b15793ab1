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
//! The tag comes first, then, by other threads, the sockets that no hook has seen: until
//! there are none a match is `sweeping`. Where all children of a
//! cgroup are meant, it is tagged too: what appears in it is never without a tag.

mod change;
mod definition;
mod labels;
mod matching;
mod places;
mod report;
mod sweep;
mod sweeps;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
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
pub use report::{CONFIGURATION, MatchReport, ScopeReport, State};
use sweep::Since;
use sweeps::{Queue, Sweep};
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
    /// What an earlier loader has tagged, or for a scope that is gone, until it is known
    /// whether another scope means it.
    earlier: HashMap<u64, Earlier>,
    /// Tagged, and the proxy does not know it yet.
    untold: Vec<WorkloadSpec>,
    /// What is known of containers.
    containers: labels::Known,
    /// Who is to be swept next.
    queue: Queue,
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
    sweep: Sweep,
}

/// A match of before.
struct Earlier {
    note: Note,
    /// How far it was, and as which workload: not known of an earlier loader's.
    sweep: Option<Sweep>,
    labels: Option<BTreeMap<String, String>>,
}

/// What is kept of a match for the next loader.
#[derive(Clone, Serialize, Deserialize)]
struct Note {
    path: PathBuf,
    cgroup: u64,
    tag: u64,
    since_unix_ms: u64,
    closed: u64,
    /// Whether it has been clean.
    #[serde(default = "yes")]
    swept: bool,
}

/// An earlier version wrote no note before it had swept.
fn yes() -> bool {
    true
}

impl Known {
    fn new(scope: Scope, by_command: bool) -> Self {
        let (patterns, problems) = scope.patterns();
        let (refused, matches) = Default::default();
        Self { scope, by_command, patterns, problems, refused, matches }
    }

    /// By which policy knows its workloads.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.scope.labels.clone();
        labels.insert(LABEL.to_owned(), self.scope.name().to_owned());
        labels
    }
}

impl Scopes {
    pub fn new(attach: PathBuf, own: PathBuf, jobs: PathBuf) -> Self {
        let watcher = Watcher::new();
        let places = Places { attach, own, jobs };
        let (known, earlier, untold, containers, queue) = Default::default();
        Self { places, watcher, known, earlier, untold, containers, queue }
    }

    /// Why new matches are looked for again and again: nobody tells of all of them.
    pub fn unwatched(&self) -> Option<&str> {
        self.watcher.problem().filter(|_| !self.known.is_empty())
    }

    fn held_by(&self, cgroup: u64) -> Option<&str> {
        self.known.iter().find(|it| it.matches.contains_key(&cgroup)).map(|it| it.scope.name())
    }

    /// Whether it is tagged only because its labels are not known.
    fn is_in_question(&self, cgroup: u64) -> bool {
        let known = self.known.iter().find(|it| it.matches.contains_key(&cgroup));
        known.is_some_and(|it| it.scope.asks_for_labels()) && self.containers.problem(cgroup).is_some()
    }

    fn matched(&mut self, cgroup: u64) -> Option<&mut Match> {
        self.known.iter_mut().find_map(|known| known.matches.get_mut(&cgroup))
    }
}

/// Tags what is described, and follows what comes and goes.
pub(super) fn serve(daemon: &Arc<Daemon>) -> Result<()> {
    daemon.begin_scopes()?;
    sweeps::serve(daemon)?;
    labels::serve(daemon)?;
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
        // Their scopes are not described any more, or the cgroups are gone.
        self.end_earlier(&mut scopes);
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
            let (mut fd, mut unwatched) = (lock(&daemon.scopes).watcher.descriptor(), None);
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
                    // Who waited for a name that could not be looked up.
                    daemon.end_earlier(&mut scopes);
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

    /// Tags what has appeared. All else comes when there is nothing to tag.
    fn follow(&self, scopes: &mut Scopes) {
        loop {
            for change in scopes.watcher.changes() {
                match change {
                    Change::Made(path) => self.consider(scopes, &path),
                    Change::Gone(path) => self.end_gone(scopes, Some(&path)),
                    Change::Overflow => self.scan(scopes),
                }
            }
            let Some(spec) = scopes.untold.pop() else { return };
            self.introduce(scopes, spec);
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
        let scope = &scopes.known[at].scope;
        let by_label = scope.asks_for_labels();
        // Until they are known it is meant.
        if by_label && scopes.containers.of(cgroup, &place).is_some_and(|labels| !scope.wants(labels)) {
            return;
        }
        let refusal = refusal.or_else(|| {
            let whole = by_label && place != path;
            whole.then(|| "it is in a cgroup that was delegated as a whole: name its user".to_owned())
        });
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
        let labels = scopes.known[at].labels();
        let new = |path, closed, swept| {
            let since_unix_ms = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
            Note { path, cgroup, tag: self.new_tag(now()), since_unix_ms, closed, swept }
        };
        let earlier = scopes.earlier.remove(&cgroup);
        let is_same = earlier.as_ref().is_some_and(|it| it.labels.as_ref().is_none_or(|it| *it == labels));
        let (note, sweep, before) = match earlier {
            None => (new(path, 0, false), None, None),
            Some(it) if is_same => (it.note, it.sweep, None),
            // It is another workload from now on.
            Some(it) => (new(path, it.note.closed, it.note.swept), it.sweep, Some(it.note.tag)),
        };
        // It may have been lifted for a while.
        let lifted = is_same && self.lifted_before(&note.path) == Some(note.tag);
        let known = &scopes.known[at];
        let leaf = note.path.file_name().unwrap_or_default().to_string_lossy();
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
        if let Some(before) = before {
            self.end_workload(before);
        }
        scopes.untold.push(spec);
        let since = if note.swept { Since::Earlier } else { Since::ThisMoment };
        let sweep = sweep.unwrap_or_else(|| Sweep::new(since));
        let found = Match { note, failed: failed.map(|error| format!("{error:#}")), sweep };
        scopes.known[at].matches.insert(cgroup, found);
        scopes.queue.push(Instant::now(), cgroup);
        self.swept.notify_all();
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

    fn tick(&self, scopes: &mut Scopes) {
        self.end_gone(scopes, None);
        scopes.containers.forget_gone();
        for found in scopes.known.iter_mut().flat_map(|known| known.matches.values_mut()) {
            if found.failed.is_some() {
                found.failed =
                    self.tag(&found.note.path, found.note.tag).err().map(|error| format!("{error:#}"));
            }
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
    fn notes(&self) -> HashMap<u64, Earlier> {
        let Ok(entries) = fs::read_dir(self.config.run.dir.join("scopes")) else { return HashMap::new() };
        let texts = entries.flatten().filter_map(|entry| fs::read(entry.path()).ok());
        let notes = texts.filter_map(|text| serde_json::from_slice::<Note>(&text).ok());
        notes.map(|note| (note.cgroup, Earlier { note, sweep: None, labels: None })).collect()
    }

    fn lifted_tags(&self) -> HashMap<u64, u64> {
        lock(&self.lifted).iter().map(|(tag, lifted)| (*tag, lifted.until_unix_ms())).collect()
    }
}
