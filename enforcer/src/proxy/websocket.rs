//! Two WebSockets that relay each other's messages, masked and recorded.
//!
//! Frames are parsed and written anew on both sides (RFC 6455); extensions were
//! not negotiated, so a message is what it looks like. Pings are answered here
//! and sent on empty; pongs end here.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::gate::{Conn, WebSocketRelay};
use crate::mask::{MaskError, Masker, Place};
use crate::session::{Direction, Event, Side};

/// How long one side may take to close after the other did.
const CLOSING: Duration = Duration::from_secs(5);
/// The longest reason that a close frame has room for (RFC 6455, section 5.5).
const REASON_MAX_BYTES: usize = 123;

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
    let WebSocketRelay { conn, statement, request, response, keep } = relay;
    let up = Way { conn: &conn, statement, direction: Direction::Request, masker: request, keep };
    let down = Way { conn: &conn, statement, direction: Direction::Response, masker: response, keep };
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
    /// Bytes of one message that are recorded.
    keep: usize,
}

impl Way<'_> {
    async fn pump<R, W>(self, mut from: R, mut to: W)
    where
        R: Stream<Item = Result<Message, Error>> + Unpin,
        W: Sink<Message, Error = Error> + Unpin,
    {
        while let Some(message) = from.next().await {
            let step = match message {
                Ok(message) => self.message(message),
                Err(error) => Err(error.to_string()),
            };
            match step {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let closing = message.is_close();
                    if to.send(message).await.is_err() || closing {
                        break;
                    }
                }
                Err(error) => {
                    self.conn.error(crate::gate::side_of(self.direction), "websocket", &error);
                    break;
                }
            }
        }
        // The far side learns of an end that came without a close frame.
        drop(to.close().await);
    }

    /// The message that goes on in place of this one; recorded before it does.
    fn message(&self, message: Message) -> Result<Option<Message>, String> {
        match message {
            Message::Text(text) => {
                let bytes = self.pass(Bytes::from(text), false)?;
                Ok(Some(Message::Text(as_text(bytes)?)))
            }
            Message::Binary(bytes) => Ok(Some(Message::Binary(self.pass(bytes, true)?))),
            Message::Close(Some(frame)) if !frame.reason.is_empty() => {
                let reason = self.pass(Bytes::from(frame.reason), false)?;
                let fits = reason.len() <= REASON_MAX_BYTES;
                let reason = if fits { as_text(reason)? } else { Utf8Bytes::default() };
                Ok(Some(Message::Close(Some(CloseFrame { code: frame.code, reason }))))
            }
            Message::Close(_) => Ok(Some(message)),
            // What it carries means something to its sender alone, who has its answer
            // from here.
            Message::Ping(_) => Ok(Some(Message::Ping(Bytes::new()))),
            Message::Pong(_) | Message::Frame(_) => Ok(None),
        }
    }

    /// Records what a message says, and gives what goes on of it.
    fn pass(&self, bytes: Bytes, binary: bool) -> Result<Bytes, String> {
        let told = |error: MaskError| error.to_string();
        let bytes = match self.masker.as_ref().and_then(|masker| masker.body_parts(b"")) {
            None => bytes,
            Some(mut parts) => {
                let bytes = parts.push(bytes).map_err(told)?;
                let last = parts.finish().map_err(told)?;
                self.conn.findings(
                    self.statement,
                    self.direction,
                    parts.findings().clone().at(&Place::WebSocket),
                );
                if last.is_empty() { bytes } else { Bytes::from([bytes, last].concat()) }
            }
        };
        let (recorded, _) = self.conn.subject.everything().mask(&bytes);
        let (statement, direction) = (self.statement, self.direction);
        let over = recorded.len() > self.keep;
        let recorded = if over { recorded.slice(..self.keep) } else { recorded };
        let event = Event::Message { statement, direction, binary, bytes: recorded };
        self.conn.record(&event).map_err(|error| error.to_string())?;
        if over {
            let (kept, reason) = (self.keep as u64, "recording-limit");
            self.conn.note(&Event::BodyTruncated { statement, direction, kept, reason });
        }
        let Some(masker) = &self.masker else { return Ok(bytes) };
        let (masked, findings) = masker.whole(&bytes, Place::WebSocket).map_err(told)?;
        self.conn.findings(statement, direction, findings);
        Ok(masked.into_bytes())
    }
}

fn as_text(bytes: Bytes) -> Result<Utf8Bytes, String> {
    Utf8Bytes::try_from(bytes).map_err(|error| error.to_string())
}
