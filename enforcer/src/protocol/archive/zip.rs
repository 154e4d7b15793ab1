//! Zip: files one after the other, and a directory that names them behind them all.

use flate2::{Decompress, FlushDecompress, Status};

use super::super::http::coding::Coding;
use super::{ArchiveError, TOO_LARGE, Unpack, number};

const LOCAL: &[u8] = b"PK\x03\x04";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
const ENTRY: &[u8] = b"PK\x01\x02";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const END: &[u8] = b"PK\x05\x06";
/// A length that stands in the extra field.
const IN_EXTRA: usize = 0xffff_ffff;
/// Encrypted; patched; encrypted in another way; its header hidden.
const UNREADABLE_FLAGS: usize = 0x0001 | 0x0020 | 0x0040 | 0x2000;
/// The lengths stand behind the file.
const STREAMED: usize = 0x0008;
const STORED: usize = 0;
const DEFLATED: usize = 8;
const ZSTD: usize = 93;
/// How much is decompressed at a time.
const PIECE: usize = 32 * 1024;

const CUT: ArchiveError = ArchiveError::Unreadable("the zip ends too early");
const DAMAGED: ArchiveError = ArchiveError::Unreadable("the zip is damaged, or leaves gaps");

impl Unpack<'_> {
    pub(super) fn zip(&mut self, bytes: &[u8], depth: usize) -> Result<(), ArchiveError> {
        let mut files = Vec::new();
        let mut at = 0;
        while bytes[at..].starts_with(LOCAL) {
            files.push(at);
            at = self.file(bytes, at, depth)?;
        }
        directory(bytes, at, &files)
    }

    /// One file; says where the next begins.
    fn file(&mut self, bytes: &[u8], at: usize, depth: usize) -> Result<usize, ArchiveError> {
        let field = |offset| number::<2>(bytes, at + offset).ok_or(CUT);
        let (flags, method) = (field(6)?, field(8)?);
        if flags & UNREADABLE_FLAGS != 0 {
            return Err(ArchiveError::Unreadable("a file in the zip is encrypted"));
        }
        let (name, extra) = (field(26)?, field(28)?);
        let data = at + 30 + name + extra;
        let extra = bytes.get(data - extra..data).ok_or(CUT)?;
        let mut packed = number::<4>(bytes, at + 18).ok_or(CUT)?;
        if packed == IN_EXTRA {
            packed = length_64(extra).ok_or(DAMAGED)?;
        }
        let streamed = flags & STREAMED != 0;
        let rest = &bytes[data..];
        let content = if streamed && packed == 0 { None } else { Some(rest.get(..packed).ok_or(CUT)?) };
        let taken = match (method, content) {
            (STORED, Some(content)) => {
                self.open(content, depth + 1)?;
                packed
            }
            (DEFLATED, content) => self.inflate(content.unwrap_or(rest), depth)?,
            (ZSTD, Some(content)) => {
                let decoded = self.decode(Coding::Zstd, content)?;
                self.open(&decoded, depth + 1)?;
                packed
            }
            (STORED | ZSTD, None) => {
                return Err(ArchiveError::Unreadable("a file in the zip has no length before it"));
            }
            _ => return Err(ArchiveError::Unreadable("a file in the zip is packed in a way not known here")),
        };
        if content.is_some_and(|content| content.len() != taken) {
            return Err(DAMAGED);
        }
        let end = data + taken;
        if !streamed {
            return Ok(end);
        }
        // Lengths of four bytes or of eight, with a mark before them or without.
        let next = |len: &usize| {
            let behind = bytes.get(end + len..).unwrap_or_default();
            behind.starts_with(LOCAL) || behind.starts_with(ENTRY)
        };
        let marked = bytes[end..].starts_with(DESCRIPTOR);
        let lengths = if marked { [16, 24] } else { [12, 20] };
        lengths.iter().find(|len| next(len)).map(|len| end + len).ok_or(DAMAGED)
    }

    /// Unpacks a file that says itself where it ends, and looks into it.
    fn inflate(&mut self, packed: &[u8], depth: usize) -> Result<usize, ArchiveError> {
        let mut decoder = Decompress::new(false);
        let mut out = Vec::new();
        loop {
            let taken = usize::try_from(decoder.total_in()).unwrap_or(usize::MAX);
            out.reserve(PIECE);
            let before = (decoder.total_in(), decoder.total_out());
            let input = packed.get(taken..).unwrap_or_default();
            let status = decoder.decompress_vec(input, &mut out, FlushDecompress::None);
            if out.len() > self.left {
                return Err(TOO_LARGE);
            }
            match status {
                Ok(Status::StreamEnd) => break,
                Ok(_) if before == (decoder.total_in(), decoder.total_out()) => return Err(CUT),
                Ok(_) => {}
                Err(_) => return Err(DAMAGED),
            }
        }
        self.unpacked(&out)?;
        self.open(&out, depth + 1)?;
        usize::try_from(decoder.total_in()).map_err(|_| DAMAGED)
    }
}

/// The packed length in the extra field of a large file, where it is the second number.
fn length_64(mut extra: &[u8]) -> Option<usize> {
    loop {
        let (id, len) = (number::<2>(extra, 0)?, number::<2>(extra, 2)?);
        if id == 1 && len >= 16 {
            return number::<8>(extra, 12);
        }
        extra = extra.get(4 + len..)?;
    }
}

/// Checks that the directory names the files that were seen, and no other place, and that
/// nothing else stands in the zip.
fn directory(bytes: &[u8], from: usize, files: &[usize]) -> Result<(), ArchiveError> {
    let mut at = from;
    while bytes[at..].starts_with(ENTRY) {
        let field = |offset| number::<2>(bytes, at + offset).ok_or(CUT);
        let file = number::<4>(bytes, at + 42).ok_or(CUT)?;
        files.binary_search(&file).map_err(|_| DAMAGED)?;
        at += 46 + field(28)? + field(30)? + field(32)?;
        if at > bytes.len() {
            return Err(CUT);
        }
    }
    if bytes[at..].starts_with(END_64) {
        at += 12 + number::<8>(bytes, at + 4).ok_or(CUT)?;
        let locator = bytes.get(at..).unwrap_or_default();
        if !locator.starts_with(LOCATOR_64) || locator.len() < 20 {
            return Err(DAMAGED);
        }
        at += 20;
    }
    let end = &bytes[at..];
    if !end.starts_with(END) {
        return Err(if end.is_empty() { CUT } else { DAMAGED });
    }
    let comment = number::<2>(end, 20).ok_or(CUT)?;
    // Where the directory begins is said there; a reader believes it.
    let said = number::<4>(end, 16).ok_or(CUT)?;
    match end.len() == 22 + comment && (said == from || said == IN_EXTRA) {
        true => Ok(()),
        false => Err(DAMAGED),
    }
}
