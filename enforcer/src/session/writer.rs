//! The segment that is written now.
//!
//! ```text
//!            write or fsync fails                    a new segment can be begun
//!   whole ------------------------> in trouble ----------------------------------> whole
//!                                    |      ^ not yet: wait twice as long
//!                                    +------+
//! ```
//! In trouble nothing is taken but, on a full disk, the ends of sessions, for
//! which the reserve makes room.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::dir::{Dir, SegmentName};
use super::read::repair::{self, Tail};
use super::record::{self, Chain, Kind, SessionId};
use super::sync::Sync;
use super::{RecordingOptions, SessionError};

/// How long the first attempt to begin a new segment is put off; each next one twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// How long the attempts are put off at most.
const RETRY_MOST: Duration = Duration::from_secs(2);
/// How many names that are taken already are passed over.
const NAMES_TRIED: u32 = 16;

/// Why nothing can be written.
struct Trouble {
    cause: String,
    since: Instant,
    wait: Duration,
    /// An fsync failed, or half a record could not be taken back: the segment
    /// is not written to again.
    lost: bool,
}

pub struct Writer {
    dir: Arc<Dir>,
    options: RecordingOptions,
    file: Arc<File>,
    length: u64,
    number: u64,
    host: Chain,
    trouble: Option<Trouble>,
}

impl Writer {
    pub fn open(path: &Path, options: RecordingOptions) -> Result<Self, SessionError> {
        let error =
            |cause: io::Error| SessionError::Open { dir: path.to_path_buf(), cause: cause.to_string() };
        Self::begin(path, options).map_err(error)
    }

    fn begin(path: &Path, options: RecordingOptions) -> io::Result<Self> {
        let dir = Arc::new(Dir::open(path)?);
        if dir.open_to_others()? {
            tracing::warn!(dir = %path.display(), "others may write to the folder of the recording; chmod 0700 it");
        }
        dir.lock()?;
        let tail = repair::tail(&dir)?;
        dir.keep_reserve()?;
        let begun = Begun::new(&dir, &options, tail.number, tail.host, Some(&tail))?;
        Ok(Self {
            dir,
            options,
            file: Arc::new(begun.file),
            length: begun.length,
            number: begun.number,
            host: begun.host,
            trouble: None,
        })
    }

    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub fn dir(&self) -> Arc<Dir> {
        Arc::clone(&self.dir)
    }

    /// Writes the drafted records with one `write(2)`. On an error nothing of
    /// them stays. Says the position behind them.
    pub fn append(
        &mut self,
        sync: &Sync,
        records: &mut [u8],
        session: &mut Chain,
        kind: Kind,
    ) -> Result<u64, SessionError> {
        match self.heal(sync) {
            Ok(()) => {}
            // The room of the reserve is for this.
            Err(_) if kind == Kind::End && self.trouble.as_ref().is_some_and(|trouble| !trouble.lost) => {}
            Err(error) => return Err(error),
        }
        if self.trouble.is_none() && self.length >= self.options.segment_bytes {
            self.rotate(sync)?;
        }
        let (mut next, mut host) = (*session, self.host);
        record::seal(records, &mut next, &mut host, now_us());
        if let Err(error) = write(&self.file, self.length, records) {
            return Err(self.stop(error));
        }
        self.length += records.len() as u64;
        self.host = host;
        *session = next;
        sync.wrote(records.len() as u64)
    }

    /// After an error: a new segment, if it is time to try.
    pub fn heal(&mut self, sync: &Sync) -> Result<(), SessionError> {
        if let Some(cause) = sync.failure()
            && self.trouble.as_ref().is_none_or(|trouble| !trouble.lost)
        {
            self.trouble = Some(Trouble { cause, since: Instant::now(), wait: RETRY_FIRST, lost: true });
        }
        let Some(trouble) = &self.trouble else { return Ok(()) };
        if trouble.since.elapsed() < trouble.wait {
            return Err(SessionError::Unwritable { cause: trouble.cause.clone() });
        }
        self.rotate(sync)
    }

    /// Notes why nothing more is taken, with the room of the reserve if there
    /// is no other.
    fn stop(&mut self, (error, whole): (io::Error, bool)) -> SessionError {
        let cause = format!("{error} in {}", self.dir.path().display());
        let first = self.trouble.is_none();
        let wait = self.trouble.as_ref().map_or(RETRY_FIRST, |trouble| trouble.wait);
        self.trouble = Some(Trouble { cause: cause.clone(), since: Instant::now(), wait, lost: !whole });
        if first && whole && self.dir.spend_reserve().is_ok() {
            let payload = serde_json::json!({ "note": "recording-stopped", "cause": cause });
            let mut host = self.host;
            let noted = own(Kind::Note, self.number, &payload, &mut host)
                .and_then(|note| write(&self.file, self.length, &note).map_err(|(e, _)| e).map(|()| note));
            if let Ok(note) = noted {
                self.length += note.len() as u64;
                self.host = host;
            }
        }
        SessionError::Unwritable { cause }
    }

    fn rotate(&mut self, sync: &Sync) -> Result<(), SessionError> {
        match self.begin_segment() {
            Ok(()) => {
                self.trouble = None;
                sync.watch(self.file());
                Ok(())
            }
            Err((error, lost)) => {
                let cause = format!("{error} in {}", self.dir.path().display());
                let wait = self.trouble.as_ref().map_or(RETRY_FIRST, |trouble| trouble.wait * 2);
                let lost = lost || self.trouble.as_ref().is_some_and(|trouble| trouble.lost);
                let wait = wait.min(RETRY_MOST);
                self.trouble = Some(Trouble { cause: cause.clone(), since: Instant::now(), wait, lost });
                Err(SessionError::Unwritable { cause })
            }
        }
    }

    /// Says with the error whether the old segment is lost.
    fn begin_segment(&mut self) -> Result<(), (io::Error, bool)> {
        // The old segment is complete before the new one says that it follows it;
        // one whose fsync failed is not asked again, since it would say yes.
        if self.trouble.as_ref().is_none_or(|trouble| !trouble.lost) {
            self.file.sync_data().map_err(|error| (error, true))?;
        }
        let whole = |error| (error, false);
        self.dir.still_there().map_err(whole)?;
        self.dir.keep_reserve().map_err(whole)?;
        let begun = Begun::new(&self.dir, &self.options, self.number, self.host, None).map_err(whole)?;
        self.file = Arc::new(begun.file);
        self.length = begun.length;
        self.number = begun.number;
        self.host = begun.host;
        Ok(())
    }
}

/// A segment of which only the header stands.
struct Begun {
    file: File,
    number: u64,
    length: u64,
    host: Chain,
}

impl Begun {
    fn new(
        dir: &Dir,
        options: &RecordingOptions,
        last: u64,
        mut host: Chain,
        tail: Option<&Tail>,
    ) -> io::Result<Self> {
        let (name, file) = Self::file(dir, options, last + 1)?;
        let number = name.number;
        let torn = tail.map_or(0, |tail| tail.torn);
        let payload = serde_json::json!({
            "segment": number,
            "host_id": options.host_id,
            "boot_id": options.boot_id,
            "previous": blake3::Hash::from_bytes(host.previous).to_hex().as_str(),
            "torn_bytes": torn,
            // Whoever had sessions open before has no more of them.
            "begins": tail.is_some(),
            "writer": concat!("enforcer ", env!("CARGO_PKG_VERSION")),
        });
        let written = own(Kind::Segment, number, &payload, &mut host).and_then(|header| {
            write(&file, 0, &header).map_err(|(error, _)| error)?;
            file.sync_all()?;
            dir.sync()?;
            Ok(header.len() as u64)
        });
        match written {
            Ok(length) => Ok(Self { file, number, length, host }),
            Err(error) => {
                // An empty segment for every attempt on a full disk would help nobody.
                dir.remove(&name.file()).ok();
                Err(error)
            }
        }
    }

    /// A name that is taken is passed over: what stands there is for `verify` to judge.
    fn file(dir: &Dir, options: &RecordingOptions, first: u64) -> io::Result<(SegmentName, File)> {
        let mut number = first;
        loop {
            let name = SegmentName::new(number, &options.boot_id);
            match dir.create(&name.file()) {
                Ok(file) => return Ok((name, file)),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && number < first + u64::from(NAMES_TRIED) =>
                {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A record of the recording's own; its sequence is the segment's number.
fn own(kind: Kind, segment: u64, payload: &serde_json::Value, host: &mut Chain) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    record::draft(&mut bytes, SessionId::nobody(), kind, |out| serde_json::to_writer(out, payload))?;
    let mut session = Chain { previous: record::NOTHING, next: segment };
    record::seal(&mut bytes, &mut session, host, now_us());
    Ok(bytes)
}

/// Writes at the end. Part of a record may stand there after an error: away
/// with it, or the next one would not be found. Says with the error whether
/// that succeeded.
fn write(mut file: &File, length: u64, bytes: &[u8]) -> Result<(), (io::Error, bool)> {
    file.write_all(bytes).map_err(|error| {
        let back = file.set_len(length).and_then(|()| file.seek(SeekFrom::Start(length)));
        (error, back.is_ok())
    })
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
