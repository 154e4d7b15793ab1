//! Archives in a request: held, looked into, and let through if nothing is in them.
//!
//! ```text
//!  inner --> sniff --+--> plain: goes on at once --------------------+--> carried
//!                    |                                               |
//!                    +--> archive: held --> every part masked -------+
//!                                                 `--> something found: denied
//! ```
//! What is found cannot be masked: the archive would be another one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

use crate::mask::{Findings, MaskError, Masked, Masker, Place};
use crate::protocol::archive::{ArchiveError, PACKED_MAX_BYTES, UNPACKED_MAX_BYTES};
use crate::protocol::http::sniff::{Piece, Sniffer};
use crate::session::Direction;

use super::held::Room;
use super::{BodyError, Conn};

/// What looking into an archive takes of memory at once: it, and what it unpacks to.
pub(super) const ROOM_BYTES: usize = PACKED_MAX_BYTES + UNPACKED_MAX_BYTES;
/// How much of it is masked at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// A body whose archives were looked into, if something is masked in it.
pub(super) struct Looked<B> {
    inner: B,
    look: Option<Look>,
    /// What was read before the request went out.
    first: Option<Frame<Bytes>>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

struct Look {
    sniffer: Sniffer,
    masker: Masker,
    conn: Arc<Conn>,
    statement: u32,
    /// An archive that is being looked into.
    check: Option<JoinHandle<Checked>>,
    room: Room,
}

struct Checked {
    archive: Bytes,
    found: Findings,
    verdict: Result<(), BodyError>,
}

impl<B> Looked<B> {
    pub(super) fn new(inner: B, look: Option<(Sniffer, Masker)>, conn: &Arc<Conn>, statement: u32) -> Self {
        let look = look.map(|(sniffer, masker)| {
            let conn = Arc::clone(conn);
            Look { sniffer, masker, conn, statement, check: None, room: None }
        });
        Self { inner, look, first: None, trailers: None, ended: false }
    }
}

impl<B> Looked<B>
where
    B: Body<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    /// Reads what comes first, if a length promises that something comes, so that an upload
    /// that is denied was never begun. Without a length the client may wait for an answer.
    pub(super) async fn begun(mut self, limit: Duration) -> Result<Self, BodyError> {
        if self.look.is_some() && self.inner.size_hint().exact().is_some_and(|length| length > 0) {
            let first = tokio::time::timeout(limit, self.frame()).await.map_err(|_| BodyError::Idle)?;
            self.first = first.transpose()?;
        }
        Ok(self)
    }
}

impl Look {
    /// What can go on now; none if more bytes are needed, or nothing is left.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        if self.check.is_none() {
            match self.sniffer.next()? {
                Some(Piece::Plain(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                Some(Piece::Archive(archive)) => {
                    self.take_room()?;
                    self.check = Some(self.check(archive));
                }
                None => {
                    if self.sniffer.holds() {
                        self.take_room()?;
                    }
                    return Poll::Ready(Ok(None));
                }
            }
        }
        let Some(check) = &mut self.check else { return Poll::Ready(Ok(None)) };
        let checked = ready!(Pin::new(check).poll(cx));
        self.check = None;
        let checked = checked.map_err(|_| ArchiveError::Unreadable("looking into it failed"))?;
        self.conn.findings(self.statement, Direction::Request, &checked.found);
        checked.verdict?;
        Poll::Ready(Ok(Some(checked.archive)))
    }

    /// An archive is no reason to wait while others hold theirs: they may wait for this one.
    fn take_room(&mut self) -> Result<(), BodyError> {
        if self.room.is_none() {
            self.room = self.conn.subject.held.room_now(ROOM_BYTES);
        }
        match self.room {
            Some(_) => Ok(()),
            None => Err(ArchiveError::Limit("archives at the same time").into()),
        }
    }

    /// Looks into an archive on a thread for such work, which keeps the room until it ends, whether
    /// anybody waits for it or not.
    fn check(&mut self, archive: Bytes) -> JoinHandle<Checked> {
        let room = self.room.take();
        let (unpacker, masker) = (self.sniffer.unpacker(), self.masker.clone());
        tokio::task::spawn_blocking(move || {
            let _room = room;
            let (mut found, mut changed) = (Findings::default(), false);
            let read = unpacker.unpack(&archive, &mut |part| {
                // What was found before decides already.
                if !changed {
                    let (findings, masked) = mask(&masker, part);
                    changed = masked;
                    found.merge(&findings);
                }
            });
            let verdict = if changed { Err(BodyError::InArchive) } else { read.map_err(BodyError::from) };
            Checked { archive, found, verdict }
        })
    }
}

/// What is found in a part, and whether anything of it has to be replaced.
fn mask(masker: &Masker, part: &[u8]) -> (Findings, bool) {
    let mut stream = masker.stream_at(Place::Archive);
    let mut rest = part;
    let mut same = |masked: Result<Masked, MaskError>| match masked.ok().map(Masked::into_bytes) {
        Some(bytes) if rest.starts_with(&bytes) => {
            rest = &rest[bytes.len()..];
            true
        }
        _ => false,
    };
    let kept = part.chunks(PIECE_BYTES).all(|piece| same(stream.push(Bytes::copy_from_slice(piece))))
        && same(stream.finish());
    (stream.findings().clone(), !kept)
}

impl<B> Body for Looked<B>
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
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            let piece = this.look.as_mut().map_or(Poll::Ready(Ok(None)), |look| look.poll_piece(cx));
            if let Some(bytes) = ready!(piece)? {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.ended {
                return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx)).transpose()?;
            match (frame.map(Frame::into_data), &mut this.look) {
                (Some(Ok(bytes)), Some(look)) if !look.sniffer.passes() => look.sniffer.push(bytes),
                (Some(Ok(bytes)), _) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                (other, look) => {
                    this.trailers = other.and_then(Result::err).and_then(|frame| frame.into_trailers().ok());
                    this.ended = true;
                    if let Some(look) = look {
                        look.sniffer.finish();
                    }
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
