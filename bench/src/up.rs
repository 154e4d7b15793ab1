//! The upstream: hyper and rustls on one thread, HTTP/1.1 and HTTP/2.
//!
//! `/s` 128 bytes; `/close` the same, and the connection ends; `/bytes/N` and
//! `/text/N` that many bytes; `/sse/N` N events a second, each with the time at
//! which it was sent.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;

use crate::{machine, tls};

const CHUNK: usize = 64 * 1024;
const WORDS: &str = "It is not the critic who counts: not the one who says how the strong stumble. ";

static SMALL: LazyLock<Bytes> = LazyLock::new(|| text(128));
static TEXT: LazyLock<Bytes> = LazyLock::new(|| text(CHUNK));
static ZEROS: Bytes = Bytes::from_static(&[0; CHUNK]);

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long)]
    listen: std::net::SocketAddr,
    /// Where the certificates are
    #[arg(long)]
    certs: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let acceptor = TlsAcceptor::from(tls::server(&args.certs)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(args.listen)?;
        let listener: TcpListener = socket.listen(4096)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream, acceptor.clone()));
        }
    })
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let tls = acceptor.accept(stream).await.ok()?;
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(tls);
    if h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
        builder.serve_connection(io, service_fn(answer)).await.ok()
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(io, service_fn(answer)).await.ok()
    }
}

fn text(length: usize) -> Bytes {
    WORDS.bytes().cycle().take(length).collect()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let number = path.rsplit('/').next().and_then(|last| last.parse::<u64>().ok()).unwrap_or(0);
    let (kind, body) = match path.split('/').nth(1) {
        Some("bytes") => ("application/octet-stream", Body::Chunks { chunk: ZEROS.clone(), left: number }),
        Some("text") => ("text/plain", Body::Chunks { chunk: TEXT.clone(), left: number }),
        Some("sse") => ("text/event-stream", Body::events(number)),
        _ => ("text/plain", Body::Chunks { chunk: SMALL.clone(), left: 128 }),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if path == "/close" {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if kind == "text/event-stream" {
        // What servers of events tell nginx.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    Ok(response)
}

enum Body {
    Chunks { chunk: Bytes, left: u64 },
    Events(Interval),
}

impl Body {
    fn events(rate: u64) -> Self {
        let mut interval = tokio::time::interval(Duration::from_nanos(1_000_000_000 / rate.max(1)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Events(interval)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Chunks { left: 0, .. } => Poll::Ready(None),
            Self::Chunks { chunk, left } => {
                let next = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
                *left -= next as u64;
                Poll::Ready(Some(Ok(Frame::data(chunk.slice(..next)))))
            }
            Self::Events(interval) => interval.poll_tick(cx).map(|_| {
                let event = format!("event: tick\ndata: {}\n\n", machine::monotonic_ns());
                Some(Ok(Frame::data(event.into())))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Chunks { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Chunks { left, .. } => SizeHint::with_exact(*left),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
