//! Decoding, a piece at a time.

use std::{collections::VecDeque, fmt};

use bytes::{Buf as _, Bytes};
use compression_codecs::{
    BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};

use super::{Coding, CodingError, Limits, PIECE_BYTES, STACKED_MAX, ZSTD_WINDOW_LOG_MAX};

/// Decodes a body; without codings it passes the chunks through.
#[derive(Debug)]
pub struct Decoder {
    /// In the order of decoding: the coding that was applied last comes first.
    stages: Vec<Stage>,
    input: VecDeque<Bytes>,
    ended: bool,
    limits: Limits,
    /// Bytes of the body so far.
    came: u64,
}

/// What came out of a stage.
enum Pull {
    Piece(Bytes),
    /// More input is needed.
    Wait,
    End,
}

struct Stage {
    coding: Coding,
    decoder: Option<Box<dyn DecodeV2 + Send + Sync>>,
    input: Bytes,
    /// The last output filled its buffer: there may be more without input.
    full: bool,
    state: State,
    produced: u64,
    limit: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not a byte was seen; a body without any byte is an empty body.
    Fresh,
    /// In a member or frame.
    Inside,
    /// Behind the end of one.
    Behind,
}

impl Decoder {
    /// For a body with these codings, as [`super::parse_codings`] gives them; `limit` is in
    /// decoded bytes, for each of the codings.
    pub fn new(codings: &[Coding], limit: u64) -> Result<Self, CodingError> {
        Self::within(codings, Limits { output_bytes: limit, free_bytes: limit, ratio: 0 })
    }

    /// The same, and what is decoded stands in a proportion to what came.
    pub fn within(codings: &[Coding], limits: Limits) -> Result<Self, CodingError> {
        if codings.len() > STACKED_MAX {
            return Err(CodingError::TooMany { limit: STACKED_MAX });
        }
        let stages = codings.iter().rev().map(|&coding| Stage::new(coding, limits.output_bytes)).collect();
        Ok(Self { stages, input: VecDeque::new(), ended: false, limits, came: 0 })
    }

    /// Takes a chunk of the body; [`Decoder::next`] then gives what is in it.
    pub fn push(&mut self, chunk: Bytes) {
        self.came += chunk.len() as u64;
        if !chunk.is_empty() {
            self.input.push_back(chunk);
        }
    }

    /// No chunk follows. [`Decoder::next`] then gives the rest and tells whether it was whole.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// The next piece, or none: then a chunk is needed, or, behind `finish`, the body is whole.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at the first none")]
    pub fn next(&mut self) -> Result<Option<Bytes>, CodingError> {
        let pulled = pull(&mut self.stages, &mut self.input, self.ended)?;
        // A piece more or less of one coding makes no difference: it is what is asked for that
        // takes time.
        let most = self.limits.most(self.came);
        if self.stages.iter().any(|stage| stage.produced > most) {
            return Err(CodingError::TooDense { free: self.limits.free_bytes, ratio: self.limits.ratio });
        }
        match pulled {
            Pull::Piece(piece) => Ok(Some(piece)),
            Pull::Wait | Pull::End => Ok(None),
        }
    }
}

fn pull(stages: &mut [Stage], source: &mut VecDeque<Bytes>, ended: bool) -> Result<Pull, CodingError> {
    let Some((stage, before)) = stages.split_last_mut() else {
        return Ok(match source.pop_front() {
            Some(chunk) => Pull::Piece(chunk),
            None if ended => Pull::End,
            None => Pull::Wait,
        });
    };
    loop {
        if stage.ready() {
            let piece = stage.step()?;
            if !piece.is_empty() {
                return Ok(Pull::Piece(piece));
            }
            continue;
        }
        match pull(before, source, ended)? {
            Pull::Piece(chunk) => stage.take(chunk),
            Pull::Wait => return Ok(Pull::Wait),
            Pull::End => {
                let piece = stage.end()?;
                return Ok(if piece.is_empty() { Pull::End } else { Pull::Piece(piece) });
            }
        }
    }
}

impl Stage {
    fn new(coding: Coding, limit: u64) -> Self {
        let decoder: Option<Box<dyn DecodeV2 + Send + Sync>> = match coding {
            Coding::Gzip => Some(Box::new(GzipDecoder::new())),
            Coding::Brotli => Some(Box::new(BrotliDecoder::new())),
            Coding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                Some(Box::new(ZstdDecoder::new_with_params(&[window])))
            }
            // Two bytes tell zlib from raw deflate.
            Coding::Deflate => None,
        };
        Self { coding, decoder, input: Bytes::new(), full: false, state: State::Fresh, produced: 0, limit }
    }

    fn take(&mut self, chunk: Bytes) {
        self.input =
            if self.input.is_empty() { chunk } else { [&self.input[..], &chunk[..]].concat().into() };
    }

    fn ready(&self) -> bool {
        let least = if self.decoder.is_none() { 2 } else { 1 };
        self.full || self.input.len() >= least
    }

    fn malformed(&self) -> CodingError {
        CodingError::Malformed { coding: self.coding.name() }
    }

    fn step(&mut self) -> Result<Bytes, CodingError> {
        if self.state == State::Behind && !self.input.is_empty() {
            self.next_member()?;
        }
        let malformed = self.malformed();
        let decoder = self.decoder.get_or_insert_with(|| zlib_or_raw(&self.input));
        let mut piece = vec![0; PIECE_BYTES];
        let mut output = WriteBuffer::new_initialized(&mut piece);
        let mut input = PartialBuffer::new(&self.input[..]);
        let flate = matches!(self.coding, Coding::Gzip | Coding::Deflate);
        let done = if self.input.is_empty() && flate {
            // These call it an error to be asked without input and with nothing left to give.
            decoder.flush(&mut output).map(|_| false)
        } else {
            decoder.decode(&mut input, &mut output)
        };
        let done = done.map_err(|_| malformed.clone())?;
        let (used, given) = (input.written_len(), output.written_len());
        let stuck = used == 0 && given == 0 && !done && !self.input.is_empty();
        self.full = given == PIECE_BYTES && !done;
        self.input.advance(used);
        self.state = if done { State::Behind } else { State::Inside };
        if stuck {
            return Err(malformed);
        }
        self.count(piece, given)
    }

    /// Another member of gzip, or frame of zstd; the other codings have one.
    fn next_member(&mut self) -> Result<(), CodingError> {
        let magic: &[&[u8]] = match self.coding {
            Coding::Gzip => &[&[0x1f]],
            // A frame, or a skippable one.
            Coding::Zstd => &[
                &[0x28],
                &[0x50],
                &[0x51],
                &[0x52],
                &[0x53],
                &[0x54],
                &[0x55],
                &[0x56],
                &[0x57],
                &[0x58],
                &[0x59],
                &[0x5a],
                &[0x5b],
                &[0x5c],
                &[0x5d],
                &[0x5e],
                &[0x5f],
            ],
            Coding::Deflate | Coding::Brotli => &[],
        };
        let malformed = self.malformed();
        match &mut self.decoder {
            Some(decoder) if magic.iter().any(|m| self.input.starts_with(m)) => {
                decoder.reinit().map_err(|_| malformed)
            }
            _ => Err(CodingError::Trailing { coding: self.coding.name() }),
        }
    }

    /// Nothing follows: whatever is still inside is given, or the body is not whole.
    fn end(&mut self) -> Result<Bytes, CodingError> {
        let truncated = CodingError::Truncated { coding: self.coding.name() };
        match self.state {
            State::Behind => return Ok(Bytes::new()),
            State::Fresh if self.input.is_empty() => return Ok(Bytes::new()),
            State::Fresh | State::Inside => {}
        }
        let Some(decoder) = &mut self.decoder else { return Err(truncated) };
        let mut piece = vec![0; PIECE_BYTES];
        let mut output = WriteBuffer::new_initialized(&mut piece);
        let done = decoder.finish(&mut output).map_err(|_| truncated.clone())?;
        let given = output.written_len();
        if done {
            self.state = State::Behind;
        } else if given == 0 {
            return Err(truncated);
        }
        self.count(piece, given)
    }

    fn count(&mut self, mut piece: Vec<u8>, given: usize) -> Result<Bytes, CodingError> {
        self.produced += given as u64;
        if self.produced > self.limit {
            return Err(CodingError::TooLarge { limit: self.limit });
        }
        piece.truncate(given);
        Ok(Bytes::from(piece))
    }
}

/// RFC 1950: the low four bits of the first byte are 8, and both bytes are a multiple of 31.
fn zlib_or_raw(input: &[u8]) -> Box<dyn DecodeV2 + Send + Sync> {
    let zlib = match *input {
        [first, second, ..] => first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31),
        _ => false,
    };
    if zlib { Box::new(ZlibDecoder::new()) } else { Box::new(DeflateDecoder::new()) }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("coding", &self.coding).finish_non_exhaustive()
    }
}
