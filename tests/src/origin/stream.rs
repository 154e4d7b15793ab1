//! Answers that are more than one piece: coded, with trailers, or one event at a time.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use tokio::sync::{Semaphore, mpsc};

use super::Body;
use super::answer::{fed, from_channel, full};

/// Events of `/live`.
const EVENTS: usize = 5;

/// Plain text, in gzip for a client that takes it.
pub(super) fn text(headers: &HeaderMap, text: String) -> Response<Body> {
    let accepted = headers.get("accept-encoding").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accepted.contains("gzip") {
        return full("text/plain", text);
    }
    let mut response = full("text/plain", Gzip::new().add(&text, true));
    response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    response
}

/// A body with what is known only at its end.
pub(super) fn trailers(token: &str) -> Response<Body> {
    let mut last = HeaderMap::new();
    last.insert("x-sum", HeaderValue::from_static("whole"));
    if let Ok(value) = HeaderValue::from_str(token) {
        last.insert("x-note", value);
    }
    let frames = vec![Frame::data(Bytes::from_static(b"body\n")), Frame::trailers(last)];
    let mut response = fed("text/plain", frames);
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum, x-note"));
    response
}

/// Events of which each waits until the client says that it has the one before:
/// whoever holds one back gets no other.
pub(super) fn live(coded: bool, token: &str, next: &Arc<Semaphore>) -> Response<Body> {
    next.forget_permits(next.available_permits());
    let (to, from) = mpsc::channel(1);
    let (next, token) = (Arc::clone(next), token.to_owned());
    tokio::spawn(async move {
        let mut gzip = Gzip::new();
        for number in 0..EVENTS {
            if number > 0 {
                match next.acquire().await {
                    Ok(permit) => permit.forget(),
                    Err(_) => return,
                }
            }
            let event = format!("data: {number} the token is {token}\n\n");
            let bytes = if coded { gzip.add(&event, number + 1 == EVENTS) } else { event.into_bytes() };
            if to.send(Frame::data(Bytes::from(bytes))).await.is_err() {
                return;
            }
        }
    });
    let mut response = from_channel("text/event-stream", from);
    if coded {
        response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    }
    response
}

/// One stream of gzip, each piece of which can be decoded when it comes.
struct Gzip(GzEncoder<Vec<u8>>);

impl Gzip {
    fn new() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::default()))
    }

    /// Writing to memory does not fail.
    fn add(&mut self, text: &str, last: bool) -> Vec<u8> {
        self.0.write_all(text.as_bytes()).ok();
        if last {
            self.0.try_finish().ok();
        } else {
            self.0.flush().ok();
        }
        std::mem::take(self.0.get_mut())
    }
}
