//! The store on a thread of its own: calls on it can wait for the disk.
//!
//! ```text
//!  gate ────── submit, take ──┐                          ┌── wakes whoever `take` has an answer for
//!  people ──── list, decide ──┼──▶ one thread, one store ┤
//!  Drop ────── gone, ended ───┘    (ticks at `deadline`) └── journal, on disk before an answer
//! ```
//!
//! **Invariant**: who is not answered is denied. A desk that is busy, that has ended or that
//! cannot write lets nothing go.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::bound::{Bound, Exact};
use super::client::Class;
use super::forge::{Forges, Unknown};
use super::ids::{ApprovalId, JobKey, RuleKey, UnixMs, WaiterId};
use super::people::{Account, People};
use super::record::{Approval, Scope, Seen};
use super::release::Taken;
use super::store::{ApprovalError, ApprovalStore};
use super::submit::{Submission, Submitted};
use super::told::{Ended, Endings, Told};
use super::view::Held;
use super::webhook::Webhooks;
use super::{Answer, Decided, Says};
use crate::mask::MaskedText;
use crate::policy::{Fact, Group, JobFacts, Requirement};
use crate::session::SessionId;
use crate::workload::identity::Identity;
use crate::workload::identity::replay::JobId;

/// Calls that wait for the thread at the same time.
const CALLS: usize = 1024;
/// The longest without a look at the clock, which may have been set.
const LOOK: Duration = Duration::from_secs(30);
/// After an error of the journal.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    #[error("{0}")]
    Closed(Arc<str>),
    #[error("too much is asked of the approvals at the same time")]
    Busy,
    #[error("the approvals have ended; restart the service and report it")]
    Ended,
    #[error(transparent)]
    Store(#[from] ApprovalError),
    #[error(transparent)]
    Author(#[from] Unknown),
}

/// A statement that policy holds, and all that is to be known of it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub job: JobKey,
    pub rule: RuleKey,
    pub session: SessionId,
    pub bound: Bound,
    pub class: Class,
    pub requirement: Arc<Requirement>,
    pub environment: Fact<Arc<str>>,
    pub reference: Fact<Arc<str>>,
    pub actor: Option<Account>,
    /// Who wrote the job's commit, if a forge was asked.
    pub authors: Vec<Account>,
    pub held: Held,
}

/// What became of it, with the approval that it is about and, for a client that waits, what
/// wakes it.
#[derive(Debug)]
pub struct Reception {
    pub submitted: Submitted,
    pub approval: Option<Approval>,
    pub ready: Option<oneshot::Receiver<()>>,
}

/// What a client that was woken gets.
#[derive(Debug)]
pub struct Turn {
    pub taken: Taken,
    pub approval: Option<Approval>,
    /// Set if it waits on.
    pub ready: Option<oneshot::Receiver<()>>,
}

/// What somebody says to a question.
#[derive(Debug, Clone)]
pub struct Spoken {
    pub approval: ApprovalId,
    pub seen: Seen,
    pub by: Account,
    /// Those that the login has by now.
    pub groups: Vec<Group>,
    /// None: no.
    pub scope: Option<Scope>,
    pub reason: Option<MaskedText>,
}

/// An approval, and how many clients wait for it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub approval: Approval,
    pub waiting: usize,
    /// Whether its grant can still be used.
    pub granted: bool,
}

type Call = Box<dyn FnOnce(&mut Owner) + Send>;

/// The way to the thread; clones share it.
#[derive(Clone)]
pub struct Desk {
    /// Or why there is no thread.
    calls: Result<SyncSender<Call>, Arc<str>>,
    pending: Arc<AtomicUsize>,
    /// Not calls: they must not be lost, and nobody can wait in a `Drop`.
    told: Arc<Mutex<Told>>,
    boot: Arc<str>,
    webhooks: Arc<Webhooks>,
    forges: Option<Arc<Forges>>,
}

/// What the thread has.
struct Owner {
    store: ApprovalStore,
    people: People,
    woken: HashMap<WaiterId, oneshot::Sender<()>>,
    pending: Arc<AtomicUsize>,
    /// Clients that have gone.
    gone: Vec<WaiterId>,
    endings: Endings,
    webhooks: Arc<Webhooks>,
}

impl Desk {
    /// Opens the journal in a folder and starts the thread. `people` are those who can decide
    /// as far as that is known; `boot` tells this boot of the host from all others.
    pub fn open(dir: &Path, people: People, boot: &str) -> Result<Self, ApprovalError> {
        Self::telling(dir, people, boot, Webhooks::default())
    }

    /// The same, and others are told of what waits and of how it ends.
    pub fn telling(
        dir: &Path,
        mut people: People,
        boot: &str,
        webhooks: Webhooks,
    ) -> Result<Self, ApprovalError> {
        let webhooks = Arc::new(webhooks);
        let store = ApprovalStore::open(dir, now())?;
        store.remember_groups(&mut people);
        let (calls, called) = sync_channel(CALLS);
        let told = Arc::default();
        let heard = Arc::clone(&told);
        let pending = Arc::new(AtomicUsize::new(store.pending().count()));
        let owner = Owner {
            store,
            people,
            woken: HashMap::new(),
            pending: Arc::clone(&pending),
            gone: Vec::new(),
            endings: Endings::default(),
            webhooks: Arc::clone(&webhooks),
        };
        let thread = std::thread::Builder::new().name("approvals".to_owned());
        let started = thread.spawn(move || owner.run(&called, &heard));
        if let Err(error) = started {
            // Every call will say that the desk has ended.
            tracing::error!(%error, "the approvals have no thread");
        }
        Ok(Self { calls: Ok(calls), told, boot: boot.into(), pending, webhooks, forges: None })
    }

    /// One that lets nothing go, and says why.
    pub fn closed(why: &str, boot: &str) -> Self {
        let (told, pending, webhooks) = Default::default();
        Self { calls: Err(why.into()), told, boot: boot.into(), pending, webhooks, forges: None }
    }

    /// Forges are asked who wrote a job's commit.
    #[must_use]
    pub fn asking(self, forges: Forges) -> Self {
        Self { forges: Some(Arc::new(forges)), ..self }
    }

    /// Who wrote a job's commit, for a requirement that they have no say in.
    pub async fn authors(
        &self,
        requirement: &Requirement,
        identity: Option<&Identity>,
    ) -> Result<Vec<Account>, DeskError> {
        match &self.forges {
            Some(forges) if requirement.excludes_self() => Ok(forges.authors(identity).await?),
            _ => Ok(Vec::new()),
        }
    }

    /// How many questions are open, or why there are none.
    pub fn state(&self) -> Result<usize, &str> {
        match &self.calls {
            Ok(_) => Ok(self.pending.load(Ordering::Relaxed)),
            Err(why) => Err(why),
        }
    }

    /// Who is told, and what became of that.
    pub fn webhooks(&self) -> Vec<serde_json::Value> {
        self.webhooks.status()
    }

    /// The job that a workload is. Tags are the time of their making, and a cgroup's number is
    /// given once on a boot, so that no other job ever has the same key; a restart of the
    /// proxy changes neither. Within one cgroup each identity that was bound is a job.
    pub fn job(&self, tag: u64, cgroup: u64, bound: Option<JobId>) -> JobKey {
        let bound = bound.map(|bound| format!("/{bound}")).unwrap_or_default();
        JobKey::new(&format!("{}/{tag:x}/{cgroup:x}{bound}", self.boot))
    }

    pub async fn submit(&self, asked: Asked) -> Result<Reception, DeskError> {
        self.call(move |owner| owner.submit(&asked)).await?
    }

    /// After a client was woken, with the bytes that would go out now.
    pub async fn take(&self, waiter: WaiterId, exact: Exact) -> Result<Turn, DeskError> {
        self.call(move |owner| owner.take(waiter, exact)).await?
    }

    /// A client has gone. What is told here is done before the next call.
    pub fn gone(&self, waiter: WaiterId) {
        self.tell(|told| told.gone.push(waiter));
    }

    pub fn job_ended(&self, job: JobKey) {
        self.tell(|told| told.end(Ended::Job(job)));
    }

    pub fn session_ended(&self, session: SessionId) {
        self.tell(|told| told.end(Ended::Session(session)));
    }

    /// Those that are open, or all that are remembered; oldest first.
    pub async fn list(&self, all: bool) -> Result<Vec<Listed>, DeskError> {
        self.call(move |owner| {
            owner.store.tick(now())?;
            let wanted = |approval: &&Approval| all || approval.standing.is_pending();
            Ok(owner.store.list().filter(wanted).map(|approval| owner.listed(approval)).collect())
        })
        .await?
    }

    pub async fn get(&self, id: ApprovalId) -> Result<Option<Listed>, DeskError> {
        self.call(move |owner| {
            owner.store.tick(now())?;
            Ok(owner.store.get(id).map(|approval| owner.listed(approval)))
        })
        .await?
    }

    /// The caller has verified who says it, and which groups they are in.
    pub async fn decide(&self, spoken: Spoken) -> Result<Decided, DeskError> {
        self.call(move |owner| {
            owner.people.set_groups(spoken.by.clone(), spoken.groups);
            let says = spoken.scope.map_or(Says::Reject, Says::Approve);
            let (approval, seen, reason) = (spoken.approval, spoken.seen, spoken.reason.as_ref());
            let answer = Answer { approval, seen, by: &spoken.by, says, reason };
            Ok(owner.store.decide(&answer, &owner.people, now())?)
        })
        .await?
    }

    /// The caller has verified that it is root, outside of any job.
    pub async fn break_glass(
        &self,
        id: ApprovalId,
        seen: Seen,
        by: MaskedText,
        reason: MaskedText,
    ) -> Result<Decided, DeskError> {
        self.call(move |owner| Ok(owner.store.break_glass(id, seen, &by, &reason, now())?)).await?
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Owner) -> T + Send + 'static,
    ) -> Result<T, DeskError> {
        let (tell, told) = oneshot::channel();
        let call = move |owner: &mut Owner| {
            // Whoever asked may be gone.
            tell.send(call(owner)).ok();
        };
        let calls = self.calls.as_ref().map_err(|why| DeskError::Closed(Arc::clone(why)))?;
        calls.try_send(Box::new(call)).map_err(|error| match error {
            TrySendError::Full(_) => DeskError::Busy,
            TrySendError::Disconnected(_) => DeskError::Ended,
        })?;
        told.await.map_err(|_| DeskError::Ended)
    }

    /// Nobody waits for what comes of it. A thread that is full of calls looks by itself.
    fn tell(&self, what: impl FnOnce(&mut Told)) {
        let Ok(calls) = &self.calls else { return };
        what(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        match calls.try_send(Box::new(|_| {})) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => tracing::debug!("the approvals have ended"),
        }
    }
}

impl Owner {
    fn run(mut self, called: &Receiver<Call>, told: &Mutex<Told>) {
        let mut patience = Duration::ZERO;
        loop {
            let call = called.recv_timeout(patience);
            let mut well = match call {
                // What was heard of before has no call left from before it.
                Err(RecvTimeoutError::Timeout) => {
                    let all = self.endings.all();
                    self.end(&all)
                }
                _ => true,
            };
            well &= self.hear(std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)));
            match call {
                Ok(call) => {
                    call(&mut self);
                    let due = self.endings.called();
                    well &= self.end(&due);
                }
                Err(RecvTimeoutError::Timeout) => well &= report(self.store.tick(now())),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for waiter in self.store.ready() {
                if let Some(wake) = self.woken.remove(&waiter) {
                    // It may have gone.
                    wake.send(()).ok();
                }
            }
            self.store.news().into_iter().for_each(|approval| self.webhooks.tell(approval));
            self.pending.store(self.store.pending().count(), Ordering::Relaxed);
            patience = match well {
                false => PAUSE,
                true if self.endings.is_empty() => self.patience(),
                true => Duration::ZERO,
            };
        }
    }

    /// Sees to what nobody waits for. What cannot be written is tried again.
    fn hear(&mut self, told: Told) -> bool {
        self.gone.extend(told.gone);
        // Who asked, and was gone before it was answered, has told nobody.
        self.gone.extend(self.woken.iter().filter(|(_, wake)| wake.is_closed()).map(|(waiter, _)| *waiter));
        let mut well = true;
        for waiter in std::mem::take(&mut self.gone) {
            self.woken.remove(&waiter);
            well = well && report(self.store.gone(waiter, now()));
            if !well {
                self.gone.push(waiter);
            }
        }
        for ended in told.ended {
            // Also for the call that is at hand.
            self.endings.heard(ended.clone(), CALLS + 1);
            well = well && self.over(&ended);
        }
        well
    }

    /// What has ended is over once more, and for the last time.
    fn end(&mut self, due: &[Ended]) -> bool {
        due.iter().all(|ended| {
            let over = self.over(ended);
            if over {
                self.endings.done(ended);
            }
            over
        })
    }

    fn over(&mut self, ended: &Ended) -> bool {
        report(match ended {
            Ended::Job(job) => self.store.job_ended(job, now()),
            Ended::Session(session) => self.store.session_ended(*session, now()),
            Ended::Everything => self.store.all_ended(now()),
        })
    }

    /// Until something ends.
    fn patience(&self) -> Duration {
        let left = |end: UnixMs| Duration::from_millis(end.0.saturating_sub(now().0) + 1);
        self.store.deadline().map_or(LOOK, left).min(LOOK)
    }

    fn submit(&mut self, asked: &Asked) -> Result<Reception, DeskError> {
        let submission = Submission {
            job: asked.job.clone(),
            rule: asked.rule.clone(),
            session: asked.session,
            bound: asked.bound,
            class: asked.class,
            requirement: &asked.requirement,
            facts: JobFacts { environment: text(&asked.environment), reference: text(&asked.reference) },
            actor: asked.actor.as_ref(),
            authors: &asked.authors,
            held: &asked.held,
        };
        let submitted = self.store.submit(&submission, &self.people, now())?;
        let (id, ready) = match &submitted {
            Submitted::Pass(permit) => (Some(permit.approval()), None),
            Submitted::Wait { waiter, .. } => (Some(waiter.approval()), Some(self.wakes(*waiter))),
            Submitted::Later { approval } => (Some(*approval), None),
            Submitted::Refused(_) => (None, None),
        };
        Ok(Reception { submitted, approval: id.and_then(|id| self.store.get(id)).cloned(), ready })
    }

    fn take(&mut self, waiter: WaiterId, exact: Exact) -> Result<Turn, DeskError> {
        let taken = self.store.take(waiter, exact, now())?;
        let ready = matches!(taken, Taken::Wait { .. }).then(|| self.wakes(waiter));
        Ok(Turn { taken, approval: self.store.get(waiter.approval()).cloned(), ready })
    }

    fn wakes(&mut self, waiter: WaiterId) -> oneshot::Receiver<()> {
        let (wake, ready) = oneshot::channel();
        self.woken.insert(waiter, wake);
        ready
    }

    fn listed(&self, approval: &Approval) -> Listed {
        let (waiting, granted) = (self.store.waiting(approval.id), self.store.grant(approval.id).is_some());
        Listed { approval: approval.clone(), waiting, granted }
    }
}

fn text(fact: &Fact<Arc<str>>) -> Fact<&str> {
    match fact {
        Fact::Known(text) => Fact::Known(text),
        Fact::Unknown => Fact::Unknown,
        Fact::Absent => Fact::Absent,
    }
}

fn report(done: Result<(), ApprovalError>) -> bool {
    done.inspect_err(|error| tracing::error!(%error, "the approvals")).is_ok()
}

fn now() -> UnixMs {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
