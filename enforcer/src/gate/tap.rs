//! The copy of a body that is recorded: masked with everything known, up to a limit.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::mask::{Findings, Masked, Place};
use crate::protocol::command::assess_call;
use crate::protocol::http::coding::Decoder;
use crate::protocol::llm::{Answer, ToolCall};
use crate::session::{Direction, Event};

use super::body::BodyError;
use super::masking::Masking;
use super::{Conn, Settings, side_of};

/// Writes a copy of a body down. Dropped before its end, it records a partial body.
pub(super) struct Tap {
    conn: Arc<Conn>,
    statement: u32,
    direction: Direction,
    /// `None` once the limit is reached.
    masker: Option<Masking>,
    /// For a coded body that is not decoded for the wire.
    decoder: Option<Decoder>,
    kept: usize,
    limit: usize,
    length: u64,
    hash: blake3::Hasher,
    ended: bool,
    /// What was found in the copy.
    found: Findings,
    told: bool,
}

impl Tap {
    /// Of an answer of a model the text is masked, on whatever way it goes.
    pub fn new(
        conn: &Arc<Conn>,
        statement: u32,
        direction: Direction,
        settings: &Settings,
        answer: Option<Answer>,
        form: bool,
    ) -> Self {
        let subject = &conn.subject;
        let model = answer.map(|answer| (answer, subject.known().clone()));
        Self {
            conn: Arc::clone(conn),
            statement,
            direction,
            masker: Some(Masking::copy(subject.everything(), model, form)),
            decoder: None,
            kept: 0,
            limit: settings.body_bytes,
            length: 0,
            hash: blake3::Hasher::new(),
            ended: false,
            found: Findings::default(),
            told: false,
        }
    }

    pub fn decode_with(&mut self, decoder: Option<Decoder>) {
        self.decoder = decoder;
    }

    pub fn push(&mut self, bytes: &Bytes) -> Result<(), BodyError> {
        self.length += bytes.len() as u64;
        if self.masker.is_none() {
            return Ok(());
        }
        match &mut self.decoder {
            None => self.keep(bytes.clone()),
            Some(decoder) => {
                decoder.push(bytes.clone());
                self.decoded()
            }
        }
    }

    fn decoded(&mut self) -> Result<(), BodyError> {
        while let Some(decoder) = &mut self.decoder {
            match decoder.next() {
                Ok(Some(piece)) => self.keep(piece)?,
                Ok(None) => break,
                Err(error) => {
                    // The wire is not changed, so it may carry what is not understood
                    // here; the recording says that it has no copy of the rest.
                    let side = side_of(self.direction);
                    self.conn.error(side, "coding-unreadable", &error.to_string());
                    self.truncate("coding-unreadable");
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, bytes: Bytes) -> Result<(), BodyError> {
        let Some(masker) = &mut self.masker else { return Ok(()) };
        let masked = masker.push(bytes);
        let calls = masker.take_calls();
        self.calls(calls)?;
        self.keep_masked(masked)
    }

    fn keep_masked(&mut self, masked: Result<Masked, BodyError>) -> Result<(), BodyError> {
        match masked {
            Ok(masked) => self.write(masked),
            Err(BodyError::Model(error)) => {
                // As with a coding: the wire says for itself whether it may go on.
                let side = side_of(self.direction);
                self.conn.error(side, error.reason(), &error.to_string());
                self.truncate("event-unreadable");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What a model asks its client to do.
    fn calls(&self, calls: Vec<ToolCall>) -> Result<(), BodyError> {
        for call in calls {
            self.conn.draft(&Event::ToolCall {
                statement: self.statement,
                channel: self.conn.text(&call.channel),
                risks: assess_call(call.arguments.as_str()),
                name: call.name,
                arguments: call.arguments,
                complete: call.complete,
            })?;
        }
        Ok(())
    }

    fn write(&mut self, masked: Masked) -> Result<(), BodyError> {
        let room = self.limit - self.kept;
        let over = masked.len() > room;
        let bytes = if over { masked.slice(..room) } else { masked };
        if !bytes.is_empty() {
            self.hash.update(bytes.as_bytes());
            let offset = self.kept as u64;
            self.kept += bytes.len();
            let (statement, direction) = (self.statement, self.direction);
            self.conn.draft(&Event::Body { statement, direction, offset, bytes })?;
        }
        if over {
            self.truncate("recording-limit");
        }
        Ok(())
    }

    /// Nothing more is kept; the length is still counted.
    pub fn truncate(&mut self, reason: &'static str) {
        self.decoder = None;
        if let Some(masker) = self.masker.take() {
            self.found.merge(&masker.findings());
        }
        let (statement, direction, kept) = (self.statement, self.direction, self.kept as u64);
        self.conn.note(&Event::BodyTruncated { statement, direction, kept, reason });
    }

    /// Nothing follows. May be called again.
    pub fn end(&mut self) -> Result<(), BodyError> {
        if self.ended {
            return Ok(());
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.finish();
            self.decoded()?;
        }
        if let Some(mut masker) = self.masker.take() {
            let last = masker.finish();
            self.found.merge(&masker.findings());
            self.calls(masker.take_calls())?;
            self.keep_masked(last)?;
        }
        self.close(true);
        Ok(())
    }

    /// Tells what was found in the body: on the wire, and by what knows more than is masked
    /// there in the copy. Nothing the second time.
    pub fn tell(&mut self, mut wire: Findings) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        if let Some(masker) = &self.masker {
            self.found.merge(&masker.findings());
        }
        wire.merge_unknown(&self.found);
        self.conn.findings(self.statement, self.direction, &wire);
    }

    /// What was found in trailers.
    pub fn found_behind(&self, findings: Findings) {
        self.conn.findings(self.statement, self.direction, &findings.at(&Place::Trailer));
    }

    /// What was pushed so far is in the page cache when this returns.
    pub fn flush(&self) -> Result<(), BodyError> {
        Ok(self.conn.flush()?)
    }

    pub fn trailers(&self, trailers: &HeaderMap) -> Result<(), BodyError> {
        Ok(self.conn.trailers(self.statement, self.direction, trailers)?)
    }

    pub fn abort(&mut self, error: &BodyError) {
        self.conn.error(side_of(self.direction), error.reason(), &error.to_string());
        self.close(false);
    }

    fn close(&mut self, complete: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // What is held back could be the beginning of a secret: it is not kept.
        if self.masker.as_ref().is_some_and(Masking::holds) {
            self.truncate("aborted");
        }
        self.conn.note(&Event::BodyEnd {
            statement: self.statement,
            direction: self.direction,
            length: self.length,
            blake3: self.hash.finalize().to_hex().to_string(),
            complete,
        });
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close(false);
    }
}
