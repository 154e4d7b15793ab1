//! Two WebSockets that relay each other's messages, masked and recorded.
//!
//! Frames are parsed and written anew on both sides (RFC 6455); extensions were
//! not negotiated, so a message is what it looks like. Pings are answered here
//! and sent on empty; pongs end here.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::gate::{Conn, Counting, WebSocketRelay};
use crate::mask::{Findings, MaskError, Masked, Masker, Messages, Passed, Place};
use crate::policy::Over;
use crate::protocol::llm::{Answer, LlmRequest, LlmStream};
use crate::session::{Direction, Event, Side};

/// How long one side may take to close after the other did.
const CLOSING: Duration = Duration::from_secs(5);
/// The longest reason that a close frame has room for (RFC 6455, section 5.5).
const REASON_MAX_BYTES: usize = 123;

/// The least that is written of a message beside its bytes (RFC 6455, section 5.2).
const FRAME_BYTES: usize = 2;

/// Relays until both sides are closed.
pub async fn relay(downstream: OnUpgrade, upstream: OnUpgrade, relay: WebSocketRelay, message_bytes: usize) {
    let (client, server) = match tokio::try_join!(downstream, upstream) {
        Ok(both) => both,
        Err(error) => {
            relay.conn.error(Side::Internal, "websocket-upgrade", &error.to_string());
            return;
        }
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(message_bytes)).max_frame_size(Some(message_bytes));
    let client = TokioIo::new(client);
    let client = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
    let server = TokioIo::new(server);
    let server = WebSocketStream::from_raw_socket(server, Role::Client, Some(config)).await;
    let (to_client, from_client) = client.split();
    let (to_server, from_server) = server.split();
    let WebSocketRelay {
        conn,
        statement,
        request,
        response,
        known: [known, known_back],
        model,
        counting,
        keep,
    } = relay;
    let everything = conn.subject.everything().clone();
    let copy = || Masking::messages(&everything, conn.subject.known().clone());
    let of = |masker: &Option<Masker>, known| match masker {
        Some(masker) => Masking::messages(masker, known),
        None => Masking::Message,
    };
    let (asked, copied, answered, recorded) = match model {
        None => (of(&request, known), copy(), of(&response, known_back), copy()),
        Some(answer) => {
            let of = |masker: &Option<Masker>, known| match masker {
                Some(masker) => Masking::answer(answer, masker, known, true),
                None => Masking::Message,
            };
            let copy = Masking::answer(answer, &everything, conn.subject.known().clone(), false);
            (Masking::Request(known), Masking::Message, of(&response, known_back), copy)
        }
    };
    let cut = Arc::new(Cut::default());
    let direction = Direction::Request;
    let counts = counting.clone();
    let (masker, masking) = (request, asked);
    let up =
        Way { conn: &conn, statement, direction, masker, masking, recorded: copied, counts, keep, cut: &cut };
    let direction = Direction::Response;
    let (masker, masking, counts) = (response, answered, counting);
    let down = Way { conn: &conn, statement, direction, masker, masking, recorded, counts, keep, cut: &cut };
    let mut up = Box::pin(up.pump(from_client, to_server));
    let mut down = Box::pin(down.pump(from_server, to_client));
    // When one way has ended, the other has a moment to answer the close.
    tokio::select! {
        () = &mut up => drop(tokio::time::timeout(CLOSING, down).await),
        () = &mut down => drop(tokio::time::timeout(CLOSING, up).await),
    }
}

/// One direction.
struct Way<'a> {
    conn: &'a Conn,
    statement: u32,
    direction: Direction,
    masker: Option<Masker>,
    masking: Masking,
    /// How the copy is masked that is recorded.
    recorded: Masking,
    /// What messages are counted in.
    counts: Option<Counting>,
    /// Bytes of one message that are recorded.
    keep: usize,
    cut: &'a Cut,
}

/// What the client is told when either way was over a limit.
#[derive(Default)]
struct Cut {
    close: OnceLock<CloseFrame>,
    told: Notify,
}

impl Cut {
    fn over(&self, over: &Over) {
        let mut reason = over.to_string();
        reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
        self.close.get_or_init(|| CloseFrame { code: CloseCode::Policy, reason: reason.into() });
        self.told.notify_one();
    }
}

/// How messages of one direction are masked.
enum Masking {
    /// Each by itself.
    Message,
    /// As one text.
    Messages(Box<Messages>),
    /// Requests to a model, with what knows the known values.
    Request(Masker),
    /// Answers of a model, whose texts lie across messages.
    Answer(Box<LlmStream>),
}

impl Masking {
    fn answer(answer: Answer, masker: &Masker, known: Masker, strict: bool) -> Self {
        Self::Answer(Box::new(LlmStream::new(answer, masker, known, strict)))
    }

    fn messages(masker: &Masker, known: Masker) -> Self {
        Self::Messages(Box::new(Messages::new(masker.clone(), known)))
    }

    /// What goes out now of a message and of those that have waited, and what was found in it.
    fn data(&mut self, masker: &Masker, bytes: Bytes, binary: bool) -> Result<(Passed, Findings), Broken> {
        match self {
            Self::Messages(messages) => messages.push(bytes, binary).map_err(refused),
            Self::Request(known) if !binary => {
                let mut request = LlmRequest::new(masker, known.clone());
                let pushed = request.push(bytes).and_then(|begin| Ok(vec![begin, request.finish()?]));
                let parts = pushed.map_err(|error| Broken::plain(error.reason(), &error))?;
                Ok((as_texts(vec![Masked::join(parts)]), request.findings()))
            }
            Self::Answer(stream) if !binary => {
                let parts = stream.message(bytes).map_err(|error| Broken {
                    farewell: Utf8Bytes::try_from(stream.farewell(&error)).ok(),
                    ..Broken::plain(error.reason(), &error)
                })?;
                Ok((as_texts(parts), stream.take_findings()))
            }
            Self::Message | Self::Request(_) | Self::Answer(_) => {
                let (masked, findings) = masker.whole(&bytes, Place::WebSocket).map_err(refused)?;
                Ok((vec![(masked, binary)], findings))
            }
        }
    }

    /// What was held back until the end.
    fn rest(&mut self) -> Result<(Passed, Findings), Broken> {
        match self {
            Self::Answer(stream) => {
                let parts = stream.last_messages();
                let parts = parts.map_err(|error| Broken::plain(error.reason(), &error))?;
                Ok((as_texts(parts), Findings::default()))
            }
            Self::Messages(messages) => messages.finish().map_err(refused),
            Self::Message | Self::Request(_) => Ok((Vec::new(), Findings::default())),
        }
    }

    /// What stands in the recording for a message that could not be masked, and for those that
    /// have waited.
    fn give_up(&mut self, masker: &Masker, bytes: &[u8], binary: bool) -> Passed {
        if let Self::Messages(messages) = self {
            return messages.give_up();
        }
        *self = Self::Message;
        vec![(masker.mask(bytes).0, binary)]
    }
}

fn as_texts(parts: Vec<Masked>) -> Passed {
    parts.into_iter().map(|part| (part, false)).collect()
}

/// Why one way ends.
struct Broken {
    reason: &'static str,
    detail: String,
    /// What the far side is told before.
    farewell: Option<Utf8Bytes>,
}

impl Broken {
    fn plain(reason: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self { reason, detail: error.to_string(), farewell: None }
    }
}

/// What breaks off is recorded, too: without masking it has gone on.
impl Drop for Way<'_> {
    fn drop(&mut self) {
        if let Err(broken) = self.record_rest() {
            self.conn.error(crate::gate::side_of(self.direction), broken.reason, &broken.detail);
        }
    }
}

impl Way<'_> {
    async fn pump<R, W>(mut self, mut from: R, mut to: W)
    where
        R: Stream<Item = Result<Message, Error>> + Unpin,
        W: Sink<Message, Error = Error> + Unpin,
    {
        'messages: loop {
            let message = tokio::select! {
                biased;
                // The client hears of it by the way that leads to it.
                () = self.cut.told.notified(), if self.direction == Direction::Response => break,
                message = from.next() => message,
            };
            let Some(message) = message else { break };
            let step = match message {
                Ok(message) => self.counted(message),
                Err(error) => Err(Broken::plain("websocket", &error)),
            };
            match step {
                Ok(messages) => {
                    for message in messages {
                        let closing = message.is_close();
                        if to.send(message).await.is_err() || closing {
                            break 'messages;
                        }
                    }
                }
                Err(broken) => {
                    let side = crate::gate::side_of(self.direction);
                    self.conn.error(side, broken.reason, &broken.detail);
                    if let Some(farewell) = broken.farewell {
                        drop(to.send(Message::Text(farewell)).await);
                    }
                    break;
                }
            }
        }
        if let Some(close) = self.cut.close.get().filter(|_| self.direction == Direction::Response) {
            drop(to.send(Message::Close(Some(close.clone()))).await);
        }
        // The far side learns of an end that came without a close frame.
        drop(to.close().await);
    }

    /// The same for which there is room under limits: of what comes as it comes, of what goes
    /// out as it does.
    fn counted(&mut self, message: Message) -> Result<Vec<Message>, Broken> {
        let Some(counts) = self.counts.clone() else { return self.message(message) };
        let cut = self.cut;
        let over = |over: Box<Over>| {
            cut.over(&over);
            Broken::plain(over.reason().as_str(), &over)
        };
        // One without a byte in it is a frame as well.
        let cost = |message: &Message| FRAME_BYTES + message.len();
        let direction = self.direction;
        if direction == Direction::Response {
            counts.take(direction, cost(&message)).map_err(over)?;
            return self.message(message);
        }
        let messages = self.message(message)?;
        counts.take(direction, messages.iter().map(cost).sum()).map_err(over)?;
        Ok(messages)
    }

    /// The messages that go on in place of this one; recorded before they do.
    fn message(&mut self, message: Message) -> Result<Vec<Message>, Broken> {
        Ok(match message {
            Message::Text(text) => self.data(Bytes::from(text), false)?,
            Message::Binary(bytes) => self.data(bytes, true)?,
            Message::Close(frame) => {
                let mut messages = self.rest()?;
                messages.push(Message::Close(frame.map(|frame| self.close(frame)).transpose()?));
                messages
            }
            // What it carries means something to its sender alone, who has its answer
            // from here.
            Message::Ping(_) => vec![Message::Ping(Bytes::new())],
            Message::Pong(_) | Message::Frame(_) => Vec::new(),
        })
    }

    /// What was held back until the end.
    fn rest(&mut self) -> Result<Vec<Message>, Broken> {
        self.record_rest()?;
        if self.masker.is_none() {
            return Ok(Vec::new());
        }
        let (parts, findings) = self.masking.rest()?;
        self.conn.findings(self.statement, self.direction, &findings);
        parts.into_iter().map(|(part, binary)| as_message(part.into_bytes(), binary)).collect()
    }

    /// Records what was held back of the copy; nothing the second time.
    fn record_rest(&mut self) -> Result<(), Broken> {
        let mut recorded = std::mem::replace(&mut self.recorded, Masking::Message);
        let parts = match recorded.rest() {
            Ok((parts, _)) => parts,
            Err(_) => recorded.give_up(self.conn.subject.everything(), &[], false),
        };
        parts.into_iter().try_for_each(|(part, binary)| self.record(part, binary))
    }

    fn close(&self, frame: CloseFrame) -> Result<CloseFrame, Broken> {
        if frame.reason.is_empty() {
            return Ok(frame);
        }
        let reason = self.pass(Bytes::from(frame.reason))?;
        let fits = reason.len() <= REASON_MAX_BYTES;
        let reason = if fits { as_text(reason)? } else { Utf8Bytes::default() };
        Ok(CloseFrame { code: frame.code, reason })
    }

    /// A message, which may be a part of a longer text.
    fn data(&mut self, bytes: Bytes, binary: bool) -> Result<Vec<Message>, Broken> {
        let bytes = self.parts(bytes)?;
        let everything = self.conn.subject.everything();
        let found = match self.recorded.data(everything, bytes.clone(), binary) {
            Ok((parts, found)) => {
                for (part, binary) in parts {
                    self.record(part, binary)?;
                }
                found
            }
            // The wire says for itself whether it may go on.
            Err(broken) => {
                self.conn.error(crate::gate::side_of(self.direction), broken.reason, &broken.detail);
                for (part, binary) in self.recorded.give_up(everything, &bytes, binary) {
                    self.record(part, binary)?;
                }
                Findings::default()
            }
        };
        let Some(masker) = &self.masker else {
            self.conn.findings(self.statement, self.direction, &found.at(&Place::WebSocket));
            return Ok(vec![as_message(bytes, binary)?]);
        };
        let (parts, mut findings) = self.masking.data(masker, bytes, binary)?;
        findings.merge_unknown(&found);
        self.conn.findings(self.statement, self.direction, &findings.at(&Place::WebSocket));
        parts.into_iter().map(|(part, binary)| as_message(part.into_bytes(), binary)).collect()
    }

    /// Records what a reason says, and gives what goes on of it.
    fn pass(&self, bytes: Bytes) -> Result<Bytes, Broken> {
        let bytes = self.parts(bytes)?;
        self.record(self.conn.subject.everything().mask(&bytes).0, false)?;
        let Some(masker) = &self.masker else { return Ok(bytes) };
        let (masked, findings) = masker.whole(&bytes, Place::WebSocket).map_err(refused)?;
        self.conn.findings(self.statement, self.direction, &findings);
        Ok(masked.into_bytes())
    }

    /// The message with the parts masked that policy names, which are not recorded either.
    fn parts(&self, bytes: Bytes) -> Result<Bytes, Broken> {
        let Some(mut parts) = self.masker.as_ref().and_then(|masker| masker.body_parts(b"")) else {
            return Ok(bytes);
        };
        let bytes = parts.push(bytes).map_err(refused)?;
        let last = parts.finish().map_err(refused)?;
        let findings = parts.findings().clone().at(&Place::WebSocket);
        self.conn.findings(self.statement, self.direction, &findings);
        Ok(if last.is_empty() { bytes } else { Bytes::from([bytes, last].concat()) })
    }

    fn record(&self, recorded: Masked, binary: bool) -> Result<(), Broken> {
        let (statement, direction) = (self.statement, self.direction);
        let over = recorded.len() > self.keep;
        let bytes = if over { recorded.slice(..self.keep) } else { recorded };
        let event = Event::Message { statement, direction, binary, bytes };
        self.conn.record(&event).map_err(|error| Broken::plain("websocket", &error))?;
        if over {
            let (kept, reason) = (self.keep as u64, "recording-limit");
            self.conn.note(&Event::BodyTruncated { statement, direction, kept, reason });
        }
        Ok(())
    }
}

fn refused(error: MaskError) -> Broken {
    Broken::plain("websocket", &error)
}

fn as_message(bytes: Bytes, binary: bool) -> Result<Message, Broken> {
    if binary { Ok(Message::Binary(bytes)) } else { as_text(bytes).map(Message::Text) }
}

fn as_text(bytes: Bytes) -> Result<Utf8Bytes, Broken> {
    Utf8Bytes::try_from(bytes).map_err(|error| Broken::plain("websocket", &error))
}
