//! An answer that begins before its request has gone out: the client of a model hears that it
//! waits, and waits on.
//!
//! ```text
//!  exchange --+--> answered before it was held: as it is
//!             +--> held, and the rule says so: 200, and a comment every few seconds
//!                    exchange, inside the body --+--> events: they follow
//!                                                +--> anything else: an event with the error
//! ```
//!
//! **Invariant**: the body owns the exchange. A client that leaves drops both, and what it sent
//! goes nowhere. The status is told before anybody knows how it ends, so a rule has to want it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Limited};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};

use crate::protocol::llm;

use super::super::{BodyError, WireBody};

/// Between two comments. Clients were seen to give up after 60 s without a byte.
const BEAT: Duration = Duration::from_secs(10);
/// A comment of an event stream, which clients skip (HTML, section 9.2.6).
const COMMENT: &[u8] = b": waiting for people to agree\n\n";
/// Bytes of an error of the upstream that are passed on as an event.
const MAX_ERROR: usize = 64 * 1024;

/// Lets an answer begin, once.
#[derive(Debug)]
pub struct Early(Mutex<Option<oneshot::Sender<llm::Dialect>>>);

impl Early {
    /// From here on the client is told that it waits.
    pub(super) fn begin(&self, api: llm::Dialect) {
        let begins = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nobody hears it if the client has gone.
        begins.and_then(|begins| begins.send(api).ok());
    }
}

type Exchange = Pin<Box<dyn Future<Output = Response<WireBody>> + Send>>;

/// Answers with what comes of an exchange, or earlier, if it says so.
pub async fn early<F>(exchange: impl FnOnce(Early) -> F) -> Response<WireBody>
where
    F: Future<Output = Response<WireBody>> + Send + 'static,
{
    let (begins, mut begun) = oneshot::channel();
    let mut exchange: Exchange = Box::pin(exchange(Early(Mutex::new(Some(begins)))));
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        Ok(api) = &mut begun => waiting(api, exchange),
    }
}

fn waiting(api: llm::Dialect, exchange: Exchange) -> Response<WireBody> {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut response = Response::new(Waiting { api, beat, next: Next::Exchange(exchange) }.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Comments, and then what came of the exchange.
struct Waiting {
    api: llm::Dialect,
    beat: Interval,
    next: Next,
}

enum Next {
    Exchange(Exchange),
    Rest(WireBody),
    /// An answer that is no stream, until all of it is there.
    Error(Pin<Box<dyn Future<Output = Bytes> + Send>>),
    End,
}

impl Body for Waiting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let (next, frame) = match &mut self.next {
                Next::End => return Poll::Ready(None),
                Next::Rest(body) => return Pin::new(body).poll_frame(cx),
                Next::Error(error) => match error.as_mut().poll(cx) {
                    Poll::Ready(event) => (Next::End, Some(event)),
                    Poll::Pending => return Poll::Pending,
                },
                Next::Exchange(exchange) => match exchange.as_mut().poll(cx) {
                    Poll::Ready(answer) => (rest(self.api, answer), None),
                    Poll::Pending => {
                        ready!(self.beat.poll_tick(cx));
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
                    }
                },
            };
            self.next = next;
            if let Some(event) = frame {
                return Poll::Ready(Some(Ok(Frame::data(event))));
            }
        }
    }
}

fn rest(api: llm::Dialect, answer: Response<WireBody>) -> Next {
    let (parts, body) = answer.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().trim().to_ascii_lowercase();
    let plain = !parts.headers.contains_key(header::CONTENT_ENCODING);
    if parts.status == StatusCode::OK && plain && kind.starts_with("text/event-stream") {
        return Next::Rest(body);
    }
    let said = plain && parts.status != StatusCode::OK && kind.contains("json");
    Next::Error(Box::pin(async move {
        let whole = match said {
            true => Limited::new(body, MAX_ERROR).collect().await.ok(),
            false => None,
        };
        // Each API has its errors in events of the same shape.
        let json = whole.and_then(|whole| serde_json::from_slice(&whole.to_bytes()).ok());
        let status = parts.status.as_u16();
        let why = format!("the answer that came is no stream of events; its status is {status}");
        llm::error_event(api, &json.unwrap_or_else(|| llm::refusal(api, "no-event-stream", &why)))
    }))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn answer(status: u16, kind: &str, text: &'static str) -> Response<WireBody> {
        let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
        let answer = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
        answer.body(body.boxed_unsync()).unwrap()
    }

    /// What a client reads whose request is held for so long.
    async fn read(hold: Duration, end: Response<WireBody>) -> (StatusCode, String) {
        let response = early(|early| async move {
            early.begin(llm::Dialect::Chat);
            tokio::time::sleep(hold).await;
            end
        });
        let response = response.await;
        let status = response.status();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_comment_at_once_and_one_every_ten_seconds_and_then_the_events() {
        let comment = std::str::from_utf8(COMMENT).unwrap();
        for (ms, comments) in [(9_999, 1), (10_001, 2), (600_001, 61)] {
            let end = answer(200, "text/event-stream; charset=utf-8", "data: x\n\n");
            let (status, text) = read(Duration::from_millis(ms), end).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(text, format!("{}data: x\n\n", comment.repeat(comments)), "{ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_stream_ends_in_an_event_with_the_error() {
        let second = Duration::from_secs(1);
        let error = answer(429, "application/json", "{\n \"error\": {\"message\": \"slow down\"}\n}");
        let (_, text) = read(second, error).await;
        assert!(text.ends_with("data: {\"error\":{\"message\":\"slow down\"}}\n\n"), "{text}");
        for end in [answer(502, "text/html", "<html>"), answer(200, "application/json", "{\"id\": 1}")] {
            let (_, text) = read(second, end).await;
            assert!(text.contains("no stream of events") && !text.contains("html>"), "{text}");
        }
        let mut coded = answer(200, "text/event-stream", "?");
        coded.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(read(second, coded).await.1.contains("no stream of events"));
    }

    #[tokio::test]
    async fn what_is_not_held_is_answered_as_it_is_and_who_leaves_takes_the_exchange_along() {
        let response = early(|_| async { answer(403, "application/json", "{}") }).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let (dropped, gone) = oneshot::channel::<()>();
        let response = early(|early| async move {
            early.begin(llm::Dialect::Anthropic);
            std::future::pending::<()>().await;
            drop(dropped);
            answer(200, "text/event-stream", "")
        });
        let mut body = response.await.into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        drop(body);
        gone.await.unwrap_err();
    }
}
