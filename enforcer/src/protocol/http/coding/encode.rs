//! Encoding, with a flush behind each chunk so that no event waits for the next.

use std::{fmt, io};

use bytes::Bytes;
use compression_codecs::{
    BrotliEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder,
    brotli::params::EncoderParams,
    core::{
        Level,
        util::{PartialBuffer, WriteBuffer},
    },
};

use super::{Coding, CodingError, PIECE_BYTES};

/// Quick levels: the link to the job is the host's own.
const FLATE_LEVEL: i32 = 3;
const BROTLI_LEVEL: i32 = 3;
const ZSTD_LEVEL: i32 = 1;
/// A window of 256 KiB for brotli, which keeps the memory of a stream small.
const BROTLI_WINDOW_LOG: i32 = 18;

/// Encodes a body; without codings it passes the chunks through.
pub struct Encoder {
    stages: Vec<(Coding, Box<dyn EncodeV2 + Send + Sync>)>,
}

impl Encoder {
    /// For a body that is to carry these codings, in the order of application.
    pub fn new(codings: &[Coding]) -> Self {
        Self { stages: codings.iter().map(|&coding| (coding, encoder(coding))).collect() }
    }

    /// Encodes a chunk. With `flush` everything so far can be decoded from what went out.
    pub fn push(&mut self, chunk: Bytes, flush: bool) -> Result<Bytes, CodingError> {
        let mut bytes = chunk;
        for (coding, stage) in &mut self.stages {
            if bytes.is_empty() {
                break;
            }
            bytes = feed(stage.as_mut(), &bytes, flush)
                .map_err(|_| CodingError::Encode { coding: coding.name() })?;
        }
        Ok(bytes)
    }

    /// Ends the body and gives what was left of it.
    pub fn finish(&mut self) -> Result<Bytes, CodingError> {
        let mut bytes = Bytes::new();
        for (coding, stage) in &mut self.stages {
            let error = |_| CodingError::Encode { coding: coding.name() };
            let mut out = feed(stage.as_mut(), &bytes, false).map_err(error)?.to_vec();
            fill(&mut out, |output| stage.finish(output)).map_err(error)?;
            bytes = out.into();
        }
        Ok(bytes)
    }
}

fn encoder(coding: Coding) -> Box<dyn EncodeV2 + Send + Sync> {
    match coding {
        Coding::Gzip => Box::new(GzipEncoder::new(Level::Precise(FLATE_LEVEL).into())),
        Coding::Deflate => Box::new(ZlibEncoder::new(Level::Precise(FLATE_LEVEL).into())),
        Coding::Brotli => {
            let level = Level::Precise(BROTLI_LEVEL);
            let params = EncoderParams::default().quality(level).window_size(BROTLI_WINDOW_LOG);
            Box::new(BrotliEncoder::new(params))
        }
        Coding::Zstd => Box::new(ZstdEncoder::new(ZSTD_LEVEL)),
    }
}

fn feed(stage: &mut dyn EncodeV2, chunk: &[u8], flush: bool) -> io::Result<Bytes> {
    let mut out = Vec::new();
    let mut input = PartialBuffer::new(chunk);
    while !input.unwritten().is_empty() {
        fill(&mut out, |output| stage.encode(&mut input, output).map(|()| true))?;
    }
    if flush {
        fill(&mut out, |output| stage.flush(output))?;
    }
    Ok(out.into())
}

/// Calls until it says that it is done, with a fresh buffer each time.
fn fill(out: &mut Vec<u8>, mut call: impl FnMut(&mut WriteBuffer<'_>) -> io::Result<bool>) -> io::Result<()> {
    loop {
        let from = out.len();
        out.resize(from + PIECE_BYTES, 0);
        let mut output = WriteBuffer::new_initialized(&mut out[from..]);
        let done = call(&mut output)?;
        let given = output.written_len();
        out.truncate(from + given);
        if done {
            return Ok(());
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codings = self.stages.iter().map(|(coding, _)| coding);
        f.debug_list().entries(codings).finish()
    }
}
