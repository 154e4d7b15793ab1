//! The life of one accepted connection.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::drain::Watch;
use crate::gate::{Conn, Opened, Operator, Scope, Stop, Subject};
use crate::mask::MaskedText;
use crate::net::sys::FlowRecord;
use crate::net::sys::Line;
use crate::session::{Event, Outcome, SessionKind};
use crate::tls::hello::Hello;
use crate::workload::Workload;

use super::admission::Permit;
use super::detect::{Detected, detect};
use super::error::{ProxyError, Side};
use super::plan::{Plan, Planner};
use super::prefixed::Prefixed;
use super::{Shared, passthrough, route, serve, terminate, unrecorded};

/// What every plan needs to be carried out.
pub(super) struct Carried {
    pub shared: Arc<Shared>,
    pub conn: Arc<Conn>,
    pub original: SocketAddr,
    pub watch: Watch,
    /// Shared with what outlives the exchange of requests: a WebSocket.
    pub permit: Arc<Permit>,
    /// Where a request can be held.
    pub line: Option<Arc<Line>>,
}

pub(super) type ClientStream = Prefixed<TcpStream>;

/// Serves one accepted connection until its end. Errors end in the recording.
pub async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, client: SocketAddr, watch: Watch) {
    let flow = match shared.flows.flow_of(&stream) {
        Ok(Some(flow)) => flow,
        // Nobody who was redirected comes here without a record: not one of ours.
        Ok(None) => {
            tracing::debug!(%client, "closed: the kernel has no record");
            return;
        }
        Err(error) => {
            tracing::warn!(%client, %error, "closed: reading the kernel's record failed");
            return;
        }
    };
    let mut subject = shared.gate.subjects.get(flow.tag);
    if subject.is_none() {
        subject = Box::pin(shared.gate.subjects.get_soon(flow.tag)).await;
    }
    let Some(subject) = subject else {
        unknown_workload(&shared, client, &flow);
        return;
    };
    let workloads = shared.gate.subjects.len();
    let admitted = shared.admission.admit(&subject.connections, workloads, &shared.limits);
    if flow.orig_dst.0.port() == 53 {
        if let (Ok(_permit), Some(dns)) = (admitted, &shared.dns) {
            dns.serve(stream, flow, subject).await;
        }
        return;
    }
    let conn = match Conn::begin(&shared.gate, Arc::clone(&subject), opened(&shared, client, &flow)) {
        Ok(conn) => Arc::new(conn),
        Err(error) => {
            tracing::error!(%client, %error, "closed: no session could be recorded");
            if admitted.is_ok() {
                let original = flow.orig_dst.0.ip();
                Box::pin(unrecorded::tell(&shared, &subject, stream, original, &error)).await;
            }
            return;
        }
    };
    let permit = match admitted {
        Ok(permit) => Arc::new(permit),
        Err(refused) => {
            conn.error(crate::session::Side::Internal, refused.reason(), "");
            conn.settle(Outcome::Denied { reason: refused.reason() });
            return;
        }
    };
    let original = flow.orig_dst.0;
    let mut cut = watch.clone();
    let line = match shared.gate.policies.current().holds().then(|| Line::of(&stream)).transpose() {
        Ok(line) => line.map(Arc::new),
        Err(error) => {
            tracing::warn!(%client, %error, "a connection cannot be watched; what is held of it is denied");
            None
        }
    };
    let carried = Carried { shared, conn: Arc::clone(&conn), original, watch, permit, line };
    let done = tokio::select! {
        biased;
        () = cut.immediate() => Err(ProxyError::Draining),
        done = Box::pin(carried.run(stream)) => done,
    };
    match done {
        Ok(()) => conn.settle(Outcome::Completed),
        Err(error) => ended(&conn, &error),
    }
}

fn ended(conn: &Conn, error: &ProxyError) {
    let side = route::side(error.side());
    if !matches!(error, ProxyError::ClientClosed) {
        conn.error(side, error.reason(), &error.to_string());
    }
    conn.settle(match error.side() {
        Side::Downstream if matches!(error, ProxyError::ClientClosed) => Outcome::Completed,
        // Nothing of the client's is at fault: it is not let through.
        _ if error.is_denial() => Outcome::Denied { reason: error.reason() },
        _ if matches!(error, ProxyError::Draining) => Outcome::Cancelled,
        _ => Outcome::Failed { side, reason: error.reason() },
    });
}

impl Carried {
    async fn run(&self, mut stream: TcpStream) -> Result<(), ProxyError> {
        stream.set_nodelay(true).map_err(ProxyError::ClientRead)?;
        let planner = Planner { gate: &self.shared.gate, conn: &self.conn, original: self.original };
        let at_connect = planner.at_connect().await;
        let mut seen = BytesMut::with_capacity(2048);
        let detected = Box::pin(detect(&mut stream, &mut seen, &self.shared.limits)).await?;
        if let Ok(Some(stop)) = &at_connect {
            // Whatever it turns out to speak, and also if it leaves before that.
            self.conn.settle(Outcome::Denied { reason: stop.reason });
        }
        let plan = match at_connect {
            Ok(denied) => Box::pin(planner.plan(&detected, denied)).await,
            Err(stop) => Err(stop),
        };
        let plan = plan.and_then(|plan| self.record_plan(&plan, &detected).map(|()| plan));
        let stream = Prefixed::new(seen.freeze(), stream);
        match plan {
            Ok(plan) => self.carry_out(plan, stream).await,
            Err(stop) => {
                let subject = &self.conn.subject;
                let original = self.original.ip();
                Box::pin(unrecorded::tell_as(&self.shared, subject, &detected, stream, original, &stop))
                    .await;
                Err(ProxyError::Recording(stop.detail.unwrap_or_default()))
            }
        }
    }

    async fn carry_out(&self, plan: Plan, stream: ClientStream) -> Result<(), ProxyError> {
        match plan {
            Plan::Http { offer, denied } => {
                let scope = self.scope(None, false, denied);
                let service = Arc::new(serve::Service::new(self, scope, offer));
                if offer.h2 {
                    Box::pin(serve::h2(stream, service, self.watch.clone())).await
                } else {
                    Box::pin(serve::h1(stream, service, self.watch.clone())).await
                }
            }
            Plan::Terminate { host, offer, addresses } => {
                Box::pin(terminate::terminate(self, stream, host, offer, addresses)).await
            }
            Plan::Deny { host, offer, denied } => {
                Box::pin(terminate::deny(self, stream, host, offer, denied)).await
            }
            Plan::Passthrough { host, decision } => {
                Box::pin(passthrough::relay(self, stream, &host, &decision)).await
            }
            Plan::Close { error, alert } => {
                let mut stream = stream;
                if let Some(alert) = alert {
                    alert_and_close(&mut stream, alert).await;
                }
                Err(error)
            }
        }
    }

    pub(super) fn scope(&self, host: Option<Arc<str>>, tls: bool, denied: Option<Stop>) -> Scope {
        let port = self.original.port();
        Scope { conn: Arc::clone(&self.conn), host, port, tls, denied, line: self.line.clone() }
    }

    fn record_plan(&self, plan: &Plan, detected: &Detected) -> Result<(), Stop> {
        let hello = match detected {
            Detected::Tls(hello) => Some(&**hello),
            _ => None,
        };
        let (action, protocol, host) = match plan {
            Plan::Http { denied: None, .. } => ("carry", "http", None),
            Plan::Http { denied: Some(_), .. } => ("deny", "http", None),
            Plan::Terminate { host, .. } => ("terminate", "https", Some(host)),
            Plan::Passthrough { host, .. } => ("passthrough", "tls", Some(host)),
            Plan::Deny { host, .. } => ("deny", "https", Some(host)),
            Plan::Close { alert: Some(_), .. } => ("close", "tls", None),
            Plan::Close { alert: None, .. } => ("close", "opaque", None),
        };
        if let Some(host) = host {
            let port = self.original.port();
            let name = if port == 443 { host.to_string() } else { format!("{host}:{port}") };
            self.conn.is_towards(&name);
        }
        let event = Event::Plan {
            host: host.map(|host| self.conn.text(host)),
            port: self.original.port(),
            protocol,
            sni: hello.and_then(|hello| hello.sni.as_deref()).map(|sni| self.conn.text(sni)),
            alpn: hello.map(|hello| self.protocols(hello)).unwrap_or_default(),
            action,
            address: None,
        };
        self.conn.record(&event).map_err(Stop::log_unavailable)
    }

    fn protocols(&self, hello: &Hello) -> Vec<MaskedText> {
        hello.alpn.iter().map(|name| self.conn.text(&String::from_utf8_lossy(name))).collect()
    }
}

/// Sends an alert and waits for the client to close, so that a reset does not
/// overtake it.
pub(super) async fn alert_and_close(stream: &mut ClientStream, alert: super::plan::Alert) {
    use tokio::io::AsyncReadExt;
    if stream.write_all(&alert.record()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 1024];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {} };
    drop(tokio::time::timeout(std::time::Duration::from_secs(1), drain).await);
}

fn opened(shared: &Shared, client: SocketAddr, flow: &FlowRecord) -> Opened {
    let subject = shared.gate.subjects.get(flow.tag);
    let (workload, comm) = match &subject {
        Some(subject) => {
            let text = |text: &str| subject.everything().text(text).0;
            (text(&subject.workload.name), text(&flow.comm))
        }
        None => (MaskedText::fixed("unknown"), MaskedText::fixed("unknown")),
    };
    Opened {
        started_unix_ms: now_unix_ms(),
        workload,
        facts: subject.as_ref().map(|subject| Arc::clone(&subject.recorded)),
        tag: flow.tag,
        cgroup: flow.cgroup,
        uid: flow.uid,
        pid: flow.pid,
        comm,
        kind: SessionKind::Connection,
        client: Some(client),
        destination: Some(flow.orig_dst.0),
        policy: shared.gate.policies.current().hash().as_str().to_owned(),
        identity: subject.and_then(|subject| subject.whose.recorded()),
    }
}

pub(super) fn now_unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// A workload of which nothing is known but what the kernel says.
pub(super) fn unknown(tag: u64, cgroup: u64, uid: u32) -> Workload {
    Workload {
        tag,
        cgroup,
        cgroup_path: String::new(),
        name: "unknown".to_owned(),
        labels: std::collections::BTreeMap::new(),
        uid,
        command: Vec::new(),
        secrets: Vec::new(),
    }
}

/// The kernel says that this is a tagged process, but nobody told us of its workload.
fn unknown_workload(shared: &Shared, client: SocketAddr, flow: &FlowRecord) {
    let workload = unknown(flow.tag, flow.cgroup, flow.uid);
    let begun = Operator::new(Vec::new()).and_then(|operator| Subject::new(Arc::new(workload), &operator));
    let begun = begun.map_err(|error| error.to_string());
    let begun = begun.and_then(|subject| {
        Conn::begin(&shared.gate, Arc::new(subject), opened(shared, client, flow))
            .map_err(|error| error.to_string())
    });
    match begun {
        Ok(conn) => conn.settle(Outcome::Denied { reason: "unknown-workload" }),
        Err(error) => tracing::error!(%client, %error, "an unknown workload was not recorded"),
    }
}
