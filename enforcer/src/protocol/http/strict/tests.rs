//! Requests as attackers send them, in every cut.

use super::*;

/// What comes out, and why it ended.
fn run(pieces: &[&[u8]]) -> (String, Option<Reason>) {
    let mut validator = Validator::new(Limits::default(), "nonce".to_owned());
    let mut out = Vec::new();
    for piece in pieces {
        validator.push(piece);
        out.extend_from_slice(&validator.ready().split());
    }
    (String::from_utf8_lossy(&out).into_owned(), validator.reason())
}

const GOOD: &[(&str, &str)] = &[
    ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"),
    ("\r\nGET / HTTP/1.0\r\nHost: a.test\r\n\r\n", "GET / HTTP/1.0\r\nhost: a.test\r\n\r\n"),
    (
        "GET http://a.test/x HTTP/1.1\r\nHost: A.test\r\n\r\n",
        "GET http://a.test/x HTTP/1.1\r\nhost: A.test\r\n\r\n",
    ),
    ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "OPTIONS * HTTP/1.1\r\nhost: a.test\r\n\r\n"),
    (
        "POST / HTTP/1.1\r\nHost:a.test \r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nhost: a.test\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\n03;x=\"y\"\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: a.test\r\n\r\n",
    ),
];

const BAD: &[(&str, Reason)] = &[
    ("GET / HTTP/1.1\r\n\r\n", "http-no-host"),
    ("GET / HTTP/1.0\r\n\r\n", "http-no-host"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "http-two-hosts"),
    ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "http-bad-host"),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "http-bad-host"),
    ("GET / HTTP/1.1\r\nHost: 127.1\r\n\r\n", "http-bad-host"),
    ("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "http-host-differs"),
    ("GET / HTTP/1.1\nHost: a\n\n", "http-bare-lf"),
    ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "http-bare-lf"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", "http-bare-cr"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "http-folded-line"),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "http-bad-field-name"),
    ("GET / HTTP/1.1\r\n: a\r\n\r\n", "http-bad-field-name"),
    ("GET / HTTP/1.1\r\nHost\r\n\r\n", "http-no-colon"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "http-bad-field-value"),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "http-bad-request-line"),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "http-bad-request-line"),
    ("GET /\r\nHost: a\r\n\r\n", "http-bad-request-line"),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "http-bad-version"),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", "http-bad-version"),
    ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "http-bad-method"),
    ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "http-connect"),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "http-trace"),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "http-bad-target"),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "http-bad-target"),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "http-bad-target"),
    ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", "http-bad-target"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "http-two-lengths"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", "http-bad-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", "http-bad-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\nx", "http-bad-length"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx",
        "http-two-framings",
    ),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "http-two-framings"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "http-bad-transfer-encoding"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "http-bad-transfer-encoding"),
    ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", "http-bad-expect"),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n", "http-connection-nominates"),
    ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "http-empty-lines"),
];

const BROKEN: &[(&str, Reason)] = &[
    ("x\r\n", "http-bad-chunk-size"),
    ("0x3\r\nabc\r\n", "http-bad-chunk-extension"),
    (" 3\r\nabc\r\n", "http-bad-chunk-size"),
    ("-1\r\n", "http-bad-chunk-size"),
    ("100000000\r\n", "http-bad-chunk-size"),
    ("3 ;x\r\nabc\r\n", "http-bad-chunk-extension"),
    ("3;\r\nabc\r\n", "http-bad-chunk-extension"),
    ("3;x\ny\r\nabc\r\n", "http-bare-lf"),
    ("3\nabc\n", "http-bare-lf"),
    ("3\r\nabcd\r\n", "http-chunk-end"),
    ("0\r\nContent-Length: 1\r\n\r\n", "http-forbidden-trailer"),
    ("0\r\nAuthorization: x\r\n\r\n", "http-forbidden-trailer"),
    ("0\r\nX : 1\r\n\r\n", "http-bad-field-name"),
    ("0\r\n\n", "http-bare-lf"),
];

#[test]
fn good_requests_come_out_canonical_in_every_cut() {
    for (raw, want) in GOOD {
        assert_eq!(run(&[raw.as_bytes()]), ((*want).to_owned(), None), "{raw:?}");
        for cut in 0..raw.len() {
            let (a, b) = raw.as_bytes().split_at(cut);
            assert_eq!(run(&[a, b]).0, *want, "{raw:?} cut at {cut}");
        }
        let bytes: Vec<&[u8]> = raw.as_bytes().chunks(1).collect();
        assert_eq!(run(&bytes).0, *want, "{raw:?} byte by byte");
    }
}

#[test]
fn bad_requests_are_refused_in_every_cut_and_nothing_of_them_goes_on() {
    let stand_in = "ENFORCER-REFUSED /nonce HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";
    for (raw, reason) in BAD {
        for cut in 0..raw.len() {
            let (a, b) = raw.as_bytes().split_at(cut);
            assert_eq!(run(&[a, b]), (stand_in.to_owned(), Some(*reason)), "{raw:?} cut at {cut}");
        }
    }
}

#[test]
fn a_head_without_an_end_is_refused_at_the_end_of_the_bytes() {
    let good = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for cut in 0..=good.len() {
        let mut validator = Validator::new(Limits::default(), "nonce".to_owned());
        validator.push(&good.as_bytes()[..cut]);
        validator.end();
        let wanted = (1..good.len()).contains(&cut).then_some("http-incomplete-head");
        assert_eq!(validator.reason(), wanted, "cut at {cut}");
    }
}

#[test]
fn broken_bodies_are_broken_off_in_every_cut() {
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (raw, reason) in BROKEN {
        for cut in 0..raw.len() {
            let (a, b) = raw.as_bytes().split_at(cut);
            let (out, found) = run(&[head.as_bytes(), a, b]);
            assert_eq!(found, Some(*reason), "{raw:?} cut at {cut}");
            assert!(!out.ends_with("0\r\n\r\n"), "{raw:?} looks complete");
        }
    }
}

#[test]
fn the_limits_hold_on_both_sides() {
    let limits = Limits::default();
    let head = |bytes: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        run(&[format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame)).as_bytes()]).1
    };
    assert_eq!(head(limits.head_bytes), None);
    assert_eq!(head(limits.head_bytes + 1), Some("http-head-too-large"));
    let fields = |count: usize| {
        let fields: String = (1..count).map(|n| format!("X{n}: y\r\n")).collect();
        run(&[format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()]).1
    };
    assert_eq!(fields(limits.headers), None);
    assert_eq!(fields(limits.headers + 1), Some("http-too-many-fields"));
    let chunk = |length: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let line = format!("1;{}\r\nx\r\n", "x".repeat(length - 3));
        run(&[head.as_bytes(), line.as_bytes()]).1
    };
    assert_eq!(chunk(MAX_CHUNK_LINE), None);
    assert_eq!(chunk(MAX_CHUNK_LINE + 1), Some("http-chunk-line-too-long"));
}

#[test]
fn bytes_behind_an_upgrade_are_held_until_it_is_answered() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let next = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    for switched in [true, false] {
        let mut validator = Validator::new(Limits::default(), "n".to_owned());
        validator.push(upgrade);
        validator.push(next);
        assert!(validator.awaits_upgrade());
        validator.ready().clear();
        validator.upgraded(switched);
        let want: &[u8] = if switched { next } else { b"GET /2 HTTP/1.1\r\nhost: a\r\n\r\n" };
        assert_eq!(&validator.ready()[..], want);
    }
    let mut validator = Validator::new(Limits::default(), "n".to_owned());
    validator.push(upgrade);
    validator.upgraded(true);
    validator.ready().clear();
    validator.push(b"\x81\x00 not HTTP");
    assert_eq!(&validator.ready()[..], b"\x81\x00 not HTTP");
}

#[test]
fn an_upgrade_that_is_not_to_a_websocket_is_not_asked_for() {
    for (raw, want) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\n\r\n",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nabc",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: upgrade\r\n\r\nabc",
        ),
    ] {
        assert_eq!(run(&[raw.as_bytes()]), (want.to_owned(), None));
    }
}

/// A pipeline `GET`, upgrade, bytes: the answer to the `GET`, though it looks
/// like a 101, does not end the validation; the service's word does.
#[tokio::test]
async fn only_the_service_ends_the_validation() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let upgrade = "GET /2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for (switched, want) in
        [(false, "GET /3 HTTP/1.1\r\nhost: a\r\n\r\n"), (true, "GET /3 HTTP/1.1\r\nHost:  a\r\n\r\n")]
    {
        let (mut client, server) = tokio::io::duplex(4096);
        let (mut stream, monitor) = StrictIo::new(server, Limits::default());
        let next = "GET /3 HTTP/1.1\r\nHost:  a\r\n\r\n";
        let sent = format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n{upgrade}{next}");
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut heads = vec![0; sent.len() - next.len()];
        stream.read_exact(&mut heads).await.unwrap();
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
        let mut rest = [0; 64];
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), stream.read(&mut rest)).await;
        assert!(early.is_err(), "held until the service has answered");
        monitor.answered_upgrade(switched);
        let n = stream.read(&mut rest).await.unwrap();
        assert_eq!(std::str::from_utf8(&rest[..n]), Ok(want));
    }
}

/// Bodies go past the validator; the heads around them do not.
#[tokio::test]
async fn large_bodies_pass_and_what_follows_them_is_validated() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let body = "x".repeat(100_000);
    let plain = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let sent = format!("{plain}{chunked}GET / HTTP/1.1\r\nBad\r\n\r\n");
    let (mut client, server) = tokio::io::duplex(7000);
    let (mut stream, _monitor) = StrictIo::new(server, Limits::default());
    let writes = async {
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut got = String::new();
    let (_, read) = tokio::join!(writes, stream.read_to_string(&mut got));
    read.unwrap();
    let rest = got.strip_prefix(&format!("{plain}{chunked}")).expect("both bodies whole");
    assert!(rest.starts_with(REFUSED_METHOD), "{rest}");
}

#[test]
fn a_client_cannot_forge_a_refusal() {
    let (stream, monitor) = StrictIo::new(tokio::io::empty(), Limits::default());
    drop(stream);
    let forged = http::Request::builder().method(REFUSED_METHOD).uri("/nonce").body(()).unwrap();
    assert_eq!(monitor.refusal(&forged), None);
}

proptest::proptest! {
    #[test]
    fn any_bytes_in_any_cut_give_the_same(raw in ".{0,200}", cut in 0_usize..200) {
        let bytes = raw.as_bytes();
        let (a, b) = bytes.split_at(cut.min(bytes.len()));
        proptest::prop_assert_eq!(run(&[bytes]), run(&[a, b]));
    }
}
