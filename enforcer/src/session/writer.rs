//! The segment that is written now.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::record::{self, HASH, HEAD, Hash, Kind, MAX_RECORD, SessionId};
use super::sync::Sync;
use super::{RecordingOptions, SessionError, read};

/// How often a recording that cannot be written tries to begin a new segment.
const RETRY: Duration = Duration::from_millis(500);

pub struct Writer {
    dir: OwnedFd,
    path: PathBuf,
    options: RecordingOptions,
    file: Arc<File>,
    length: u64,
    number: u64,
    /// The hash of the last record, of whatever session.
    host: Hash,
    /// Why nothing can be written, and when that was last tried.
    broken: Option<(String, Instant)>,
    /// An fsync of the current segment failed.
    lost: bool,
    buffer: Vec<u8>,
}

impl Writer {
    pub fn open(path: &Path, options: RecordingOptions) -> Result<Self, SessionError> {
        let error = |cause: &dyn std::fmt::Display| SessionError::Open {
            dir: path.to_path_buf(),
            cause: cause.to_string(),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| error(&e))?;
        let tail = read::repair_tail(path).map_err(|e| error(&e))?;
        let number = tail.number + 1;
        let file = create(&dir, number).map_err(|e| error(&e))?;
        let mut writer = Self {
            dir,
            path: path.to_path_buf(),
            options,
            file: Arc::new(file),
            length: 0,
            number,
            host: tail.hash,
            broken: None,
            lost: false,
            buffer: Vec::with_capacity(4096),
        };
        writer.header(tail.torn).map_err(|e| error(&e))?;
        Ok(writer)
    }

    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Writes one record with one `write(2)`. On an error nothing of it stays.
    pub fn append(
        &mut self,
        sync: &Sync,
        session: SessionId,
        sequence: u64,
        kind: Kind,
        previous: &Hash,
        payload: &[u8],
    ) -> Result<(Hash, u64), SessionError> {
        let length = HEAD + payload.len() + HASH;
        if length > MAX_RECORD {
            return Err(SessionError::TooLong { length });
        }
        self.heal(sync)?;
        if self.length >= self.options.segment_bytes {
            self.rotate(sync)?;
        }
        self.buffer.clear();
        let hash = record::encode(&mut self.buffer, session, sequence, kind, (previous, &self.host), payload);
        if let Err(cause) = self.write() {
            let cause = cause.to_string();
            self.broken = Some((cause.clone(), Instant::now()));
            return Err(SessionError::Unwritable { cause });
        }
        self.host = hash;
        Ok((hash, sync.wrote(self.buffer.len() as u64)))
    }

    /// After an error: a new segment, tried at most every `RETRY`.
    pub fn heal(&mut self, sync: &Sync) -> Result<(), SessionError> {
        if let Some(cause) = sync.take_failure() {
            self.broken = Some((cause, Instant::now()));
            self.lost = true;
        }
        let Some((cause, since)) = &self.broken else { return Ok(()) };
        if since.elapsed() < RETRY {
            return Err(SessionError::Unwritable { cause: cause.clone() });
        }
        self.rotate(sync)
    }

    fn rotate(&mut self, sync: &Sync) -> Result<(), SessionError> {
        let made = self.begin_segment();
        match made {
            Ok(()) => {
                self.broken = None;
                sync.watch(self.file());
                Ok(())
            }
            Err(cause) => {
                let cause = format!("{cause} in {}", self.path.display());
                self.broken = Some((cause.clone(), Instant::now()));
                Err(SessionError::Unwritable { cause })
            }
        }
    }

    fn begin_segment(&mut self) -> std::io::Result<()> {
        // The old segment is complete before the new one says that it follows it;
        // one whose fsync failed is not asked again, since it would say yes.
        if !self.lost {
            self.file.sync_data()?;
        }
        let file = create(&self.dir, self.number + 1)?;
        self.number += 1;
        self.file = Arc::new(file);
        self.lost = false;
        self.length = 0;
        self.header(0)
    }

    /// The first record of a segment: who wrote it, and after what.
    fn header(&mut self, torn: u64) -> std::io::Result<()> {
        let payload = serde_json::json!({
            "segment": self.number,
            "host_id": self.options.host_id,
            "boot_id": self.options.boot_id,
            "torn_bytes": torn,
        });
        let payload = serde_json::to_vec(&payload)?;
        self.buffer.clear();
        let zero = [0; HASH];
        let hash = record::encode(
            &mut self.buffer,
            SessionId::nobody(),
            self.number,
            Kind::Segment,
            (&zero, &self.host),
            &payload,
        );
        self.write()?;
        self.host = hash;
        Ok(())
    }

    fn write(&mut self) -> std::io::Result<()> {
        let mut file = &*self.file;
        match file.write_all(&self.buffer) {
            Ok(()) => {
                self.length += self.buffer.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Part of a record may stand at the end: away with it, or the next
                // one would not be found.
                file.set_len(self.length)?;
                file.seek(SeekFrom::Start(self.length))?;
                Err(error)
            }
        }
    }
}

fn create(dir: &OwnedFd, number: u64) -> rustix::io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDWR;
    let file = rustix::fs::openat(dir, read::segment_name(number), flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::fsync(dir)?;
    Ok(File::from(file))
}
