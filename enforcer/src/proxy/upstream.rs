//! A verified connection to an upstream, ready for requests.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Shared;
use super::dial::{Dial, dial};
use super::error::ProxyError;
use super::pool::{Connected, Key, Offer, Peer, Sender};

/// What one HTTP/2 stream may have in flight.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
/// What all streams of one connection may have in flight: as much as a client's streams
/// may have, all of them. They share it with other clients of the workload, whom one that
/// reads nothing must not stop.
const H2_CONNECTION_WINDOW: u32 = 128 * H2_STREAM_WINDOW;

/// Dials, verifies in full, and says hello in the protocol that was agreed on.
pub async fn connect(shared: &Shared, key: &Key, original: IpAddr) -> Result<Connected, ProxyError> {
    let Key { tag, ref host, port, ref addresses, .. } = *key;
    let tcp = dial(shared, Dial { tag, host, port, addresses, original }).await?;
    let address = tcp.peer_addr().map_err(ProxyError::Relay)?;
    let mut peer = Peer {
        address,
        alpn: None,
        version: String::new(),
        cipher: String::new(),
        certificate_sha256: String::new(),
        since: Instant::now(),
    };
    if !key.tls {
        // Without TLS a client that begins with the preface knows that the server can.
        let h2 = key.offer.h2 && !key.offer.h1;
        return Box::pin(speak(shared, tcp, h2, peer)).await;
    }
    let tls = Box::pin(handshake(shared, key, tcp)).await?;
    describe(&tls, &mut peer);
    let h2 = peer.alpn.as_deref() == Some(b"h2");
    Box::pin(speak(shared, tls, h2, peer)).await
}

async fn handshake(shared: &Shared, key: &Key, tcp: TcpStream) -> Result<TlsStream<TcpStream>, ProxyError> {
    let config = shared.upstream.config(key.tag, protocols(key.offer)).await;
    let name = key.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name =
        ServerName::try_from(name).map_err(|error| ProxyError::UpstreamHandshake(io::Error::other(error)))?;
    let connect = TlsConnector::from(config).connect(name, tcp);
    match tokio::time::timeout(shared.limits.handshake_timeout(), connect).await {
        Err(_) => Err(ProxyError::UpstreamHandshakeTimeout),
        Ok(Ok(tls)) => Ok(tls),
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(
                    tls @ (rustls::Error::InvalidCertificate(_)
                    | rustls::Error::NoCertificatesPresented
                    | rustls::Error::UnsupportedNameType
                    | rustls::Error::InvalidCertRevocationList(_)),
                ) => Err(ProxyError::Certificate(tls.clone())),
                _ => Err(ProxyError::UpstreamHandshake(error)),
            }
        }
    }
}

fn protocols(offer: Offer) -> &'static [&'static [u8]] {
    match offer {
        Offer { h2: true, h1: true } => &[b"h2", b"http/1.1"],
        Offer { h2: true, h1: false } => &[b"h2"],
        Offer { h2: false, .. } => &[b"http/1.1"],
    }
}

fn describe(tls: &TlsStream<TcpStream>, peer: &mut Peer) {
    let (_, state) = tls.get_ref();
    peer.alpn = state.alpn_protocol().map(<[u8]>::to_vec);
    peer.version = state.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default();
    peer.cipher = state.negotiated_cipher_suite().map(|c| format!("{:?}", c.suite())).unwrap_or_default();
    if let Some([certificate, ..]) = state.peer_certificates() {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        peer.certificate_sha256 = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    }
}

async fn speak<S>(shared: &Shared, io: S, h2: bool, peer: Peer) -> Result<Connected, ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Arc::new(peer);
    let io = TokioIo::new(io);
    let limits = &shared.limits;
    let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let sender = if h2 {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(header_bytes)
            .keep_alive_interval(std::time::Duration::from_secs(30))
            .keep_alive_while_idle(false)
            .handshake(io)
            .await
            .map_err(ProxyError::UpstreamHttp)?;
        drive(connection);
        Sender::H2(sender)
    } else {
        let (sender, connection) = http1::Builder::new()
            .max_headers(limits.header_count)
            .max_buf_size(limits.header_bytes.max(64 * 1024))
            .handshake(io)
            .await
            .map_err(ProxyError::UpstreamHttp)?;
        drive(connection.with_upgrades());
        Sender::H1(sender)
    };
    Ok(Connected { sender, peer })
}

/// Whoever sends a request learns of its error; here it is only worth a debug line.
fn drive<F>(connection: F)
where
    F: Future<Output = hyper::Result<()>> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection ended");
        }
    });
}
