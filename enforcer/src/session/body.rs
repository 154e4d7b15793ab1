//! The recording of one body: its beginning, its length and its hash.

use crate::mask::Masked;

use super::{Direction, Event, Session, SessionError};

/// Follows the masked bytes of one body as they are forwarded.
pub struct BodyRecord {
    statement: u32,
    direction: Direction,
    limit: usize,
    kept: usize,
    length: u64,
    truncated: bool,
    hasher: blake3::Hasher,
}

impl BodyRecord {
    pub(super) fn new(statement: u32, direction: Direction, limit: usize) -> Self {
        let hasher = blake3::Hasher::new();
        Self { statement, direction, limit, kept: 0, length: 0, truncated: false, hasher }
    }

    /// Records as much of the chunk as the limit leaves room for.
    pub fn push(&mut self, session: &Session, chunk: &Masked) -> Result<(), SessionError> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.hasher.update(chunk.as_bytes());
        let offset = self.length;
        self.length += chunk.len() as u64;
        let fits = chunk.len().min(self.limit - self.kept);
        if fits > 0 {
            self.kept += fits;
            let (statement, direction) = (self.statement, self.direction);
            let bytes = chunk.slice(..fits);
            session.record(&Event::Body { statement, direction, offset, bytes })?;
        }
        if fits < chunk.len() && !self.truncated {
            self.truncated = true;
            session.record(&Event::BodyTruncated {
                statement: self.statement,
                direction: self.direction,
                kept: self.kept as u64,
                reason: "body-limit",
            })?;
        }
        Ok(())
    }

    /// Records the end; `complete` is false where the body was aborted midway.
    pub fn finish(self, session: &Session, complete: bool) -> Result<(), SessionError> {
        session.record(&Event::BodyEnd {
            statement: self.statement,
            direction: self.direction,
            length: self.length,
            blake3: self.hasher.finalize().to_hex().to_string(),
            complete,
        })
    }
}
