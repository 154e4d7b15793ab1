//! An upstream that does what a path asks for.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use super::llm;

type Out = UnsyncBoxBody<Bytes, std::io::Error>;

/// Method, path and query of every request that arrived.
pub type Requests = Arc<std::sync::Mutex<Vec<(String, String)>>>;

/// What an upstream is told while it runs, and what it tells.
#[derive(Clone, Default)]
pub struct Scene {
    /// The second part of a body may come.
    pub signal: Arc<Notify>,
    pub requests: Requests,
    /// Pieces that were sent of bodies without an end.
    pub endless: Arc<AtomicUsize>,
}

pub struct Origin {
    pub address: SocketAddr,
    pub accepted: Arc<AtomicUsize>,
}

impl Origin {
    /// With a script every request gets these bytes, whatever it asks for.
    pub async fn start(
        tls: Option<Arc<rustls::ServerConfig>>,
        scene: Scene,
        script: Option<&'static [u8]>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                stream.set_nodelay(true).unwrap();
                let (tls, scene) = (tls.clone(), scene.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return serve(stream, false, scene).await };
                    let accepted = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await;
                    let Ok(stream) = accepted else { return };
                    if let Some(script) = script {
                        return recite(stream, script).await;
                    }
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, h2, scene).await;
                });
            }
        });
        Self { address, accepted }
    }
}

/// The end of each head gets the script.
async fn recite<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, script: &[u8]) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(script).await.is_err() {
                return;
            }
        }
    }
}

async fn serve<S>(stream: S, h2: bool, scene: Scene)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let scene = scene.clone();
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let line = (request.method().to_string(), target.to_owned());
        scene.requests.lock().unwrap().push(line);
        async move { Ok::<_, Infallible>(answer(request, scene).await) }
    });
    if h2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(io, service).await);
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        drop(builder.serve_connection(io, service).with_upgrades().await);
    }
}

/// A body that is fed from a channel.
pub struct Fed(pub mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}

fn full(text: impl Into<Bytes>) -> Response<Out> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync())
}

pub fn fed() -> (mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>, Fed) {
    let (to, from) = mpsc::channel(1);
    (to, Fed(from))
}

fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(bytes.into()))
}

pub fn gzip(text: &[u8]) -> Vec<u8> {
    // Stored blocks would be found by a search for the text, so this must compress.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn answer(mut request: Request<Incoming>, scene: Scene) -> Response<Out> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    if let Some(how) = query.strip_prefix("as=") {
        return said_again(request, how, &scene).await;
    }
    match request.uri().path() {
        "/echo" | "/echo/held" => {
            let body = request.into_body();
            Response::new(body.map_err(std::io::Error::other).boxed_unsync())
        }
        "/headers" => {
            let lines = request.headers().iter().map(|(name, value)| format!("{name}: {value:?}\n"));
            full(lines.collect::<String>())
        }
        "/trailers" => {
            let (to, body) = fed();
            tokio::spawn(async move {
                drop(to.send(data("message")).await);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                drop(to.send(Ok(Frame::trailers(trailers))).await);
            });
            let mut response = Response::new(body.boxed_unsync());
            response.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status"));
            response
        }
        "/sse" => {
            let (to, body) = fed();
            tokio::spawn(async move {
                drop(to.send(data("data: one\n\n")).await);
                scene.signal.notified().await;
                drop(to.send(data("data: two\n\n")).await);
            });
            let mut response = Response::new(body.boxed_unsync());
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", kind);
            response
        }
        "/reset" => {
            let (to, body) = fed();
            tokio::spawn(async move {
                drop(to.send(data("the first part")).await);
                scene.signal.notified().await;
                drop(to.send(Err(std::io::Error::other("reset"))).await);
            });
            Response::new(body.boxed_unsync())
        }
        "/endless" => {
            let (to, body) = fed();
            tokio::spawn(async move {
                while to.send(data(vec![b'x'; 16 * 1024])).await.is_ok() {
                    scene.endless.fetch_add(1, Ordering::Relaxed);
                }
            });
            Response::new(body.boxed_unsync())
        }
        "/bomb" => {
            // A thousand times as long as it looks.
            static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
            let mut response = full(BOMB.get_or_init(|| gzip(&vec![0; 1 << 26])).clone());
            let coding = HeaderValue::from_static("gzip");
            response.headers_mut().insert("content-encoding", coding);
            response
        }
        "/secret" => secret(&query),
        "/ws" => websocket(&mut request, None),
        path if path.starts_with("/v1/") => model(request, &query),
        _ => full("hello"),
    }
}

/// What was sent, as an answer of this type.
async fn said_again(request: Request<Incoming>, how: &str, scene: &Scene) -> Response<Out> {
    let mut how = how.split('&');
    let kind = how.next().unwrap_or_default();
    let body = request.into_body();
    let mut response = Response::new(body.map_err(std::io::Error::other).boxed_unsync());
    if !kind.is_empty() {
        response.headers_mut().insert("content-type", HeaderValue::from_str(kind).unwrap());
    }
    for also in how {
        match also {
            "gzip" => {
                drop(response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip")))
            }
            "wait" => scene.signal.notified().await,
            other => panic!("{other}"),
        }
    }
    response
}

/// The secret, cut at the byte that the query names.
fn secret(query: &str) -> Response<Out> {
    let mut whole = format!("before {} after", super::SECRET).into_bytes();
    let zipped = query.contains("gzip");
    if zipped {
        whole = gzip(&whole);
    }
    let at: usize = query.split('=').nth(1).unwrap().parse().unwrap();
    let at = at.min(whole.len());
    let (to, body) = fed();
    tokio::spawn(async move {
        drop(to.send(data(whole[..at].to_vec())).await);
        tokio::task::yield_now().await;
        drop(to.send(data(whole[at..].to_vec())).await);
    });
    let mut response = Response::new(body.boxed_unsync());
    if zipped {
        let coding = HeaderValue::from_static("gzip");
        response.headers_mut().insert("content-encoding", coding);
    }
    response.headers_mut().insert("x-key", HeaderValue::from_static(super::SECRET));
    response.headers_mut().insert("etag", HeaderValue::from_static("\"tag\""));
    response.headers_mut().insert("alt-svc", HeaderValue::from_static("h3=\":443\""));
    response
}

/// A model that says the secret, or says again what it was asked.
fn model(mut request: Request<Incoming>, query: &str) -> Response<Out> {
    match request.uri().path() {
        _ if query == "echo" => {
            let body = request.into_body();
            Response::new(body.map_err(std::io::Error::other).boxed_unsync())
        }
        "/v1/responses" => {
            let lines = llm::responses().into_iter().map(|(_, data)| data);
            websocket(&mut request, Some(lines.collect()))
        }
        "/v1/messages" if query.starts_with("calls=") => {
            stream(llm::calls(&query["calls=".len()..].replace('+', " ")), false)
        }
        "/v1/chat/completions" if query.starts_with("calls=") => {
            let mut response = full(llm::whole_calls(&query["calls=".len()..].replace('+', " ")));
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", kind);
            response
        }
        "/v1/chat/completions" => stream(llm::chat(), query == "gzip"),
        "/v1/messages" if query.starts_with("whole") => {
            let mut response = full(llm::message(query == "whole-signed"));
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", kind);
            response
        }
        "/v1/messages" => stream(llm::messages(), query == "gzip"),
        _ => full("hello"),
    }
}

/// Server-sent events, each in a piece of its own.
fn stream(events: Vec<(Option<String>, String)>, zipped: bool) -> Response<Out> {
    let (to, body) = fed();
    tokio::spawn(async move {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        for (name, text) in events {
            let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
            let event = format!("{name}data: {text}\n\n");
            let piece = if zipped {
                encoder.write_all(event.as_bytes()).unwrap();
                encoder.flush().unwrap();
                std::mem::take(encoder.get_mut())
            } else {
                event.into_bytes()
            };
            drop(to.send(data(piece)).await);
        }
        if zipped {
            drop(to.send(data(encoder.finish().unwrap())).await);
        }
    });
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/event-stream; charset=utf-8"));
    if zipped {
        headers.insert("content-encoding", HeaderValue::from_static("gzip"));
    }
    response
}

/// Sends every message back; or these, to whatever comes first.
fn websocket(request: &mut Request<Incoming>, script: Option<Vec<String>>) -> Response<Out> {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
        let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(io, role, None).await;
        if let Some(script) = script {
            let asked = socket.next().await.unwrap().unwrap();
            for line in script {
                socket.send(line.into()).await.unwrap();
            }
            // What was asked comes last.
            socket.send(asked).await.unwrap();
        }
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut response = full("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    response
}
