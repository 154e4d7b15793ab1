//! What can go wrong with one connection, and on which side.

use std::io;
use std::net::IpAddr;

use super::resolve::{ResolveError, Special};

/// Which side failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
    Internal,
}

/// Why a connection or a request did not get through. Texts are for the log and
/// the recording; a job is told the reason only.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("the client closed before it said anything")]
    ClientClosed,
    #[error("the client said nothing in time")]
    ClientSilent,
    #[error("reading from the client: {0}")]
    ClientRead(#[source] io::Error),
    #[error("the client speaks nothing that is understood")]
    UnknownProtocol,
    #[error("the ClientHello is not valid: {0}")]
    BadHello(String),
    #[error("the client names no server and policy does not name its address")]
    NoSni,
    #[error(
        "the client may name another server in an encrypted ClientHello, and policy passes this one through unread"
    )]
    EncryptedHello,
    #[error("a known secret stands in the name that the client asks for")]
    SecretInName,
    #[error("the name that the client asks for looks as if data were sent in it")]
    DataInName,
    #[error("the workload was denied too often within a short time to be told why")]
    TooManyDenials,
    #[error("the client offers no application protocol that is understood")]
    NoAlpn,
    #[error("the client does not trust this host's CA: {0}")]
    ClientPinsRoots(#[source] io::Error),
    #[error("the TLS handshake with the client failed: {0}")]
    ClientHandshake(#[source] io::Error),
    #[error("the TLS handshake with the client took too long")]
    ClientHandshakeTimeout,
    #[error("the client's HTTP connection failed: {0}")]
    ClientHttp(#[source] hyper::Error),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("no address may be dialled: {address} is {reason}", reason = .why.reason())]
    Address { address: IpAddr, why: Special },
    #[error("connecting to {address}: {error}")]
    Connect { address: IpAddr, error: io::Error },
    #[error("connecting took too long")]
    ConnectTimeout,
    #[error("the upstream's certificate is refused: {0}")]
    Certificate(#[source] rustls::Error),
    #[error("the TLS handshake with the upstream failed: {0}")]
    UpstreamHandshake(#[source] io::Error),
    #[error("the TLS handshake with the upstream took too long")]
    UpstreamHandshakeTimeout,
    #[error("the upstream's HTTP connection failed: {0}")]
    UpstreamHttp(#[source] hyper::Error),
    #[error("the upstream closed before it took a request")]
    UpstreamClosed,
    #[error("the upstream did not answer in time")]
    UpstreamTimeout,
    #[error("relaying failed: {0}")]
    Relay(#[source] io::Error),
    #[error("nothing moved for too long")]
    RelayIdle,
    #[error("no leaf could be made: {0}")]
    Leaf(String),
    #[error("the recording takes nothing: {0}")]
    Recording(String),
    #[error("the proxy is shutting down")]
    Draining,
}

impl ProxyError {
    pub fn side(&self) -> Side {
        use ProxyError as E;
        match self {
            E::ClientClosed
            | E::ClientSilent
            | E::ClientRead(_)
            | E::UnknownProtocol
            | E::BadHello(_)
            | E::NoSni
            | E::EncryptedHello
            | E::SecretInName
            | E::DataInName
            | E::TooManyDenials
            | E::NoAlpn
            | E::ClientPinsRoots(_)
            | E::ClientHandshake(_)
            | E::ClientHandshakeTimeout
            | E::ClientHttp(_) => Side::Downstream,
            E::Resolve(_)
            | E::Address { .. }
            | E::Connect { .. }
            | E::ConnectTimeout
            | E::Certificate(_)
            | E::UpstreamHandshake(_)
            | E::UpstreamHandshakeTimeout
            | E::UpstreamHttp(_)
            | E::UpstreamTimeout
            | E::UpstreamClosed
            | E::Relay(_)
            | E::RelayIdle => Side::Upstream,
            E::Leaf(_) | E::Recording(_) | E::Draining => Side::Internal,
        }
    }

    /// Whether it is a rule of the proxy, and nothing that went wrong.
    pub fn is_denial(&self) -> bool {
        use ProxyError as E;
        matches!(
            self,
            E::UnknownProtocol
                | E::ClientSilent
                | E::NoSni
                | E::EncryptedHello
                | E::SecretInName
                | E::DataInName
                | E::TooManyDenials
        )
    }

    /// A word for machines; the job may see it.
    pub fn reason(&self) -> &'static str {
        use ProxyError as E;
        match self {
            E::ClientClosed => "client-closed",
            E::ClientSilent => "client-silent",
            E::ClientRead(_) => "client-read",
            E::UnknownProtocol => "unknown-protocol",
            E::BadHello(_) => "bad-client-hello",
            E::NoSni => "sni-missing",
            E::EncryptedHello => "encrypted-client-hello",
            E::SecretInName => "secret-in-name",
            E::DataInName => "data-in-name",
            E::TooManyDenials => "too-many-denials",
            E::NoAlpn => "alpn-unsupported",
            E::ClientPinsRoots(_) => "client-pins-roots",
            E::ClientHandshake(_) => "client-handshake",
            E::ClientHandshakeTimeout => "client-handshake-timeout",
            E::ClientHttp(_) => "client-http",
            E::Resolve(error) => error.reason(),
            E::Address { why, .. } => why.reason(),
            E::Connect { .. } => "upstream-connect",
            E::ConnectTimeout => "upstream-connect-timeout",
            E::Certificate(error) => crate::tls::upstream::reason(error),
            E::UpstreamHandshake(_) => "upstream-handshake",
            E::UpstreamHandshakeTimeout => "upstream-handshake-timeout",
            E::UpstreamHttp(_) => "upstream-http",
            E::UpstreamTimeout => "upstream-timeout",
            E::UpstreamClosed => "upstream-closed",
            E::Relay(_) => "relay",
            E::RelayIdle => "relay-idle",
            E::Leaf(_) => "leaf-unavailable",
            E::Recording(_) => "log-unavailable",
            E::Draining => "draining",
        }
    }
}
