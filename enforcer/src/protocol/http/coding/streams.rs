//! The codings as streams of chunks: what is not asked for is not read, decoded or encoded.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;

use super::{Coding, CodingError, DECODED_FREE_BYTES, DECODED_MAX_BYTES, DECODED_RATIO, Decoder, Encoder};

/// How much a body may become.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Decoded bytes, for each of the stacked codings.
    pub output_bytes: u64,
    /// Decoded bytes that are never too many for what came.
    pub free_bytes: u64,
    /// Beyond these, decoded bytes for each byte of the body that came so far.
    pub ratio: u64,
}

impl Limits {
    /// How much may be decoded, in each of the codings, of so many bytes.
    pub(super) fn most(&self, came: u64) -> u64 {
        self.ratio.saturating_mul(came).saturating_add(self.free_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { output_bytes: DECODED_MAX_BYTES, free_bytes: DECODED_FREE_BYTES, ratio: DECODED_RATIO }
    }
}

/// The decoded chunks of a body. The first error ends it.
pub fn decode<S, E>(codings: &[Coding], chunks: S, limits: Limits) -> Decode<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: From<CodingError>,
{
    Decode { state: Decoding::New(codings.to_vec(), limits), chunks }
}

/// The encoded chunks of a body, each of which can be decoded when it arrives. A body
/// without a byte stays one.
pub fn encode<S, E>(codings: &[Coding], chunks: S) -> Encode<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: From<CodingError>,
{
    Encode { encoder: Some(Encoder::new(codings)), any: false, chunks }
}

/// See [`decode`].
#[derive(Debug)]
pub struct Decode<S> {
    state: Decoding,
    chunks: S,
}

#[derive(Debug)]
enum Decoding {
    New(Vec<Coding>, Limits),
    Open(Decoder),
    /// The chunks ended; the decoder has the rest.
    Rest(Decoder),
    Over,
}

/// See [`encode`].
#[derive(Debug)]
pub struct Encode<S> {
    encoder: Option<Encoder>,
    any: bool,
    chunks: S,
}

impl<S, E> Stream for Decode<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: From<CodingError>,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let next = match &mut this.state {
                Decoding::New(codings, limits) => match Decoder::within(codings, limits.clone()) {
                    Ok(decoder) => {
                        this.state = Decoding::Open(decoder);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                Decoding::Open(decoder) | Decoding::Rest(decoder) => decoder.next(),
                Decoding::Over => return Poll::Ready(None),
            };
            match next {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) => {}
                Err(error) => {
                    this.state = Decoding::Over;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            // The decoder has nothing left of what it got.
            let Decoding::Open(decoder) = &mut this.state else {
                this.state = Decoding::Over;
                return Poll::Ready(None);
            };
            match ready!(Pin::new(&mut this.chunks).poll_next(cx)) {
                Some(Ok(chunk)) => decoder.push(chunk),
                Some(Err(error)) => {
                    this.state = Decoding::Over;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    decoder.finish();
                    if let Decoding::Open(decoder) = std::mem::replace(&mut this.state, Decoding::Over) {
                        this.state = Decoding::Rest(decoder);
                    }
                }
            }
        }
    }
}

impl<S, E> Stream for Encode<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: From<CodingError>,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            let coded = match ready!(Pin::new(&mut this.chunks).poll_next(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => {
                    this.any = true;
                    encoder.push(chunk, true)
                }
                Some(Err(error)) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    let rest = if this.any { encoder.finish() } else { Ok(Bytes::new()) };
                    this.encoder = None;
                    rest
                }
            };
            match coded {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                Err(error) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use super::*;

    /// Chunks that are there, with a `Pending` before each.
    struct Given(VecDeque<Result<Bytes, CodingError>>, bool);

    impl Stream for Given {
        type Item = Result<Bytes, CodingError>;
        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(self.0.pop_front())
        }
    }

    fn all<S: Stream<Item = Result<Bytes, CodingError>> + Unpin>(
        mut stream: S,
    ) -> Result<Vec<Bytes>, CodingError> {
        let mut context = Context::from_waker(Waker::noop());
        let mut got = Vec::new();
        loop {
            match Pin::new(&mut stream).poll_next(&mut context) {
                Poll::Ready(Some(chunk)) => got.push(chunk?),
                Poll::Ready(None) => return Ok(got),
                Poll::Pending => {}
            }
        }
    }

    fn given(chunks: &[&[u8]]) -> Given {
        Given(chunks.iter().map(|c| Ok(Bytes::copy_from_slice(c))).collect(), false)
    }

    #[test]
    fn a_stream_round_trips_and_an_empty_body_stays_empty() {
        for codings in [&[][..], &[Coding::Gzip], &[Coding::Brotli, Coding::Zstd]] {
            let coded = encode(codings, given(&[b"one", b"", b"two"]));
            let decoded = all(decode(codings, coded, Limits::default())).unwrap();
            assert_eq!(decoded.concat(), b"onetwo");
            let coded = encode(codings, given(&[]));
            assert!(all(decode(codings, coded, Limits::default())).unwrap().is_empty());
        }
    }

    #[test]
    fn an_error_of_the_source_ends_the_stream_and_so_does_a_cut() {
        let failed = || Err(CodingError::Malformed { coding: "source" });
        let source = Given([failed(), Ok(Bytes::from_static(b"x"))].into(), false);
        assert!(all(decode(&[Coding::Gzip], source, Limits::default())).is_err());
        let coded = all(encode(&[Coding::Gzip], given(&[b"one two three"]))).unwrap().concat();
        let cut = given(&[&coded[..coded.len() - 3]]);
        let error = all(decode(&[Coding::Gzip], cut, Limits::default())).unwrap_err();
        assert_eq!(error, CodingError::Truncated { coding: "gzip" });
    }
}
