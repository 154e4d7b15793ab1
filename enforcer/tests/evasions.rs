//! Ways past the masking and the policy that an upstream or a job could try, each
//! with what becomes of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(dead_code, reason = "this suite uses a part of the kit")]

mod kit;

use std::sync::Arc;

use enforcer::policy::{Policy, PolicyStore};
use enforcer::proxy::Limits;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use kit::client::{Client, Sent, empty, text};
use kit::{Kit, Options, SECRET};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: secrets
    when: { host: masked.test }
    mask: { request: [exact], response: [exact] }
  - id: loopback
    when: { host: "**.test" }
    addresses: [loopback]
  - id: held
    when: { host: masked.test, path: /echo/held }
    body: inspect
  - id: delete
    when: { host: masked.test, method: DELETE }
    deny: nothing is deleted from here
  - id: run
    when: { host: masked.test, path: "/v1/*:run" }
    deny: nothing is run from here
  - id: rest
    when: { host: "**.test" }
    allow: true
"#;

fn policies() -> Arc<PolicyStore> {
    Arc::new(PolicyStore::fixed(Policy::from_text("test.yaml", POLICY).unwrap()))
}

/// Everything that comes back for these bytes, until nothing more comes.
async fn raw(kit: &Kit, request: &str) -> String {
    let mut stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let request = request.replace("HOST", &format!("host: masked.test:{}", kit.upstream.port()));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    drop(tokio::time::timeout(std::time::Duration::from_secs(5), reading).await);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Bodies of unknown length that are held for one workload.
const HELD_AT_ONCE: usize = 8;
const GET: &str = "GET / HTTP/1.1\r\nHOST\r\nconnection: close\r\n\r\n";

/// What a client gets of an upstream that answers so.
async fn scripted(script: &'static str) -> String {
    let kit = Kit::start(Options { script: Some(script.as_bytes()), ..Options::default() }).await;
    let answer = raw(&kit, GET).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{script:?}: {answer:?}");
    let recorded = kit.recorded_text("\"event\":\"verdict\"").await;
    assert!(!recorded.contains(SECRET), "{script:?} is recorded");
    answer
}

#[tokio::test]
async fn no_part_of_an_answer_carries_a_secret() {
    let mut leaks = Vec::new();
    for script in [
        "HTTP/1.1 200 obviously-fake-deploy-key-0123456789\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx-obviously-fake-deploy-key-0123456789: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nlocation: /?k=obviously-fake-deploy-key-0123456789\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 103 Early Hints\r\nlink: <obviously-fake-deploy-key-0123456789>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
         2;k=obviously-fake-deploy-key-0123456789\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-k\r\n\r\n2\r\nok\r\n0\r\n\
         x-k: obviously-fake-deploy-key-0123456789\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: obviously-fake-deploy-key-0123456789\r\n\r\n\
         2\r\nok\r\n0\r\nobviously-fake-deploy-key-0123456789: 1\r\n\r\n",
    ] {
        let answer = scripted(script).await;
        assert!(answer.contains("200") && answer.contains("ok"), "{answer}");
        if answer.contains(SECRET) {
            leaks.push(answer);
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHOST\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn control_frames_of_a_websocket_carry_no_secret() {
    // A ping, a pong that nobody asked for, and a close with its reason.
    let script = b"HTTP/1.1 101 obviously-fake-deploy-key-0123456789\r\nconnection: upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
        \x89\x24obviously-fake-deploy-key-0123456789\x8a\x24obviously-fake-deploy-key-0123456789\
        \x88\x26\x03\xe8obviously-fake-deploy-key-0123456789";
    let kit = Kit::start(Options { script: Some(script), ..Options::default() }).await;
    let answer = raw(&kit, UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("[MASKED:DEPLOY_KEY]"), "{answer}");
    assert!(!answer.contains(SECRET), "{answer}");
    let recorded = kit.recorded_text("\"event\":\"message\"").await;
    assert!(!recorded.contains(SECRET) && recorded.contains("[MASKED:DEPLOY_KEY]"));
}

/// A WebSocket to an upstream that sends every message back.
async fn echoing(kit: &Kit) -> tokio_tungstenite::WebSocketStream<TlsStream<TcpStream>> {
    let mut stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let head = UPGRADE.replace("HOST", &format!("host: masked.test:{}", kit.upstream.port()));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

#[tokio::test]
async fn a_message_longer_than_a_record_passes_and_its_beginning_is_recorded() {
    let kit = Kit::start(Options::default()).await;
    let mut socket = echoing(&kit).await;
    let message = [b"begin", &vec![0xfe; 3 << 20][..], SECRET.as_bytes()].concat();
    socket.send(Message::Binary(message.clone().into())).await.unwrap();
    let back = socket.next().await.unwrap().unwrap().into_data();
    assert!(back.ends_with(b"[MASKED:DEPLOY_KEY]") && back.len() > 3 << 20);
    let recorded = kit.recorded_text("recording-limit").await;
    assert!(recorded.len() < 1 << 20 && recorded.contains("\"event\":\"message\""));
}

#[tokio::test]
async fn control_frames_of_a_job_are_masked_and_what_they_say_is_recorded() {
    let kit = Kit::start(Options::default()).await;
    let mut socket = echoing(&kit).await;
    socket.send(Message::Ping(SECRET.into())).await.unwrap();
    // The ping is answered by the proxy, and the upstream, which sends everything back,
    // shows what it got of it.
    let (mut pong, mut ping) = (None, None);
    while pong.is_none() || ping.is_none() {
        match socket.next().await.unwrap().unwrap() {
            Message::Pong(bytes) => pong = Some(bytes),
            Message::Ping(bytes) => ping = Some(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((pong.unwrap(), ping.unwrap()), (SECRET.into(), "".into()));
    let reason = CloseFrame { code: CloseCode::Normal, reason: format!("bye {SECRET}").into() };
    socket.close(Some(reason)).await.unwrap();
    let recorded = kit.recorded_text("bye [MASKED:DEPLOY_KEY]").await;
    assert!(!recorded.contains(SECRET));
}

#[tokio::test]
async fn a_websocket_counts_as_a_connection_until_it_ends() {
    let limits = Limits { max_connections_per_workload: 1, ..Limits::default() };
    let kit = Kit::start(Options { limits, ..Options::default() }).await;
    let mut stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let head = UPGRADE.replace("HOST", &format!("host: masked.test:{}", kit.upstream.port()));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    // Longer than the exchange takes to hand the connection over.
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        assert!(kit.tls("masked.test", &[b"http/1.1"]).await.is_err(), "more than the limit are open");
    }
    drop(stream);
    for _ in 0..500 {
        if kit.tls("masked.test", &[b"http/1.1"]).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the place was never given back");
}

#[tokio::test]
async fn what_cannot_be_read_whole_is_not_delivered() {
    for script in [
        // gzip in the framing, where no client is told of it as of a content coding.
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        // The messages inside are compressed, whatever the body is.
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
        // A part that nobody asked for: a secret that it cuts is not found in it.
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-3/4\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 206 Partial Content\r\ncontent-type: multipart/byteranges; boundary=x\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-encoding: lzma\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let answer = scripted(script).await;
        assert!(answer.starts_with("HTTP/1.1 502") && !answer.contains("\r\n\r\nok"), "{script}: {answer}");
    }
}

#[tokio::test]
async fn a_job_cannot_ask_for_what_cannot_be_masked() {
    let kit = Kit::start(Options::default()).await;
    let fields = "range: bytes=1-\r\nif-range: x\r\nx-ms-range: bytes=1-\r\ngrpc-accept-encoding: gzip\r\n\
                  accept-encoding: lzma, gzip\r\n";
    let request = format!("GET /headers HTTP/1.1\r\nHOST\r\nconnection: close\r\n{fields}\r\n");
    let answer = raw(&kit, &request).await;
    assert!(answer.contains("accept-encoding: \"gzip\""), "{answer}");
    for gone in ["range:", "grpc-accept", "lzma"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
}

/// The status of the answer to this request line.
async fn status(kit: &Kit, line: &str, fields: &str) -> String {
    let answer = raw(kit, &format!("{line} HTTP/1.1\r\nHOST\r\nconnection: close\r\n{fields}\r\n")).await;
    answer.get(9..12).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn no_part_of_a_request_line_carries_a_secret() {
    let kit = Kit::start(Options::default()).await;
    let escaped = SECRET.replace("obviously", "%6fbviousl%79");
    for (line, want) in [
        (format!("GET /{SECRET}"), "403"),
        (format!("GET /{escaped}"), "403"),
        (format!("GET /?key={escaped}"), "200"),
        (format!("GET /?key={SECRET}"), "200"),
        ("GET /?key=%6fbvious".to_owned(), "200"),
    ] {
        assert_eq!(status(&kit, &line, "").await, want, "{line}");
    }
    let seen = kit.requests.lock().unwrap().clone();
    assert!(!format!("{seen:?}").contains("deploy-key"), "{seen:?}");
    let recorded = kit.recorded_text("secret-in-path").await;
    assert!(!recorded.contains(SECRET));
}

#[tokio::test]
async fn no_name_that_is_asked_for_carries_a_secret() {
    use std::sync::atomic::Ordering;
    let name = format!("{SECRET}.test");
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h2(&name).await;
    let response = client.send(kit.request(&name, "/").body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(kit.recorded_text("secret-in-name").await.find(SECRET).is_none());
    assert_eq!(kit.resolved.load(Ordering::Relaxed), 0);

    let kit = Kit::start(Options { plain: true, ..Options::default() }).await;
    let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: {name}:{}\r\n\r\n", kit.upstream.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
    assert!(kit.recorded_text("secret-in-name").await.find(SECRET).is_none());
    assert_eq!(kit.resolved.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_method_over_http2_carries_no_secret_and_a_request_has_one_length() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h2("masked.test").await;
    let request = kit.request("masked.test", "/").method(SECRET).body(empty()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 403);
    // A server behind this one could go by the second: the rest of the body would be
    // a request that nobody judged.
    for lengths in [["5", "4"], ["5", "5"], ["5", "+5"]] {
        let mut request = kit.request("masked.test", "/echo").method("POST").body(body("hello")).unwrap();
        for length in lengths {
            request.headers_mut().append("content-length", length.parse().unwrap());
        }
        let status = client.send(request).await.map(|response| response.status().as_u16());
        assert!(!matches!(status, Ok(200)), "{lengths:?}: {status:?}");
    }
    let seen = kit.requests.lock().unwrap().clone();
    assert!(seen.is_empty(), "{seen:?}");
}

fn body(text: &'static str) -> Sent {
    http_body_util::Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test]
async fn no_field_names_another_method_or_path_than_policy_judged() {
    let kit = Kit::start(Options::default()).await;
    for (line, field, want) in [
        ("POST /", "x-http-method-override: DELETE", "403"),
        ("POST /", "x-http-method: delete", "403"),
        ("POST /", "x-method-override: GET\r\nx-method-override: DELETE", "403"),
        ("POST /?a=b&_method=delete", "", "403"),
        ("delete /", "", "403"),
        ("POST /v1/x%3Arun", "", "403"),
        ("POST /", "x-http-method-override: PATCH", "200"),
    ] {
        let field = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
        let fields = format!("content-length: 0\r\n{field}");
        assert_eq!(status(&kit, line, &fields).await, want, "{line} {field}");
    }
    let fields = "x-original-url: /v1/x:run\r\nx-rewrite-url: /v1/x:run\r\n";
    let request = format!("GET /headers HTTP/1.1\r\nHOST\r\nconnection: close\r\n{fields}\r\n");
    let answer = raw(&kit, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(":run"), "{answer}");
}

#[tokio::test]
async fn malformed_questions_do_not_fill_the_recording() {
    let kit = Kit::start(Options { dns: true, ..Options::default() }).await;
    for _ in 0..1500 {
        let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
        stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
        // No answer, and the connection ends.
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    }
    let recorded = kit.recorded_text("dns-rate-limit").await;
    let noted = recorded.matches("dns-unparsed").count();
    assert!((100..1400).contains(&noted), "{noted}");
}

#[tokio::test]
async fn denied_names_do_not_use_up_the_signer() {
    use std::sync::atomic::Ordering;
    let kit = Kit::start(Options::default()).await;
    let mut refused = 0;
    for number in 0..400 {
        match kit.tls(&format!("n{number}.denied"), &[b"http/1.1"]).await {
            Ok(_) => {}
            Err(error) => {
                assert!(error.to_string().contains("AccessDenied"), "{error}");
                refused += 1;
            }
        }
    }
    let signed = kit.signed.load(Ordering::Relaxed);
    assert!(signed >= 200 && refused > 0 && signed + refused == 400, "{signed} {refused}");
    // Who is denied by an alert is denied in the recording.
    kit.recorded_text("too-many-denials").await;
}

type Answering = tokio::task::JoinHandle<hyper::Result<http::Response<hyper::body::Incoming>>>;

/// Sends over HTTP/2 without waiting for the answer.
async fn begin(client: &mut Client, request: http::Request<Sent>) -> Answering {
    let Client::H2(sender) = client else { panic!("only HTTP/2 has several at once") };
    sender.ready().await.unwrap();
    tokio::spawn(sender.send_request(request))
}

#[tokio::test]
async fn held_bodies_of_a_workload_have_one_budget() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h2("masked.test").await;
    // Bodies of unknown length may each become as long as one may be.
    let mut open = Vec::new();
    for _ in 0..HELD_AT_ONCE {
        let (to, body) = kit::origin::fed();
        let request = kit.request("masked.test", "/echo/held").method("POST");
        let request = request.body(BodyExt::boxed_unsync(body)).unwrap();
        to.send(Ok(http_body::Frame::data("a".into()))).await.unwrap();
        open.push((to, begin(&mut client, request).await));
    }
    let (to, fed) = kit::origin::fed();
    let request = kit.request("masked.test", "/echo/held").method("POST");
    let mut late = begin(&mut client, request.body(BodyExt::boxed_unsync(fed)).unwrap()).await;
    drop(to);
    let soon = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(soon, &mut late).await.is_err(), "it was held beside all others");
    let (to, first) = open.pop().unwrap();
    drop(to);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn without_a_recording_every_request_is_refused_and_told_why() {
    for plain in [false, true] {
        let kit = Kit::start(Options { plain, ..Options::default() }).await;
        let port = kit.upstream.port();
        let get = format!("GET / HTTP/1.1\r\nhost: masked.test:{port}\r\n\r\n");
        let mut open = TcpStream::connect(kit.proxy).await.unwrap();
        if plain {
            open.write_all(get.as_bytes()).await.unwrap();
            assert_eq!(first_line(&mut open).await, "HTTP/1.1 200");
        }
        // What is written from now on would be found by nobody.
        let moved = kit.recordings.path().with_extension("moved");
        std::fs::rename(kit.recordings.path(), &moved).unwrap();
        let mut refused = 0;
        for _ in 0..200 {
            let status = if plain {
                let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
                stream.write_all(get.as_bytes()).await.unwrap();
                first_line(&mut stream).await
            } else {
                let mut client = kit.client("masked.test", refused % 2 == 0).await;
                let request = kit.request("masked.test", "/").body(empty()).unwrap();
                let answer = client.send(request).await.unwrap();
                let line = format!("HTTP/1.1 {}", answer.status().as_u16());
                assert!(line.ends_with("200") || text(answer).await.contains("log-unavailable"));
                line
            };
            if status == "HTTP/1.1 503" {
                refused += 1;
                if refused == 4 {
                    break;
                }
            } else {
                assert_eq!((status.as_str(), refused), ("HTTP/1.1 200", 0), "{plain}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        assert_eq!(refused, 4, "{plain}");
        if plain {
            let before = kit.requests.lock().unwrap().len();
            open.write_all(get.as_bytes()).await.unwrap();
            assert_eq!(first_line(&mut open).await, "HTTP/1.1 503");
            assert_eq!(kit.requests.lock().unwrap().len(), before);
        }
        std::fs::rename(&moved, kit.recordings.path()).unwrap();
    }
}

/// The first bytes of the next answer.
async fn first_line(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 8192];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length.min(12)]).into_owned()
}

#[tokio::test]
async fn a_body_that_becomes_large_does_not_stop_the_others() {
    let kit = Kit::start(Options::default()).await;
    let mut bomb = kit.h1("masked.test").await;
    // The upstream shares this thread, and has made its answer by the second time.
    let mut waits = Vec::new();
    for _ in 0..2 {
        let request = kit.request("masked.test", "/bomb").header("accept-encoding", "gzip");
        let request = request.body(empty()).unwrap();
        let reading = async { bomb.send(request).await?.into_body().collect().await };
        let mut reading = std::pin::pin!(reading);
        let (begun, mut longest) = (std::time::Instant::now(), std::time::Duration::ZERO);
        let mut turn = begun;
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {
                    longest = longest.max(turn.elapsed());
                    turn = std::time::Instant::now();
                }
                whole = &mut reading => {
                    waits.push((begun.elapsed(), longest, whole.unwrap().to_bytes().len()));
                    break;
                }
            }
        }
    }
    let (whole, longest, length) = waits[1];
    assert!(length > 1000 && whole > longest * 8, "{waits:?}");
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

/// Whether a client that repeats these frames is cut off; `frames` are those of one turn.
async fn cut_off(kit: &Kit, first: &[u8], frames: impl Fn(u32) -> Vec<u8>, turns: u32) -> bool {
    let stream = kit.tls("masked.test", &[b"h2"]).await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = async {
        to.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        to.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        to.write_all(first).await?;
        for turn in 0..turns {
            to.write_all(&frames(turn)).await?;
        }
        to.flush().await?;
        std::future::pending::<std::io::Result<()>>().await
    };
    let reading = async {
        let mut rest = vec![0; 64 * 1024];
        while from.read(&mut rest).await.is_ok_and(|length| length > 0) {}
    };
    let ended = async {
        tokio::select! { _ = sending => {}, () = reading => {} }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.is_ok()
}

#[tokio::test]
async fn floods_over_http2_are_cut_off() {
    let kit = Kit::start(Options::default()).await;
    let authority = format!("masked.test:{}", kit.upstream.port());
    let length = u8::try_from(authority.len()).unwrap();
    // GET / over https, from the static table, and the authority as it is.
    let head = [&[0x82, 0x87, 0x84, 0x41, length], authority.as_bytes()].concat();
    let one = frame(HEADERS, 5, 1, &head);
    let second = std::time::Duration::from_secs(1);
    assert!(
        tokio::time::timeout(second, cut_off(&kit, &one, |_| Vec::new(), 0)).await.is_err(),
        "one request"
    );
    // A head that never ends: fields of 8 KiB.
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x3f][..], &[b'a'; 8192]].concat();
    let begun = frame(HEADERS, 1, 1, &head);
    assert!(cut_off(&kit, &begun, |_| frame(CONTINUATION, 0, 1, &field), 4_000).await, "a head");
    let empty = frame(CONTINUATION, 0, 1, &[]);
    assert!(cut_off(&kit, &begun, |_| empty.repeat(100), 4_000).await, "empty frames");
    let reset = |turn: u32| {
        let ids = (0..50).map(|at| (turn * 50 + at) * 2 + 1);
        let frames =
            ids.flat_map(|id| [frame(HEADERS, 5, id, &head), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])]);
        frames.flatten().collect()
    };
    assert!(cut_off(&kit, &[], reset, 4_000).await, "resets");
    // Nobody else is hurt.
    assert_eq!(status(&kit, "GET /", "").await, "200");
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_stop_another() {
    let kit = Kit::start(Options::default()).await;
    let mut stalled = kit.h2("allowed.test").await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        let request = kit.request("allowed.test", "/endless").body(empty()).unwrap();
        answers.push(stalled.send(request).await.unwrap());
    }
    // Until nothing moves any more, whatever the windows are.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let mut other = kit.h2("allowed.test").await;
    let answer = other.send(kit.request("allowed.test", "/").body(empty()).unwrap());
    let answer =
        tokio::time::timeout(std::time::Duration::from_secs(5), async { text(answer.await.unwrap()).await });
    assert_eq!(answer.await.expect("it waited for others"), "hello");
    drop(answers);
}

#[tokio::test]
async fn parts_of_a_whole_are_not_recorded() {
    let script = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-14/36\r\ncontent-length: 15\r\n\r\nobviously-fake-";
    let kit = Kit::start(Options { script: Some(script), ..Options::default() }).await;
    let mut client = kit.h1("allowed.test").await;
    let request = kit.request("allowed.test", "/").header("range", "bytes=0-14").body(empty()).unwrap();
    // Nothing is masked here, so it arrives; half a secret would be found by nobody.
    assert_eq!(text(client.send(request).await.unwrap()).await, "obviously-fake-");
    let recorded = kit.recorded_text("body-end").await;
    assert!(!recorded.contains("obviously"), "{recorded}");
}

#[tokio::test]
async fn an_answer_too_many_is_nobodys() {
    let script =
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let kit = Kit::start(Options { script: Some(script), ..Options::default() }).await;
    let mut client = kit.h1("allowed.test").await;
    for _ in 0..20 {
        let request = kit.request("allowed.test", "/").body(empty()).unwrap();
        assert_eq!(text(client.send(request).await.unwrap()).await, "ok");
    }
}
