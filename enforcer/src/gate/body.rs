//! Bodies on their way: recorded, masked, with back-pressure, never collected.
//!
//! ```text
//!   inner --> [decode] --> tap --> [mask] --> [encode] --> wire
//!                           |
//!                           +--> masked with everything known --> recording
//! ```
//! The wire is decoded and encoded only if something is masked on it. Otherwise
//! the tap decodes on its own what it records, up to the recording's limit.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use crate::mask::{BodyParts, Findings, MaskError, Masker};
use crate::policy::Over;
use crate::protocol::archive::ArchiveError;
use crate::protocol::grpc;
use crate::protocol::http::coding::{Coding, CodingError, Decoder, Encoder};
use crate::protocol::http::strict;
use crate::protocol::llm::LlmError;
use crate::session::{Direction, SessionError, Side};

use super::masking::{Masking, Model};
use super::tap::Tap;
use super::{Conn, Settings, Stop, WireBody, headers};

/// What a decoded piece takes of a task's turn (tokio gives 128): about 1 MiB a turn.
pub(super) const PIECE_COST: usize = 4;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("reading the body: {0}")]
    Read(#[from] hyper::Error),
    #[error("no byte of the body came in time")]
    Idle,
    #[error("masking the body: {0}")]
    Mask(#[from] MaskError),
    #[error("masking what a model says, or is asked: {0}")]
    Model(LlmError),
    #[error("decoding the body: {0}")]
    Coding(#[from] CodingError),
    #[error("recording the body: {0}")]
    Recording(#[from] SessionError),
    /// There is no room for it under a limit.
    #[error("{0}")]
    Limit(Box<Over>),
    #[error("a secret stands in a message whose length may not change")]
    Message,
    #[error("a secret stands in an archive, which cannot be masked")]
    InArchive,
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A body that an earlier step has given an error for.
    #[error(transparent)]
    Inner(Box<BodyError>),
}

impl BodyError {
    /// A word for machines; the job may see it.
    pub fn reason(&self) -> &'static str {
        match self {
            BodyError::Read(error) => strict::broken(error).unwrap_or("body-aborted"),
            BodyError::Idle => "body-idle",
            BodyError::Mask(MaskError::Denied { .. }) => "secret-in-body",
            BodyError::Mask(MaskError::Held { .. }) => "held",
            BodyError::Coding(CodingError::TooDense { .. } | CodingError::TooLarge { .. }) => {
                "decoded-over-limit"
            }
            BodyError::Mask(_) | BodyError::Coding(_) => "body-unreadable",
            BodyError::Model(error) => error.reason(),
            BodyError::Message => "secret-in-message",
            BodyError::InArchive => "secret-in-archive",
            BodyError::Archive(ArchiveError::Limit(_)) => "archive-over-limit",
            BodyError::Archive(ArchiveError::Unreadable(_)) => "archive-unreadable",
            BodyError::Archive(ArchiveError::Ambiguous) => "multipart-ambiguous",
            BodyError::Recording(_) => "log-unavailable",
            BodyError::Limit(over) => over.reason().as_str(),
            BodyError::Inner(error) => error.reason(),
        }
    }

    /// The limit that it ran into.
    pub fn limit(&self) -> Option<&Over> {
        match self {
            BodyError::Limit(over) => Some(over),
            BodyError::Inner(error) => error.limit(),
            _ => None,
        }
    }

    /// What the sender of a request is told whose body ended like this.
    pub fn stop(&self) -> Stop {
        let status = match self {
            BodyError::Inner(error) => return error.stop(),
            BodyError::Recording(error) => return Stop::log_unavailable(error),
            BodyError::Limit(over) => return Stop::over(over).closing(),
            BodyError::Message
            | BodyError::Model(LlmError::SignedThinking)
            | BodyError::Mask(MaskError::Denied { .. } | MaskError::Held { .. }) => {
                return Stop::denied(StatusCode::FORBIDDEN, self.reason());
            }
            BodyError::InArchive => return Stop::denied(StatusCode::FORBIDDEN, self.reason()),
            BodyError::Archive(error) => {
                let mut stop = Stop::denied(StatusCode::FORBIDDEN, self.reason());
                stop.detail = Some(error.to_string());
                return stop;
            }
            BodyError::Idle => StatusCode::REQUEST_TIMEOUT,
            BodyError::Read(_) | BodyError::Mask(_) | BodyError::Coding(_) | BodyError::Model(_) => {
                StatusCode::BAD_REQUEST
            }
        };
        match self {
            BodyError::Read(error) if strict::broken(error).is_some() => {
                Stop::denied(status, self.reason()).closing()
            }
            _ => Stop::failed(Side::Downstream, status, self.reason(), self.to_string()).closing(),
        }
    }
}

impl From<LlmError> for BodyError {
    fn from(error: LlmError) -> Self {
        match error {
            LlmError::Mask(error) => Self::Mask(error),
            error => Self::Model(error),
        }
    }
}

impl From<std::convert::Infallible> for BodyError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// What a head says about its body.
#[derive(Debug, Default)]
pub struct Said {
    length: Option<u64>,
    /// Trailers that may follow; `None`: whichever there are.
    trailers: Option<Vec<HeaderName>>,
}

impl Said {
    pub fn of(version: Version, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // HTTP/1 writes no trailers that were not announced.
        let announced = || {
            let names = text(header::TRAILER).unwrap_or_default().split(',');
            names.filter_map(|name| name.trim().parse().ok()).collect()
        };
        Self {
            length: text(header::CONTENT_LENGTH).and_then(|digits| digits.parse().ok()),
            trailers: (version < Version::HTTP_2).then(announced),
        }
    }

    fn announced(&self, trailers: HeaderMap) -> Option<HeaderMap> {
        let Some(names) = &self.trailers else { return Some(trailers) };
        let mut kept = HeaderMap::new();
        for (name, value) in &trailers {
            if names.contains(name) {
                kept.append(name, value.clone());
            }
        }
        (!kept.is_empty()).then_some(kept)
    }
}

/// What is to be said of a request whose body broke off here. The HTTP/2 client of its
/// upstream only tells that the stream was reset.
pub type Broken = Arc<OnceLock<Stop>>;

/// How one body is carried.
pub struct Carry<'a> {
    pub conn: &'a Arc<Conn>,
    pub statement: u32,
    pub direction: Direction,
    pub said: Said,
    /// `None` if a coding is not understood: nothing of the body is recorded then.
    pub codings: Option<Vec<Coding>>,
    /// What masks the parts that policy names; before anything is recorded.
    pub parts: Option<BodyParts>,
    pub broken: Broken,
    /// Set if no message in it may change its length.
    pub messages: Option<grpc::Framing>,
    /// What is masked on the wire.
    pub wire: Option<&'a Masker>,
    /// It is a form, whose fields have names.
    pub form: bool,
    /// Set if the text in it is masked, and not its bytes.
    pub model: Option<Model>,
    pub settings: &'a Settings,
}

impl Carry<'_> {
    /// The body that goes out in place of `inner`.
    pub fn body<B>(self, inner: B) -> Result<WireBody, BodyError>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        BodyError: From<B::Error>,
    {
        let mut hint = inner.size_hint();
        let readable = self.codings.is_some();
        let codings = self.codings.unwrap_or_default();
        let answer = self.model.as_ref().and_then(Model::answer);
        let mut tap = Tap::new(self.conn, self.statement, self.direction, self.settings, answer, self.form);
        let decoder = (!codings.is_empty())
            .then(|| Decoder::within(&codings, self.settings.decoded.clone()))
            .transpose()?;
        let wire = match self.wire {
            Some(masker) => {
                hint = SizeHint::default();
                let encoder = (!codings.is_empty()).then(|| Encoder::new(&codings));
                let stream = Masking::wire(masker, self.model, self.form);
                Some(Wire {
                    decoder,
                    parts: self.parts,
                    stream,
                    encoder,
                    masker: masker.clone(),
                    rigid: self.messages.is_some(),
                })
            }
            None => {
                tap.decode_with(decoder);
                None
            }
        };
        if !readable {
            tap.truncate("coding-unsupported");
        }
        let idle = Idle { limit: self.settings.body_idle, sleep: None, waiting: false };
        let state = State::Reading;
        let left = self.said.length;
        let said = self.said;
        // HTTP/2 takes trailers at any time.
        let answers_call = self.direction == Direction::Response
            && self.messages == Some(grpc::Framing::Call)
            && said.trailers.is_none();
        let caller = answers_call.then(|| Arc::clone(self.conn));
        Ok(Screened {
            caller,
            broken: self.broken,
            inner,
            tap,
            wire,
            idle,
            hint,
            left,
            said,
            trailers: None,
            state,
        }
        .boxed_unsync())
    }
}

/// What is done to the wire if something is masked on it.
struct Wire {
    decoder: Option<Decoder>,
    /// Comes first, so that what it masks is not recorded either.
    parts: Option<BodyParts>,
    stream: Masking,
    encoder: Option<Encoder>,
    masker: Masker,
    /// Nothing in it may change its length.
    rigid: bool,
}

impl Wire {
    fn parts(&mut self, bytes: Bytes) -> Result<Bytes, BodyError> {
        let Some(parts) = &mut self.parts else { return Ok(bytes) };
        Ok(parts.push(bytes)?)
    }

    /// What the parts held back.
    fn parts_end(&mut self) -> Result<Bytes, BodyError> {
        let Some(parts) = &mut self.parts else { return Ok(Bytes::new()) };
        Ok(parts.finish()?)
    }

    fn findings(&self) -> Findings {
        let mut found = self.stream.findings();
        if let Some(parts) = &self.parts {
            found.merge(parts.findings());
        }
        found
    }

    fn mask(&mut self, bytes: Bytes) -> Result<Bytes, BodyError> {
        let masked = self.stream.push(bytes)?.into_bytes();
        self.unless_broken(masked)
    }

    fn finish(&mut self) -> Result<Bytes, BodyError> {
        let masked = self.stream.finish()?.into_bytes();
        self.unless_broken(masked)
    }

    fn unless_broken(&self, masked: Bytes) -> Result<Bytes, BodyError> {
        let in_parts = self.parts.as_ref().is_some_and(|parts| !parts.findings().is_empty());
        if self.rigid && (in_parts || !self.stream.findings().is_empty()) {
            Err(BodyError::Message)
        } else {
            Ok(masked)
        }
    }
}

enum State {
    Reading,
    /// The inner body has ended; the decoder may still have pieces.
    Ending,
    Trailers,
    Done,
}

/// A body that is recorded, and masked if policy says so.
struct Screened<B> {
    inner: B,
    /// Set if the answer's end can say in gRPC why it ends.
    caller: Option<Arc<Conn>>,
    broken: Broken,
    tap: Tap,
    wire: Option<Wire>,
    idle: Idle,
    hint: SizeHint,
    /// How much is to come, if that was said.
    left: Option<u64>,
    said: Said,
    trailers: Option<HeaderMap>,
    state: State,
}

impl<B> Screened<B>
where
    B: Body<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    /// The next bytes for the wire; `None` at the end of the data.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            let ending = matches!(self.state, State::Ending);
            if let Some(bytes) = ready!(self.poll_pieces(cx))? {
                return Poll::Ready(Ok(Some(bytes)));
            }
            if ending {
                self.state = State::Trailers;
                let tail = self.tail()?;
                if !tail.is_empty() {
                    return Poll::Ready(Ok(Some(tail)));
                }
                return Poll::Ready(Ok(None));
            }
            match ready!(self.poll_inner(cx))? {
                None => {
                    self.state = State::Ending;
                    if let Some(Wire { decoder: Some(decoder), .. }) = &mut self.wire {
                        decoder.finish();
                    }
                }
                Some(bytes) => {
                    if let Some(bytes) = self.chunk(bytes)? {
                        return Poll::Ready(Ok(Some(bytes)));
                    }
                }
            }
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    self.tap.flush()?;
                    ready!(self.idle.poll(cx));
                    return Poll::Ready(Err(BodyError::Idle));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.waiting = false;
                    match frame.into_data() {
                        Ok(bytes) if bytes.is_empty() => {}
                        Ok(bytes) => return Poll::Ready(Ok(Some(bytes))),
                        Err(frame) => {
                            let trailers = frame.into_trailers().ok();
                            self.trailers = trailers.and_then(|trailers| self.said.announced(trailers));
                        }
                    }
                }
            }
        }
    }

    /// One chunk of the inner body: what goes out for it at once.
    fn chunk(&mut self, bytes: Bytes) -> Result<Option<Bytes>, BodyError> {
        let Some(wire) = &mut self.wire else {
            self.tap.push(&bytes)?;
            // Nobody asks for the end of a body whose length was said.
            self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
            if self.left == Some(0) {
                self.tap.end()?;
                self.tell();
            }
            return Ok(Some(bytes));
        };
        match &mut wire.decoder {
            Some(decoder) => {
                decoder.push(bytes);
                Ok(None)
            }
            None => {
                let bytes = wire.parts(bytes)?;
                self.tap.push(&bytes)?;
                let masked = wire.mask(bytes)?;
                Ok((!masked.is_empty()).then_some(masked))
            }
        }
    }

    /// What the decoder has: decoded, recorded, masked, encoded again.
    ///
    /// A little that came can be a lot to do: that takes turns with other tasks, of which
    /// those of the sockets alone know nothing.
    fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let Some(wire) = &mut self.wire else { return Poll::Ready(Ok(None)) };
        while let Some(decoder) = &mut wire.decoder {
            for _ in 0..PIECE_COST {
                ready!(coop::poll_proceed(cx)).made_progress();
            }
            let Some(piece) = decoder.next()? else { break };
            let piece = wire.parts(piece)?;
            self.tap.push(&piece)?;
            let mut out = wire.mask(piece)?;
            if let Some(encoder) = &mut wire.encoder {
                // Flushed, since the next piece may be an event that comes much later.
                out = encoder.push(out, true)?;
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(Some(out)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// What the client is told in the API it speaks before its answer ends too early. The end
    /// itself is then an ordinary one: a reset could overtake it.
    fn farewell(&mut self, error: &BodyError) -> Option<Bytes> {
        let wire = self.wire.as_mut()?;
        let text = wire.stream.farewell(error)?;
        let Some(encoder) = &mut wire.encoder else { return Some(text) };
        let first = encoder.push(text, false).ok()?;
        let last = encoder.finish().ok()?;
        Some([first, last].concat().into())
    }

    /// What was held back until the end.
    fn tail(&mut self) -> Result<Bytes, BodyError> {
        let Some(wire) = &mut self.wire else {
            self.tap.end()?;
            self.tell();
            return Ok(Bytes::new());
        };
        let last = wire.parts_end()?;
        self.tap.push(&last)?;
        self.tap.end()?;
        let first = wire.mask(last)?;
        let tail = Bytes::from([first, wire.finish()?].concat());
        self.tap.tell(wire.findings());
        let Some(encoder) = &mut wire.encoder else { return Ok(tail) };
        let first = encoder.push(tail, false)?;
        let last = encoder.finish()?;
        Ok([first, last].concat().into())
    }
}

impl<B> Screened<B> {
    fn tell(&mut self) {
        self.tap.tell(self.wire.as_ref().map(Wire::findings).unwrap_or_default());
    }
}

/// What broke off is told, too.
impl<B> Drop for Screened<B> {
    fn drop(&mut self) {
        self.tell();
    }
}

impl<B> Body for Screened<B>
where
    B: Body<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if matches!(this.state, State::Reading | State::Ending) {
            match ready!(this.poll_data(cx)) {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(error) => {
                    let farewell = this.farewell(&error);
                    // What was sent stays sent: the wire ends with a reset, and the
                    // recording says that the body is partial.
                    this.state = State::Done;
                    this.tell();
                    this.tap.abort(&error);
                    this.broken.get_or_init(|| error.stop());
                    if let (Some(conn), BodyError::Message | BodyError::Limit(_)) = (&this.caller, &error) {
                        let end = error.stop().grpc_end(conn.id());
                        return Poll::Ready(Some(Ok(Frame::trailers(end))));
                    }
                    return Poll::Ready(Some(match farewell {
                        Some(bytes) => Ok(Frame::data(bytes)),
                        None => Err(error),
                    }));
                }
            }
        }
        if matches!(this.state, State::Trailers) {
            this.state = State::Done;
            if let Some(mut trailers) = this.trailers.take() {
                let masked = this.wire.as_ref().map(|wire| headers::mask(&mut trailers, &wire.masker));
                match masked {
                    None => {}
                    Some(Ok(found)) => this.tap.found_behind(found),
                    Some(Err(error)) => {
                        let error = BodyError::Mask(error);
                        this.tap.abort(&error);
                        this.broken.get_or_init(|| error.stop());
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                this.tap.trailers(&trailers)?;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// A deadline that moves with every frame; the timer is made when it is first needed.
struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Idle {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.waiting {
            sleep.as_mut().reset(Instant::now() + limit);
            self.waiting = true;
        }
        sleep.as_mut().poll(cx)
    }
}
