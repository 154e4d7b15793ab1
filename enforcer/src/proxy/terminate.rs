//! TLS that ends here: the upstream first, then the leaf.
//!
//! **Invariant**: a leaf for requests that go on is made only after the upstream
//! was verified in full. If the certificate is refused there is no leaf at all,
//! only an alert: the client must not see a validity that it would have refused.
//! A name that policy allows and that cannot be *reached* gets a leaf that serves
//! nothing but the reason, as a denial does; nothing is forwarded on it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::gate::Stop;
use crate::mask::MaskedText;
use crate::policy::AddressRules;
use crate::session::{Event, Outcome, Side};

use super::connection::{Carried, ClientStream, alert_and_close};
use super::error::ProxyError;
use super::heard::Heard;
use super::plan::Alert;
use super::pool::{Key, Offer, Peer};
use super::{route, serve, upstream};

/// A client that leaves without a word sooner than this does not trust the leaf; one
/// that leaves later had no use for the connection.
const MISTRUST: Duration = Duration::from_secs(5);

pub(super) async fn terminate(
    carried: &Carried,
    mut stream: ClientStream,
    host: Arc<str>,
    offer: Offer,
    addresses: AddressRules,
) -> Result<(), ProxyError> {
    let key = Key {
        tag: carried.conn.subject.workload.tag,
        host: Arc::clone(&host),
        port: carried.original.port(),
        tls: true,
        offer,
        addresses,
    };
    let verified = Box::pin(verified(carried, &key)).await;
    let peer = match verified.and_then(|peer| record(carried, &peer).map(|()| peer)) {
        Ok(peer) => peer,
        Err(error @ (ProxyError::Certificate(_) | ProxyError::UpstreamHandshake(_))) => {
            alert_and_close(&mut stream, Alert::CertificateUnknown).await;
            return Err(error);
        }
        Err(error) => {
            let stop = route::stop(&error);
            return Box::pin(deny(carried, stream, host, offer, stop)).await;
        }
    };
    let alpn = peer.alpn.as_deref();
    let tls = Box::pin(accept(carried, stream, &host, alpn)).await?;
    let scope = carried.scope(Some(host), true, None);
    let service = Arc::new(serve::Service::new(carried, scope, offer));
    Box::pin(serve(carried, tls, service, alpn == Some(b"h2"))).await
}

/// Serves what the client asks for. Some clients (Node's among them) look at the
/// certificate only after the handshake, and leave without a word if they do not
/// trust it.
async fn serve(
    carried: &Carried,
    tls: TlsStream<ClientStream>,
    service: Arc<serve::Service>,
    h2: bool,
) -> Result<(), ProxyError> {
    let begun = Instant::now();
    let (tls, heard) = Heard::new(tls);
    let served = if h2 {
        Box::pin(serve::h2(tls, service, carried.watch.clone())).await
    } else {
        Box::pin(serve::h1(tls, service, carried.watch.clone())).await
    };
    if !heard.load(Ordering::Relaxed) && begun.elapsed() < MISTRUST && !carried.watch.is_draining() {
        let text = "it ended the connection after the handshake without a request";
        return Err(ProxyError::ClientPinsRoots(io::Error::other(text)));
    }
    served
}

/// A leaf that serves only a denial.
pub(super) async fn deny(
    carried: &Carried,
    mut stream: ClientStream,
    host: Arc<str>,
    offer: Offer,
    denied: Stop,
) -> Result<(), ProxyError> {
    if !carried.conn.subject.may_be_told() {
        carried.conn.settle(Outcome::Denied { reason: denied.reason });
        alert_and_close(&mut stream, Alert::AccessDenied).await;
        return Err(ProxyError::TooManyDenials);
    }
    let alpn: Option<&[u8]> = match offer {
        Offer { h2: true, .. } => Some(b"h2"),
        Offer { h1: true, .. } => Some(b"http/1.1"),
        Offer { .. } => None,
    };
    let tls = Box::pin(accept(carried, stream, &host, alpn)).await?;
    let scope = carried.scope(Some(host), true, Some(denied));
    let service = Arc::new(serve::Service::new(carried, scope, offer));
    Box::pin(serve(carried, tls, service, offer.h2)).await
}

/// A live connection that was verified not long ago, or a new one.
async fn verified(carried: &Carried, key: &Key) -> Result<Arc<Peer>, ProxyError> {
    let pool = &carried.shared.pool;
    if let Some(peer) = pool.verified(key) {
        return Ok(peer);
    }
    let connected = upstream::connect(&carried.shared, key, carried.original.ip()).await?;
    let peer = Arc::clone(&connected.peer);
    pool.put(key, connected);
    Ok(peer)
}

fn record(carried: &Carried, peer: &Peer) -> Result<(), ProxyError> {
    let alpn = peer.alpn.as_deref().map(String::from_utf8_lossy);
    let event = Event::Tls {
        side: Side::Upstream,
        version: carried.conn.text(&peer.version),
        cipher: carried.conn.text(&peer.cipher),
        alpn: alpn.map(|alpn| carried.conn.text(&alpn)),
        certificate: Some(peer.certificate_sha256.clone()),
    };
    carried.conn.record(&event).map_err(|error| ProxyError::Recording(error.to_string()))
}

async fn accept(
    carried: &Carried,
    stream: ClientStream,
    host: &str,
    alpn: Option<&[u8]>,
) -> Result<TlsStream<ClientStream>, ProxyError> {
    let shared = &carried.shared;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let config = shared.leaves.server_config(name, alpn).await;
    let config = config.map_err(ProxyError::Leaf)?;
    let accepting = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(shared.limits.handshake_timeout(), accepting).await {
        Err(_) => Err(ProxyError::ClientHandshakeTimeout),
        Ok(Ok(tls)) => {
            let (_, state) = tls.get_ref();
            let version = state.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default();
            let cipher = state.negotiated_cipher_suite();
            let cipher = cipher.map(|c| format!("{:?}", c.suite())).unwrap_or_default();
            carried.conn.note(&Event::Tls {
                side: Side::Downstream,
                version: carried.conn.text(&version),
                cipher: carried.conn.text(&cipher),
                alpn: alpn.map(|alpn| MaskedText::fixed(if alpn == b"h2" { "h2" } else { "http/1.1" })),
                certificate: None,
            });
            Ok(tls)
        }
        Ok(Err(error)) if pins_roots(&error) => Err(ProxyError::ClientPinsRoots(error)),
        Ok(Err(error)) => Err(ProxyError::ClientHandshake(error)),
    }
}

/// Whether a client does not trust the leaf: it says so, or it leaves without a word
/// once it has seen it.
fn pins_roots(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return true;
    }
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tls.is_some_and(crate::tls::client_pins_roots)
}
