//! What detectors find in a whole request, wherever masking would look: by name, and never the value.
//!
//! All of them look, whatever a rule masks: the operator's own, those that have to be named, and all
//! values that are known. None hides what another one finds in the same bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::mask::{Findings, MaskError, Masker, Place, Selection};
use crate::protocol::http::canonical;
use crate::protocol::http::sniff::{Piece, Sniffer};
use crate::protocol::llm;

use super::super::look::ROOM_BYTES;
use super::super::masking::{Masking, Model};
use super::super::{Subject, headers};
use super::inside::{Looking, Unframed};

/// How much of an archive is looked at at a time.
const PIECE_BYTES: usize = 64 * 1024;

pub(super) struct Search {
    subject: Arc<Subject>,
    masker: Masker,
    /// Of the values that are known alone.
    exact: Masker,
}

impl Search {
    pub fn new(subject: &Arc<Subject>) -> Result<Self, MaskError> {
        let all = Selection::observing_all();
        Ok(Self {
            masker: subject.masker(&all)?.unwrap_or_else(Masker::nothing),
            exact: subject.exact(&all)?,
            subject: Arc::clone(subject),
        })
    }

    /// The names of all that is found; `None` if a part of the request cannot be looked into.
    pub fn all(&self, asked: &Looking) -> Option<Vec<String>> {
        let body = asked.unframed()?;
        let mut found = self.head(asked).ok()?;
        found.merge(&self.body(asked, &body)?);
        found.merge(&self.archives(&body, &asked.fields)?);
        if body.framed {
            // What stands beside the frames goes out, too.
            found.merge(&self.plain(asked.body.bytes.clone()).ok()?);
        }
        let names: BTreeSet<&str> = found.iter().map(|finding| finding.entity.as_str()).collect();
        Some(names.into_iter().map(str::to_owned).collect())
    }

    fn head(&self, asked: &Looking) -> Result<Findings, MaskError> {
        let mut found = self.masker.text(&asked.facts.path).1;
        found.merge(&self.masker.text(asked.method.as_str()).1);
        if let Some(query) = &asked.facts.query {
            found.merge(&self.masker.query(&canonical::query(query))?.1);
        }
        found.merge(&headers::mask(&mut asked.fields.clone(), &self.masker)?);
        if let Some(trailers) = &asked.body.trailers {
            found.merge(&headers::mask(&mut trailers.clone(), &self.masker)?);
        }
        Ok(found)
    }

    fn body(&self, asked: &Looking, body: &Unframed) -> Option<Findings> {
        // Whoever asks chose the path: what is found by it comes on top of what is found anywhere.
        let mut any = Masking::wire(&self.masker, None, headers::is_form(&asked.fields));
        let model = llm::asks_model(&asked.method, &asked.facts.path, &asked.fields);
        let mut model =
            model.then(|| Masking::wire(&self.masker, Some(Model::Whole(self.exact.clone())), false));
        asked.decoded(body, &mut |piece| {
            if let Some(model) = &mut model {
                model.push(piece.clone()).ok()?;
            }
            any.push(piece).ok().map(drop)
        })?;
        any.finish().ok()?;
        let mut found = any.findings();
        if let Some(model) = &mut model {
            model.finish().ok()?;
            found.merge(&model.findings());
        }
        Some(found)
    }

    /// What is found in bytes as they are.
    fn plain(&self, bytes: Bytes) -> Result<Findings, MaskError> {
        let mut stream = self.masker.stream();
        stream.push(bytes)?;
        stream.finish()?;
        Ok(stream.findings().clone())
    }

    fn archives(&self, body: &Unframed, fields: &HeaderMap) -> Option<Findings> {
        let mut found = Findings::default();
        let mut sniffer = Sniffer::new(&body.codings, fields);
        let unpacker = sniffer.unpacker();
        sniffer.push(body.bytes.clone());
        sniffer.finish();
        while let Some(piece) = sniffer.next().ok()? {
            let Piece::Archive(archive) = piece else { continue };
            let _room = self.subject.held.room_now(ROOM_BYTES)?;
            let mut readable = true;
            let unpacked = unpacker.unpack(&archive, &mut |part| {
                readable &= self.part(part, &mut found).is_ok();
            });
            unpacked.ok().filter(|()| readable)?;
        }
        Some(found)
    }

    fn part(&self, part: &[u8], found: &mut Findings) -> Result<(), MaskError> {
        let mut stream = self.masker.stream_at(Place::Archive);
        for piece in part.chunks(PIECE_BYTES) {
            stream.push(Bytes::copy_from_slice(piece))?;
        }
        stream.finish()?;
        found.merge(stream.findings());
        Ok(())
    }
}
