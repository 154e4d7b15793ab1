//! The proxy process as its owner sees it: listeners and workloads come and go,
//! the kernel's refusals are written down, and one day it drains.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::drain::{self, Drain, Drained, Watch};
use crate::gate::{self, Conn, Opened, Operator, Subject};
use crate::mask::{MaskError, Masker, SurrogateKey};
use crate::session::{Event, Outcome, SessionError, SessionKind};
use crate::workload::Workload;
use crate::workload::wire::RefusedTo;

use super::Shared;
use super::dns::DnsServer;
use super::worker::{Workers, until_closed};

/// Threads that serve one network namespace beside the host's: a listener is a
/// descriptor in each of them, and there may be thousands of namespaces.
const THREADS_OF_NAMESPACE: usize = 4;

/// Why a workload is not served. It has no network then.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("a secret of the workload cannot be masked: {0}")]
    Mask(#[from] MaskError),
    #[error("the workload's session cannot be recorded: {0}")]
    Session(#[from] SessionError),
}

/// Something that the kernel refused, as its ring buffer tells it.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub tag: u64,
    pub pid: u32,
    pub comm: String,
    pub hook: String,
    pub reason: String,
    pub family: u16,
    pub protocol: u16,
    pub destination: Option<SocketAddr>,
    pub detail: u32,
    /// Refusals like this one that the rate limit swallowed.
    pub suppressed: u32,
}

impl Refusal {
    /// Where it was to go, for the person who started the job; None if that is nothing
    /// to tell. Libraries connect datagram sockets to see which address they would have,
    /// and who comes from a network namespace that is not served yet is served soon.
    fn shown(&self) -> Option<String> {
        let to = self.destination?;
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if matches!(self.reason.as_str(), "netns-not-served") || self.hook == "loader" {
            return None;
        }
        match i32::from(self.protocol) {
            nix::libc::IPPROTO_TCP => Some(to.to_string()),
            nix::libc::IPPROTO_UDP if self.hook.starts_with("sendmsg") => Some(format!("{to} (UDP)")),
            _ => None,
        }
    }
}

/// A running proxy.
pub struct Process {
    shared: Arc<Shared>,
    workers: Workers,
    drain: Drain,
    /// For listeners that come; dropped when the drain begins, which waits for all copies.
    watch: Watch,
    operator: Operator,
    surrogates: Option<SurrogateKey>,
    /// One session a workload: for what is of no single connection.
    sessions: Mutex<HashMap<u64, Arc<Conn>>>,
    /// One for all who are no workload: a session for each refusal would be as many as
    /// some user of the host likes.
    strangers: Mutex<Option<Arc<Conn>>>,
    /// Network namespaces whose listeners are open; they are closed with what stands here.
    namespaces: Mutex<HashMap<u64, watch::Sender<()>>>,
}

/// Of one network namespace: two for TCP, two for DNS.
pub struct Listeners {
    pub netns: u64,
    pub tcp: [TcpListener; 2],
    pub udp: [UdpSocket; 2],
}

impl Process {
    /// Starts `threads` workers; `surrogates` is the key with which surrogates are made.
    pub fn start(
        shared: Arc<Shared>,
        threads: usize,
        operator: Operator,
        surrogates: Option<SurrogateKey>,
    ) -> io::Result<Self> {
        let (drain, watch) = drain::channel();
        let workers = Workers::start(&shared, threads, &watch)?;
        Ok(Self {
            shared,
            workers,
            drain,
            watch,
            operator,
            surrogates,
            sessions: Mutex::default(),
            strangers: Mutex::default(),
            namespaces: Mutex::default(),
        })
    }

    /// Masks everything that is known of no workload alone.
    pub fn everything(&self) -> &Masker {
        self.operator.everything()
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves a network namespace, on all threads if it is the `home` of this process.
    /// Listeners that it had before are closed.
    pub fn listen(&self, listeners: Listeners, dns: &Arc<DnsServer>, home: bool) -> io::Result<()> {
        let (keep, closed) = watch::channel(());
        let first = usize::try_from(listeners.netns).unwrap_or_default();
        let threads = if home { self.workers.count() } else { THREADS_OF_NAMESPACE };
        for tcp in &listeners.tcp {
            self.workers.listen(tcp, &closed, first, threads)?;
        }
        for udp in listeners.udp {
            let serving = Arc::clone(dns).serve_udp(udp, self.watch.clone());
            let serving = async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "a DNS listener has ended");
                }
            };
            tokio::spawn(until_closed(serving, closed.clone()));
        }
        lock(&self.namespaces).insert(listeners.netns, keep);
        Ok(())
    }

    /// Closes the listeners of a network namespace. Connections that are open stay.
    pub fn close(&self, netns: u64) {
        lock(&self.namespaces).remove(&netns);
    }

    /// From now on the workload's connections are served.
    pub fn add(&self, workload: Workload) -> Result<(), ProcessError> {
        let tag = workload.tag;
        let subject = Subject::new(Arc::new(workload), &self.operator)?;
        let mut subject = subject.with_surrogates(self.surrogates.clone());
        if let Some(earlier) = self.shared.gate.subjects.get(tag) {
            subject = subject.with_identity(Arc::clone(&earlier.whose));
        }
        let subject = Arc::new(subject);
        let session = self.open(Arc::clone(&subject))?;
        self.sessions().insert(tag, Arc::new(session));
        self.shared.gate.subjects.insert(subject);
        Ok(())
    }

    /// Its connections end by themselves: the cgroup is empty. New ones are refused.
    pub fn remove(&self, tag: u64, exit_code: Option<i32>) {
        let subject = self.shared.gate.subjects.remove(tag);
        if let (Some(desk), Some(subject)) = (&self.shared.gate.approvals, subject) {
            gate::jobs_of(desk, &subject).into_iter().for_each(|job| desk.job_ended(job));
        }
        self.shared.gate.policies.meters().job_ended(tag);
        self.shared.pool.forget(tag);
        if let Some(session) = self.sessions().remove(&tag) {
            session.note(&Event::Exit { code: exit_code });
            session.settle(Outcome::Completed);
        }
    }

    /// Where a workload was not let go so far.
    pub fn refused_to(&self, tag: u64) -> RefusedTo {
        self.shared.gate.subjects.get(tag).map(|subject| subject.refused_to()).unwrap_or_default()
    }

    /// The workload's own session.
    pub fn session(&self, tag: u64) -> Option<Arc<Conn>> {
        self.sessions().get(&tag).cloned()
    }

    /// Writes down what the kernel refused.
    pub fn refused(&self, refusal: &Refusal) {
        if let (Some(subject), Some(to)) = (self.shared.gate.subjects.get(refusal.tag), refusal.shown()) {
            subject.note_refused(&to);
        }
        let known = self.sessions().get(&refusal.tag).cloned();
        let session = match known {
            Some(session) => session,
            None => match self.strangers(refusal.tag) {
                Ok(session) => session,
                Err(error) => {
                    tracing::error!(tag = refusal.tag, %error, "a refusal was not recorded");
                    return;
                }
            },
        };
        session.note(&Event::Refused {
            hook: session.text(&refusal.hook),
            reason: session.text(&refusal.reason),
            destination: refusal.destination,
            family: refusal.family,
            protocol: refusal.protocol,
            pid: refusal.pid,
            comm: session.text(&refusal.comm),
            detail: refusal.detail,
            suppressed: refusal.suppressed,
        });
    }

    /// Writes down that enforcement was lifted on purpose, of these workloads or of all.
    pub fn released(&self, scope: &str, tags: &[u64], by_uid: u32, until_unix_ms: Option<u64>) {
        self.note_for(tags, |session| {
            let scope = session.text(scope);
            Event::Released { scope, by_uid, until_unix_ms }
        });
    }

    /// Writes down that somebody changed what is attached to the kernel.
    pub fn tampered(&self, what: &str, reaction: &str) {
        self.note_for(&[], |session| Event::Tampered {
            what: session.text(what),
            reaction: session.text(reaction),
        });
    }

    /// An event for these workloads, or for all; where there is none, in a session of its own.
    fn note_for(&self, tags: &[u64], event: impl Fn(&Conn) -> Event) {
        let meant = |tag: &u64| tags.is_empty() || tags.contains(tag);
        let sessions: Vec<_> =
            self.sessions().iter().filter(|(tag, _)| meant(tag)).map(|(_, it)| Arc::clone(it)).collect();
        for session in &sessions {
            session.note(&event(session));
        }
        if sessions.is_empty() {
            match self.stranger(0) {
                Ok(session) => {
                    session.note(&event(&session));
                    session.settle(Outcome::Completed);
                }
                Err(error) => tracing::error!(%error, "what happened to the host was not recorded"),
            }
        }
    }

    /// What `enforcer status` shows of this process.
    pub fn status(&self) -> serde_json::Value {
        let shared = &self.shared;
        let recording = shared.gate.recording.healthy();
        serde_json::json!({
            "connections": shared.admission.open(),
            "workloads": shared.gate.subjects.len(),
            "namespaces": lock(&self.namespaces).len(),
            "policy": shared.gate.policies.current().hash().as_str(),
            "policy_of_host": shared.gate.policies.current().host_hash().as_str(),
            "identities": self.identities(),
            "approvals": shared.gate.approvals.as_ref().map(|desk| match desk.state() {
                Ok(pending) => serde_json::json!({ "pending": pending, "webhooks": desk.webhooks() }),
                Err(why) => serde_json::json!({ "problem": why }),
            }),
            "found": shared.gate.found.counts(),
            "policy_problem": shared.gate.policies.problem(),
            "recording": recording.map_or_else(|error| error.to_string(), |()| "ok".to_owned()),
        })
    }

    /// Of each workload that is known by more than its cgroup.
    fn identities(&self) -> Vec<serde_json::Value> {
        let sessions = self.sessions();
        let known = sessions.values().filter(|conn| conn.subject.whose.now().is_some());
        known.map(|conn| super::jobs::report(conn)).collect()
    }

    /// Takes no new connection, waits for the open ones until the deadline, cuts the rest.
    pub async fn drain(self, deadline: Duration) -> Drained {
        drop(self.watch);
        let drained = self.drain.drain(deadline).await;
        let strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).take();
        for session in lock(&self.sessions).values().chain(&strangers) {
            session.settle(Outcome::Completed);
        }
        let workers = self.workers;
        // The threads end at once now; joining them blocks only for that moment.
        drop(tokio::task::spawn_blocking(move || workers.join()).await);
        drained
    }

    fn open(&self, subject: Arc<Subject>) -> Result<Conn, SessionError> {
        let text = |text: &str| subject.everything().text(text).0;
        let workload = &subject.workload;
        let command = workload.command.first().map_or("", String::as_str);
        let opened = Opened {
            started_unix_ms: super::connection::now_unix_ms(),
            kind: SessionKind::Workload,
            workload: text(&workload.name),
            facts: Some(Arc::clone(&subject.recorded)),
            tag: workload.tag,
            cgroup: workload.cgroup,
            uid: workload.uid,
            pid: 0,
            comm: text(command),
            client: None,
            destination: None,
            policy: self.shared.gate.policies.current().hash().as_str().to_owned(),
            identity: subject.whose.recorded(),
        };
        Conn::begin(&self.shared.gate, subject, opened)
    }

    fn strangers(&self, tag: u64) -> Result<Arc<Conn>, ProcessError> {
        if tag != 0 {
            // Of a workload that has just ended.
            return Ok(Arc::new(self.stranger(tag)?));
        }
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        match &*strangers {
            Some(session) => Ok(Arc::clone(session)),
            None => Ok(Arc::clone(strangers.insert(Arc::new(self.stranger(tag)?)))),
        }
    }

    fn stranger(&self, tag: u64) -> Result<Conn, ProcessError> {
        let workload = super::connection::unknown(tag, 0, 0);
        let subject = Subject::new(Arc::new(workload), &self.operator)?;
        Ok(self.open(Arc::new(subject))?)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Arc<Conn>>> {
        lock(&self.sessions)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
