//! What jobs say of themselves on `job.sock`: read, verified and bound here, in the process
//! that holds no privilege.
//!
//! ```text
//!  loader: who is it, by the kernel? ──▶ read ──▶ verify ──▶ bind ──▶ record ──▶ answer
//!                                          │ not in time, too many, not a job
//!                                          └──────────────────────────────────▶ answer
//! ```
//!
//! **Invariant**: which workload it is comes from the loader, and nothing that is sent here can
//! change it. What cannot be recorded is not bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::approval::Desk;
use crate::gate::Conn;
use crate::net::ipc::Channel;
use crate::secret::SecretText;
use crate::session::Event;
use crate::workload::identity::slot::Bound;
use crate::workload::identity::{Claims, Identity, Refusal, Verifier};
use crate::workload::wire::{FromProxy, JobReply, JobRequest, JobToken};

/// How long a job may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that are read or verified at a time, of all and of one workload.
const MAX_AT_ONCE: usize = 64;
const MAX_OF_WORKLOAD: usize = 4;
/// How often an issuer's API is asked for one workload in a minute.
const MAX_ASKED: u32 = 10;
const ASKED_WITHIN: Duration = Duration::from_mins(1);

/// Serves `job.sock`.
pub struct Jobs {
    verifier: Verifier,
    approvals: Option<Desk>,
    /// To the loader.
    tell: Box<dyn Fn(FromProxy) + Send + Sync>,
    serving: Mutex<HashMap<Option<u64>, usize>>,
    /// For whom an issuer's API was asked in this minute of theirs, and how often.
    asked: Mutex<HashMap<u64, (Instant, u32)>>,
}

/// One that is served; counts down when dropped.
struct Served(Arc<Jobs>, Option<u64>);

impl Jobs {
    pub fn new(
        verifier: Verifier,
        approvals: Option<Desk>,
        tell: Box<dyn Fn(FromProxy) + Send + Sync>,
    ) -> Arc<Self> {
        Arc::new(Self { verifier, approvals, tell, serving: Mutex::default(), asked: Mutex::default() })
    }

    /// Serves one connection of this workload, whose session is `conn`. Call it within the
    /// runtime; it does not wait.
    pub fn serve(
        self: &Arc<Self>,
        channel: Channel,
        tag: Option<u64>,
        conn: Option<Arc<Conn>>,
        problem: Option<String>,
    ) {
        let Some(served) = self.admit(tag) else {
            // With its message unread the other end would not see an answer.
            return drop(channel);
        };
        tokio::spawn(async move {
            let jobs = Arc::clone(&served.0);
            let read = tokio::task::spawn_blocking(move || {
                let heard = channel.set_patience(Some(PATIENCE)).and_then(|()| channel.recv::<JobRequest>());
                (channel, heard.map(|heard| heard.map(|(request, _)| request)))
            });
            let Ok((channel, heard)) = read.await else { return };
            let reply = match (heard, tag, conn) {
                (Err(error), _, _) => refused(format!("what was said is not understood: {error}")),
                (Ok(None), _, _) => return,
                (Ok(Some(_)), None, _) => JobReply { stranger: true, ..refused(stranger(problem)) },
                (Ok(Some(_)), Some(_), None) => {
                    JobReply { again: true, ..refused("this cgroup was tagged a moment ago".to_owned()) }
                }
                (Ok(Some(request)), Some(tag), Some(conn)) => {
                    Box::pin(jobs.answer(request, tag, &conn)).await
                }
            };
            // It may have gone meanwhile. A reply fits into an empty socket: nothing waits.
            if let Err(error) = channel.send(&reply, &[]) {
                tracing::debug!(%error, "a job is gone");
            }
            drop(served);
        });
    }

    /// What an earlier proxy bound.
    pub fn restore(&self, tag: u64, conn: &Conn, kept: &str) {
        let whose = &conn.subject.whose;
        match self.verifier.restore(&whose.slot, kept, SystemTime::now()) {
            Some(bound) => drop(self.record(conn, &bound)),
            None => (self.tell)(FromProxy::Bound { tag, kept: None, spent: Vec::new() }),
        }
    }

    async fn answer(&self, request: JobRequest, tag: u64, conn: &Conn) -> JobReply {
        match request {
            JobRequest::Ls {} => done(String::new(), conn),
            JobRequest::End {} => self.end(tag, conn),
            JobRequest::Start { token, api, claims, anew } => {
                // If it may be another job, one whose words are not taken is nobody, too.
                let before = |same: &dyn Fn(&Bound) -> bool| {
                    let now = conn.subject.whose.now();
                    if anew && now.is_some_and(|bound| !same(&bound)) {
                        self.end(tag, conn);
                    }
                };
                let started = match token {
                    Some(JobToken(token)) => self.start((&token, api.as_deref()), tag, before, conn).await,
                    None => self.attest(claims, before, conn),
                };
                match started {
                    Ok(bound) => self.bound(tag, conn, &bound),
                    Err(refusal) => {
                        let detail = conn.text(&refusal.to_string());
                        conn.note(&Event::IdentityRefused { reason: refusal.reason(), detail });
                        refused(refusal.to_string())
                    }
                }
            }
        }
    }

    /// By a token for us, or by one that an issuer's API knows. `before` is told how the job is known that this is, before it is bound.
    async fn start(
        &self,
        (token, api): (&SecretText, Option<&str>),
        tag: u64,
        before: impl Fn(&dyn Fn(&Bound) -> bool),
        conn: &Conn,
    ) -> Result<Arc<Bound>, Refusal> {
        let shown = match api {
            None => Box::pin(self.verifier.verify(token, SystemTime::now())).await,
            Some(_) if !self.may_ask(tag, Instant::now()) => Err(Refusal::TooOften),
            Some(issuer) => Box::pin(self.verifier.vouched(issuer, token, SystemTime::now())).await,
        };
        let shown = shown.inspect_err(|_| before(&|_| false))?;
        before(&|bound| shown.is_of(bound));
        self.verifier.bind(&conn.subject.whose.slot, shown, SystemTime::now())
    }

    /// By what a job says of itself, which is never enough to be the one that showed a token.
    fn attest(
        &self,
        claims: Option<Box<Claims>>,
        before: impl Fn(&dyn Fn(&Bound) -> bool),
        conn: &Conn,
    ) -> Result<Arc<Bound>, Refusal> {
        let said = Identity::attested(claims.map(|claims| *claims).unwrap_or_default());
        let said = said.ok_or(Refusal::TooLongClaims).inspect_err(|_| before(&|_| false))?;
        before(&|bound| bound.identity.assurance() == said.assurance() && bound.identity.is_same_job(&said));
        self.verifier.attest(&conn.subject.whose.slot, said, SystemTime::now())
    }

    fn bound(&self, tag: u64, conn: &Conn, bound: &Bound) -> JobReply {
        if !self.record(conn, bound) {
            conn.subject.whose.slot.clear();
            (self.tell)(FromProxy::Bound { tag, kept: None, spent: bound.spent() });
            return JobReply { again: true, ..refused("it cannot be recorded now".to_owned()) };
        }
        (self.tell)(FromProxy::Bound { tag, kept: bound.to_kept(), spent: bound.spent() });
        done(format!("this job is known by `{}`", bound.identity.assurance()), conn)
    }

    fn end(&self, tag: u64, conn: &Conn) -> JobReply {
        let Some(ended) = conn.subject.whose.slot.clear() else {
            return done("nobody knew who this job is".to_owned(), conn);
        };
        if let Some(desk) = &self.approvals {
            desk.job_ended(desk.job(tag, conn.subject.workload.cgroup, Some(ended.job)));
        }
        (self.tell)(FromProxy::Bound { tag, kept: None, spent: Vec::new() });
        conn.note(&Event::IdentityEnded { reason: "job-end" });
        done("nobody knows who this job is any more".to_owned(), conn)
    }

    /// Whether it was written down.
    fn record(&self, conn: &Conn, bound: &Bound) -> bool {
        let identity = conn.subject.whose.record(&bound.identity, conn.subject.everything());
        let until_unix_ms = bound.until.saturating_mul(1000);
        let recorded = conn.record(&Event::Identity { until_unix_ms, identity });
        recorded.inspect_err(|error| tracing::error!(%error, "an identity was not recorded")).is_ok()
    }

    /// Whether an API may be asked for this workload once more: a job could have the host itself shut
    /// out there, by tokens that are none.
    fn may_ask(&self, tag: u64, now: Instant) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, (since, _)| now.saturating_duration_since(*since) < ASKED_WITHIN);
        let (_, count) = asked.entry(tag).or_insert((now, 0));
        *count += 1;
        *count <= MAX_ASKED
    }

    fn admit(self: &Arc<Self>, tag: Option<u64>) -> Option<Served> {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if serving.values().sum::<usize>() >= MAX_AT_ONCE {
            return None;
        }
        let own = serving.entry(tag).or_default();
        if *own >= MAX_OF_WORKLOAD {
            return None;
        }
        *own += 1;
        Some(Served(Arc::clone(self), tag))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut serving = self.0.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = serving.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                serving.remove(&self.1);
            }
        }
    }
}

fn stranger(problem: Option<String>) -> String {
    problem.unwrap_or_else(|| {
        "this process is in no tagged cgroup, so that there is no job to speak of: call it in a job, which \
         `enforcer run` starts or a scope describes (`enforcer scope add`)"
            .to_owned()
    })
}

fn refused(message: String) -> JobReply {
    JobReply { ok: false, message, again: false, stranger: false, job: Value::Null }
}

fn done(message: String, conn: &Conn) -> JobReply {
    JobReply { ok: true, message, again: false, stranger: false, job: report(conn) }
}

/// A workload and who it is, for the job itself and for an operator.
pub(super) fn report(conn: &Conn) -> Value {
    let subject = &conn.subject;
    let workload = &subject.workload;
    let bound = subject.whose.now();
    json!({
        "name": workload.name,
        "cgroup": workload.cgroup_path,
        "session": conn.id(),
        "since_unix_ms": bound.as_ref().map(|bound| bound.since.saturating_mul(1000)),
        "until_unix_ms": bound.as_ref().map(|bound| bound.until.saturating_mul(1000)),
        "identity": bound.and_then(|_| subject.whose.recorded()),
    })
}
