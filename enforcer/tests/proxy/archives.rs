//! What is packed in an upload is looked into, and passes unchanged or not at all.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::kit::client::{Client, Sent, text};
use crate::kit::{Kit, Options, SECRET};

const MIB: usize = 1024 * 1024;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    use enforcer::protocol::http::coding::{Coding, Encoder};
    let mut encoder = Encoder::new(&[Coding::Zstd]);
    let first = encoder.push(Bytes::copy_from_slice(bytes), false).unwrap();
    [first, encoder.finish().unwrap()].concat()
}

fn tar(content: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    block[..5].copy_from_slice(b"a.txt");
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[148..156].copy_from_slice(b"        ");
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = [&block[..], content].concat();
    out.resize(out.len().div_ceil(512) * 512 + 1024, 0);
    out
}

/// A zip of one deflated file.
fn zip(content: &[u8], flags: u8) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    let packed = encoder.finish().unwrap();
    let lengths = [0, u32::try_from(packed.len()).unwrap(), u32::try_from(content.len()).unwrap()];
    let lengths = lengths.map(u32::to_le_bytes).concat();
    let head = [&[20, 0, flags, 0, 8, 0, 0, 0, 0, 0], &lengths[..], &[5, 0, 0, 0]].concat();
    let file = [b"PK\x03\x04", &head[..], b"a.txt", &packed].concat();
    let entry = [&b"PK\x01\x02\x14\0"[..], &head, &[0; 14], b"a.txt"].concat();
    let places = [entry.len(), file.len()].map(|n| u32::try_from(n).unwrap().to_le_bytes()).concat();
    let end = [b"PK\x05\x06\0\0\0\0\x01\0\x01\0", &places[..], &[0, 0]].concat();
    [file, entry, end].concat()
}

fn form(content: &[u8]) -> Vec<u8> {
    let head = b"--B\r\ncontent-disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n";
    let text = b"--B\r\ncontent-disposition: form-data; name=\"t\"\r\n\r\nsome text\r\n";
    [&text[..], head, content, b"\r\n", text, b"--B--\r\n"].concat()
}

/// A request with a body of this type, with its length or in chunks.
async fn post(kit: &Kit, client: &mut Client, fields: &[(&str, &str)], body: &[u8], chunked: bool) -> Answer {
    let mut request = kit.request("masked.test", "/echo").method("POST");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let body = Bytes::copy_from_slice(body);
    let sent: Sent = if chunked {
        let pieces: Vec<Bytes> = body.chunks(MIB).map(Bytes::copy_from_slice).collect();
        let pieces = futures_util::stream::iter(pieces).map(|piece| Ok(Frame::data(piece)));
        StreamBody::new(pieces).boxed_unsync()
    } else {
        Full::new(body).map_err(|never| match never {}).boxed_unsync()
    };
    // Of an answer that an upstream gave before it had the body, even the head may be lost.
    let Ok(response) = client.send(request.body(sent).unwrap()).await else {
        return Answer { status: StatusCode::BAD_GATEWAY, body: None, why: "reset".to_owned() };
    };
    let status = response.status();
    if status == StatusCode::OK {
        // An upstream may answer before it has the body: then that ends.
        let body = response.into_body().collect().await;
        return Answer { status, body: body.ok().map(|body| body.to_bytes()), why: String::new() };
    }
    Answer { status, body: None, why: text(response).await }
}

struct Answer {
    status: StatusCode,
    body: Option<Bytes>,
    why: String,
}

const NONE: &[(&str, &str)] = &[];
const FORM: &[(&str, &str)] = &[("content-type", "multipart/form-data; boundary=B")];
const CODED_FORM: &[(&str, &str)] =
    &[("content-type", "multipart/form-data; boundary=B"), ("content-encoding", "gzip")];
const CODED: &[(&str, &str)] = &[("content-encoding", "gzip")];
const TYPED: &[(&str, &str)] = &[("content-type", "application/octet-stream")];

/// A name, header fields and a body.
type Packed = (&'static str, &'static [(&'static str, &'static str)], Vec<u8>);

/// A text in everything that it can be packed in.
fn packed(text: &[u8]) -> Vec<Packed> {
    vec![
        ("gzip", NONE, gzip(text)),
        ("gzip with a type", TYPED, gzip(text)),
        ("zstd", NONE, zstd(text)),
        ("zip", NONE, zip(text, 0)),
        ("tar.gz", NONE, gzip(&tar(text))),
        ("tar.gz in a tar", NONE, tar(&gzip(&tar(text)))),
        ("tar.gz in a zip", NONE, zip(&gzip(&tar(text)), 0)),
        ("zip in a form", FORM, form(&zip(text, 0))),
        ("tar.gz in a form", FORM, form(&gzip(&tar(text)))),
        ("zip in a content coding", CODED, gzip(&zip(text, 0))),
        ("zip in a form in a content coding", CODED_FORM, gzip(&form(&zip(text, 0)))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_an_archive_does_not_go_out_and_other_archives_do() {
    let kit = Kit::start(Options::default()).await;
    let clean = b"nothing in here".repeat(20);
    let secret = [&clean[..], SECRET.as_bytes()].concat();
    for h2 in [false, true] {
        for (name, fields, body) in packed(&clean) {
            for chunked in [false, true] {
                let mut client = kit.client("masked.test", h2).await;
                let answer = post(&kit, &mut client, fields, &body, chunked).await;
                assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.why);
                // What is coded is coded anew.
                let same =
                    answer.body.is_some_and(|echo| echo == body || fields == CODED || fields == CODED_FORM);
                assert!(same, "{name} is not what was sent");
            }
        }
        for (name, fields, body) in packed(&secret) {
            let mut client = kit.client("masked.test", h2).await;
            let answer = post(&kit, &mut client, fields, &body, true).await;
            let known = answer.status == StatusCode::FORBIDDEN && answer.why.contains("secret-in-archive");
            assert!(known || answer.body.is_none(), "{name} went out");
            let mut client = kit.client("masked.test", h2).await;
            let answer = post(&kit, &mut client, fields, &body, false).await;
            if fields != FORM {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
                assert!(answer.why.contains("secret-in-archive"), "{name}: {}", answer.why);
            }
            assert!(answer.body.is_none(), "{name} went out");
        }
    }
    let recorded = kit.recorded_text("secret-in-archive").await;
    assert!(recorded.contains("\"place\":\"archive\"") && !recorded.contains(SECRET), "{recorded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_or_is_too_large_does_not_go_out() {
    let kit = Kit::start(Options::default()).await;
    let noise: Vec<u8> =
        (0_u32..).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).take(8 * MIB).collect();
    let (unreadable, limit) = ("archive-unreadable", "archive-over-limit");
    let whole = gzip(&noise[..7 * MIB]);
    let most = zip(&vec![0; 8 * MIB], 0);
    let mut large = gzip(b"x");
    large.resize(8 * MIB + 1, 0);
    for (name, fields, body, why) in [
        ("an encrypted zip", NONE, zip(b"x", 1), unreadable),
        ("bzip2", NONE, b"BZh91AY&SY.....".to_vec(), unreadable),
        ("xz", NONE, b"\xfd7zXZ\0\0\x04".to_vec(), unreadable),
        ("7z", NONE, b"7z\xbc\xaf\x27\x1c\0\x04".to_vec(), unreadable),
        ("rar", NONE, b"Rar!\x1a\x07\x01\0".to_vec(), unreadable),
        ("half a gzip", NONE, gzip(&noise[..1000])[..500].to_vec(), unreadable),
        ("half a zip", NONE, zip(b"some text", 0)[..60].to_vec(), unreadable),
        ("xz in a form", FORM, form(b"\xfd7zXZ\0\0\x04"), unreadable),
        ("one byte too much unpacked", NONE, zip(&vec![0; 8 * MIB + 1], 0), limit),
        ("one byte too much packed", NONE, large, limit),
        ("five layers", NONE, gzip(&gzip(&gzip(&gzip(&gzip(b"x"))))), limit),
        ("nothing of this", NONE, most, ""),
        ("nothing of this", NONE, whole, ""),
        ("nothing of this", NONE, gzip(&gzip(&gzip(&gzip(b"x")))), ""),
    ] {
        let mut client = kit.client("masked.test", false).await;
        let answer = post(&kit, &mut client, fields, &body, false).await;
        if why.is_empty() {
            assert!(answer.body.is_some_and(|echo| echo == body), "{name}: {}", answer.why);
        } else if fields == FORM {
            assert!(answer.body.is_none(), "{name} went out");
        } else {
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
            assert!(answer.why.contains(why), "{name}: {}", answer.why);
        }
    }
    kit.recorded_text(unreadable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_reader_may_cut_elsewhere_does_not_go_out() {
    let kit = Kit::start(Options::default()).await;
    let secret = zip(&[&b"nothing in here".repeat(20)[..], SECRET.as_bytes()].concat(), 0);
    let two = &[("content-type", "multipart/form-data; boundary=A; boundary=B")][..];
    let none = &[("content-type", "multipart/form-data")][..];
    let twice = &[("content-type", "text/plain"), ("content-type", "multipart/form-data; boundary=B")][..];
    for (name, fields, body) in [
        ("two boundaries", two, form(&secret)),
        ("no boundary", none, form(&secret)),
        ("two types", twice, form(&secret)),
        ("two boundaries in a coding", &[two[0], CODED[0]][..], gzip(&form(&secret))),
        ("a bare line", FORM, [b"--B\r\nx: y\n\n", &secret[..], b"\r\n--B--\r\n"].concat()),
        (
            "a part of parts",
            FORM,
            [b"--B\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\n", &secret[..]].concat(),
        ),
    ] {
        for h2 in [false, true] {
            let mut client = kit.client("masked.test", h2).await;
            let answer = post(&kit, &mut client, fields, &body, false).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
            assert!(answer.why.contains("multipart-ambiguous"), "{name}: {}", answer.why);
            let mut client = kit.client("masked.test", h2).await;
            let answer = post(&kit, &mut client, fields, &body, true).await;
            assert!(answer.status == StatusCode::FORBIDDEN || answer.body.is_none(), "{name} went out");
        }
    }
}

/// What comes back of an upstream that answers with this body, which ends where it is whole.
async fn answered(body: &[u8], size: usize) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let script: &'static [u8] = [head.as_bytes(), body].concat().leak();
    let kit = Kit::start(Options { script: Some(script), ..Options::default() }).await;
    let mut client = kit.h1("masked.test").await;
    let response = client.send(kit.request("masked.test", "/").body(crate::kit::client::empty()).unwrap());
    let mut body = response.await.ok()?.into_body();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        all.extend_from_slice(&frame.ok()?.into_data().unwrap());
    }
    (all.len() == size).then_some(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_passes_as_it_is_unless_a_registered_value_is_in_it() {
    let clean = b"nothing in here".repeat(20);
    let secret = [&clean[..], SECRET.as_bytes(), &clean[..]].concat();
    for pack in [gzip, zstd, |text: &[u8]| gzip(&tar(text))] {
        let (clean, secret) = (pack(&clean), pack(&secret));
        assert_eq!(answered(&clean, clean.len()).await.as_deref(), Some(&clean[..]));
        assert_eq!(answered(&secret, secret.len()).await, None, "it came whole");
    }
    for whole in [zip(&clean, 0), gzip(&clean)[..30].to_vec(), b"\x1f\x8b\x08 by chance".to_vec(), vec![0x1f]]
    {
        assert_eq!(answered(&whole, whole.len()).await.as_deref(), Some(&whole[..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_is_unpacked_along_up_to_the_limit() {
    let mut text = vec![b' '; 8 * MIB - SECRET.len()];
    text.extend_from_slice(SECRET.as_bytes());
    let within = gzip(&text);
    assert_eq!(answered(&within, within.len()).await, None, "it came whole");
    text.insert(0, b' ');
    let behind = gzip(&text);
    assert_eq!(answered(&behind, behind.len()).await.as_deref(), Some(&behind[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_end_at_the_limit() {
    let kit = Kit::start(Options::default()).await;
    let zeros = vec![0; 64 * MIB];
    let layers = gzip(&gzip(&zeros));
    for (name, body) in [
        ("gzip", gzip(&zeros)),
        ("zstd", zstd(&zeros)),
        ("gzip in gzip", layers.clone()),
        ("gzip in gzip in a zip in a tar", tar(&zip(&layers, 0))),
    ] {
        let begun = Instant::now();
        let mut client = kit.client("masked.test", true).await;
        let answer = post(&kit, &mut client, NONE, &body, false).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
        assert!(answer.why.contains("archive-over-limit"), "{name}: {}", answer.why);
        // Unpacked as a whole each would take seconds in this build.
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}: {:?}", begun.elapsed());
    }
}
