//! The resolver that tagged processes are redirected to, over UDP and TCP.
//!
//! ```text
//!  query --> parse --> could policy allow the name? --> resolve --> check addresses
//!              |bad            |no: nobody is asked        |            |
//!            dropped         NXDOMAIN, recorded         SERVFAIL     answer, recorded
//! ```
//!
//! **Invariant**: a name that no completion of the facts could allow leaves this
//! host in no form: a question is a message to whoever serves the zone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::drain::Watch;
use crate::gate::{Conn, Opened, Subject};
use crate::mask::{MaskedText, Place};
use crate::net::sys::FlowRecord;
use crate::policy::{Fact, Facts, Feasibility, Stage, Verdict};
use crate::protocol::dns::{self, Kind, MAX_QUERY, Question, Transport};
use crate::session::{Event, Outcome, SessionError, SessionKind};

use super::Shared;
use super::connection::now_unix_ms;
use super::resolve::{self, ResolveError};

/// Queries that are worked on at the same time; more are dropped, and asked again.
const AT_ONCE: usize = 256;
/// Without a query on an open TCP connection.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// How long a client may keep an answer, in seconds.
const TTL: u32 = 30;

/// Serves a UDP listener. One task only: the kernel's record is asked for by a
/// key that is set on the socket.
pub async fn serve_udp(shared: Arc<Shared>, socket: UdpSocket, mut watch: Watch) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = [0; MAX_QUERY + 1];
    loop {
        let received = tokio::select! {
            biased;
            () = watch.graceful() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error of an answer that nobody waited for comes back here.
                tracing::debug!(%error, "receiving a query failed");
                continue;
            }
        };
        let Ok(Some(flow)) = shared.flows.udp_flow_of(&socket, client) else { continue };
        let Some(subject) = shared.gate.subjects.get(flow.tag) else { continue };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
        let query = buffer[..length].to_vec();
        tokio::spawn(async move {
            let asked = Asked { shared: &shared, subject, flow: &flow, client };
            if let Some(answer) = Box::pin(asked.answer(&query, Transport::Udp)).await
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%client, %error, "an answer was not sent");
            }
            drop(permit);
        });
    }
}

/// Serves one TCP connection: queries one after the other, each with its length.
pub(super) async fn serve_tcp(
    shared: &Shared,
    mut stream: TcpStream,
    client: SocketAddr,
    flow: &FlowRecord,
    subject: Arc<Subject>,
) {
    let asked = Asked { shared, subject, flow, client };
    let mut query = vec![0; MAX_QUERY];
    loop {
        let reading = async {
            let length = usize::from(stream.read_u16().await.ok()?);
            let query = query.get_mut(..length)?;
            stream.read_exact(query).await.ok().map(|_| length)
        };
        let Ok(Some(length)) = tokio::time::timeout(TCP_IDLE, reading).await else { return };
        let answer = Box::pin(asked.answer(&query[..length], Transport::Tcp)).await;
        let Some(answer) = answer else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let whole = [&length.to_be_bytes()[..], &answer].concat();
        if stream.write_all(&whole).await.is_err() {
            return;
        }
    }
}

/// Who asks.
struct Asked<'a> {
    shared: &'a Shared,
    subject: Arc<Subject>,
    flow: &'a FlowRecord,
    client: SocketAddr,
}

/// What a question comes to.
enum Found {
    Addresses(Vec<IpAddr>),
    Blocked(&'static str),
    NoName,
    Failed(&'static str),
}

impl Asked<'_> {
    /// The answer; none for what is not a question. Recorded before it is given.
    async fn answer(&self, query: &[u8], over: Transport) -> Option<Vec<u8>> {
        let conn = match self.begin() {
            Ok(conn) => conn,
            Err(error) => {
                tracing::error!(%error, "a question was not recorded");
                return dns::parse(query).ok().map(|question| question.failed(over));
            }
        };
        let question = match dns::parse(query) {
            Ok(question) => question,
            Err(error) => {
                conn.error(crate::session::Side::Downstream, error.reason(), "");
                conn.settle(Outcome::Denied { reason: error.reason() });
                return None;
            }
        };
        let found = self.find(&question).await;
        if let Err(error) = self.record(&conn, &question, &found).await {
            tracing::error!(%error, "an answer was not recorded");
            return Some(question.failed(over));
        }
        let answer = match found {
            Found::Addresses(addresses) => question.addresses(&addresses, TTL, over),
            Found::Blocked(reason) => question.blocked(reason, over),
            Found::NoName => question.not_found(over),
            Found::Failed(_) => question.failed(over),
        };
        (!answer.is_empty()).then_some(answer)
    }

    async fn find(&self, question: &Question) -> Found {
        let policy = self.shared.gate.policies.current();
        let facts =
            Facts { host: Fact::Known(&question.name), ..Facts::new(&self.subject.facts, Stage::Dns) };
        if let Feasibility::Never(decision) = policy.feasible(&facts) {
            return Found::Blocked(decision.reason.as_str());
        }
        // The name itself must not carry a secret to the zone's servers.
        if !self.subject.everything().text_at(&question.name, Place::Dns).1.is_empty() {
            return Found::Blocked("secret-in-name");
        }
        if matches!(question.kind, Kind::Other(_)) {
            return Found::Addresses(Vec::new());
        }
        let addresses = match self.shared.resolver.resolve(self.subject.workload.tag, &question.name).await {
            Ok(addresses) => addresses,
            Err(ResolveError::NotFound) => return Found::NoName,
            Err(error) => return Found::Failed(error.reason()),
        };
        let rules = policy.decide(&facts).addresses;
        let mut refused = None;
        let good: Vec<IpAddr> = addresses
            .into_iter()
            .filter(|address| match resolve::check(*address, &rules) {
                Ok(()) => true,
                Err(why) => {
                    refused = Some(why.reason());
                    false
                }
            })
            .collect();
        match refused {
            Some(reason) if good.is_empty() => Found::Blocked(reason),
            _ => Found::Addresses(good),
        }
    }

    async fn record(&self, conn: &Conn, question: &Question, found: &Found) -> Result<(), SessionError> {
        let kind = match question.kind {
            Kind::A => MaskedText::fixed("A"),
            Kind::Aaaa => MaskedText::fixed("AAAA"),
            Kind::Other(number) => conn.text(&format!("TYPE{number}")),
        };
        let (answers, verdict, reason) = match found {
            Found::Addresses(addresses) => (addresses.clone(), Verdict::Allow, "resolved"),
            Found::Blocked(reason) => (Vec::new(), Verdict::Deny, *reason),
            Found::NoName => (Vec::new(), Verdict::Allow, "dns-not-found"),
            Found::Failed(reason) => (Vec::new(), Verdict::Allow, *reason),
        };
        let name = conn.text(&question.name);
        let verdict_text = verdict.as_str();
        let event = Event::Dns { name, question: kind, answers, verdict: verdict_text, reason };
        match verdict {
            Verdict::Deny => {
                conn.settle(Outcome::Denied { reason });
                conn.record_durable(&event).await
            }
            _ => {
                conn.settle(Outcome::Completed);
                conn.record(&event)
            }
        }
    }

    fn begin(&self) -> Result<Conn, SessionError> {
        let text = |text: &str| self.subject.everything().text(text).0;
        let opened = Opened {
            started_unix_ms: now_unix_ms(),
            kind: SessionKind::Dns,
            workload: text(&self.subject.workload.name),
            tag: self.flow.tag,
            cgroup: self.flow.cgroup,
            uid: self.flow.uid,
            pid: self.flow.pid,
            comm: text(&self.flow.comm),
            client: Some(self.client),
            destination: Some(self.flow.orig_dst.0),
            policy: self.shared.gate.policies.current().hash().as_str().to_owned(),
        };
        Conn::begin(&self.shared.gate, Arc::clone(&self.subject), opened)
    }
}
