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
//! without a close record is shown as cut, or open. `docs/recording.md` has the details.
//!
//! **Invariant**: whatever a job or a target sent stands in an event as
//! `Masked` or `MaskedText`, which only `mask` can make.

mod body;
pub(crate) mod dir;
mod event;
pub mod read;
mod record;
mod sync;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Borrow;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use body::BodyRecord;
pub use event::{
    Direction, Event, IdentityRecord, Outcome, SessionHeader, SessionKind, Side, WorkloadRecord,
};
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
        let mut session =
            Session { recording: self.clone(), id: SessionId::new(), state: Mutex::default(), closed: false };
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
/// Drafts beyond this are written at once, in bytes.
const DRAFTS_MAX: usize = 32 << 10;

/// One session; dropping it without `close` records that it was cancelled.
pub struct Session {
    recording: Recording,
    id: SessionId,
    state: Mutex<State>,
    closed: bool,
}

#[derive(Default)]
struct State {
    chain: Chain,
    /// Records that are written with the next one. They stay here if that fails, so
    /// that nobody who drafted one is told that it is written.
    drafts: Vec<u8>,
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

    /// Puts an event where the next one that is recorded takes it along, in one write.
    /// Until then, or until [`Session::flush`], it is in this process's memory only.
    pub fn draft(&self, event: &Event) -> Result<(), SessionError> {
        let mut state = self.lock();
        let before = state.drafts.len();
        if let Err(error) = self.encode(&mut state.drafts, Kind::Event, [event]) {
            state.drafts.truncate(before);
            return Err(error);
        }
        if state.drafts.len() > DRAFTS_MAX {
            self.write(&mut state, &mut Vec::new(), Kind::Event)?;
        }
        Ok(())
    }

    /// Writes what was drafted.
    pub fn flush(&self) -> Result<(), SessionError> {
        let mut state = self.lock();
        if state.drafts.is_empty() {
            return Ok(());
        }
        self.write(&mut state, &mut Vec::new(), Kind::Event).map(drop)
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
        self.end(outcome.borrow())
    }

    /// There may be room for the end alone, and nobody waits for the drafts any more.
    fn end(&self, outcome: &Outcome) -> Result<(), SessionError> {
        let drafted = !self.lock().drafts.is_empty();
        match self.append(Kind::End, [outcome]) {
            Err(_) if drafted => {
                self.lock().drafts.clear();
                self.append(Kind::End, [outcome]).map(drop)
            }
            done => done.map(drop),
        }
    }

    fn append<'a, P: serde::Serialize + 'a>(
        &self,
        kind: Kind,
        payloads: impl IntoIterator<Item = &'a P>,
    ) -> Result<u64, SessionError> {
        let mut buffer = BUFFER.take();
        buffer.clear();
        let done = self
            .encode(&mut buffer, kind, payloads)
            .and_then(|()| self.write(&mut self.lock(), &mut buffer, kind));
        if buffer.capacity() <= BUFFER_KEPT {
            BUFFER.set(buffer);
        }
        done
    }

    /// Writes drafts and records with one write.
    fn write(&self, state: &mut State, records: &mut Vec<u8>, kind: Kind) -> Result<u64, SessionError> {
        let State { chain, drafts } = state;
        let drafted = drafts.len();
        let batch = if drafted == 0 {
            records
        } else {
            drafts.extend_from_slice(records);
            &mut *drafts
        };
        let done = self.recording.lock().append(&self.recording.shared.sync, batch, chain, kind);
        drafts.truncate(if done.is_ok() { 0 } else { drafted });
        drafts.shrink_to(2 * DRAFTS_MAX);
        done
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            && let Err(error) = self.end(&Outcome::Cancelled)
        {
            tracing::error!(session = %self.id, %error, "the end of a session is not recorded");
        }
    }
}
