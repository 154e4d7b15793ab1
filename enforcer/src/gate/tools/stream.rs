//! An answer in events whose tool calls are kept back, with comments while its client waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::approval::{Class, Digest};
use crate::protocol::llm::{self, Call, CallError, CallStream, Dialect, Framing, Step};
use crate::session::{Outcome, Side};

use super::super::deny::Kind;
use super::super::held::Room;
use super::super::{BodyError, Stop, WireBody};
use super::{Group, Tools};

/// Between two comments; the same as while a request is held.
const BEAT: Duration = Duration::from_secs(10);
/// A comment of an event stream, which clients skip (HTML, section 9.2.6).
const COMMENT: &[u8] = b": a tool call is looked at\n\n";
/// From the first byte of a call until it is whole.
pub(super) const WHOLE_MAX: Duration = Duration::from_secs(30 * 60);
/// Room is taken in pieces of so many bytes.
const ROOM_BYTES: usize = 1024 * 1024;

type Judging = Pin<Box<dyn Future<Output = Result<(), Stop>> + Send>>;

struct Kept {
    inner: WireBody,
    stream: CallStream,
    tools: Arc<Tools>,
    /// What waits to be judged.
    judging: Option<Judging>,
    /// Set while anything is kept back.
    beat: Option<Interval>,
    since: Option<Instant>,
    room: Vec<Room>,
    trailers: Option<HeaderMap>,
    ended: bool,
    done: bool,
}

pub(super) fn kept(inner: WireBody, stream: CallStream, tools: Tools) -> WireBody {
    Kept {
        inner,
        stream,
        tools: Arc::new(tools),
        judging: None,
        beat: None,
        since: None,
        room: Vec::new(),
        trailers: None,
        ended: false,
        done: false,
    }
    .boxed_unsync()
}

impl Kept {
    fn judge(&mut self, calls: Vec<Call>) {
        let tools = Arc::clone(&self.tools);
        let class = match self.stream.takes_comments() {
            true => Class::KeptAlive,
            false => Class::of_user_agent(tools.agent()),
        };
        let group = Group {
            calls,
            dialect: self.dialect(),
            model: self.stream.model().map(str::to_owned),
            bytes: Digest::of([self.stream.kept()]),
            class,
        };
        self.judging = Some(Box::pin(async move { tools.judge(&group).await }));
    }

    /// It ends when that is recorded.
    fn refuse(&mut self, error: CallError) {
        let tools = Arc::clone(&self.tools);
        self.judging = Some(Box::pin(async move { Err(tools.refused(error).await) }));
    }

    fn dialect(&self) -> Dialect {
        self.stream.dialect().unwrap_or(Dialect::Chat)
    }

    /// Takes room for what is kept, and looks at the time.
    fn measure(&mut self) -> Result<(), CallError> {
        let kept = self.stream.kept().len();
        if kept == 0 {
            (self.since, self.beat) = (None, None);
            self.room.clear();
            return Ok(());
        }
        let now = Instant::now();
        if now - *self.since.get_or_insert(now) > WHOLE_MAX {
            return Err(CallError::TooLong);
        }
        while self.room.len() * ROOM_BYTES < kept {
            let Some(room) = self.tools.conn.subject.held.room_now(ROOM_BYTES) else {
                return Err(CallError::TooMany);
            };
            self.room.push(Some(room));
        }
        Ok(())
    }

    /// While the client hears nothing else.
    fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let beat = self.beat.get_or_insert_with(|| {
            let mut beat = interval_at(Instant::now() + BEAT, BEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        });
        beat.poll_tick(cx).map(|_| ())
    }

    /// What is said in place of all that was kept, and of all that follows.
    fn end(&mut self, stop: &Stop) -> Bytes {
        self.done = true;
        let conn = &self.tools.conn;
        if let Some(detail) = &stop.detail {
            let side = match stop.kind {
                Kind::Denied => Side::Upstream,
                Kind::Failed(side) => side,
            };
            conn.error(side, stop.reason, detail);
        }
        conn.settle(match stop.kind {
            Kind::Denied => Outcome::Denied { reason: stop.reason },
            Kind::Failed(side) => Outcome::Failed { side, reason: stop.reason },
        });
        let framing = if self.stream.takes_comments() { Framing::Sse } else { Framing::Lines };
        let why = stop.line(conn.id());
        // Nobody reads on: the upstream need not say more.
        self.inner = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        llm::ends(framing, Some(self.dialect()), stop.reason, &why)
    }

    /// Waits for more, or until it is time to say something.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()?.map(Frame::into_data) {
            None => {
                self.ended = true;
                self.stream.finish();
            }
            Some(Ok(bytes)) => self.stream.push(&bytes),
            Some(Err(frame)) => self.trailers = frame.into_trailers().ok(),
        }
        Poll::Ready(Ok(()))
    }
}

impl Body for Kept {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let data = |bytes: Bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        loop {
            if this.done {
                return Poll::Ready(None);
            }
            let waits = match &mut this.judging {
                Some(judging) => match judging.as_mut().poll(cx) {
                    Poll::Ready(Err(stop)) => return data(this.end(&stop)),
                    Poll::Ready(Ok(())) => {
                        this.judging = None;
                        this.stream.release();
                        continue;
                    }
                    Poll::Pending => true,
                },
                None => match this.stream.step() {
                    Err(error) => {
                        this.refuse(error);
                        continue;
                    }
                    Ok(Some(Step::Judge(calls))) => {
                        this.judge(calls);
                        continue;
                    }
                    Ok(Some(Step::Pass(bytes))) => return data(bytes),
                    Ok(None) if this.ended => {
                        this.done = true;
                        return Poll::Ready(
                            this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
                        );
                    }
                    Ok(None) => {
                        if let Err(error) = this.measure() {
                            this.refuse(error);
                            continue;
                        }
                        match this.poll_inner(cx) {
                            Poll::Ready(Ok(())) => continue,
                            Poll::Ready(Err(error)) => {
                                this.done = true;
                                return Poll::Ready(Some(Err(error)));
                            }
                            Poll::Pending => !this.stream.kept().is_empty(),
                        }
                    }
                },
            };
            if !waits {
                return Poll::Pending;
            }
            ready!(this.poll_beat(cx));
            if this.stream.takes_comments() {
                return data(Bytes::from_static(COMMENT));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
