//! The resolver that tagged processes get, wherever they send port 53.
//!
//! A name that no rule can allow is not asked for anywhere: a query is a message
//! to whoever serves the name. Other types than A and AAAA are answered empty.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, UdpSocket as StdUdpSocket};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use moka::future::Cache;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::drain::Watch;
use crate::gate::{Conn, Opened, Subject, Whose};
use crate::mask::suspicious_name;
use crate::net::sys::{self, FlowRecord};
use crate::policy::{Fact, Facts, Feasibility, Policy, Stage};
use crate::protocol::dns::{self, Kind, Question, Transport};
use crate::session::{Event, Outcome, SessionKind};

use super::resolve::{self, Resolve, ResolveError, Resolving, SystemResolve};
use super::{Serving, Shared, TcpDns};

/// Questions that are answered at the same time, of all workloads.
const MAX_PENDING: usize = 512;
/// Questions of one workload a second, and how many at once after a silence.
const RATE: NonZeroU32 = NonZeroU32::new(200).expect("not 0");
const BURST: NonZeroU32 = NonZeroU32::new(400).expect("not 0");
/// How long an answer may be kept, in seconds: the host's resolver does not say.
const TTL: u32 = 30;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// Answers that are remembered, of all workloads.
const REMEMBERED: u64 = 20_000;
/// How long they are.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// How long a name may take.
const ASKING: Duration = Duration::from_secs(5);

/// Names with fixed addresses, and the host's own resolver for all others. Its
/// answers are remembered for the workload that asked: what a client was told and
/// what is dialled for it a moment later are the same.
#[derive(Debug, Default)]
pub struct Names {
    pub fixed: BTreeMap<String, Vec<IpAddr>>,
    pub system: SystemResolve,
    pub remembered: Remembered,
}

/// What was answered to whom.
#[derive(Debug)]
pub struct Remembered(Cache<(u64, String), Vec<IpAddr>>);

impl Default for Remembered {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build())
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, tag: u64, name: &'a str) -> Resolving<'a> {
        match self.fixed.get(name) {
            Some(addresses) => Box::pin(async { Ok(addresses.clone()) }),
            None => Box::pin(async move {
                let asking = async {
                    let asking = self.system.resolve(tag, name);
                    tokio::time::timeout(ASKING, asking).await.unwrap_or(Err(ResolveError::Timeout))
                };
                let found = self.remembered.0.try_get_with((tag, name.to_owned()), asking).await;
                found.map_err(|error| (*error).clone())
            }),
        }
    }
}

/// Answers questions of workloads, over both transports.
pub struct DnsServer {
    shared: Weak<Shared>,
    pending: Arc<Semaphore>,
    /// By tag: one workload does not use up what all share.
    rates: DefaultKeyedRateLimiter<u64>,
    /// By tag: that a workload asks too much is recorded once a second.
    notes: DefaultKeyedRateLimiter<u64>,
    /// One session a workload.
    sessions: Mutex<HashMap<u64, Arc<Conn>>>,
}

impl DnsServer {
    pub fn new(shared: Weak<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
            rates: RateLimiter::keyed(Quota::per_second(RATE).allow_burst(BURST)),
            notes: RateLimiter::keyed(Quota::per_second(NonZeroU32::MIN)),
            sessions: Mutex::default(),
        })
    }

    /// Serves a UDP socket until the process ends, or until this is dropped: then
    /// what was not answered yet is not, and nobody has the socket any more. One task
    /// a socket: the kernel's record of a datagram is asked for in two steps.
    /// When the drain begins no more is read: what waits in the socket is for the next proxy.
    pub async fn serve_udp(self: Arc<Self>, socket: StdUdpSocket, mut watch: Watch) -> std::io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let mut buffer = vec![0; dns::MAX_QUERY + 1];
        let mut answering = JoinSet::new();
        loop {
            while answering.try_join_next().is_some() {}
            // Neither error is the end: the first may be told of an answer that did
            // not arrive, the second is one datagram's.
            let received = tokio::select! {
                biased;
                () = watch.graceful() => break,
                received = socket.recv_from(&mut buffer) => received,
            };
            let Ok((length, from)) = received else {
                tokio::task::yield_now().await;
                continue;
            };
            let flow = match sys::udp_flow_of(socket.as_fd(), from) {
                Ok(Some(flow)) => flow,
                // No record: it comes from nobody who is tagged.
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a question without a record was dropped");
                    continue;
                }
            };
            // Too many at once: a stub resolver asks again.
            let Ok(permit) = Arc::clone(&self.pending).try_acquire_owned() else { continue };
            let (server, socket, query) = (Arc::clone(&self), Arc::clone(&socket), buffer[..length].to_vec());
            answering.spawn(async move {
                let answer = server.answer(&flow, &query, Transport::Udp).await;
                if !answer.is_empty()
                    && let Err(error) = socket.send_to(&answer, from).await
                {
                    tracing::debug!(%error, "an answer was not sent");
                }
                drop(permit);
            });
        }
        tokio::select! {
            () = watch.immediate() => {}
            () = async { while answering.join_next().await.is_some() {} } => {}
        }
        Ok(())
    }

    /// An empty answer is not sent.
    async fn answer(&self, flow: &FlowRecord, query: &[u8], over: Transport) -> Vec<u8> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let Some(subject) = shared.gate.subjects.get_soon(flow.tag).await else { return Vec::new() };
        let Some(conn) = self.session(&shared, &subject, flow) else { return Vec::new() };
        // What is malformed counts, too: each is recorded.
        let within = self.rates.check_key(&flow.tag).is_ok();
        match dns::parse(query) {
            question if !within => {
                if self.notes.check_key(&flow.tag).is_ok() {
                    let detail = format!("more than {RATE} questions a second");
                    conn.error(crate::session::Side::Downstream, "dns-rate-limit", &detail);
                }
                question.map(|question| question.failed(over)).unwrap_or_default()
            }
            Ok(question) => ask(&shared, &subject, &conn, &question, over).await,
            Err(malformed) => {
                conn.error(crate::session::Side::Downstream, malformed.reason(), &malformed.to_string());
                Vec::new()
            }
        }
    }

    /// None: it cannot be recorded, so nothing is answered.
    fn session(&self, shared: &Shared, subject: &Arc<Subject>, flow: &FlowRecord) -> Option<Arc<Conn>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |tag: &u64| shared.gate.subjects.get(*tag).is_some();
        let before = sessions.len();
        sessions.retain(|tag, _| known(tag));
        if sessions.len() < before {
            self.rates.retain_recent();
            self.notes.retain_recent();
        }
        if let Some(conn) = sessions.get(&flow.tag) {
            return Some(Arc::clone(conn));
        }
        let text = |text: &str| subject.everything().text(text).0;
        let opened = Opened {
            started_unix_ms: super::connection::now_unix_ms(),
            kind: SessionKind::Dns,
            workload: text(&subject.workload.name),
            facts: Some(Arc::clone(&subject.recorded)),
            tag: flow.tag,
            cgroup: flow.cgroup,
            uid: flow.uid,
            pid: flow.pid,
            comm: text(&flow.comm),
            client: None,
            destination: Some(flow.orig_dst.0),
            policy: shared.gate.policies.current().hash().as_str().to_owned(),
            identity: subject.whose.recorded(),
        };
        let conn = Arc::new(Conn::begin(&shared.gate, Arc::clone(subject), opened).ok()?);
        conn.settle(Outcome::Completed);
        sessions.insert(flow.tag, Arc::clone(&conn));
        Some(conn)
    }
}

/// Why a name must not be asked for: it is a message to whoever serves the zone.
fn told(conn: &Conn, question: &Question, policy: &Policy, facts: &Facts<'_>) -> Option<&'static str> {
    let (name, asked) = (question.name.as_str(), question.asked());
    if conn.subject.reveals(name) || conn.subject.reveals(&asked) {
        return Some("secret-in-name");
    }
    // In its own case, too: that of base64 means something.
    let mut names = [name, asked.trim_end_matches('.')].into_iter();
    let suspicious = names.find(|name| suspicious_name(name).is_some())?;
    let carries = conn.carries_data(None, suspicious, &policy.decide(facts).request_mask);
    carries.then_some("data-in-name")
}

/// Decides, records, asks, answers.
async fn ask(
    shared: &Shared,
    subject: &Subject,
    conn: &Conn,
    question: &Question,
    over: Transport,
) -> Vec<u8> {
    let whose = subject.whose.now();
    let facts = Facts {
        host: Fact::Known(&question.name),
        identity: Whose::facts(whose.as_deref()),
        ..Facts::new(&subject.facts, Stage::Dns)
    };
    let kind = match question.kind {
        Kind::A => "A".to_owned(),
        Kind::Aaaa => "AAAA".to_owned(),
        Kind::Other(number) => number.to_string(),
    };
    let event = |answers: Vec<IpAddr>, verdict, reason| Event::Dns {
        name: conn.text(&question.name),
        question: conn.text(&kind),
        answers,
        verdict,
        reason,
    };
    let policy = shared.gate.policies.current();
    let denied = match policy.feasible(&facts) {
        Feasibility::Never(decision) => Some(decision.reason.as_str()),
        Feasibility::Possible => told(conn, question, &policy, &facts),
    };
    if let Some(reason) = denied {
        conn.settle_denied(&question.name, reason);
        return match conn.record_durable(&event(Vec::new(), "deny", reason)).await {
            Ok(()) => question.blocked(reason, over),
            Err(_) => Vec::new(),
        };
    }
    if matches!(question.kind, Kind::Other(_)) {
        return match conn.record(&event(Vec::new(), "allow", "dns-type-empty")) {
            Ok(()) => question.addresses(&[], TTL, over),
            Err(_) => Vec::new(),
        };
    }
    let found = shared.resolver.resolve(subject.workload.tag, &question.name).await;
    // What would not be dialled is not answered: a private address is news, too.
    let rules = policy.decide(&facts).addresses;
    let found = found.map(|addresses| {
        let allowed = |address: &IpAddr| resolve::check(*address, &rules).is_ok();
        addresses.into_iter().filter(allowed).collect::<Vec<_>>()
    });
    let (answers, reason) = match &found {
        Ok(addresses) if addresses.is_empty() => (Vec::new(), "dns-no-address-allowed"),
        Ok(addresses) => (addresses.clone(), "dns-answered"),
        Err(error) => (Vec::new(), error.reason()),
    };
    if conn.record(&event(answers, "allow", reason)).is_err() {
        return Vec::new();
    }
    match found {
        Ok(addresses) => question.addresses(&addresses, TTL, over),
        Err(ResolveError::NotFound) => question.not_found(over),
        Err(_) => question.failed(over),
    }
}

/// The same over TCP (RFC 7766): messages with their length before them.
pub struct OverTcp(pub Arc<DnsServer>);

impl TcpDns for OverTcp {
    fn serve<'a>(&'a self, mut stream: TcpStream, flow: FlowRecord, _subject: Arc<Subject>) -> Serving<'a> {
        Box::pin(async move {
            loop {
                let query = match tokio::time::timeout(IDLE, read(&mut stream)).await {
                    Ok(Ok(query)) => query,
                    _ => return,
                };
                let answer = self.0.answer(&flow, &query, Transport::Tcp).await;
                let Ok(length) = u16::try_from(answer.len()) else { return };
                let framed = [&length.to_be_bytes()[..], &answer].concat();
                if answer.is_empty() || stream.write_all(&framed).await.is_err() {
                    return;
                }
            }
        })
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > dns::MAX_QUERY {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidData));
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
