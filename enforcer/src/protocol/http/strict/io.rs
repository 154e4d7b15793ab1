//! The validator as a stream.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
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
    /// The answer to the upgrade that is waited for.
    upgrade: AtomicU8,
}

/// The upgrade is not answered yet.
const OPEN: u8 = 0;
/// The upgrade was agreed to.
const SWITCHED: u8 = 1;
/// The upgrade was answered as any other request.
const DECLINED: u8 = 2;

/// What a reader gets in place of the rest of a malformed body.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body is malformed: {0}")]
struct Broken(Reason);

/// Why the body was broken off whose reading ended in this error, if it was.
pub fn broken(error: &hyper::Error) -> Option<Reason> {
    let io = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    io.get_ref()?.downcast_ref::<Broken>().map(|broken| broken.0)
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

    /// To be called once for each request with an `Upgrade` field (this reader
    /// lets through only those that ask for a WebSocket), when its answer is
    /// known: with 101 what follows is not HTTP.
    ///
    /// **Invariant**: nothing else ends the validation. What the target answers
    /// is no sign of it: in a pipeline its bytes may belong to an earlier request.
    pub fn answered_upgrade(&self, switched: bool) {
        self.0.upgrade.store(if switched { SWITCHED } else { DECLINED }, Ordering::Release);
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
        let answer = self.monitor.0.upgrade.swap(OPEN, Ordering::AcqRel);
        if answer == OPEN {
            *waiting = Some(cx.waker().clone());
            return false;
        }
        drop(waiting);
        self.validator.upgraded(answer == SWITCHED);
        self.note();
        true
    }

    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ];
        let mut buffer = ReadBuf::new(&mut bytes);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        self.ended = buffer.filled().is_empty();
        self.validator.push(buffer.filled());
        if self.ended {
            self.validator.end();
        }
        self.note();
        Poll::Ready(Ok(()))
    }

    /// Bodies and what is not HTTP go straight to the reader, without a copy.
    fn fill_direct(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = usize::try_from(self.validator.direct()).unwrap_or(usize::MAX);
        let mut part = ReadBuf::new(out.initialize_unfilled_to(most.min(out.remaining())));
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let filled = part.filled().len();
        self.ended = filled == 0;
        self.validator.passed(filled as u64);
        out.advance(filled);
        Poll::Ready(Ok(()))
    }

    fn note(&self) {
        if let Some(reason) = self.validator.reason() {
            self.monitor.0.reason.get_or_init(|| reason);
        }
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
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Broken(reason))));
            }
            if this.ended || this.validator.is_refused() {
                return Poll::Ready(Ok(()));
            }
            if this.validator.awaits_upgrade() {
                if !this.answered(cx) {
                    return Poll::Pending;
                }
                continue;
            }
            if this.validator.direct() > 0 && out.remaining() > 0 {
                return this.fill_direct(cx, out);
            }
            std::task::ready!(this.fill(cx))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for StrictIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
