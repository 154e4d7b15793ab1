//! Every decision about one connection, made before bytes move.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::gate::{Conn, Gate, Stop, Whose};
use crate::policy::{AddressRules, Decision, Fact, Facts, Feasibility, Protocol, Stage, Verdict};
use crate::tls::hello::Hello;
use crate::workload::identity::slot::Bound;

use super::detect::Detected;
use super::error::ProxyError;
use super::pool::Offer;

/// What happens to a connection.
#[derive(Debug)]
pub enum Plan {
    /// HTTP without TLS.
    Http { offer: Offer, denied: Option<Stop> },
    /// TLS ends here; the upstream is verified first.
    Terminate { host: Arc<str>, offer: Offer, addresses: AddressRules },
    /// The bytes go on unread to the host that SNI names.
    Passthrough { host: Arc<str>, decision: Box<Decision> },
    /// TLS ends here, nobody is dialled, every request gets the denial.
    Deny { host: Arc<str>, offer: Offer, denied: Stop },
    /// There is no way to tell the client why.
    Close { error: ProxyError, alert: Option<Alert> },
}

/// TLS alerts that are sent in place of a ServerHello (RFC 8446, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    CertificateUnknown = 46,
    DecodeError = 50,
    AccessDenied = 49,
    InternalError = 80,
    NoApplicationProtocol = 120,
}

impl Alert {
    /// A fatal alert as a plaintext record.
    pub fn record(self) -> [u8; 7] {
        [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, self as u8]
    }
}

/// Asks policy on behalf of one connection and records what it says.
pub struct Planner<'a> {
    pub gate: &'a Gate,
    pub conn: &'a Conn,
    pub original: SocketAddr,
}

impl Planner<'_> {
    fn facts<'f>(
        &'f self,
        stage: Stage,
        whose: Option<&'f Bound>,
        host: Fact<&'f str>,
        protocol: Fact<Protocol>,
    ) -> Facts<'f> {
        Facts {
            identity: Whose::facts(whose),
            host,
            port: Fact::Known(self.original.port()),
            protocol,
            ..Facts::new(&self.conn.subject.facts, stage)
        }
    }

    /// Before a byte was read: only what no completion of the facts could allow is denied.
    pub async fn at_connect(&self) -> Result<Option<Stop>, Stop> {
        let whose = self.conn.subject.whose.now();
        let facts = self.facts(Stage::Connect, whose.as_deref(), Fact::Unknown, Fact::Unknown);
        self.feasible(&facts).await
    }

    async fn feasible(&self, facts: &Facts<'_>) -> Result<Option<Stop>, Stop> {
        let policy = self.gate.policies.current();
        match policy.feasible(facts) {
            Feasibility::Possible => Ok(None),
            Feasibility::Never(decision) => {
                let recorded = self.conn.verdict(None, &policy, &decision).await;
                recorded.map_err(Stop::log_unavailable)?;
                let stop = Stop::policy(&decision);
                // Nobody waits for an identity, but if one comes, it is for the next connection.
                let another = Facts { identity: Fact::Unknown, ..facts.clone() };
                let may_change = policy.feasible(&another).is_possible();
                Ok(Some(if may_change { stop.closing() } else { stop }))
            }
        }
    }

    /// `denied` is what policy said at the connect stage.
    pub async fn plan(&self, detected: &Detected, denied: Option<Stop>) -> Result<Plan, Stop> {
        let close = |error| Ok(Plan::Close { error, alert: None });
        match detected {
            Detected::Tls(hello) => Box::pin(self.tls(hello, denied)).await,
            Detected::Http1 | Detected::Http2 => {
                let h2 = matches!(detected, Detected::Http2);
                let denied = match denied {
                    Some(denied) => Some(denied),
                    None => {
                        let whose = self.conn.subject.whose.now();
                        let protocol = Fact::Known(Protocol::Http);
                        let facts = self.facts(Stage::Connect, whose.as_deref(), Fact::Unknown, protocol);
                        self.feasible(&facts).await?
                    }
                };
                Ok(Plan::Http { offer: Offer { h2, h1: !h2 }, denied })
            }
            Detected::BadHello(why) => {
                Ok(Plan::Close { error: ProxyError::BadHello(why.clone()), alert: Some(Alert::DecodeError) })
            }
            Detected::Unknown => close(ProxyError::UnknownProtocol),
            Detected::Silent => close(ProxyError::ClientSilent),
            Detected::Closed => close(ProxyError::ClientClosed),
        }
    }

    async fn tls(&self, hello: &Hello, denied: Option<Stop>) -> Result<Plan, Stop> {
        let literal = self.original.ip().to_canonical().to_string();
        let named = hello.sni.is_some();
        // Without SNI the address is the name, and policy has to allow it as such.
        let host: Arc<str> = hello.sni.as_deref().unwrap_or(&literal).into();
        let offer = offer(hello);
        if let Some(denied) = denied {
            return Ok(Plan::Deny { host, offer, denied });
        }
        let whose = self.conn.subject.whose.now();
        let facts = self.facts(Stage::Tls, whose.as_deref(), Fact::Known(&host), Fact::Unknown);
        let policy = self.gate.policies.current();
        let decision = policy.decide(&facts);
        if decision.verdict == Verdict::Passthrough {
            return self.passthrough(hello, host, decision).await;
        }
        if let Some(denied) = self.feasible(&facts).await? {
            let denied = if named { denied } else { Stop { reason: "sni-missing", ..denied } };
            return Ok(Plan::Deny { host, offer, denied });
        }
        if let Some(reason) = self.named(&host, &decision) {
            let denied = Stop::denied(http::StatusCode::FORBIDDEN, reason.reason());
            let recorded = self.conn.refused(None, &policy, &denied).await;
            recorded.map_err(Stop::log_unavailable)?;
            return Ok(Plan::Deny { host, offer, denied });
        }
        if !offer.h1 && !offer.h2 {
            let alert = Some(Alert::NoApplicationProtocol);
            return Ok(Plan::Close { error: ProxyError::NoAlpn, alert });
        }
        Ok(Plan::Terminate { host, offer, addresses: decision.addresses })
    }

    /// Why this name must not be told to those who serve its zone.
    fn named(&self, host: &str, decision: &Decision) -> Option<ProxyError> {
        if self.conn.subject.reveals(host) {
            return Some(ProxyError::SecretInName);
        }
        let carries = self.conn.carries_data(None, host, &decision.request_mask);
        carries.then_some(ProxyError::DataInName)
    }

    async fn passthrough(&self, hello: &Hello, host: Arc<str>, decision: Decision) -> Result<Plan, Stop> {
        // What is relayed unread goes to a name, and the name stands in the hello.
        let policy = self.gate.policies.current();
        let unclear = match &hello.sni {
            None => Some(ProxyError::NoSni),
            // It may be noise (see `tls::hello`); here nobody could tell.
            Some(sni) => self.named(sni, &decision).or(hello.ech.then_some(ProxyError::EncryptedHello)),
        };
        if let Some(error) = unclear {
            let stop = Stop::denied(http::StatusCode::FORBIDDEN, error.reason());
            let recorded = self.conn.refused(None, &policy, &stop).await;
            recorded.map_err(Stop::log_unavailable)?;
            return Ok(Plan::Close { error, alert: Some(Alert::AccessDenied) });
        }
        let recorded = self.conn.verdict(None, &policy, &decision).await;
        recorded.and_then(|()| self.conn.flush()).map_err(Stop::log_unavailable)?;
        Ok(Plan::Passthrough { host, decision: Box::new(decision) })
    }
}

/// What the client offers of what is understood here. Without ALPN it is HTTP/1.1.
fn offer(hello: &Hello) -> Offer {
    let has = |protocol: &[u8]| hello.alpn.iter().any(|offered| offered.as_slice() == protocol);
    Offer { h2: has(b"h2"), h1: hello.alpn.is_empty() || has(b"http/1.1") }
}
