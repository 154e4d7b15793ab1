//! Where in a body an archive can begin: at its first byte, and in a multipart body at the
//! first byte of each part. Content types are not believed.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use memchr::memmem;

use super::super::archive::{self, ArchiveError, BEGIN_BYTES, Begin, PACKED_MAX_BYTES};
use super::coding::{Coding, Decoder};

/// Bytes of a part's head.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a boundary (RFC 2046 allows 70).
const BOUNDARY_MAX_BYTES: usize = 256;

/// Cuts a body into what can go on and what has to be looked into first.
pub struct Sniffer {
    codings: Vec<Coding>,
    /// What ends a part of a multipart body.
    delimiter: Option<Vec<u8>>,
    state: State,
    waiting: BytesMut,
    /// So much of `waiting` holds no delimiter.
    searched: usize,
    ended: bool,
}

/// What is known of the bytes that come next.
enum State {
    /// The head of a part.
    Head,
    /// Content begins here.
    Begin(Option<Box<Decoder>>, Vec<u8>),
    /// Content that is no archive.
    Plain,
    /// Content that is one.
    Archive,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// It can go on.
    Plain(Bytes),
    /// An archive, or what is coded like one: `unpack` says whether it can go on.
    Archive(Bytes),
}

impl Sniffer {
    /// For a body with these codings and fields.
    pub fn new(codings: &[Coding], headers: &HeaderMap) -> Self {
        let delimiter = if codings.is_empty() { boundary(headers) } else { None };
        let mut sniffer = Self {
            codings: codings.to_vec(),
            state: State::Head,
            delimiter,
            waiting: BytesMut::new(),
            searched: 0,
            ended: false,
        };
        if sniffer.delimiter.is_none() {
            sniffer.begin();
        }
        sniffer
    }

    /// Whether everything that follows is plain, so that it need not be pushed.
    pub fn passes(&self) -> bool {
        matches!(self.state, State::Plain) && self.delimiter.is_none() && self.waiting.is_empty()
    }

    /// Takes a chunk; [`Sniffer::next`] then gives what can be given.
    pub fn push(&mut self, chunk: Bytes) {
        self.waiting.extend_from_slice(&chunk);
        if let State::Begin(Some(decoder), begin) = &mut self.state {
            decoder.push(chunk);
            decode_begin(decoder, begin);
        }
    }

    /// Nothing follows.
    pub fn finish(&mut self) {
        self.ended = true;
        if let State::Begin(Some(decoder), begin) = &mut self.state {
            decoder.finish();
            decode_begin(decoder, begin);
        }
    }

    /// Whether what is held is an archive, so that room is needed for it.
    pub fn holds(&self) -> bool {
        matches!(self.state, State::Archive)
    }

    /// The next piece; none if more bytes are needed, or nothing is left.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at the first none")]
    pub fn next(&mut self) -> Result<Option<Piece>, ArchiveError> {
        loop {
            let known = match &self.state {
                State::Head => {
                    let Some(end) = self.head()? else { return Ok(None) };
                    let head = self.take(end);
                    self.begin();
                    return Ok(Some(Piece::Plain(head)));
                }
                State::Begin(decoder, begin) => {
                    let end = self.end();
                    let (bytes, last) = match decoder {
                        Some(_) => (begin.as_slice(), self.ended),
                        None => {
                            let end = end.unwrap_or(self.waiting.len());
                            (&self.waiting[..end], self.ended || end < self.waiting.len())
                        }
                    };
                    archive::begin(bytes, last || bytes.len() >= BEGIN_BYTES)
                }
                State::Plain => return Ok(self.plain()),
                State::Archive => return self.archive(),
            };
            self.state = match known {
                Begin::More => return Ok(None),
                Begin::Nothing => State::Plain,
                Begin::Is(_) => State::Archive,
            };
        }
    }

    /// Shows everything in an archive.
    pub fn unpack(
        codings: &[Coding],
        archive: &Bytes,
        see: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ArchiveError> {
        if codings.is_empty() {
            return archive::unpack(archive, see);
        }
        archive::unpack(&archive::decoded(codings, archive)?, see)
    }

    /// The codings of the whole body.
    pub fn codings(&self) -> &[Coding] {
        &self.codings
    }

    fn begin(&mut self) {
        let decoder = Decoder::new(&self.codings, archive::UNPACKED_MAX_BYTES as u64);
        let decoder = decoder.ok().filter(|_| !self.codings.is_empty()).map(Box::new);
        self.state = State::Begin(decoder, Vec::new());
        self.searched = 0;
    }

    /// Where the head of the part ends that comes next.
    fn head(&self) -> Result<Option<usize>, ArchiveError> {
        match memmem::find(&self.waiting, b"\r\n\r\n") {
            Some(at) => Ok(Some(at + 4)),
            None if self.ended => Ok((!self.waiting.is_empty()).then_some(self.waiting.len())),
            None if self.waiting.len() > HEAD_MAX_BYTES => {
                Err(ArchiveError::Limit("16 KiB before a part of a multipart body"))
            }
            None => Ok(None),
        }
    }

    /// Where the content ends, if that is in what waits.
    fn end(&self) -> Option<usize> {
        let delimiter = self.delimiter.as_ref()?;
        let from = self.searched.min(self.waiting.len());
        memmem::find(&self.waiting[from..], delimiter).map(|at| from + at)
    }

    fn plain(&mut self) -> Option<Piece> {
        let delimiter = self.delimiter.as_ref().map_or(0, Vec::len);
        let end = match self.end() {
            Some(at) => {
                self.state = State::Head;
                at + delimiter
            }
            None if self.ended => self.waiting.len(),
            // A delimiter may have begun.
            None => self.waiting.len() - self.begun(),
        };
        (end > 0).then(|| Piece::Plain(self.take(end)))
    }

    /// How many bytes at the end of what waits can be the beginning of a delimiter.
    fn begun(&self) -> usize {
        let Some(delimiter) = &self.delimiter else { return 0 };
        let most = self.waiting.len().min(delimiter.len() - 1);
        (1..=most).rev().find(|len| self.waiting.ends_with(&delimiter[..*len])).unwrap_or(0)
    }

    fn archive(&mut self) -> Result<Option<Piece>, ArchiveError> {
        let end = match self.end() {
            Some(at) => Some(at),
            None => self.ended.then_some(self.waiting.len()),
        };
        if end.unwrap_or(self.waiting.len()) > PACKED_MAX_BYTES {
            return Err(ArchiveError::Limit("8 MiB packed"));
        }
        self.searched = self.waiting.len().saturating_sub(self.delimiter.as_ref().map_or(0, Vec::len));
        let Some(end) = end else { return Ok(None) };
        self.state = State::Plain;
        Ok(Some(Piece::Archive(self.take(end))))
    }

    fn take(&mut self, end: usize) -> Bytes {
        self.searched = 0;
        self.waiting.split_to(end).freeze()
    }
}

/// Decodes until the beginning is known; what cannot be decoded does not pass later.
fn decode_begin(decoder: &mut Decoder, begin: &mut Vec<u8>) {
    while begin.len() < BEGIN_BYTES
        && let Ok(Some(piece)) = decoder.next()
    {
        begin.extend_from_slice(&piece[..piece.len().min(BEGIN_BYTES)]);
    }
}

/// What stands before each part of a multipart body but the first.
fn boundary(headers: &HeaderMap) -> Option<Vec<u8>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (name, parameters) = kind.split_once(';')?;
    if !name.trim().to_ascii_lowercase().starts_with("multipart/") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    let known = !boundary.is_empty() && boundary.len() <= BOUNDARY_MAX_BYTES;
    known.then(|| [b"\r\n--", boundary.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::protocol::http::coding::Encoder;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn multipart() -> HeaderMap {
        let kind = "multipart/form-data; charset=x; boundary=\"B-1\"".parse().unwrap();
        HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])
    }

    /// What is plain and what is an archive, for a body that comes in chunks of a size.
    fn pieces(
        mut sniffer: Sniffer,
        body: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>), ArchiveError> {
        let (mut all, mut archives) = (Vec::new(), Vec::new());
        let mut take = |sniffer: &mut Sniffer| {
            while let Some(piece) = sniffer.next()? {
                match piece {
                    Piece::Plain(bytes) => all.extend_from_slice(&bytes),
                    Piece::Archive(bytes) => {
                        all.extend_from_slice(&bytes);
                        archives.push(bytes.to_vec());
                    }
                }
            }
            Ok(())
        };
        for chunk in body.chunks(size) {
            sniffer.push(Bytes::copy_from_slice(chunk));
            take(&mut sniffer)?;
        }
        sniffer.finish();
        take(&mut sniffer)?;
        Ok((all, archives))
    }

    #[test]
    fn archives_are_held_and_everything_comes_in_order() {
        let packed = gzip(b"packed");
        let part =
            |content: &[u8]| [b"--B-1\r\ncontent-disposition: form-data\r\n\r\n", content, b"\r\n"].concat();
        let form = [part(b"text"), part(&packed), part(b""), part(&packed), b"--B-1--\r\n".to_vec()].concat();
        for size in [1, 2, 7, 40, 10_000] {
            let body = Sniffer::new(&[], &HeaderMap::new());
            assert_eq!(pieces(body, &packed, size), Ok((packed.clone(), vec![packed.clone()])));
            let body = Sniffer::new(&[], &multipart());
            let expected = (form.clone(), vec![packed.clone(), packed.clone()]);
            assert_eq!(pieces(body, &form, size), Ok(expected), "{size}");
            for plain in [&b"{\"a\": 1}"[..], b"", b"PK", b"--B-1"] {
                let body = Sniffer::new(&[], &HeaderMap::new());
                assert_eq!(pieces(body, plain, size), Ok((plain.to_vec(), Vec::new())));
            }
            let mut encoder = Encoder::new(&[Coding::Zstd]);
            let first = encoder.push(Bytes::from(packed.clone()), false).unwrap();
            let coded = [first, encoder.finish().unwrap()].concat();
            let body = Sniffer::new(&[Coding::Zstd], &HeaderMap::new());
            assert_eq!(pieces(body, &coded, size), Ok((coded.clone(), vec![coded])));
        }
    }

    #[test]
    fn text_does_not_wait() {
        let mut sniffer = Sniffer::new(&[], &HeaderMap::new());
        for chunk in ["data: 1\n\n", "PK\x03\x04", "B"] {
            sniffer.push(Bytes::from(chunk));
            assert_eq!(sniffer.next(), Ok(Some(Piece::Plain(Bytes::from(chunk)))));
            assert!(sniffer.passes());
        }
    }

    #[test]
    fn the_limits_hold_on_both_sides() {
        let mut most = b"PK\x03\x04".to_vec();
        most.resize(PACKED_MAX_BYTES, 0);
        let run = |body: &[u8]| pieces(Sniffer::new(&[], &HeaderMap::new()), body, 1 << 20);
        assert_eq!(run(&most).unwrap().1.len(), 1);
        most.push(0);
        assert!(matches!(run(&most), Err(ArchiveError::Limit(_))));
        let head = |len: usize| [&b"--B-1\r\nx: "[..], &vec![b'x'; len - 10]].concat();
        let form = |body: &[u8]| pieces(Sniffer::new(&[], &multipart()), body, 1 << 20);
        assert!(form(&head(HEAD_MAX_BYTES)).is_ok());
        assert!(matches!(form(&head(HEAD_MAX_BYTES + 1)), Err(ArchiveError::Limit(_))));
    }
}
