//! A connection whose session cannot be recorded: its client is told so, and nothing else
//! happens on it.

use std::convert::Infallible;
use std::net::IpAddr;

use bytes::BytesMut;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::gate::{Stop, Subject};
use crate::session::SessionError;

use super::Shared;
use super::connection::{ClientStream, alert_and_close};
use super::detect::{Detected, detect};
use super::plan::Alert;
use super::prefixed::Prefixed;

/// What stands where a session's id would.
const NO_SESSION: &str = "none";

/// Finds out what the client speaks, and tells it in that. Nobody is dialled.
pub(super) async fn tell(
    shared: &Shared,
    subject: &Subject,
    mut stream: TcpStream,
    original: IpAddr,
    error: &SessionError,
) {
    let mut seen = BytesMut::new();
    let Ok(detected) = detect(&mut stream, &mut seen, &shared.limits).await else { return };
    let stream = Prefixed::new(seen.freeze(), stream);
    let stop = Stop::log_unavailable(error);
    tell_as(shared, subject, &detected, stream, original, &stop).await;
}

/// Tells a client of which is known what it speaks. Nobody is dialled.
pub(super) async fn tell_as(
    shared: &Shared,
    subject: &Subject,
    detected: &Detected,
    mut stream: ClientStream,
    original: IpAddr,
    stop: &Stop,
) {
    let stop = stop.clone().closing();
    let telling = async {
        match detected {
            Detected::Http1 => answer(stream, false, &stop).await,
            Detected::Http2 => answer(stream, true, &stop).await,
            Detected::Tls(hello) => {
                let h2 = hello.alpn.iter().any(|name| name == b"h2");
                let alpn: Option<&[u8]> = if hello.alpn.is_empty() {
                    None
                } else if h2 {
                    Some(b"h2")
                } else {
                    Some(b"http/1.1")
                };
                let literal = original.to_canonical().to_string();
                let name = hello.sni.as_deref().unwrap_or(&literal);
                if !subject.may_be_told() {
                    return alert_and_close(&mut stream, Alert::InternalError).await;
                }
                let Ok(config) = shared.leaves.server_config(name, alpn).await else {
                    return alert_and_close(&mut stream, Alert::InternalError).await;
                };
                if let Ok(tls) = TlsAcceptor::from(config).accept(stream).await {
                    answer(tls, h2, &stop).await;
                }
            }
            _ => {}
        }
    };
    // Whoever takes longer than for a handshake learns nothing.
    drop(tokio::time::timeout(shared.limits.handshake_timeout(), telling).await);
}

/// Every request gets the same answer.
async fn answer<S>(stream: S, h2: bool, stop: &Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stop = stop.clone();
    let answering = service_fn(move |_: Request<Incoming>| {
        let answer = stop.response(NO_SESSION);
        async move { Ok::<_, Infallible>(answer) }
    });
    let io = TokioIo::new(stream);
    let served = if h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).serve_connection(io, answering).await
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).serve_connection(io, answering).await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a client was not told that nothing can be recorded");
    }
}
