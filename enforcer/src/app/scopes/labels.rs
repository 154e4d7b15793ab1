//! Labels of containers, which stand in no cgroup: the container's daemon is asked, by a
//! command of the configuration that is given the container's id and says its labels in
//! JSON.
//!
//! ```text
//!   a container's cgroup appears ──▶ tagged, and asked ──▶ the label fits: stays so
//!                                        │    ▲    └─────▶ it does not: free
//!                             no answer  ▼    │ later
//!                                   tagged, with a problem
//! ```
//!
//! **Invariant**: what is not known is enforced.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::daemon::{Daemon, lock};
use super::matching::container_id;
use super::{Earlier, Scopes};
use crate::kernel::cgroup_id;

/// So many are asked for at a time.
const ASKED_AT_A_TIME: usize = 4;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the command has ended.
const LOOK: Duration = Duration::from_millis(10);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 256 * 1024;
/// How long until somebody is asked for again; twice as long each time.
const AGAIN: Duration = Duration::from_secs(1);
/// And at most.
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);
/// The longest label of a scope, in bytes.
const MAX_LABEL: usize = 512;

pub type Labels = BTreeMap<String, String>;

/// A label that a container has to have: `KEY`, or `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: Option<String>,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        if key.is_empty() || text.len() > MAX_LABEL {
            return Err(format!("a container's label is KEY or KEY=VALUE, of at most {MAX_LABEL} bytes"));
        }
        Ok(Self { key: key.to_owned(), value: value.map(str::to_owned) })
    }
}

impl Label {
    pub fn is_in(&self, labels: &Labels) -> bool {
        labels.get(&self.key).is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

/// What is known of containers, by their cgroups.
#[derive(Debug, Default)]
pub struct Known(HashMap<u64, Container>);

#[derive(Debug)]
struct Container {
    path: PathBuf,
    labels: Option<Labels>,
    /// When to ask for it; somebody does now if there is none.
    due: Option<Instant>,
    tries: u32,
    problem: Option<String>,
}

impl Known {
    /// Its labels, if they are known. If not they are asked for from now on.
    pub fn of(&mut self, cgroup: u64, path: &Path) -> Option<&Labels> {
        let new = || Container {
            path: path.to_owned(),
            labels: None,
            due: Some(Instant::now()),
            tries: 0,
            problem: None,
        };
        self.0.entry(cgroup).or_insert_with(new).labels.as_ref()
    }

    /// Why they are not known.
    pub fn problem(&self, cgroup: u64) -> Option<String> {
        let container = self.0.get(&cgroup).filter(|it| it.labels.is_none())?;
        let why = container.problem.as_deref().unwrap_or("they are being asked for");
        Some(format!("its labels are not known, so it is enforced: {why}"))
    }

    /// The same number never means another cgroup.
    pub fn forget_gone(&mut self) {
        self.0.retain(|cgroup, it| cgroup_id(&it.path).is_ok_and(|now| now == *cgroup));
    }

    fn next(&mut self, now: Instant) -> Option<(u64, PathBuf)> {
        let waiting = self.0.iter_mut().filter(|(_, it)| it.labels.is_none());
        let due = waiting.filter(|(_, it)| it.due.is_some_and(|due| due <= now));
        let (cgroup, found) = due.min_by_key(|(_, it)| it.due)?;
        found.due = None;
        Some((*cgroup, found.path.clone()))
    }

    fn learn(&mut self, cgroup: u64, answer: Result<Labels>) {
        let Some(it) = self.0.get_mut(&cgroup) else { return };
        match answer {
            Ok(labels) => it.labels = Some(labels),
            Err(error) => {
                it.due = Some(Instant::now() + AGAIN_AT_MOST.min(AGAIN * 2_u32.saturating_pow(it.tries)));
                it.tries += 1;
                it.problem = Some(format!("{error:#}"));
            }
        }
    }
}

/// Starts those who ask, which go on until the end.
pub(super) fn serve(daemon: &Arc<Daemon>) -> Result<()> {
    for number in 0..ASKED_AT_A_TIME {
        let daemon = Arc::clone(daemon);
        let ask = move || {
            while !daemon.stop.load(Ordering::Acquire) {
                daemon.ask_for_labels();
            }
        };
        std::thread::Builder::new()
            .name(format!("labels {number}"))
            .spawn(ask)
            .context("who asks for labels")?;
    }
    Ok(())
}

impl Daemon {
    fn ask_for_labels(&self) {
        let mut scopes = lock(&self.scopes);
        let Some((cgroup, path)) = scopes.containers.next(Instant::now()) else {
            drop(self.swept.wait_timeout(scopes, AGAIN / 10));
            return;
        };
        drop(scopes);
        let answer = ask(&self.config.containers.inspect, &path);
        if let Err(error) = &answer {
            tracing::warn!(cgroup = %path.display(), "labels of a container are not known: {error:#}");
        }
        let mut scopes = lock(&self.scopes);
        scopes.containers.learn(cgroup, answer);
        self.release_others(&mut scopes, cgroup, &path);
    }

    /// Frees it if it does not have the labels that are meant, unless another scope means it.
    fn release_others(&self, scopes: &mut Scopes, cgroup: u64, path: &Path) {
        let Some(labels) = scopes.containers.of(cgroup, path).cloned() else { return };
        let holder = scopes.known.iter_mut().find(|known| known.matches.contains_key(&cgroup));
        let Some(known) = holder.filter(|known| !known.scope.wants(&labels)) else { return };
        let before = known.labels();
        if let Some(found) = known.matches.remove(&cgroup) {
            let earlier = Earlier { note: found.note, sweep: Some(found.sweep), labels: Some(before) };
            scopes.earlier.insert(cgroup, earlier);
        }
        self.consider(scopes, path);
        self.end_earlier(scopes);
        self.follow(scopes);
    }
}

/// Runs the command for the container of this cgroup.
fn ask(inspect: &[String], cgroup: &Path) -> Result<Labels> {
    let id =
        cgroup.file_name().and_then(|name| container_id(name.to_str()?)).context("it is no container")?;
    let (program, args) = inspect.split_first().context("[containers] inspect is empty")?;
    let mut command = Command::new(program);
    command.args(args).arg(id).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let output = child.stdout.take().context("no output")?;
    let (told, tell) = mpsc::channel();
    // It ends with the command, or with whoever else has its output.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.take(MAX_ANSWER + 1).read_to_end(&mut text);
        told.send(read.map(|_| text)).ok();
    });
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL)?;
            child.wait()?;
            bail!("{program} gave no answer within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    };
    ensure!(status.success(), "{program} failed ({status}): set [containers] inspect for your daemon");
    parse(&tell.recv_timeout(PATIENCE).context("its answer has no end")??)
}

fn parse(answer: &[u8]) -> Result<Labels> {
    ensure!(answer.len() as u64 <= MAX_ANSWER, "the answer is longer than {MAX_ANSWER} bytes");
    let labels: Option<Labels> = serde_json::from_slice(answer).context("the answer is no JSON of labels")?;
    Ok(labels.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn cgroup() -> PathBuf {
        Path::new("/machine.slice").join(format!("libpod-{}.scope", "a1".repeat(32)))
    }

    #[test]
    fn a_label_is_there_with_its_value_or_with_any() {
        let labels =
            Labels::from([("team".to_owned(), "ci".to_owned()), ("empty".to_owned(), String::new())]);
        for (label, fits) in [
            ("team", true),
            ("team=ci", true),
            ("team=web", false),
            ("team=", false),
            ("empty=", true),
            ("x", false),
        ] {
            assert_eq!(label.parse::<Label>().unwrap().is_in(&labels), fits, "{label}");
        }
        assert!("=x".parse::<Label>().is_err() && "".parse::<Label>().is_err());
        assert!("k".repeat(MAX_LABEL).parse::<Label>().is_ok());
        assert!("k".repeat(MAX_LABEL + 1).parse::<Label>().is_err());
    }

    #[test]
    fn the_answer_of_the_command_is_the_labels_or_a_reason() {
        let labels = ask(&sh("echo \"{\\\"id\\\":\\\"$0\\\"}\""), &cgroup()).unwrap();
        assert_eq!(labels, Labels::from([("id".to_owned(), "a1".repeat(32))]));
        assert_eq!(ask(&sh("echo null"), &cgroup()).unwrap(), Labels::new());
        for (script, says) in [("exit 1", "failed"), ("echo x", "no JSON"), ("echo '[1]'", "no JSON")] {
            let error = format!("{:#}", ask(&sh(script), &cgroup()).unwrap_err());
            assert!(error.contains(says), "{script}: {error}");
        }
        assert!(ask(&["/nonexistent".to_owned()], &cgroup()).is_err());
        assert!(ask(&sh("echo {}"), Path::new("/machine.slice/x.scope")).is_err());
    }

    #[test]
    fn an_answer_has_a_longest_length() {
        let long = |length: usize| {
            let fill = "x".repeat(length - r#"{"k":""}"#.len());
            parse(format!(r#"{{"k":"{fill}"}}"#).as_bytes())
        };
        let limit = usize::try_from(MAX_ANSWER).unwrap();
        assert!(long(limit).is_ok() && long(limit + 1).is_err());
    }

    #[test]
    fn it_is_asked_for_once_at_a_time_and_later_again_after_a_failure() {
        let mut known = Known::default();
        assert!(known.of(7, &cgroup()).is_none());
        let now = Instant::now();
        assert_eq!(known.next(now), Some((7, cgroup())));
        assert_eq!(known.next(now), None, "somebody asks already");
        known.learn(7, Err(anyhow::anyhow!("no daemon")));
        assert!(known.problem(7).unwrap().contains("no daemon"));
        assert_eq!(known.next(now), None);
        assert_eq!(known.next(now + 2 * AGAIN), Some((7, cgroup())));
        known.learn(7, Ok(Labels::new()));
        assert!(known.problem(7).is_none() && known.of(7, &cgroup()).is_some());
        assert_eq!(known.next(now + 100 * AGAIN), None);
        known.forget_gone();
        assert!(known.of(7, &cgroup()).is_none(), "there is no such cgroup");
    }
}
