//! Archives and compressed files: what they are known by, and a bounded look at everything
//! in them. Nothing is written, and no name in an archive is followed.
//!
//! ```text
//!  bytes --container--> gzip, zstd, zlib --decoded--+
//!            |                                      +--> seen, and looked into again
//!            +--------> zip, tar ---------members---+
//!            +--------> anything else that is packed: unreadable
//! ```
//!
//! **Invariant**: every byte is seen by the caller, as it stands and as everything that reads
//! such an archive would see it. What leaves a choice (a gap, a name for another place, two
//! lengths that differ) is unreadable.

mod tar;
#[cfg(test)]
mod tests;
mod zip;

use bytes::Bytes;

use super::http::coding::{Coding, CodingError, Decoder, PIECE_BYTES};

/// Archives in one upload, itself included, a number.
pub const ARCHIVES_MAX: usize = 64;
/// Archives in archives, a number: a tar in gzip is two.
pub const DEPTH_MAX: usize = 4;
/// Bytes that all of them may unpack to.
pub const UNPACKED_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of the upload itself.
pub const PACKED_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that tell a kind.
pub const BEGIN_BYTES: usize = 512;

/// Something that other things are packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// One compressed file.
    Coded(Coding),
    /// Files, compressed or not.
    Zip,
    /// Files, as they are.
    Tar,
    /// Known, and not read here.
    Other(&'static str),
}

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// This begins.
    Is(Container),
    /// Nothing that is known here.
    Nothing,
    /// More bytes are needed.
    More,
}

/// Why an archive is not let through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// A cap was reached.
    #[error("the archive is beyond a limit: {0}")]
    Limit(&'static str),
    /// It cannot be looked into to its end.
    #[error("the archive cannot be read: {0}")]
    Unreadable(&'static str),
    /// Who reads a multipart body may find other parts in it than we do.
    #[error("the parts of a multipart body can be told apart in more than one way")]
    Ambiguous,
}

/// The bytes that a file of a kind begins with.
const MAGIC: &[(&[u8], Container)] = &[
    (b"\x1f\x8b\x08", Container::Coded(Coding::Gzip)),
    (b"\x28\xb5\x2f\xfd", Container::Coded(Coding::Zstd)),
    (b"\x78\x01", Container::Coded(Coding::Deflate)),
    (b"\x78\x9c", Container::Coded(Coding::Deflate)),
    (b"\x78\xda", Container::Coded(Coding::Deflate)),
    (b"PK\x03\x04", Container::Zip),
    (b"PK\x05\x06", Container::Zip),
    (b"PK\x07\x08", Container::Other("a zip in volumes")),
    (b"BZh", Container::Other("bzip2")),
    (b"\xfd7zXZ\0", Container::Other("xz")),
    (b"7z\xbc\xaf\x27\x1c", Container::Other("7z")),
    (b"Rar!\x1a\x07", Container::Other("rar")),
    (b"\x04\x22\x4d\x18", Container::Other("lz4")),
    (b"LZIP\x01", Container::Other("lzip")),
    (b"\x1f\x9d", Container::Other("compress")),
    (b"\x1f\xa0", Container::Other("compress")),
    (b"MSCF\0\0\0\0", Container::Other("cab")),
];
/// A frame of zstd that decoders skip: sixteen magic numbers that end like this.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// What follows `BZh` and the digit of the block size.
const BZIP2_BLOCK: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];

/// What begins with these bytes; `last` if there are no more.
pub fn begin(bytes: &[u8], last: bool) -> Begin {
    let more = |known: bool| if known && !last { Begin::More } else { Begin::Nothing };
    let mut undecided = bytes.is_empty();
    for (magic, container) in MAGIC {
        let common = magic.len().min(bytes.len());
        if magic[..common] != bytes[..common] {
            continue;
        }
        if common < magic.len() {
            undecided = true;
        } else if *magic == b"BZh" {
            // Letters, so that a text may begin like this.
            let rest = &bytes[common..];
            let level = rest.first().is_none_or(|b| (b'1'..=b'9').contains(b));
            let block = rest.iter().skip(1).zip(BZIP2_BLOCK).all(|(b, expected)| *b == expected);
            match (level && block, rest.len() > BZIP2_BLOCK.len()) {
                (true, true) => return Begin::Is(*container),
                (true, false) => undecided = true,
                (false, _) => {}
            }
        } else {
            return Begin::Is(*container);
        }
    }
    if let Some((first, rest)) = bytes.split_first()
        && (0x50..=0x5f).contains(first)
    {
        let common = rest.len().min(SKIPPABLE.len());
        match rest[..common] == SKIPPABLE[..common] {
            true if common == SKIPPABLE.len() => return Begin::Is(Container::Coded(Coding::Zstd)),
            true => undecided = true,
            false => {}
        }
    }
    match tar::begins(bytes) {
        Begin::More => more(true),
        Begin::Nothing => more(undecided),
        found @ Begin::Is(_) => found,
    }
}

/// Shows everything in these bytes: them, and what is unpacked of them.
pub fn unpack(bytes: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<(), ArchiveError> {
    see(bytes);
    Unpack { see, archives: 0, left: UNPACKED_MAX_BYTES }.open(bytes, 0)
}

/// Undoes content codings, within what may be unpacked.
pub fn decoded(codings: &[Coding], bytes: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    decode(codings, bytes, UNPACKED_MAX_BYTES)
}

fn decode(codings: &[Coding], bytes: &[u8], most: usize) -> Result<Vec<u8>, ArchiveError> {
    let mut decoded = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut decoder = Decoder::new(codings, limit).map_err(reason)?;
    let mut chunks = bytes.chunks(PIECE_BYTES);
    loop {
        let chunk = chunks.next();
        match chunk {
            Some(chunk) => decoder.push(Bytes::copy_from_slice(chunk)),
            None => decoder.finish(),
        }
        while let Some(piece) = decoder.next().map_err(reason)? {
            decoded.extend_from_slice(&piece);
        }
        if chunk.is_none() {
            return Ok(decoded);
        }
    }
}

struct Unpack<'a> {
    see: &'a mut dyn FnMut(&[u8]),
    archives: usize,
    /// Bytes that may still be unpacked.
    left: usize,
}

impl Unpack<'_> {
    /// Looks into bytes that were seen.
    fn open(&mut self, bytes: &[u8], depth: usize) -> Result<(), ArchiveError> {
        let Begin::Is(container) = begin(bytes, true) else { return Ok(()) };
        self.archives += 1;
        if self.archives > ARCHIVES_MAX {
            return Err(ArchiveError::Limit("64 archives in one"));
        }
        if depth == DEPTH_MAX {
            return Err(ArchiveError::Limit("four archives in one another"));
        }
        match container {
            Container::Coded(coding) => match self.decode(coding, bytes) {
                Ok(decoded) => self.open(&decoded, depth + 1),
                // Two bytes can begin like zlib by chance.
                Err(ArchiveError::Unreadable(_)) if coding == Coding::Deflate => Ok(()),
                Err(error) => Err(error),
            },
            Container::Zip => self.zip(bytes, depth),
            Container::Tar => self.tar(bytes, depth),
            Container::Other(name) => Err(ArchiveError::Unreadable(name)),
        }
    }

    /// Unpacks, within what is left, and shows it.
    fn decode(&mut self, coding: Coding, bytes: &[u8]) -> Result<Vec<u8>, ArchiveError> {
        let decoded = decode(&[coding], bytes, self.left)?;
        self.unpacked(&decoded)?;
        Ok(decoded)
    }

    /// Counts what was unpacked, and shows it.
    fn unpacked(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(TOO_LARGE)?;
        (self.see)(bytes);
        Ok(())
    }
}

const TOO_LARGE: ArchiveError = ArchiveError::Limit("8 MiB unpacked");

fn reason(error: CodingError) -> ArchiveError {
    match error {
        CodingError::TooLarge { .. } => TOO_LARGE,
        CodingError::Truncated { .. } => ArchiveError::Unreadable("it ends too early"),
        CodingError::Trailing { .. } => ArchiveError::Unreadable("something follows its end"),
        _ => ArchiveError::Unreadable("it is damaged"),
    }
}

/// A number that stands at an offset, the lowest byte first.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk::<N>()?;
    let value = field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}
