//! An answer in one piece: read whole, and judged, before any of it goes on.
//!
//! Any JSON may be one of a model. What is none goes on byte for byte: where neither its path nor
//! its text says that it is of a model, it need not be short, or readable.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use tokio::time::timeout;

use crate::approval::{Class, Digest};
use crate::policy::INSPECT_CAP_BYTES;
use crate::protocol::http::coding::{self, Decoder};
use crate::protocol::llm::{self, Answer, CallError, CallStream, Dialect, Framing};
use crate::session::Side;

use super::super::body::BodyError;
use super::super::held::Room;
use super::super::request::codings;
use super::super::{Stop, WireBody, headers};
use super::{Group, Tools, coded_unasked, stream};

/// Room is taken in pieces of so many bytes, as they come.
const ROOM_BYTES: usize = 256 * 1024;
/// How long an answer waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(10);
/// How long after a whole value nothing comes until it is taken for the first of several.
const MORE_WAIT: Duration = Duration::from_secs(1);

/// How reading ended.
enum End {
    Whole,
    /// More than is read.
    TooLong,
    /// Its type says JSON, and it is one value a line, as a server says them that is watched.
    Lines,
}

/// A body, and what was read of it.
struct Piece {
    body: WireBody,
    read: BytesMut,
    rooms: Vec<Room>,
    trailers: Option<HeaderMap>,
    /// Whether its first line is a value; `None` until that line has come.
    in_lines: Option<bool>,
}

impl Tools {
    pub(super) async fn whole(self, mut parts: Parts, body: WireBody) -> Result<Response<WireBody>, Stop> {
        let api = llm::of_model(&self.request.path);
        let rooms = Vec::new();
        let mut piece = Piece { body, read: BytesMut::new(), rooms, trailers: None, in_lines: None };
        let coded = parts.headers.contains_key(header::CONTENT_ENCODING);
        match self.read(&mut piece, api.is_none() && !coded).await? {
            End::Whole => {}
            End::TooLong
                if api.is_none() && !llm::may_call(&piece.read) && !self.may_have_code(&piece.read) =>
            {
                return Ok(Response::from_parts(parts, piece.again()));
            }
            End::TooLong => return Err(self.refused(CallError::TooLong).await),
            End::Lines => {
                let answer = Answer { framing: Framing::Lines, dialect: None };
                let Some(stream) = CallStream::new(answer).map(|stream| stream.judging_code(self.code))
                else {
                    return Err(self.refused(CallError::Unreadable).await);
                };
                headers::forget_the_bytes(&mut parts.headers);
                return Ok(Response::from_parts(parts, stream::kept(piece.again(), stream, self)));
            }
        }
        let plain = coded.then(|| self.plain(&parts.headers, &piece.read)).transpose()?;
        let (text, bytes) = (plain.as_deref().unwrap_or(&piece.read), &piece.read[..]);
        self.judge_whole(text, bytes, api).await?;
        Ok(Response::from_parts(parts, piece.again()))
    }

    /// Whether rules about code may match what was read of something.
    fn may_have_code(&self, read: &[u8]) -> bool {
        let has = |marks: &[u8]| memchr::memmem::find(read, marks).is_some();
        self.code && (has(b"```") || has(b"~~~"))
    }

    async fn judge_whole(&self, text: &[u8], bytes: &[u8], api: Option<Dialect>) -> Result<(), Stop> {
        let (calls, model) = match llm::whole_calls(text, self.code) {
            Ok(read) => read,
            Err(error) if error.is_of_code() => return Err(self.refused(error).await),
            Err(_) if text.trim_ascii().is_empty() || api.is_none() && !llm::may_call(text) => {
                (Vec::new(), None)
            }
            Err(error) => return Err(self.refused(error).await),
        };
        if calls.is_empty() {
            return self.conn.flush().map_err(Stop::log_unavailable);
        }
        let dialect = api.or_else(|| llm::built_as(text)).unwrap_or(Dialect::Chat);
        let (bytes, class) = (Digest::of([bytes]), Class::of_user_agent(self.agent()));
        self.judge(&Group { calls, dialect, model, bytes, class }).await
    }

    /// With `lines` a first line that is a value, and what follows it, ends the reading.
    async fn read(&self, piece: &mut Piece, lines: bool) -> Result<End, Stop> {
        let cap = usize::try_from(INSPECT_CAP_BYTES).unwrap_or(usize::MAX);
        loop {
            let line = lines.then(|| piece.line()).flatten();
            let frame = match line {
                Some(line) if line < piece.read.len() => return Ok(End::Lines),
                Some(_) => match timeout(MORE_WAIT, piece.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Ok(End::Lines),
                },
                None => piece.body.frame().await,
            };
            let frame = match frame.transpose().map_err(|error| unread(&error))? {
                None => {
                    piece.body = Empty::new().map_err(|never| match never {}).boxed_unsync();
                    return Ok(End::Whole);
                }
                Some(frame) => frame.into_data(),
            };
            match frame {
                Err(frame) => piece.trailers = frame.into_trailers().ok(),
                Ok(bytes) => {
                    self.room(piece, bytes.len()).await?;
                    piece.read.extend_from_slice(&bytes);
                }
            }
            if piece.read.len() > cap {
                return Ok(End::TooLong);
            }
        }
    }

    async fn room(&self, piece: &mut Piece, more: usize) -> Result<(), Stop> {
        while piece.rooms.len() * ROOM_BYTES < piece.read.len() + more {
            let Ok(room) = timeout(ROOM_WAIT, self.conn.subject.held.room(ROOM_BYTES)).await else {
                let mut stop = Stop::denied(StatusCode::FORBIDDEN, "tool-call-over-limit");
                stop.detail = Some("there is no room for an answer that is read for tool calls".to_owned());
                return Err(self.refuse(stop).await);
            };
            piece.rooms.push(room);
        }
        Ok(())
    }

    /// What was coded unasked, to be looked at.
    fn plain(&self, fields: &HeaderMap, coded: &[u8]) -> Result<Vec<u8>, Stop> {
        let codings = codings(fields).ok_or_else(coded_unasked)?;
        let cap = INSPECT_CAP_BYTES.min(self.decoded.output_bytes);
        let limits = coding::Limits { output_bytes: cap, ..self.decoded.clone() };
        let read = || {
            let mut decoder = Decoder::within(&codings, limits)?;
            decoder.push(Bytes::copy_from_slice(coded));
            decoder.finish();
            let mut plain = Vec::new();
            while let Some(piece) = decoder.next()? {
                plain.extend_from_slice(&piece);
            }
            Ok::<_, BodyError>(plain)
        };
        if codings.is_empty() { Ok(coded.to_vec()) } else { read().map_err(|_| coded_unasked()) }
    }
}

impl Piece {
    /// Where its first line ends, if that is a whole value.
    fn line(&mut self) -> Option<usize> {
        let begin = self.read.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let end = begin + memchr::memchr(b'\n', &self.read[begin..])?;
        let text = &self.read[begin..end];
        let is_value = *self.in_lines.get_or_insert_with(|| llm::is_value(text));
        let blank = self.read[end..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        is_value.then_some(end + blank)
    }

    /// All of it, with what was not read.
    fn again(self) -> WireBody {
        let first = (!self.read.is_empty()).then(|| self.read.freeze());
        Again { first, rest: self.body, trailers: self.trailers, _rooms: self.rooms }.boxed_unsync()
    }
}

/// A body of which something was read.
struct Again {
    first: Option<Bytes>,
    rest: WireBody,
    trailers: Option<HeaderMap>,
    /// The room is taken until it has gone out.
    _rooms: Vec<Room>,
}

impl Body for Again {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.rest).poll_frame(cx));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.trailers.is_none() && self.rest.is_end_stream()
    }
}

fn unread(error: &BodyError) -> Stop {
    if let Some(over) = error.limit() {
        // Which is recorded where it was cut.
        return Stop::over(over);
    }
    Stop::failed(Side::Upstream, StatusCode::BAD_GATEWAY, error.reason(), error.to_string())
}
