//! Reading a recording back: list, show, verify. Segments are read record by
//! record, so that a recording may be larger than memory.

mod list;
pub(super) mod repair;
mod show;
mod statements;
mod text;
mod verify;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::dir::{Dir, SegmentName};
use super::record::{self, Broken, LENGTH, Record};

pub use list::{Filter, Summary, list, ls};
pub use show::{Entry, ShowError, entries, find, show};
pub use statements::{Request, Statement, statements};
pub use text::{timeline, visible, visible_json};
pub use verify::{Problem, Report, verify, verify_with};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// One segment, from its beginning.
struct Segment {
    reader: BufReader<File>,
    buffer: Vec<u8>,
    /// Where the next record begins.
    at: u64,
}

/// What stands next in a segment.
enum Next<'a> {
    Record(Record<'a>, u64),
    End,
    Broken(Broken),
}

impl Segment {
    fn open(dir: &Dir, name: &SegmentName) -> io::Result<Self> {
        let file = dir.file(&name.file(), false)?;
        Ok(Self { reader: BufReader::with_capacity(CHUNK, file), buffer: Vec::new(), at: 0 })
    }

    fn next(&mut self) -> io::Result<Next<'_>> {
        self.buffer.clear();
        if self.fill(LENGTH)? == 0 {
            return Ok(Next::End);
        }
        let Some(field) = self.buffer.first_chunk::<LENGTH>().copied() else {
            return Ok(Next::Broken(Broken::Torn));
        };
        let length = match record::length_of(field) {
            Ok(length) => length,
            // After a loss of power a file may end in zeros that nobody wrote.
            Err(_) if field == [0; LENGTH] && self.only_zeros()? => return Ok(Next::Broken(Broken::Torn)),
            Err(broken) => return Ok(Next::Broken(broken)),
        };
        if self.fill(length)? < length {
            return Ok(Next::Broken(Broken::Torn));
        }
        let at = self.at;
        match record::decode(&self.buffer) {
            Ok((record, length)) => {
                self.at += length as u64;
                Ok(Next::Record(record, at))
            }
            Err(broken) => Ok(Next::Broken(broken)),
        }
    }

    /// Reads up to `more` bytes, fewer only at the end of the file.
    fn fill(&mut self, more: usize) -> io::Result<usize> {
        (&mut self.reader).take(more as u64).read_to_end(&mut self.buffer)
    }

    fn only_zeros(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        loop {
            match self.reader.read(&mut chunk)? {
                0 => return Ok(true),
                read if chunk[..read].iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }

    /// Goes back to where the record that could not be read begins.
    fn again(&mut self) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(self.at)).map(drop)
    }

    fn file_length(&self) -> io::Result<u64> {
        Ok(self.reader.get_ref().metadata()?.len())
    }
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Flow {
    More,
    Enough,
}

/// Every record that can be read, in order, unverified.
fn each(dir: &Path, mut visit: impl FnMut(&Record<'_>) -> Flow) -> io::Result<()> {
    let dir = Dir::open(dir)?;
    for name in dir.segments()? {
        let mut segment = Segment::open(&dir, &name)?;
        while let Next::Record(record, _) = segment.next()? {
            if visit(&record) == Flow::Enough {
                return Ok(());
            }
        }
    }
    Ok(())
}
