//! The way of one client connection's requests to their upstream.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::drain::Watch;
use crate::gate::{BodyError, Destination, Forward, Forwarding, Stop, WebSocketRelay, WireBody};

use super::admission::Permit;
use super::error::{ProxyError, Side};
use super::pool::{Connected, Key, Offer, Sender};
use super::{Shared, upstream, websocket};

/// Takes requests of one client connection to the upstream pool.
pub struct Route {
    pub shared: Arc<Shared>,
    pub tag: u64,
    pub original: IpAddr,
    pub offer: Offer,
    pub watch: Watch,
    pub permit: Arc<Permit>,
}

enum Sent {
    Answer(Response<WireBody>),
    /// The connection was gone before anything of the request was sent on it.
    Unsent(Box<Request<WireBody>>),
}

impl Forward for Route {
    fn send<'a>(&'a self, to: Destination<'a>, request: Request<WireBody>) -> Forwarding<'a> {
        Box::pin(async move { self.deliver(to, request).await.map_err(|error| stop(&error)) })
    }

    fn websocket(&self, downstream: OnUpgrade, upstream: OnUpgrade, relay: WebSocketRelay) {
        let bytes = self.shared.limits.websocket_message_bytes;
        let mut watch = self.watch.clone();
        // The connection counts as one until the relay ends.
        let permit = Arc::clone(&self.permit);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = watch.immediate() => {}
                () = websocket::relay(downstream, upstream, relay, bytes) => {}
            }
            drop(permit);
        });
    }
}

impl Route {
    async fn deliver(
        &self,
        to: Destination<'_>,
        mut request: Request<WireBody>,
    ) -> Result<Response<WireBody>, ProxyError> {
        // Only HTTP/1.1 can be upgraded here.
        let offer = if to.upgrade { Offer { h2: false, h1: true } } else { self.offer };
        let key = Key {
            tag: self.tag,
            host: to.host.into(),
            port: to.port,
            tls: to.tls,
            offer,
            addresses: to.addresses.clone(),
        };
        let uri = request.uri().clone();
        if !to.upgrade {
            while let Some(connected) = self.shared.pool.take(&key) {
                let again = repeatable(&request);
                match (self.attempt(connected, &key, &uri, request, true).await, again) {
                    (Ok(Sent::Answer(answer)), _) => return Ok(answer),
                    (Ok(Sent::Unsent(back)), _) => request = *back,
                    // The connection was idle and may have been closed while the
                    // request was under way; a client would try again, too.
                    (Err(ProxyError::UpstreamHttp(_)), Some(again)) => request = again,
                    (Err(error), _) => return Err(error),
                }
            }
        }
        let connected = upstream::connect(&self.shared, &key, self.original).await?;
        if let Sender::H2(sender) = &connected.sender {
            let sender = Sender::H2(sender.clone());
            let peer = Arc::clone(&connected.peer);
            self.shared.pool.put(&key, Connected { sender, peer });
        }
        match self.attempt(connected, &key, &uri, request, !to.upgrade).await? {
            Sent::Answer(answer) => Ok(answer),
            Sent::Unsent(_) => Err(ProxyError::UpstreamClosed),
        }
    }

    async fn attempt(
        &self,
        connected: Connected,
        key: &Key,
        uri: &Uri,
        mut request: Request<WireBody>,
        reuse: bool,
    ) -> Result<Sent, ProxyError> {
        let limit = self.shared.limits.response_timeout();
        let peer = connected.peer;
        match connected.sender {
            Sender::H1(mut sender) => {
                shape_h1(&mut request, uri);
                let sent = tokio::time::timeout(limit, sender.try_send_request(request)).await;
                match sent.map_err(|_| ProxyError::UpstreamTimeout)? {
                    Ok(answer) => {
                        let back = reuse.then(|| Back {
                            shared: Arc::clone(&self.shared),
                            key: key.clone(),
                            connected: Connected { sender: Sender::H1(sender), peer },
                        });
                        Ok(Sent::Answer(answer.map(|body| Lent { body, back }.boxed_unsync())))
                    }
                    Err(mut error) => match error.take_message() {
                        Some(request) => Ok(Sent::Unsent(Box::new(request))),
                        None => Err(ProxyError::UpstreamHttp(error.into_error())),
                    },
                }
            }
            Sender::H2(mut sender) => {
                shape_h2(&mut request, uri);
                let sent = tokio::time::timeout(limit, sender.try_send_request(request)).await;
                match sent.map_err(|_| ProxyError::UpstreamTimeout)? {
                    Ok(answer) => {
                        Ok(Sent::Answer(answer.map(|body| Lent { body, back: None }.boxed_unsync())))
                    }
                    Err(mut error) => match error.take_message() {
                        Some(request) => Ok(Sent::Unsent(Box::new(request))),
                        None => Err(ProxyError::UpstreamHttp(error.into_error())),
                    },
                }
            }
        }
    }
}

/// The same request once more, if sending it twice does what sending it once
/// does (RFC 9110, section 9.2.2).
fn repeatable(request: &Request<WireBody>) -> Option<Request<WireBody>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut again = Request::new(body);
    again.method_mut().clone_from(request.method());
    again.headers_mut().clone_from(request.headers());
    Some(again)
}

/// Origin form with one `Host` (RFC 9112, section 3.2.1).
fn shape_h1(request: &mut Request<WireBody>, uri: &Uri) {
    let unknown = request.body().size_hint().exact().is_none();
    if unknown && !request.headers().contains_key(header::CONTENT_LENGTH) {
        // Otherwise hyper would send a GET without the body that it has.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| uri.clone());
    *request.version_mut() = Version::HTTP_11;
}

fn shape_h2(request: &mut Request<WireBody>, uri: &Uri) {
    request.headers_mut().remove(header::HOST);
    *request.uri_mut() = uri.clone();
    *request.version_mut() = Version::HTTP_2;
}

/// What the sender of a request is told when its upstream cannot be reached.
pub fn stop(error: &ProxyError) -> Stop {
    let status = match error {
        ProxyError::ConnectTimeout | ProxyError::UpstreamTimeout | ProxyError::UpstreamHandshakeTimeout => {
            StatusCode::GATEWAY_TIMEOUT
        }
        ProxyError::Address { .. } => StatusCode::FORBIDDEN,
        ProxyError::Recording(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    Stop::failed(side(error.side()), status, error.reason(), error.to_string())
}

pub fn side(side: Side) -> crate::session::Side {
    match side {
        Side::Downstream => crate::session::Side::Downstream,
        Side::Upstream => crate::session::Side::Upstream,
        Side::Internal => crate::session::Side::Internal,
    }
}

/// Gives a connection back to the pool.
struct Back {
    shared: Arc<Shared>,
    key: Key,
    connected: Connected,
}

/// An answer's body; the connection goes back once all of it was read, and is
/// closed if it was not.
struct Lent {
    body: Incoming,
    back: Option<Back>,
}

impl Lent {
    fn give_back(&mut self) {
        if let Some(Back { shared, key, connected }) = self.back.take() {
            shared.pool.put(&key, connected);
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match frame {
            None => {
                self.give_back();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                self.back = None;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}
