//! Bodies under limits: counted as they go, and cut where there is no more room.
//!
//! ```text
//!   client --> prepared, masked, held --> Counted --> upstream
//!   client <-- delivered <-- masked <---- Counted <-- upstream
//! ```
//! Of what was cut not a byte more goes on: the wire ends with a reset, as for every body that
//! breaks off, so that nobody takes the part for the whole.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};

use crate::policy::{Account, Over, PolicyHash, Unit};
use crate::protocol::http::coding::{Coding, CodingError, Decoder, Limits};
use crate::protocol::llm::Usage;
use crate::session::{Direction, Outcome};

use super::body::Broken;
use super::{BodyError, Conn, WireBody, side_of};

/// What the bodies of one request are counted in.
#[derive(Clone)]
pub struct Counting {
    pub(super) account: Arc<Account>,
    pub(super) conn: Arc<Conn>,
    pub(super) statement: u32,
    /// The policy whose limits they are.
    pub(super) policy: PolicyHash,
    pub(super) late: Arc<Late>,
}

/// A request that is cut is refused, which is recorded with its answer; unless that has begun.
#[derive(Default)]
pub(super) struct Late {
    answered: AtomicBool,
    over: OnceLock<Box<Over>>,
    told: AtomicBool,
}

impl Counting {
    /// Takes what is about to go on, or says why it may not.
    pub fn take(&self, direction: Direction, bytes: usize) -> Result<(), Box<Over>> {
        if !self.account.counts(unit(direction)) {
            return Ok(());
        }
        match self.account.take(unit(direction), bytes as u64) {
            Ok(None) => Ok(()),
            Ok(Some(over)) => {
                // Once: it stays over until the window is over.
                if self.account.tells() {
                    self.conn.over(self.statement, &self.policy, &over, true);
                }
                Ok(())
            }
            Err(over) => {
                let over = Box::new(over);
                match direction {
                    Direction::Response => self.cut(&over),
                    Direction::Request => {
                        self.late.over.get_or_init(|| over.clone());
                        self.tell_late();
                    }
                }
                Err(over)
            }
        }
    }

    /// What is answered has begun.
    pub(super) fn answered(&self) {
        self.late.answered.store(true, Ordering::SeqCst);
        self.tell_late();
    }

    /// Whichever comes first: a request is cut, or its answer begins.
    fn tell_late(&self) {
        let late = &self.late;
        let Some(over) = late.over.get().filter(|_| late.answered.load(Ordering::SeqCst)) else { return };
        if !late.told.swap(true, Ordering::SeqCst) {
            self.cut(over);
        }
    }

    fn cut(&self, over: &Over) {
        self.conn.over(self.statement, &self.policy, over, false);
        self.conn.settle(Outcome::Denied { reason: over.reason().as_str() });
    }

    /// Takes the head of an answer, if there is room for its body, too, as long as that says it is.
    pub(super) fn answer(&self, head: u64, body: Option<u64>) -> Result<(), Box<Over>> {
        let all = head.saturating_add(body.unwrap_or_default());
        match self.account.take_of(unit(Direction::Response), all, head) {
            Ok(_) => Ok(()),
            Err(over) => Err(Box::new(over)),
        }
    }

    /// Whether the tokens of the answer are counted.
    pub fn counts_tokens(&self) -> bool {
        self.account.counts(Unit::Tokens)
    }

    /// A request that is counted as it goes.
    pub(super) fn request(self, inner: WireBody, broken: Broken, asked: Option<Reading>) -> Counted {
        let direction = Direction::Request;
        Counted { inner, counting: self, direction, broken, asked, tokens: None, left: None, over: false }
    }

    /// The same of an answer.
    pub(super) fn response(self, inner: WireBody, tokens: Option<Tokens>) -> Counted {
        let (direction, left) = (Direction::Response, inner.size_hint().exact());
        let (broken, counting) = (Broken::default(), self);
        Counted { inner, counting, direction, broken, asked: None, tokens, left, over: false }
    }
}

fn unit(direction: Direction) -> Unit {
    match direction {
        Direction::Request => Unit::BytesUp,
        Direction::Response => Unit::BytesDown,
    }
}

/// Bytes of fields as HTTP/1.1 writes them.
pub(super) fn fields_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Bytes of a request's head, the same way.
pub(super) fn head_bytes(method: &Method, uri: &Uri, fields: &HeaderMap) -> u64 {
    let method = method.as_str().len();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    (method + path + fields_bytes(fields)) as u64
}

pub(super) struct Counted {
    inner: WireBody,
    counting: Counting,
    direction: Direction,
    broken: Broken,
    /// Counts what is asked.
    asked: Option<Reading>,
    /// Counts what an answer takes.
    tokens: Option<Tokens>,
    /// How much of the answer is to come, if it says so.
    left: Option<u64>,
    /// It was cut.
    over: bool,
}

impl Counted {
    /// What goes on of this frame, and what it takes of limits.
    fn frame(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        let Some(bytes) = frame.data_ref() else {
            let bytes = frame.trailers_ref().map_or(0, fields_bytes);
            return self.counting.take(self.direction, bytes).map_err(BodyError::Limit);
        };
        self.counting.take(self.direction, bytes.len()).map_err(BodyError::Limit)?;
        if let Some(asked) = &mut self.asked {
            asked.push(bytes)?;
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.push(bytes)?;
        }
        // Nobody asks for the end of a body whose length was said.
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        if self.left == Some(0) {
            self.tokens.take().into_iter().for_each(Tokens::ended);
        }
        Ok(())
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else {
            self.tokens.take().into_iter().for_each(Tokens::ended);
            return Poll::Ready(None);
        };
        match self.frame(&frame) {
            Ok(()) => Poll::Ready(Some(Ok(frame))),
            Err(error) => {
                self.over = true;
                if self.direction == Direction::Request {
                    self.counting.conn.error(side_of(self.direction), error.reason(), &error.to_string());
                    self.broken.get_or_init(|| error.stop());
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Counts the bytes of what is asked, decoded.
pub(super) struct Reading {
    bytes: Arc<AtomicU64>,
    decoder: Option<Decoder>,
}

impl Reading {
    fn push(&mut self, bytes: &Bytes) -> Result<(), CodingError> {
        let mut length = 0;
        decoded(&mut self.decoder, bytes, |piece| length += piece.len() as u64)?;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }
}

/// Gives what a body decodes to; its bytes if they are not coded.
fn decoded(
    decoder: &mut Option<Decoder>,
    bytes: &Bytes,
    mut give: impl FnMut(&[u8]),
) -> Result<(), CodingError> {
    let Some(decoder) = decoder else {
        give(bytes);
        return Ok(());
    };
    decoder.push(bytes.clone());
    while let Some(piece) = decoder.next()? {
        give(&piece);
    }
    Ok(())
}

fn decoder(codings: &[Coding], limits: Limits) -> Result<Option<Decoder>, CodingError> {
    (!codings.is_empty()).then(|| Decoder::within(codings, limits)).transpose()
}

/// The tokens that one request takes. They are counted once: when its answer has ended, as that
/// says; and if it does not say, or nobody reads it to its end, by what was seen.
pub(super) struct Tokens {
    account: Arc<Account>,
    /// Bytes of what was asked.
    asked: Arc<AtomicU64>,
    usage: Usage,
    /// What came, of an answer that is not in a form in which models say how much they took.
    unread: Option<u64>,
    decoder: Option<Decoder>,
    /// Whether anything is taken if the answer does not say it.
    generates: bool,
    counted: bool,
}

impl Tokens {
    pub(super) fn new(counting: &Counting, generates: bool) -> Self {
        Self {
            account: Arc::clone(&counting.account),
            asked: Arc::default(),
            usage: Usage::default(),
            unread: None,
            decoder: None,
            generates,
            counted: false,
        }
    }

    /// Counts what is asked.
    pub(super) fn asked(&self, codings: &[Coding], limits: Limits) -> Result<Reading, CodingError> {
        Ok(Reading { bytes: Arc::clone(&self.asked), decoder: decoder(codings, limits)? })
    }

    /// It was answered, with a body that comes.
    pub(super) fn answered(
        mut self,
        status: StatusCode,
        headers: &HeaderMap,
        codings: &[Coding],
        limits: Limits,
    ) -> Result<Self, CodingError> {
        // Who is told of an error gets nothing else.
        self.generates &= !status.is_client_error() && !status.is_server_error();
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.to_ascii_lowercase();
        let readable = ["json", "event-stream", "eventstream"].iter().any(|form| kind.contains(form));
        self.unread = (!readable).then_some(0);
        self.decoder = decoder(codings, limits)?;
        Ok(self)
    }

    fn push(&mut self, bytes: &Bytes) -> Result<(), CodingError> {
        let (usage, unread) = (&mut self.usage, &mut self.unread);
        decoded(&mut self.decoder, bytes, |piece| {
            usage.push(piece);
            if let Some(unread) = unread {
                *unread += piece.len() as u64;
            }
        })
    }

    /// There is no answer. What was asked of a model is taken all the same, unless nothing of it
    /// was sent.
    pub(super) fn unanswered(mut self) {
        self.counted = self.asked.load(Ordering::Relaxed) == 0;
    }

    /// The answer is whole.
    pub(super) fn ended(mut self) {
        self.count(true);
    }

    fn count(&mut self, whole: bool) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        let (told, usage) = (self.usage.clone().told(), self.usage.clone());
        let tokens = match told {
            Some(told) if whole || !self.generates => told,
            None if !self.generates => 0,
            _ => {
                let asked = self.asked.load(Ordering::Relaxed);
                let unread = self.unread.map_or(0, |unread| asked.saturating_add(unread));
                usage.at_most(asked).max(unread)
            }
        };
        self.account.add(Unit::Tokens, tokens);
    }
}

/// Nobody reads the answer any more.
impl Drop for Tokens {
    fn drop(&mut self) {
        self.count(false);
    }
}
