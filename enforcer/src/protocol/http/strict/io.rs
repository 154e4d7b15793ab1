//! The validator as a stream.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Limits, REFUSED_METHOD, Reason, Validator};

/// How much is read at a time, in bytes.
const READ: usize = 8 * 1024;

/// What the two sides of a connection tell each other.
#[derive(Debug, Default)]
struct Shared {
    nonce: String,
    reason: OnceLock<Reason>,
    waiting: Mutex<Option<Waker>>,
    switched: std::sync::atomic::AtomicBool,
}

/// The service's view of the validator.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Shared>);

impl Monitor {
    /// Why the request that this one stands for was refused; None for a
    /// client's own request, whatever it looks like.
    pub fn refusal<B>(&self, request: &http::Request<B>) -> Option<Reason> {
        let ours = request.method().as_str() == REFUSED_METHOD
            && request.uri().path().strip_prefix('/') == Some(self.0.nonce.as_str());
        if ours { self.0.reason.get().copied() } else { None }
    }

    /// The upgrade has been agreed to: from here on it is not HTTP.
    pub fn switch(&self) {
        self.0.switched.store(true, std::sync::atomic::Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A client's stream of which only validated bytes can be read.
#[derive(Debug)]
pub struct StrictIo<S> {
    inner: S,
    validator: Validator,
    monitor: Monitor,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> StrictIo<S> {
    pub fn new(inner: S, limits: Limits) -> (Self, Monitor) {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let monitor = Monitor(Arc::new(Shared { nonce: nonce.clone(), ..Shared::default() }));
        let validator = Validator::new(limits, nonce);
        (Self { inner, validator, monitor: monitor.clone(), ended: false }, monitor)
    }

    /// Waits for the answer to an upgrade; true: it is there.
    fn answered(&mut self, cx: &Context<'_>) -> bool {
        let mut waiting = self.monitor.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.monitor.0.switched.load(std::sync::atomic::Ordering::Acquire) {
            drop(waiting);
            self.validator.upgraded(true);
            return true;
        }
        *waiting = Some(cx.waker().clone());
        false
    }

    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ];
        let mut buffer = ReadBuf::new(&mut bytes);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        self.ended = buffer.filled().is_empty();
        self.validator.push(buffer.filled());
        if let Some(reason) = self.validator.reason() {
            self.monitor.0.reason.get_or_init(|| reason);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for StrictIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let ready = this.validator.ready();
            if !ready.is_empty() {
                let take = ready.len().min(out.remaining());
                out.put_slice(&ready[..take]);
                ready.advance(take);
                return Poll::Ready(Ok(()));
            }
            if this.validator.is_broken() {
                let reason = this.validator.reason().unwrap_or("http-broken");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
            if this.ended || this.validator.is_refused() {
                return Poll::Ready(Ok(()));
            }
            if this.validator.awaits_upgrade() && !this.answered(cx) {
                return Poll::Pending;
            }
            std::task::ready!(this.fill(cx))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for StrictIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The answer to an upgrade: 1xx but 101 comes before it, anything else
        // means that the connection goes on with HTTP.
        if self.validator.awaits_upgrade() && bytes.len() >= 12 {
            let switched = &bytes[9..12] == b"101";
            if switched || bytes[9] != b'1' {
                self.validator.upgraded(switched);
                self.monitor.wake();
            }
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
