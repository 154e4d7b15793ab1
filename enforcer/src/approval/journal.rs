//! The journal: one line an event, each hashed together with the hash before it.
//!
//! ```text
//! line = BLAKE3(hash of the line before | JSON) in hexadecimal digits, a space, JSON, a line feed
//! ```
//! The first line says what the file is. A last line without its line feed is what a
//! crash leaves; it was acknowledged to nobody and is cut off. Anything else that does
//! not fit is damage, and the journal does not open: a grant that was used must not
//! come back because its end could not be read. When it has grown large, and after it
//! could not be written, the journal is written anew beside the old one, which it then
//! replaces. That somebody cut whole lines off the end cannot be seen here: the folder
//! belongs to the proxy's user alone.
//!
//! A database would do the same with more code: there is one writer, all of it fits in
//! memory, and it is read at the start only.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::Stamped;
use crate::session::dir::Dir;

/// The journal's file in its folder.
pub const JOURNAL_NAME: &str = "approvals.journal";
const NEW_NAME: &str = "approvals.journal.new";
/// The longest line, in bytes.
pub const MAX_LINE: usize = 512 << 10;
/// The largest journal that is read, in bytes.
pub const MAX_JOURNAL: u64 = 512 << 20;
/// A journal of this many bytes is written anew, if that makes it half as long.
pub const REWRITE_BYTES: u64 = 16 << 20;
/// Bytes of a hash in hexadecimal digits.
const HASH: usize = 64;

/// Why the journal does not open, or does not take an event. What was to be written has
/// not happened then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the approvals cannot be opened in {}: {cause}; check that the folder exists, is no link, and belongs to the proxy's user", dir.display())]
    Open { dir: PathBuf, cause: String },
    #[error(
        "line {line} of {} is damaged: {what}; nothing is approved until the file is mended, or moved away, which ends all approvals and grants", path.display()
    )]
    Damaged { path: PathBuf, line: usize, what: &'static str },
    #[error(
        "the approvals cannot be written: {cause}; free space in their folder or mend it, it goes on by itself"
    )]
    Unwritable { cause: String },
    #[error("an event of {length} bytes is longer than the {MAX_LINE} that a line takes")]
    TooLong { length: usize },
}

/// Where events are kept.
pub trait Log {
    /// Takes all of the events or none. With `durable` they are on disk when it returns.
    fn append(&mut self, events: &[Stamped], durable: bool) -> Result<(), JournalError>;

    /// Whether it should be written anew, or even has to be.
    fn rewrite_due(&self) -> Option<Rewrite>;

    /// Puts these events in place of all.
    fn rewrite(&mut self, events: &[Stamped]) -> Result<(), JournalError>;
}

/// Why a log is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// It has grown; it can still be written to.
    Large,
    /// It could not be written, and takes nothing more.
    Lost,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Head {
    journal: String,
    version: u32,
}

impl Head {
    fn ours() -> Self {
        Self { journal: "approvals".to_owned(), version: 1 }
    }
}

/// The journal in its file.
#[derive(Debug)]
pub struct Journal {
    dir: Dir,
    file: File,
    length: u64,
    hash: blake3::Hash,
    /// Its length when it was opened or written anew.
    begun: u64,
    lost: Option<String>,
}

impl Journal {
    /// Opens the journal, or begins one, and says what stands in it.
    pub fn open(path: &Path) -> Result<(Self, Vec<Stamped>), JournalError> {
        let error =
            |cause: io::Error| JournalError::Open { dir: path.to_path_buf(), cause: cause.to_string() };
        let dir = Dir::open(path).map_err(error)?;
        if dir.open_to_others().map_err(error)? {
            tracing::warn!(dir = %path.display(), "others may write to the folder of the approvals; chmod 0700 it");
        }
        dir.lock().map_err(error)?;
        let file = match dir.file(JOURNAL_NAME, true) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                dir.create(JOURNAL_NAME).map_err(error)?
            }
            Err(cause) => return Err(error(cause)),
        };
        let bytes = whole(&file).map_err(error)?;
        let damaged = |(line, what)| JournalError::Damaged { path: path.join(JOURNAL_NAME), line, what };
        let read = read(&bytes).map_err(damaged)?;
        let mut journal =
            Self { dir, file, length: read.length as u64, hash: read.hash, begun: 0, lost: None };
        journal.settle().map_err(error)?;
        journal.begun = journal.length;
        Ok((journal, read.events))
    }

    /// Cuts off what a crash left, and begins an empty file.
    fn settle(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        if self.length == 0 {
            let (bytes, hash) = first_line()?;
            self.file.write_all_at(&bytes, 0)?;
            (self.length, self.hash) = (bytes.len() as u64, hash);
        }
        self.file.sync_all()?;
        self.dir.sync()
    }

    /// On disk, in the file that the next start will read.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::other("the journal has been removed"));
        }
        self.dir.still_there()
    }

    fn lose(&mut self, cause: &io::Error) -> JournalError {
        let cause = format!("{cause} in {}", self.dir.path().display());
        self.lost = Some(cause.clone());
        JournalError::Unwritable { cause }
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<File> {
        match self.dir.remove(NEW_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.dir.create(NEW_NAME)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        self.dir.rename(NEW_NAME, JOURNAL_NAME)?;
        Ok(file)
    }
}

impl Log for Journal {
    fn append(&mut self, events: &[Stamped], durable: bool) -> Result<(), JournalError> {
        if let Some(cause) = &self.lost {
            return Err(JournalError::Unwritable { cause: cause.clone() });
        }
        let (mut bytes, mut hash) = (Vec::new(), self.hash);
        for event in events {
            line(&mut bytes, &mut hash, event)?;
        }
        if let Err(error) = self.file.write_all_at(&bytes, self.length) {
            return match self.file.set_len(self.length) {
                // Half a line is gone again: the next attempt may have room.
                Ok(()) => Err(JournalError::Unwritable { cause: error.to_string() }),
                Err(_) => Err(self.lose(&error)),
            };
        }
        // After a failed fsync the kernel has dropped the pages: a second one would call
        // them written.
        if durable && let Err(error) = self.sync() {
            return Err(self.lose(&error));
        }
        self.length += bytes.len() as u64;
        self.hash = hash;
        Ok(())
    }

    fn rewrite_due(&self) -> Option<Rewrite> {
        if self.lost.is_some() {
            return Some(Rewrite::Lost);
        }
        (self.length >= REWRITE_BYTES && self.length / 2 >= self.begun).then_some(Rewrite::Large)
    }

    fn rewrite(&mut self, events: &[Stamped]) -> Result<(), JournalError> {
        let unwritable = |error: io::Error| JournalError::Unwritable { cause: error.to_string() };
        let (mut bytes, mut hash) = first_line().map_err(unwritable)?;
        for event in events {
            line(&mut bytes, &mut hash, event)?;
        }
        self.file = self.replace(&bytes).map_err(unwritable)?;
        self.length = bytes.len() as u64;
        (self.hash, self.begun, self.lost) = (hash, self.length, None);
        // The old one could come back, without what is written from now on.
        self.dir.sync().map_err(|error| self.lose(&error))
    }
}

fn whole(file: &File) -> io::Result<Vec<u8>> {
    if file.metadata()?.len() > MAX_JOURNAL {
        return Err(io::Error::other(format!("{JOURNAL_NAME} has more than {MAX_JOURNAL} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_JOURNAL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn first_line() -> io::Result<(Vec<u8>, blake3::Hash)> {
    let (mut bytes, mut hash) = (Vec::new(), beginning());
    line(&mut bytes, &mut hash, &Head::ours()).map_err(io::Error::other)?;
    Ok((bytes, hash))
}

fn beginning() -> blake3::Hash {
    blake3::hash(b"enforcer approvals journal")
}

fn line<T: Serialize>(out: &mut Vec<u8>, hash: &mut blake3::Hash, value: &T) -> Result<(), JournalError> {
    let json =
        serde_json::to_vec(value).map_err(|error| JournalError::Unwritable { cause: error.to_string() })?;
    let length = HASH + 1 + json.len() + 1;
    if length > MAX_LINE {
        return Err(JournalError::TooLong { length });
    }
    *hash = follow(hash, &json);
    out.extend_from_slice(hash.to_hex().as_bytes());
    out.push(b' ');
    out.extend_from_slice(&json);
    out.push(b'\n');
    Ok(())
}

fn follow(before: &blake3::Hash, json: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(json);
    hasher.finalize()
}

/// What stands in a journal, up to the last whole line.
#[derive(Debug)]
pub(super) struct Content {
    pub events: Vec<Stamped>,
    length: usize,
    hash: blake3::Hash,
}

/// Reads all whole lines, or says which one is damaged.
pub(super) fn read(bytes: &[u8]) -> Result<Content, (usize, &'static str)> {
    let mut read = Content { events: Vec::new(), length: 0, hash: beginning() };
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = number + 1;
        let damaged = |what| (number, what);
        let Some(whole) = line.strip_suffix(b"\n") else { break };
        if line.len() > MAX_LINE {
            return Err(damaged("it is longer than a line can be"));
        }
        let (said, json) = whole.split_at_checked(HASH).ok_or(damaged("it is too short"))?;
        let json = json.strip_prefix(b" ").ok_or(damaged("it does not begin with a hash"))?;
        read.hash = follow(&read.hash, json);
        if read.hash.to_hex().as_bytes() != said {
            return Err(damaged("its hash does not follow from the line before"));
        }
        if number == 1 {
            let head: Head = serde_json::from_slice(json).map_err(|_| damaged("it is no journal's first"))?;
            if head != Head::ours() {
                return Err(damaged("it is of another kind or version"));
            }
        } else {
            let event = serde_json::from_slice(json).map_err(|_| damaged("its event is not known"))?;
            read.events.push(event);
        }
        read.length += line.len();
    }
    Ok(read)
}
