//! Accepting, planning and carrying one connection.
//!
//! ```text
//!  accept --> record? --> workload? --> session --> feasible? --> detect --> Plan
//!               |no           |no                                             |
//!             close       denied, closed                                      |
//!                                                                             |
//!    +-------------+---------------+---------------+--------------------------+
//!    Http          Terminate       Passthrough     Deny
//!    |             verify upstream | bytes go on   | a leaf for the denial
//!    |             leaf, ALPN      | unread        | alone; nobody is dialled
//!    +--> gate <---+
//! ```

pub mod admission;
pub mod approvals;
mod connection;
pub mod detect;
mod dial;
pub mod dns;
#[cfg(test)]
mod egress;
pub mod error;
mod heard;
pub mod jobs;
pub mod limits;
mod passthrough;
mod plan;
pub mod pool;
pub mod prefixed;
pub mod process;
pub mod resolve;
mod route;
mod serve;
mod terminate;
mod unrecorded;
mod upstream;
mod websocket;
pub mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::gate::{Gate, Subject};
use crate::net::sys::FlowRecord;
use crate::tls::leaf::LeafCache;
use crate::tls::server::Downstream;

pub use error::ProxyError;
pub use limits::Limits;
pub use resolve::Resolve;

/// What all connections of the process share.
pub struct Shared {
    pub gate: Gate,
    pub limits: Arc<Limits>,
    pub pool: pool::Pool,
    pub admission: admission::Admission,
    pub resolver: Box<dyn Resolve>,
    pub flows: Box<dyn FlowSource>,
    pub leaves: Box<dyn Leaves>,
    pub upstream: Box<dyn UpstreamTls>,
    /// Answers DNS over TCP; without it port 53 is refused.
    pub dns: Option<Box<dyn TcpDns>>,
    /// Where this host's enforcer itself listens, to which nobody is led.
    pub own: Vec<(SocketAddr, resolve::Special)>,
}

/// Where the record of an accepted connection comes from: the kernel, or a test.
pub trait FlowSource: Send + Sync {
    /// `None` if the kernel knows nothing of this connection.
    fn flow_of(&self, stream: &TcpStream) -> io::Result<Option<FlowRecord>>;
}

pub type Leaf<'a> = Pin<Box<dyn Future<Output = Result<Arc<rustls::ServerConfig>, String>> + Send + 'a>>;

/// Where leaves come from: the signer, or a test.
pub trait Leaves: Send + Sync {
    /// TLS towards a client that asked for this name; `alpn` is what it is answered.
    fn server_config<'a>(&'a self, name: &'a str, alpn: Option<&'a [u8]>) -> Leaf<'a>;
}

pub type Verifying<'a> = Pin<Box<dyn Future<Output = Arc<rustls::ClientConfig>> + Send + 'a>>;

/// TLS towards upstreams: it verifies in full.
pub trait UpstreamTls: Send + Sync {
    /// Sessions are resumed for one workload only.
    fn config<'a>(&'a self, tag: u64, alpn: &'a [&'a [u8]]) -> Verifying<'a>;
}

/// The kernel's own record, read from the accepted socket.
#[derive(Debug, Default)]
pub struct KernelFlows;

impl FlowSource for KernelFlows {
    fn flow_of(&self, stream: &TcpStream) -> io::Result<Option<FlowRecord>> {
        use std::os::fd::AsFd;
        crate::net::sys::flow_of(stream.as_fd())
    }
}

impl UpstreamTls for crate::tls::upstream::Upstream {
    fn config<'a>(&'a self, tag: u64, alpn: &'a [&'a [u8]]) -> Verifying<'a> {
        Box::pin(self.config(tag, alpn))
    }
}

/// Leaves that the signer's process makes.
pub struct SignedLeaves {
    pub cache: LeafCache,
    pub downstream: Downstream,
}

impl Leaves for SignedLeaves {
    fn server_config<'a>(&'a self, name: &'a str, alpn: Option<&'a [u8]>) -> Leaf<'a> {
        Box::pin(async move {
            let leaf = self.cache.get(name).await.map_err(|error| error.to_string())?;
            Ok(self.downstream.config(leaf, alpn))
        })
    }
}

pub type Serving<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The resolver's TCP side.
pub trait TcpDns: Send + Sync {
    fn serve<'a>(&'a self, stream: TcpStream, flow: FlowRecord, subject: Arc<Subject>) -> Serving<'a>;
}
