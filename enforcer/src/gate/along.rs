//! Answers that are compressed and do not say so: unpacked along for what is registered.
//!
//! Packages are downloaded like this, and nothing of them may change: a chunk goes on as it
//! came when what is in it is decided, and a registered value ends the answer. What cannot
//! be unpacked goes on: its reader could not unpack it either.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::task::coop;

use crate::mask::{Masker, StreamMasker};
use crate::protocol::archive::{self, Begin, Container};
use crate::protocol::http::coding::{Coding, Decoder};

use super::body::PIECE_COST;
use super::{BodyError, WireBody};

/// Bytes of an answer that are unpacked; what comes behind them is not looked at.
const UNPACKED_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// The longest mark at the beginning of what can be unpacked here.
const MARK_BYTES: usize = 4;

/// An answer, and what is looked for in it.
pub(super) struct Along {
    inner: WireBody,
    state: State,
    /// What waits until what is in it is decided.
    waiting: VecDeque<Bytes>,
    trailers: Option<Frame<Bytes>>,
    ended: bool,
}

enum State {
    Begin(Masker, BytesMut),
    Unpack(Box<Decoder>, Box<StreamMasker>),
    /// Nothing to unpack, or nothing any more.
    Through,
}

impl Along {
    /// `known` masks the registered values, and nothing where nothing is masked.
    pub(super) fn new(inner: WireBody, known: Option<Masker>) -> Self {
        let known = known.filter(|masker| !masker.is_noop());
        let state = known.map_or(State::Through, |masker| State::Begin(masker, BytesMut::new()));
        Self { inner, state, waiting: VecDeque::new(), trailers: None, ended: false }
    }

    fn take(&mut self, chunk: Bytes) {
        self.waiting.push_back(chunk.clone());
        match &mut self.state {
            State::Begin(_, begin) => begin.extend_from_slice(&chunk),
            State::Unpack(decoder, _) => decoder.push(chunk),
            State::Through => {}
        }
        self.begin();
    }

    fn end(&mut self) {
        self.ended = true;
        if let State::Unpack(decoder, _) = &mut self.state {
            decoder.finish();
        }
        self.begin();
    }

    /// Decides what the beginning says.
    fn begin(&mut self) {
        let State::Begin(masker, begin) = &mut self.state else { return };
        let known = archive::begin(begin, self.ended || begin.len() >= MARK_BYTES);
        let coding = match known {
            Begin::Is(Container::Coded(coding)) => coding,
            Begin::More => return,
            _ => {
                self.state = State::Through;
                return;
            }
        };
        self.state = match unpacker(coding, begin.split().freeze(), self.ended) {
            Some(decoder) => State::Unpack(decoder, Box::new(masker.stream())),
            None => State::Through,
        };
    }

    /// Unpacks what came, and says whether what waits may go on.
    fn poll_unpacked(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        let (decoder, stream) = match &mut self.state {
            State::Begin(..) => return Poll::Ready(Ok(self.ended)),
            State::Unpack(decoder, stream) => (decoder, stream),
            State::Through => return Poll::Ready(Ok(true)),
        };
        loop {
            for _ in 0..PIECE_COST {
                ready!(coop::poll_proceed(cx)).made_progress();
            }
            match decoder.next() {
                Ok(Some(piece)) => drop(stream.push(piece)?),
                Ok(None) => break,
                Err(_) => {
                    drop(stream.finish()?);
                    let found = !stream.findings().is_empty();
                    self.state = State::Through;
                    return Poll::Ready(if found { Err(BodyError::InArchive) } else { Ok(true) });
                }
            }
        }
        if self.ended {
            drop(stream.finish()?);
        }
        if !stream.findings().is_empty() {
            return Poll::Ready(Err(BodyError::InArchive));
        }
        Poll::Ready(Ok(self.ended || stream.held() == 0))
    }
}

fn unpacker(coding: Coding, begin: Bytes, ended: bool) -> Option<Box<Decoder>> {
    let mut decoder = Decoder::new(&[coding], UNPACKED_MAX_BYTES).ok()?;
    decoder.push(begin);
    if ended {
        decoder.finish();
    }
    Some(Box::new(decoder))
}

impl Body for Along {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            if (!this.waiting.is_empty() || this.ended)
                && ready!(this.poll_unpacked(cx))?
                && let Some(chunk) = this.waiting.pop_front()
            {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if this.ended {
                return Poll::Ready(this.trailers.take().map(Ok));
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)).transpose()?.map(Frame::into_data) {
                Some(Ok(bytes)) => this.take(bytes),
                other => {
                    this.trailers = other.and_then(Result::err);
                    this.end();
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
