//! The session recording: append-only segments with a hash chain.
//!
//! ```text
//! dir/00000001-<boot>.seg  dir/00000002-<boot>.seg ...   one set for all sessions of the host
//! record = length u32 LE | session 16 | sequence u64 LE | ordinal u64 LE | time u64 LE
//!        | version u8 | kind u8 | 0 0 | payload (JSON) | hash 32
//! hash   = BLAKE3(previous hash of this session | hash of the record before, of
//!          whatever session | length .. payload)
//! ```
//!
//! The first half ties a session's records to each other, the second ties all
//! records of the host in their order, so that neither a record nor a whole
//! session or segment can be taken out without the next hash showing it. What
//! the chain alone cannot show is the removal of the newest records; a session
//! without a close record is shown as cut. `docs/recording.md` has the details.
//!
//! **Invariant**: whatever a job or a target sent stands in an event as
//! `Masked` or `MaskedText`, which only `mask` can make.

mod body;
mod dir;
mod event;
pub mod read;
mod record;
mod sync;
mod writer;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use body::BodyRecord;
pub use event::{Direction, Event, Outcome, SessionHeader, SessionKind, Side};
pub use record::{Kind, MAX_RECORD, SessionId};

use record::Chain;
use writer::Writer;

/// Why something is not recorded. The caller must not go on with what it wanted
/// to record.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    #[error("the recording cannot be opened in {dir}: {cause}; check that the folder exists, is no link, and belongs to the proxy's user", dir = .dir.display())]
    Open { dir: PathBuf, cause: String },
    #[error(
        "the recording cannot be written: {cause}; free space in its folder or mend it, it goes on by itself"
    )]
    Unwritable { cause: String },
    #[error("an event of {length} bytes is longer than the {MAX_RECORD} that one record takes")]
    TooLong { length: usize },
    #[error("the event cannot be written as JSON: {0}")]
    Encode(String),
}

/// How the recording is kept.
#[derive(Debug, Clone)]
pub struct RecordingOptions {
    pub host_id: String,
    pub boot_id: String,
    /// A new segment is begun when the current one has this many bytes.
    pub segment_bytes: u64,
    /// The first bytes of each masked body that are kept.
    pub body_limit: usize,
    /// Everything is on disk at most this long after it was recorded.
    pub flush_interval: Duration,
}

impl Default for RecordingOptions {
    fn default() -> Self {
        Self {
            host_id: String::new(),
            boot_id: String::new(),
            segment_bytes: 256 << 20,
            body_limit: 64 << 10,
            flush_interval: Duration::from_secs(1),
        }
    }
}

/// The recording of this host; clones share it.
#[derive(Clone)]
pub struct Recording {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Mutex<Writer>,
    sync: sync::Sync,
    body_limit: usize,
}

impl Recording {
    /// Opens the recording and begins a new segment. A torn last record of a
    /// process that was killed is cut off; its length stands in the new
    /// segment's header.
    pub fn open(dir: &Path, options: RecordingOptions) -> Result<Self, SessionError> {
        let body_limit = options.body_limit;
        let interval = options.flush_interval;
        let writer = Writer::open(dir, options)?;
        let sync = sync::Sync::start(writer.dir(), interval)?;
        sync.watch(writer.file());
        Ok(Self { shared: Arc::new(Shared { writer: Mutex::new(writer), sync, body_limit }) })
    }

    /// Begins a session; its header is in the page cache when this returns.
    pub fn begin(&self, header: SessionHeader) -> Result<Session, SessionError> {
        let mut session = Session {
            recording: self.clone(),
            id: SessionId::new(),
            chain: Mutex::new(Chain::default()),
            closed: false,
        };
        // Nobody has seen the session yet, so it has no end to record either.
        match session.append(Kind::Begin, [&header]) {
            Ok(_) => Ok(session),
            Err(error) => {
                session.closed = true;
                Err(error)
            }
        }
    }

    /// Whether events can be recorded now.
    pub fn healthy(&self) -> Result<(), SessionError> {
        self.lock().heal(&self.shared.sync)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// Where records are put together; kept, so that the next one needs no memory.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Buffers that have grown beyond this are given back.
const BUFFER_KEPT: usize = 128 << 10;

/// One session; dropping it without `close` records that it was cancelled.
pub struct Session {
    recording: Recording,
    id: SessionId,
    chain: Mutex<Chain>,
    closed: bool,
}

impl Session {
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Records an event: it is in the kernel's page cache when this returns, so
    /// it survives the death of every process of ours.
    pub fn record(&self, event: impl Borrow<Event>) -> Result<(), SessionError> {
        self.append(Kind::Event, [event.borrow()]).map(drop)
    }

    /// Records several events with one write: all of them or none.
    pub fn record_batch(&self, events: &[Event]) -> Result<(), SessionError> {
        self.append(Kind::Event, events).map(drop)
    }

    /// Records an event and waits until it is on disk; waiters share an fsync.
    pub async fn record_durable(&self, event: impl Borrow<Event>) -> Result<(), SessionError> {
        let position = self.append(Kind::Event, [event.borrow()])?;
        self.recording.shared.sync.reached(position).await
    }

    /// A recorder for one body of this session.
    pub fn body(&self, statement: u32, direction: Direction) -> BodyRecord {
        BodyRecord::new(statement, direction, self.recording.shared.body_limit)
    }

    /// Ends the session with its outcome.
    pub fn close(mut self, outcome: impl Borrow<Outcome>) -> Result<(), SessionError> {
        self.closed = true;
        self.append(Kind::End, [outcome.borrow()]).map(drop)
    }

    fn append<'a, P: serde::Serialize + 'a>(
        &self,
        kind: Kind,
        payloads: impl IntoIterator<Item = &'a P>,
    ) -> Result<u64, SessionError> {
        let mut buffer = BUFFER.take();
        buffer.clear();
        let done = self.encode(&mut buffer, kind, payloads).and_then(|()| {
            let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            let mut writer = self.recording.lock();
            writer.append(&self.recording.shared.sync, &mut buffer, &mut chain, kind)
        });
        if buffer.capacity() <= BUFFER_KEPT {
            BUFFER.set(buffer);
        }
        done
    }

    fn encode<'a, P: serde::Serialize + 'a>(
        &self,
        buffer: &mut Vec<u8>,
        kind: Kind,
        payloads: impl IntoIterator<Item = &'a P>,
    ) -> Result<(), SessionError> {
        for payload in payloads {
            let length = record::draft(buffer, self.id, kind, |out| serde_json::to_writer(out, payload))
                .map_err(|error| SessionError::Encode(error.to_string()))?;
            if length > MAX_RECORD {
                return Err(SessionError::TooLong { length });
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.closed
            && let Err(error) = self.append(Kind::End, [&Outcome::Cancelled])
        {
            tracing::error!(session = %self.id, %error, "the end of a session is not recorded");
        }
    }
}
