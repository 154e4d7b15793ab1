use bytes::Bytes;

use super::*;
use crate::mask::Masker;

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

fn encoded(codings: &[Coding], text: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(codings);
    let mut out = encoder.push(Bytes::copy_from_slice(text), false).unwrap().to_vec();
    out.extend_from_slice(&encoder.finish().unwrap());
    out
}

fn decoded(codings: &[Coding], coded: &[u8], chunk: usize, limit: u64) -> Result<Vec<u8>, CodingError> {
    let mut decoder = Decoder::new(codings, limit)?;
    let mut out = Vec::new();
    for part in coded.chunks(chunk) {
        decoder.push(Bytes::copy_from_slice(part));
        while let Some(piece) = decoder.next()? {
            assert!(piece.len() <= PIECE_BYTES.max(chunk));
            out.extend_from_slice(&piece);
        }
    }
    decoder.finish();
    while let Some(piece) = decoder.next()? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

fn sample() -> Vec<u8> {
    let mut x = 1_u32;
    let mut text = Vec::new();
    for _ in 0..30_000 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("{} words ", x >> 24).as_bytes());
    }
    text
}

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn round_trips_in_chunks_of_any_size() {
    let text = sample();
    for coding in ALL {
        let coded = encoded(&[coding], &text);
        for chunk in [1, 7, 1000, coded.len()] {
            assert!(decoded(&[coding], &coded, chunk, 1 << 30).unwrap() == text, "{coding:?} {chunk}");
        }
        let zeros = vec![0; 3 * PIECE_BYTES];
        let coded = encoded(&[coding], &zeros);
        for chunk in [1, coded.len()] {
            assert!(decoded(&[coding], &coded, chunk, 1 << 30).unwrap() == zeros, "{coding:?}");
        }
        assert!(decoded(&[coding], &encoded(&[coding], b""), 1, 10).unwrap().is_empty());
        assert!(decoded(&[coding], b"", 1, 10).unwrap().is_empty(), "an empty body is one");
    }
    let stacked = [Coding::Gzip, Coding::Brotli, Coding::Zstd, Coding::Deflate];
    let coded = encoded(&stacked, &text);
    assert!(decoded(&stacked, &coded, 100, 1 << 30).unwrap() == text);
}

#[test]
fn raw_deflate_is_read_as_deflate() {
    use compression_codecs::{DeflateEncoder, EncodeV2 as _, core::util};
    let mut encoder = DeflateEncoder::new(compression_codecs::core::Level::Default.into());
    let mut out = vec![0; 1000];
    let mut output = util::WriteBuffer::new_initialized(&mut out);
    encoder.encode(&mut util::PartialBuffer::new(&b"raw raw raw"[..]), &mut output).unwrap();
    assert!(encoder.finish(&mut output).unwrap());
    let len = output.written_len();
    for chunk in [1, len] {
        assert_eq!(decoded(&[Coding::Deflate], &out[..len], chunk, 100).unwrap(), b"raw raw raw");
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let coded = [encoded(&[coding], b"one "), encoded(&[coding], b"two")].concat();
        for chunk in [1, 5, coded.len()] {
            assert_eq!(decoded(&[coding], &coded, chunk, 100).unwrap(), b"one two");
        }
    }
}

#[test]
fn what_is_not_whole_is_an_error() {
    let text = sample();
    for coding in ALL {
        let coded = encoded(&[coding], &text);
        for cut in [1, 2, 9, coded.len() / 2, coded.len() - 1] {
            let error = decoded(&[coding], &coded[..cut], 1000, 1 << 30).unwrap_err();
            let truncated = CodingError::Truncated { coding: coding.name() };
            assert_eq!(error, truncated, "{coding:?} at {cut}");
        }
        for tail in [&b"plain bytes"[..], b"\0", b"\x1f\0"] {
            for chunk in [1, usize::MAX] {
                let coded = [&coded[..], tail].concat();
                assert!(decoded(&[coding], &coded, chunk, 1 << 30).is_err(), "{coding:?}");
            }
        }
        assert!(decoded(&[coding], b"plain text, not coded at all", 100, 1000).is_err());
    }
}

#[test]
fn the_output_is_limited_at_every_stage() {
    let bomb = vec![0; 1 << 20];
    for coding in ALL {
        let coded = encoded(&[coding], &bomb);
        assert_eq!(decoded(&[coding], &coded, 1000, 1 << 20).unwrap().len(), 1 << 20);
        let error = decoded(&[coding], &coded, 1000, (1 << 20) - 1).unwrap_err();
        assert_eq!(error, CodingError::TooLarge { limit: (1 << 20) - 1 });
    }
}

#[test]
fn what_is_decoded_stands_in_a_proportion_to_what_came() {
    let text = vec![b'x'; 1 << 20];
    let through = |codings: &[Coding], coded: &[u8], limits: Limits| -> Result<usize, CodingError> {
        let mut decoder = Decoder::within(codings, limits)?;
        let mut len = 0;
        for part in coded.chunks(100) {
            decoder.push(Bytes::copy_from_slice(part));
            while let Some(piece) = decoder.next()? {
                len += piece.len();
            }
        }
        decoder.finish();
        while let Some(piece) = decoder.next()? {
            len += piece.len();
        }
        Ok(len)
    };
    for codings in [&[Coding::Gzip][..], &[Coding::Zstd], &[Coding::Gzip, Coding::Gzip]] {
        let coded = encoded(codings, &text);
        // Decoded bytes, at the most, that are not free; the last byte may bring all of them.
        let free = |free: u64, ratio: u64| Limits { output_bytes: 1 << 30, free_bytes: free, ratio };
        assert_eq!(through(codings, &coded, free(1 << 20, 0)), Ok(1 << 20), "{codings:?}");
        let error = through(codings, &coded, free((1 << 20) - 1, 0)).unwrap_err();
        assert_eq!(error, CodingError::TooDense { free: (1 << 20) - 1, ratio: 0 });
        let ratio = (1 << 20) / coded.len() as u64;
        assert_eq!(through(codings, &coded, free(1 << 18, 4 * ratio)), Ok(1 << 20), "{codings:?}");
        let error = through(codings, &coded, free(1 << 18, ratio / 4)).unwrap_err();
        assert_eq!(error, CodingError::TooDense { free: 1 << 18, ratio: ratio / 4 });
    }
    // What text comes to is far from the limit.
    let text: String =
        (0..60_000).map(|n| format!("2026-01-01T00:00:{n} worker {} is done\n", n % 7)).collect();
    let limits = || Limits { free_bytes: 64 * 1024, ..Limits::default() };
    let coded = encoded(&[Coding::Gzip], text.as_bytes());
    assert_eq!(through(&[Coding::Gzip], &coded, limits()), Ok(text.len()));
}

#[test]
fn a_zstd_window_is_limited() {
    use compression_codecs::{EncodeV2 as _, ZstdEncoder, core::util, zstd::params::CParameter};
    for (log, fine) in [(ZSTD_WINDOW_LOG_MAX, true), (ZSTD_WINDOW_LOG_MAX + 1, false)] {
        let mut encoder = ZstdEncoder::new_with_params(3, &[CParameter::window_log(log)]);
        let mut out = vec![0; 1000];
        let mut output = util::WriteBuffer::new_initialized(&mut out);
        encoder.encode(&mut util::PartialBuffer::new(&b"window"[..]), &mut output).unwrap();
        encoder.flush(&mut output).unwrap();
        assert!(encoder.finish(&mut output).unwrap());
        let len = output.written_len();
        let got = decoded(&[Coding::Zstd], &out[..len], 1000, 1000);
        assert_eq!(got.is_ok(), fine, "2^{log}: {got:?}");
    }
}

#[test]
fn codings_are_parsed_and_unknown_ones_named() {
    assert_eq!(parse_codings(&headers(&[])).unwrap(), []);
    assert_eq!(parse_codings(&headers(&["identity", ""])).unwrap(), []);
    let both = parse_codings(&headers(&["GZip , br", "x-gzip"])).unwrap();
    assert_eq!(both, [Coding::Gzip, Coding::Brotli, Coding::Gzip]);
    let unknown = parse_codings(&headers(&["gzip, compress"])).unwrap_err();
    assert_eq!(unknown, CodingError::Unknown { name: "compress".to_owned() });
    assert!(parse_codings(&headers(&["gzip,gzip,gzip,gzip"])).is_ok());
    let many = parse_codings(&headers(&["gzip,gzip,gzip,gzip,gzip"])).unwrap_err();
    assert_eq!(many, CodingError::TooMany { limit: STACKED_MAX });
}

#[test]
fn accept_encoding_names_only_what_can_be_decoded() {
    for (sent, kept) in [("gzip, sdch, br;q=0.5, *", "gzip, br;q=0.5"), ("compress", "identity")] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(sent));
        restrict_accept_encoding(&mut headers);
        assert_eq!(headers[ACCEPT_ENCODING], kept);
    }
    let mut none = HeaderMap::new();
    restrict_accept_encoding(&mut none);
    assert_eq!(none[ACCEPT_ENCODING], "identity");
}

#[test]
fn each_flushed_chunk_can_be_read_at_once() {
    for coding in ALL {
        let mut encoder = Encoder::new(&[coding]);
        let mut decoder = Decoder::new(&[coding], 1000).unwrap();
        for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
            decoder.push(encoder.push(Bytes::from_static(event.as_bytes()), true).unwrap());
            let mut got = Vec::new();
            while let Some(piece) = decoder.next().unwrap() {
                got.extend_from_slice(&piece);
            }
            assert_eq!(got, event.as_bytes(), "{coding:?}");
        }
    }
}

#[test]
fn a_coded_secret_is_masked_at_every_cut() {
    let token = ["ghp_", "a1B2c3D4e5F6g7H8i9J0", "a1B2c3D4e5F6g7H8"].concat();
    let text = format!("before {token} after");
    let masker = Masker::builtin_all().unwrap();
    for coding in ALL {
        let coded = encoded(&[coding], text.as_bytes());
        for cut in 0..=coded.len() {
            let mut decoder = Decoder::new(&[coding], 1000).unwrap();
            let (mut stream, mut encoder) = (masker.stream(), Encoder::new(&[coding]));
            let mut out = Vec::new();
            for part in [&coded[..cut], &coded[cut..]] {
                decoder.push(Bytes::copy_from_slice(part));
                while let Some(piece) = decoder.next().unwrap() {
                    let masked = stream.push(piece).unwrap().into_bytes();
                    out.extend_from_slice(&encoder.push(masked, true).unwrap());
                }
            }
            decoder.finish();
            assert_eq!(decoder.next().unwrap(), None);
            let rest = stream.finish().unwrap().into_bytes();
            out.extend_from_slice(&encoder.push(rest, true).unwrap());
            out.extend_from_slice(&encoder.finish().unwrap());
            let got = decoded(&[coding], &out, 1000, 1000).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), "before [MASKED:GITHUB_TOKEN] after");
        }
    }
}
