//! The only place that orders the steps: decode, decide, record, forward; mask,
//! record, deliver. What a rule holds waits for people before it is forwarded.
//!
//! ```text
//!  request --> facts --> decide --> record --+--> deny: answered here
//!                        (newest    verdict  |
//!                         policy)            +--> allow --> mask --> record --> forward
//!                                                                                  |
//!  response <-- deliver <-- record <-- mask <--------------------------------------+
//! ```
//!
//! **Invariant**: nothing of a request is forwarded before its verdict is recorded.

mod along;
pub mod body;
mod conn;
mod counted;
mod deny;
mod found;
mod headers;
mod held;
mod look;
mod masking;
mod request;
mod response;
mod subject;
mod tap;
mod tools;
mod whose;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

use crate::approval::Desk;
use crate::net::sys::Line;
use crate::policy::{AddressRules, PolicyStore};
use crate::protocol::http::coding;
use crate::session::Recording;

pub use body::BodyError;
pub use conn::{Conn, Opened};
pub use counted::Counting;
pub use deny::Stop;
pub use found::{COUNTED_MAX, Found};
pub use request::early::{Early, early};
pub use request::hold::jobs_of;
pub use request::{Asked, exchange};
pub use subject::{Operator, Subject, Subjects};
pub use whose::Whose;

/// A body on its way to somebody, in either direction.
pub type WireBody = UnsyncBoxBody<Bytes, BodyError>;

/// What all connections share.
pub struct Gate {
    pub policies: Arc<PolicyStore>,
    pub recording: Recording,
    pub subjects: Subjects,
    /// What was found in all messages.
    pub found: Arc<Found>,
    /// Where people are asked; without it nothing that is held goes out.
    pub approvals: Option<Desk>,
    pub settings: Settings,
}

/// Limits that the gate itself keeps.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of a masked body that are recorded.
    pub body_bytes: usize,
    /// Without a byte in a body that is not finished.
    pub body_idle: Duration,
    /// How much a body may decode to.
    pub decoded: coding::Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes: 64 * 1024,
            body_idle: Duration::from_secs(600),
            decoded: coding::Limits::default(),
        }
    }
}

/// What the requests of one connection have in common.
pub struct Scope {
    pub conn: Arc<Conn>,
    /// The name for which the upstream was verified. `None` in plain HTTP,
    /// where each request names its own.
    pub host: Option<Arc<str>>,
    pub port: u16,
    pub tls: bool,
    /// Set if the whole connection is denied: every request gets this answer.
    pub denied: Option<Stop>,
    /// Over HTTP/1.1: whether the client is still there while nobody reads.
    pub line: Option<Arc<Line>>,
}

/// Where one request goes.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    pub host: &'a str,
    pub port: u16,
    pub tls: bool,
    pub addresses: &'a AddressRules,
    /// The connection will speak something else after this exchange.
    pub upgrade: bool,
}

pub type Forwarding<'a> = Pin<Box<dyn Future<Output = Result<Response<WireBody>, Stop>> + Send + 'a>>;

/// The way to the upstream. The proxy makes it; the gate says when it is taken.
pub trait Forward: Send + Sync {
    fn send<'a>(&'a self, to: Destination<'a>, request: Request<WireBody>) -> Forwarding<'a>;

    /// Relays two upgraded connections, message by message.
    fn websocket(
        &self,
        downstream: hyper::upgrade::OnUpgrade,
        upstream: hyper::upgrade::OnUpgrade,
        relay: WebSocketRelay,
    );
}

/// What a relayed WebSocket needs of the gate.
pub struct WebSocketRelay {
    pub conn: Arc<Conn>,
    pub statement: u32,
    pub request: Option<crate::mask::Masker>,
    pub response: Option<crate::mask::Masker>,
    /// What knows the known values of what masks each way.
    pub known: [crate::mask::Masker; 2],
    /// Set if its messages are a model's API.
    pub model: Option<crate::protocol::llm::Answer>,
    /// What its messages are counted in, if a rule limits them.
    pub counting: Option<Counting>,
    /// Bytes of one message that are recorded.
    pub keep: usize,
}

/// The side from which bytes of this direction come.
pub(crate) fn side_of(direction: crate::session::Direction) -> crate::session::Side {
    match direction {
        crate::session::Direction::Request => crate::session::Side::Downstream,
        crate::session::Direction::Response => crate::session::Side::Upstream,
    }
}
