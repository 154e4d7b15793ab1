//! What a masked stream keeps while it waits for more, whatever is sent: measured where it is
//! allocated, so that nothing is left out of a sum.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::Bytes;
use enforcer::mask::{ExactValue, KEPT_MAX_BYTES, MaskError, Masker, Selection};
use enforcer::secret::Secret;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const BODY_BYTES: usize = 80 * 1024;

fn kept(masker: &Masker, body: &Bytes, chunk: usize) -> (usize, Option<MaskError>) {
    let before = ALLOCATED.current_usage();
    let mut stream = masker.stream();
    let mut most = 0;
    for at in (0..body.len()).step_by(chunk) {
        if let Err(error) = stream.push(body.slice(at..body.len().min(at + chunk))) {
            return (most, Some(error));
        }
        most = most.max(ALLOCATED.current_usage().saturating_sub(before));
    }
    (most, None)
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()
}

fn nested(depth: usize) -> Vec<u8> {
    let mut text = b"what stands at the bottom, and nothing else. ".repeat(BODY_BYTES / 45);
    for _ in 0..depth {
        text.truncate(BODY_BYTES * 3 / 4);
        text = base64(&text);
    }
    text
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

fn bodies() -> Vec<(String, Bytes)> {
    let mut bodies: Vec<(String, Vec<u8>)> = Vec::new();
    for unit in [
        "\\",
        "\\\\u0041",
        "%25",
        "%25252541",
        "&#x26;#x26;",
        "\u{200b}a",
        "\u{200b}",
        "a\0",
        "=\n",
        "=3D=\n",
        "\x1b[",
        "\x1b]0;",
        "ghp_",
        "AKIA",
        "eyJa.eyJb.",
        "a.a.a@",
        "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n",
        "4111 1111 1111 1112 ",
        "password:",
        "postgres://a:",
        "correct-horse-battery-stapl",
        "correct-horse-battery-staple ",
        "A",
        "abcd1234",
        "dGV4dCB0ZXh0/",
        "74657874207465787420/",
        "token=dGV4dCB0ZXh0IHRleHQgdGV4dA",
        "me@example.org ",
        "ghp_a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8 ",
    ] {
        bodies.push((format!("{unit:?} ..."), unit.as_bytes().repeat(BODY_BYTES / unit.len())));
        bodies.push((format!("{unit:?} ... in UTF-16"), wide(&unit.repeat(BODY_BYTES / 2 / unit.len()))));
        bodies.push((
            format!("{unit:?} ... in base64"),
            base64(&unit.as_bytes().repeat(BODY_BYTES * 3 / 4 / unit.len())),
        ));
    }
    let deep = format!("{{\"{}\": me@example.org ", "k".repeat(500));
    bodies.push(("JSON with long names".into(), deep.repeat(BODY_BYTES / deep.len()).into_bytes()));
    for depth in 1..8 {
        bodies.push((format!("base64, so deep: {depth}"), nested(depth)));
    }
    let noise = noise(BODY_BYTES);
    bodies.push(("noise".into(), noise.clone()));
    bodies.push(("noise in base64".into(), base64(&noise)));
    let hex: Vec<u8> = noise.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect();
    bodies.push(("noise in hex".into(), hex));
    let key = [&b"-----BEGIN PRIVATE KEY-----\n"[..], &base64(&noise)].concat();
    bodies.push(("a key without an end".into(), key.clone()));
    bodies.push(("a key without an end in base64".into(), base64(&key)));
    bodies.push(("a key without an end in base64 in base64".into(), base64(&base64(&key))));
    let escaped: Vec<u8> =
        key.iter().flat_map(|b| format!("\\u{:04x}", u32::from(*b)).into_bytes()).collect();
    bodies.push(("a key without an end in escapes".into(), escaped));
    bodies.into_iter().map(|(name, body)| (name, Bytes::from(body))).collect()
}

#[test]
fn no_stream_keeps_more_than_its_limit() {
    let exact = ["correct-horse-battery-staple", "AKIAIOSFODNN7EXAMPLE"]
        .map(|it| ExactValue::new(it, &Secret::new(it.as_bytes().to_vec())).unwrap());
    let masker = Masker::new(&Selection::All, &exact).unwrap();
    let mut ended = Vec::new();
    for (name, body) in bodies() {
        // What is made but once is not the stream's.
        kept(&masker, &body.slice(..20_000), 16 * 1024);
        for chunk in [16 * 1024, 1000] {
            let (most, error) = kept(&masker, &body, chunk);
            assert!(most <= KEPT_MAX_BYTES, "{name} in chunks of {chunk} bytes keeps {most} bytes");
            if matches!(error, Some(MaskError::TooMuchKept { .. })) {
                ended.push(name.clone());
            }
        }
    }
    // What cannot be decided with so much.
    ended.dedup();
    let expected = [
        r#""-----BEGIN PRIVATE KEY-----\n" ... in base64"#,
        r#""-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" ... in base64"#,
        "a key without an end in base64 in base64",
    ];
    assert_eq!(ended, expected);
}
