//! HTTP towards the client.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::drain::Watch;
use crate::gate::{self, Scope, Stop, WireBody};
use crate::protocol::http::strict::{self, StrictIo};

use super::Shared;
use super::connection::Carried;
use super::error::ProxyError;
use super::pool::Offer;
use super::route::Route;

/// What one stream of a client may have in flight.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// What all streams of a client connection may have in flight.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Answers the requests of one client connection.
pub(super) struct Service {
    shared: Arc<Shared>,
    scope: Scope,
    route: Route,
}

impl Service {
    pub fn new(carried: &Carried, scope: Scope, offer: Offer) -> Self {
        let route = Route {
            shared: Arc::clone(&carried.shared),
            tag: carried.conn.subject.workload.tag,
            original: carried.original.ip(),
            offer,
            watch: carried.watch.clone(),
            permit: Arc::clone(&carried.permit),
        };
        Self { shared: Arc::clone(&carried.shared), scope, route }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<WireBody> {
        let gate = &self.shared.gate;
        if !gate.policies.current().holds() {
            return gate::exchange(gate, &self.scope, &self.route, None, request).await;
        }
        let service = Arc::clone(&self);
        let answer = gate::early(|early| async move {
            let Self { shared, scope, route } = &*service;
            gate::exchange(&shared.gate, scope, route, Some(&early), request).await
        });
        answer.await
    }

    /// Whether the connection ends with the answer to its first request: it is denied for what
    /// may be otherwise for the next one.
    fn answers_once(&self) -> bool {
        self.scope.denied.as_ref().is_some_and(|denied| denied.close)
    }

    /// The validator found something that is not HTTP/1.1 as it is here.
    async fn invalid(&self, reason: &'static str) -> Response<WireBody> {
        let conn = &self.scope.conn;
        let stop = Stop::denied(StatusCode::BAD_REQUEST, reason).closing();
        let policy = self.shared.gate.policies.current();
        let statement = conn.next_statement();
        let stop = match conn.refused(Some(statement), &policy, &stop).await {
            Ok(()) => stop,
            Err(error) => Stop::log_unavailable(error).closing(),
        };
        conn.settle(crate::session::Outcome::Denied { reason });
        stop.response(conn.id())
    }
}

pub(super) async fn h1<S>(stream: S, service: Arc<Service>, mut watch: Watch) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = Arc::clone(&service.shared.limits);
    let strict = strict::Limits { head_bytes: limits.header_bytes, headers: limits.header_count };
    let (stream, monitor) = StrictIo::new(stream, strict);
    let heard = Arc::new(Notify::new());
    let hears = Arc::clone(&heard);
    let answering = service_fn(move |request: Request<Incoming>| {
        hears.notify_one();
        let (service, monitor) = (Arc::clone(&service), monitor.clone());
        let upgrade = request.headers().contains_key(http::header::UPGRADE);
        async move {
            let answer = match monitor.refusal(&request) {
                Some(reason) => service.invalid(reason).await,
                None => service.answer(request).await,
            };
            if upgrade {
                monitor.answered_upgrade(answer.status() == StatusCode::SWITCHING_PROTOCOLS);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout())
        .max_headers(limits.header_count)
        .max_buf_size(limits.header_bytes.max(16 * 1024))
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answering)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut graceful = false;
    loop {
        tokio::select! {
            biased;
            () = ending(&mut watch, &heard, false), if !graceful => {
                graceful = true;
                connection.as_mut().graceful_shutdown();
            }
            done = connection.as_mut() => return ended(done),
        }
    }
}

pub(super) async fn h2<S>(stream: S, service: Arc<Service>, mut watch: Watch) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = Arc::clone(&service.shared.limits);
    let heard = Arc::new(Notify::new());
    let hears = Arc::clone(&heard);
    let once = service.answers_once();
    let answering = service_fn(move |request: Request<Incoming>| {
        hears.notify_one();
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_pending_resets)
        .max_local_error_reset_streams(limits.h2_error_resets)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = std::pin::pin!(connection);
    let mut graceful = false;
    loop {
        tokio::select! {
            biased;
            () = ending(&mut watch, &heard, once), if !graceful => {
                graceful = true;
                connection.as_mut().graceful_shutdown();
            }
            done = connection.as_mut() => return ended(done),
        }
    }
}

/// Returns when a shutdown has begun and the client has had a request taken: one that has
/// just connected would otherwise be closed in the face, and not know why.
/// So would one that is answered once, and over HTTP/1.1 the answer itself says so.
async fn ending(watch: &mut Watch, heard: &Notify, once: bool) {
    if !once {
        watch.graceful().await;
    }
    heard.notified().await;
}

/// A client that goes away between two requests has ended its connection; a
/// body that was aborted has been recorded where it happened.
fn ended(done: hyper::Result<()>) -> Result<(), ProxyError> {
    match done {
        Ok(()) => Ok(()),
        Err(error) if error.is_user() || error.is_closed() || error.is_timeout() => Ok(()),
        Err(error) if error.is_incomplete_message() => Err(ProxyError::ClientClosed),
        Err(error) => Err(ProxyError::ClientHttp(error)),
    }
}
