//! Where in a body an archive can begin: at its first byte, and in a multipart body at the
//! first byte of each part. Content types of what is in it are not believed.

mod parts;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::super::archive::{self, ArchiveError, BEGIN_BYTES, Begin, PACKED_MAX_BYTES};
use super::coding::{Coding, Decoder};
use parts::{Boundary, Lines, Parts};

/// Cuts a body into what can go on and what has to be looked into first.
pub struct Sniffer {
    codings: Vec<Coding>,
    parts: Parts,
    /// Of the first line, once that is known.
    lines: Option<Lines>,
    state: State,
    waiting: BytesMut,
    /// So much of `waiting` holds no boundary.
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
    /// Content that is one, or a body in a coding that has parts.
    Archive,
    /// Content where others may see other parts.
    Unclear,
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
        Self::with(codings, Parts::of(headers))
    }

    fn with(codings: &[Coding], parts: Parts) -> Self {
        let state = match &parts {
            Parts::None => Self::beginning(codings),
            Parts::Unclear => State::Unclear,
            Parts::By(_) if codings.is_empty() => State::Head,
            // Where they begin is known of plain bytes alone.
            Parts::By(_) => State::Archive,
        };
        let (codings, waiting) = (codings.to_vec(), BytesMut::new());
        Self { codings, parts, lines: None, state, waiting, searched: 0, ended: false }
    }

    /// Whether everything that follows is plain, so that it need not be pushed.
    pub fn passes(&self) -> bool {
        matches!(self.state, State::Plain) && self.boundary().is_none() && self.waiting.is_empty()
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
                    self.lines = self.lines.or_else(|| Lines::of(&self.waiting));
                    let lines = self.lines.unwrap_or(Lines::Crlf);
                    let Some(end) = parts::head(&self.waiting, lines, self.ended)? else { return Ok(None) };
                    let head = self.take(end);
                    self.state = Self::beginning(&self.codings);
                    return Ok(Some(Piece::Plain(head)));
                }
                State::Begin(decoder, begin) => {
                    let end = self.end()?;
                    let (bytes, last) = match decoder {
                        Some(_) => (begin.as_slice(), self.ended),
                        None => {
                            let content = &self.waiting[..end.map_or(self.waiting.len(), |end| end.content)];
                            let last = self.ended || end.is_some();
                            match self.boundary().map(|boundary| boundary.begins(content, last)) {
                                Some(None) => return Ok(None),
                                Some(Some(true)) => return Err(ArchiveError::Ambiguous),
                                Some(Some(false)) | None => (content, last),
                            }
                        }
                    };
                    archive::begin(bytes, last || bytes.len() >= BEGIN_BYTES)
                }
                State::Plain => return self.plain(),
                State::Archive => return self.archive(),
                State::Unclear if self.waiting.is_empty() => return Ok(None),
                State::Unclear => return Err(ArchiveError::Ambiguous),
            };
            self.state = match known {
                Begin::More => return Ok(None),
                Begin::Nothing => State::Plain,
                Begin::Is(_) => State::Archive,
            };
        }
    }

    /// What looks into archives of this body.
    pub fn unpacker(&self) -> Unpacker {
        Unpacker { codings: self.codings.clone(), parts: self.parts.clone() }
    }

    fn beginning(codings: &[Coding]) -> State {
        let decoder = Decoder::new(codings, archive::UNPACKED_MAX_BYTES as u64);
        let decoder = decoder.ok().filter(|_| !codings.is_empty()).map(Box::new);
        State::Begin(decoder, Vec::new())
    }

    /// What stands between parts, where they can be seen.
    fn boundary(&self) -> Option<&Boundary> {
        match &self.parts {
            Parts::By(boundary) if self.codings.is_empty() => Some(boundary),
            _ => None,
        }
    }

    /// Where the content ends, if that is in what waits.
    fn end(&self) -> Result<Option<parts::Found>, ArchiveError> {
        let Some(boundary) = self.boundary() else { return Ok(None) };
        let (from, lines) = (self.searched.min(self.waiting.len()), self.lines.unwrap_or(Lines::Crlf));
        boundary.find(&self.waiting, from, lines, self.ended)
    }

    fn plain(&mut self) -> Result<Option<Piece>, ArchiveError> {
        let end = match self.end()? {
            Some(found) => {
                self.state = State::Head;
                found.end
            }
            None if self.ended => self.waiting.len(),
            // A boundary may have begun.
            None => self.waiting.len() - self.boundary().map_or(0, |boundary| boundary.begun(&self.waiting)),
        };
        Ok((end > 0).then(|| Piece::Plain(self.take(end))))
    }

    fn archive(&mut self) -> Result<Option<Piece>, ArchiveError> {
        let end = match self.end()? {
            Some(found) => Some(found.content),
            None => self.ended.then_some(self.waiting.len()),
        };
        if end.unwrap_or(self.waiting.len()) > PACKED_MAX_BYTES {
            return Err(ArchiveError::Limit("8 MiB packed"));
        }
        self.searched = self.waiting.len().saturating_sub(self.boundary().map_or(0, Boundary::most));
        let Some(end) = end else { return Ok(None) };
        self.state = State::Plain;
        Ok((end > 0).then(|| Piece::Archive(self.take(end))))
    }

    fn take(&mut self, end: usize) -> Bytes {
        self.searched = 0;
        self.waiting.split_to(end).freeze()
    }
}

/// Looks into the archives of a body.
pub struct Unpacker {
    codings: Vec<Coding>,
    parts: Parts,
}

impl Unpacker {
    /// Shows everything in an archive, or in the parts of a body in a coding.
    pub fn unpack(&self, archive: &Bytes, see: &mut dyn FnMut(&[u8])) -> Result<(), ArchiveError> {
        if self.codings.is_empty() {
            return archive::unpack(archive, see);
        }
        let plain = archive::decoded(&self.codings, archive)?;
        if self.parts == Parts::None {
            return archive::unpack(&plain, see);
        }
        let mut parts = Sniffer::with(&[], self.parts.clone());
        parts.push(Bytes::from(plain));
        parts.finish();
        while let Some(piece) = parts.next()? {
            if let Piece::Archive(archive) = piece {
                archive::unpack(&archive, see)?;
            }
        }
        Ok(())
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
        HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)])
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
    fn archives_are_held_where_no_line_has_a_carriage_return() {
        let form = |zip: &[u8]| {
            [b"--B-1\nx: y\n\n", zip, b"\n--B-1\n\ntext\n--B-1\n\n", zip, b"\n--B-1--\n"].concat()
        };
        let zip = b"PK\x03\x04 and \r\n more".to_vec();
        for size in [1, 2, 3, 7, 1000] {
            let seen = pieces(Sniffer::new(&[], &multipart()), &form(&zip), size);
            assert_eq!(seen, Ok((form(&zip), vec![zip.clone(), zip.clone()])), "{size}");
            // Its last byte could belong to the line of the boundary.
            let seen = pieces(Sniffer::new(&[], &multipart()), &form(b"PK\x03\x04\r"), size);
            assert_eq!(seen, Err(ArchiveError::Ambiguous), "{size}");
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
        assert!(form(&head(parts::HEAD_MAX_BYTES)).is_ok());
        assert!(matches!(form(&head(parts::HEAD_MAX_BYTES + 1)), Err(ArchiveError::Limit(_))));
    }

    #[test]
    fn what_one_reader_cuts_elsewhere_is_no_multipart_body() {
        let zip = b"PK\x03\x04 and more";
        let head = b"--B-1\r\nx: y\r\n\r\n";
        for (name, clear, body) in [
            ("padded", true, [&head[..], b"a\r\n--B-1 \t\r\nx: y\r\n\r\nb\r\n--B-1--\r\n"].concat()),
            ("no end", true, [&head[..], b"a"].concat()),
            ("no line behind the end", true, [&head[..], b"a\r\n--B-1--"].concat()),
            ("a bare line behind the end", true, [&head[..], b"a\r\n--B-1--\n"].concat()),
            ("a boundary at the end", true, [&head[..], b"a\r\n--B-1"].concat()),
            ("something like it", true, [&head[..], b"a\r\n--B-2\r\n--\n-\r\n--B-1--"].concat()),
            ("a letter more", false, [&head[..], b"a\r\n--B-1x\r\n\r\n", zip].concat()),
            ("a dash more", false, [&head[..], b"a\r\n--B-1-\r\n\r\n", zip].concat()),
            ("much white space", false, [&head[..], b"a\r\n--B-1", &[b' '; 17], b"\r\n\r\n", zip].concat()),
            ("bare lines", true, b"--B-1\nx: y\n\na\n--B-1 \n\nb\r\r\n\n--B-1--\n".to_vec()),
            ("bare lines to its end", true, b"--B-1\n\na\n--B-1\n\n\n--B-1--".to_vec()),
            ("a whole line before it", false, [&b"--B-1\n\na\r\n--B-1\n\n"[..], zip].concat()),
            ("a whole line behind it", false, [&b"--B-1\n\na\n--B-1\r\n\n"[..], zip].concat()),
            ("a whole line in a head", false, [&b"--B-1\nx: y\r\n\n"[..], zip].concat()),
            ("a bare line before it", false, [&head[..], b"a\n--B-1\r\n\r\n", zip].concat()),
            ("a bare line behind it", false, [&head[..], b"a\r\n--B-1\n\r\n", zip].concat()),
            ("a bare line in a head", false, [&b"--B-1\r\nx: y\n\n"[..], zip, b"\r\n\r\n"].concat()),
            ("at the beginning of a part", false, [&head[..], b"--B-1\r\n\r\n", zip].concat()),
            ("no head", false, [&b"--B-1\r\n"[..], zip, b"\r\n\r\n"].concat()),
            (
                "parts in parts",
                false,
                [&b"--B-1\r\nContent-Type: Multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\n"[..], zip].concat(),
            ),
        ] {
            for size in [1, 2, 3, 5, 7, 11, 13, 17, 1000] {
                let seen = pieces(Sniffer::new(&[], &multipart()), &body, size);
                match clear {
                    true => assert_eq!(seen, Ok((body.clone(), Vec::new())), "{name}, by {size}"),
                    false => assert_eq!(seen, Err(ArchiveError::Ambiguous), "{name}, by {size}"),
                }
            }
        }
    }

    #[test]
    fn parts_are_looked_into_below_a_coding_and_not_at_all_where_nobody_knows_the_boundary() {
        let packed = gzip(b"packed");
        let form = [b"--B-1\r\n\r\ntext\r\n--B-1\r\n\r\n", &packed[..], b"\r\n--B-1--\r\n"].concat();
        let coded = gzip(&form);
        for size in [1, 7, 1000] {
            let mut sniffer = Sniffer::new(&[Coding::Gzip], &multipart());
            let unpacker = sniffer.unpacker();
            for chunk in coded.chunks(size) {
                sniffer.push(Bytes::copy_from_slice(chunk));
                assert_eq!(sniffer.next(), Ok(None));
                assert!(sniffer.holds() && !sniffer.passes());
            }
            sniffer.finish();
            let Ok(Some(Piece::Archive(archive))) = sniffer.next() else { panic!("not held") };
            assert_eq!((&archive[..], sniffer.next()), (&coded[..], Ok(None)));
            let mut seen = Vec::new();
            unpacker.unpack(&archive, &mut |part| seen.push(part.to_vec())).unwrap();
            assert!(seen.contains(&b"packed".to_vec()), "{seen:?}");
            let cut = unpacker.unpack(&Bytes::from(gzip(&form[..form.len() - 30])), &mut |_| {});
            assert!(cut.is_err());
        }
        let kind = "multipart/form-data".parse().unwrap();
        let fields = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
        assert_eq!(pieces(Sniffer::new(&[], &fields), b"", 1), Ok((Vec::new(), Vec::new())));
        assert_eq!(pieces(Sniffer::new(&[], &fields), b"x", 1), Err(ArchiveError::Ambiguous));
    }
}
